"""The plain formulas, which the fast code must match.

`segment` goes by the letter of the paper, one object and one position at a time. `PlainCore` and `train_pass` are the
engine and the forward pass of training as one would first write them in PyTorch: what speed is measured against.
"""

import math
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model import RDE_VOS, convolution, inference
from model.aggregation import SpatioTemporalAggregation
from model.blocks import FusionBlock, SharedConv2d, per_object
from model.encoders import KeyFeatures
from model.inference import InferenceCore
from model.memory import MemoryBank
from model.network import soft_aggregation
from model.reading import readout, similarity
from model.resnet import Backbone

# Table 5's rows as the embeddings that are read once there has been an update.
CONTENTS = {
    "RDE": ["RDE"],
    "F": ["F"],
    "F+RDE": ["F", "RDE"],
    "L": ["L"],
    "L+RDE": ["L", "RDE"],
    "F+L": ["F", "L"],
    "F+L+RDE": ["F", "L", "RDE"],
    "2F+L": ["F", "F", "L"],
    "F+2L": ["F", "L", "L"],
    "2F+L+RDE": ["F", "F", "L", "RDE"],
}
# And before the first update, when RDE is F, there is no L, and F counts once.
CONTENTS_AT_FIRST = dict.fromkeys(CONTENTS, "F") | dict.fromkeys(["F+RDE", "F+L+RDE", "2F+L+RDE"], "FF")


def read(keys: Tensor, values: Tensor, query: Tensor, top_k: int) -> Tensor:
    """Eq. 2 and 3 with a top k: keys [Ck,M], values [Cv,M], query [Ck,Q] -> [Cv,Q]."""
    distance = torch.cdist(keys.T.double(), query.T.double()).square()
    score = -distance / math.sqrt(keys.shape[0])
    columns = []
    for q in range(query.shape[1]):
        best = score[:, q].argsort(descending=True)[:top_k]
        weight = score[best, q].softmax(0)
        columns.append(values[:, best].double() @ weight)
    return torch.stack(columns, dim=1).float()


def aggregate_probabilities(objects: Tensor) -> Tensor:
    """Soft aggregation: [K,H,W] -> [K+1,H,W]."""
    everything = torch.cat([(1 - objects).prod(0, keepdim=True), objects]).clamp(1e-7, 1 - 1e-7)
    odds = everything / (1 - everything)
    return odds / odds.sum(0)


@torch.no_grad()
def segment(
    network: RDE_VOS, images: list[Tensor], masks: dict[int, Tensor], bank: str, mem_every: int, top_k: int
) -> list[Tensor]:
    """Segment a video by the letter of the paper; each object has a memory of its own.

    Args:
        images: frames [3,H,W].
        masks: integer ids [H,W] by frame number.

    Returns:
        probabilities [K+1,H,W] for each frame.
    """
    height, width = images[0].shape[1:]
    top, left = -height % 16 // 2, -width % 16 // 2
    bottom, right = -height % 16 - top, -width % 16 - left
    ids: list[int] = []
    memories: list[dict[str, list]] = []
    results = []
    last_update = 0
    for t, image in enumerate(images):
        padded = F.pad(image, (left, right, top, bottom))[None]
        features = network.encode_key(padded)
        key = features.key[0].flatten(1)
        objects = []
        for memory in memories:
            if bank == "STM":
                contents = [*memory["F"], *memory["updates"]]
            else:
                names = CONTENTS[bank] if memory["L"] else CONTENTS_AT_FIRST[bank]
                contents = [memory[name][0] for name in names]
            keys, values = (torch.cat([c[i].flatten(1) for c in contents], dim=1) for i in (0, 1))
            readout = read(keys, values, key, top_k).view(1, 1, -1, *features.key.shape[2:])
            objects.append(network.decode(readout, network.prepare_decoding(features))[0, 0].sigmoid())
        if objects:
            objects = list(aggregate_probabilities(torch.stack(objects))[1:])
        if t in masks:
            mask = F.pad(masks[t][None].float(), (left, right, top, bottom))[0]
            objects = [p * (mask == 0) for p in objects]
            for i in sorted(set(mask.unique().int().tolist()) - {0}):
                if i in ids:
                    objects[ids.index(i)] = (mask == i).float()
                else:
                    ids.append(i)
                    objects.append((mask == i).float())
            objects = list(aggregate_probabilities(torch.stack(objects))[1:])
        probability = (
            torch.stack([1 - torch.stack(objects).sum(0), *objects])
            if objects
            else padded.new_ones(1, *padded.shape[2:])
        )
        results.append(probability[:, top : top + height, left : left + width])
        if ids and (t in masks or t - last_update >= mem_every):
            last_update = t
            frame = network.prepare_encoding(features.f16)
            values = network.encode_value(padded, frame, torch.stack(objects)[None])[0]
            for number, value in enumerate(values):
                frame = (features.key[0], value)
                if number == len(memories):
                    memories.append({"F": [frame], "RDE": [frame], "L": [], "updates": []})
                    continue
                memory = memories[number]
                memory["L"] = [frame]
                memory["updates"].append(frame)
                if "RDE" in bank:
                    pair = [(k[None], v[None, None]) for k, v in (memory["RDE"][0], frame)]
                    rde_key, rde_value = network.aggregate(*pair)
                    memory["RDE"] = [(rde_key[0], rde_value[0, 0])]
    return results


def sam(module: SpatioTemporalAggregation, previous: Tensor, latest: Tensor) -> Tensor:
    """SAM as the paper writes it, with convolutions over (time, height, width)."""

    def conv3d(conv: nn.Conv2d, x: Tensor) -> Tensor:
        padding, dilation = ((0, *pair) for pair in (conv.padding, conv.dilation))
        return F.conv3d(x, conv.weight[:, :, None], conv.bias, padding=padding, dilation=(1, *dilation[1:]))

    x = torch.stack([previous, latest], dim=2)
    extract, enhance, squeeze = module.extract, module.enhance, module.squeeze
    theta = conv3d(extract.theta, x).flatten(2)
    phi, g = (F.max_pool3d(conv3d(conv, x), (1, 2, 2)).flatten(2) for conv in (extract.phi, extract.g))
    y = (theta.transpose(1, 2) @ phi / phi.shape[2]) @ g.transpose(1, 2)
    x = x + conv3d(extract.out, y.transpose(1, 2).unflatten(2, x.shape[2:]))
    pyramid = torch.cat([conv3d(branch, x) for branch in enhance.branches], dim=1).relu()
    x = x + conv3d(enhance.merge, pyramid).relu()
    channels = x.shape[1]
    kernel = squeeze.weight.unflatten(1, (2, channels)).transpose(1, 2)  # [C,C,2,3,3]
    return F.conv3d(x, kernel, squeeze.bias, padding=(0, 1, 1))[:, :, 0]


class PlainNetwork(nn.Module):
    """The network without algebra: concatenations are convolved as a whole, for every object, norms are norms."""

    def __init__(self, network: RDE_VOS) -> None:
        super().__init__()
        self.network = network
        self.compress = PlainFusionBlock(network.decoder.compress)
        self.fuse = PlainFusionBlock(network.mask_encoder.fuse)

    def encode_key(self, image: Tensor) -> KeyFeatures:
        encoder = self.network.key_encoder
        f4, f8, f16 = plain_backbone(encoder.backbone, image)
        return KeyFeatures(encoder.key_projection(f16), encoder.value_projection(f16), f16, f8, f4)

    def prepare_encoding(self, f16: Tensor) -> Tensor:
        return f16

    def encode_value(self, image: Tensor, f16: Tensor, masks: Tensor) -> Tensor:
        objects, others = masks.shape[1], masks.sum(1, keepdim=True) - masks
        frame = per_object(image, objects), per_object(f16, objects)
        return self.encode_object(*frame, masks.flatten(0, 1), others.flatten(0, 1)).unflatten(0, masks.shape[:2])

    def encode_object(self, image: Tensor, f16: Tensor, mask: Tensor, others: Tensor) -> Tensor:
        """The value [N,Cv,h,w] of one object of each frame, from its mask and the sum of the others' [N,H,W]."""
        encoder = self.network.mask_encoder
        _, _, x = plain_backbone(encoder.backbone, torch.cat([image, mask[:, None], others[:, None]], dim=1))
        x = self.fuse(torch.cat([x, f16], dim=1))
        return encoder.refine(x + encoder.attention(x))

    def aggregate(self, previous: tuple[Tensor, Tensor], latest: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        key = sam(self.network.key_aggregation, previous[0], latest[0])
        value = sam(self.network.value_aggregation, previous[1].flatten(0, 1), latest[1].flatten(0, 1))
        return key, value.view_as(latest[1])

    def prepare_decoding(self, features: KeyFeatures) -> KeyFeatures:
        return features

    def decode(self, read: Tensor, features: KeyFeatures) -> Tensor:
        decoder, objects = self.network.decoder, read.shape[1]
        x = self.compress(torch.cat([read.flatten(0, 1), per_object(features.query_value, objects)], dim=1))
        for up, skip in ((decoder.up8, features.f8), (decoder.up4, features.f4)):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = up.block(x + per_object(up.skip(skip), objects))
        predict = decoder.predict
        logit = F.conv2d(x.relu(), predict.weight, predict.bias, padding=1)
        logit = F.interpolate(logit, scale_factor=4, mode="bilinear", align_corners=False)
        return logit.view(*read.shape[:2], *logit.shape[2:])


def plain_backbone(backbone: Backbone, x: Tensor) -> list[Tensor]:
    """The features at strides 4, 8 and 16."""
    x = backbone.maxpool(backbone.relu(backbone.bn1(backbone.conv1(x))))
    features = []
    for stage in (backbone.layer1, backbone.layer2, backbone.layer3):
        for block in stage:
            shortcut = x
            for layer in block.downsample.children():
                shortcut = layer(shortcut)
            for number in range(1, len(block.convolutions()) + 1):
                x = getattr(block, f"bn{number}")(getattr(block, f"conv{number}")(x))
                x = F.relu_(x if number < len(block.convolutions()) else x + shortcut)
        features.append(x)
    return features


class PlainFusionBlock(nn.Module):
    """A residual block of a concatenation."""

    def __init__(self, block: FusionBlock) -> None:
        super().__init__()
        self.conv1, self.shortcut = self._whole(block.conv1), self._whole(block.shortcut)
        self.conv2 = block.conv2

    @staticmethod
    def _whole(conv: SharedConv2d) -> nn.Conv2d:
        weight = torch.cat([conv.own.weight, conv.shared.weight], dim=1).detach()
        whole = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
        whole.weight, whole.bias = nn.Parameter(weight), conv.shared.bias
        return whole

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x.relu()).relu()) + self.shortcut(x)


class PlainMemory(MemoryBank):
    """Reads a dense affinity over every repeated position."""

    def read(self, query_key: Tensor, top_k: int) -> Tensor:
        read = []
        for group in self._groups:
            contents = [embedding for embedding, count in group.contents(self.spec) for _ in range(count)]
            keys = torch.cat([embedding.key.flatten(2) for embedding in contents], dim=2)
            values = torch.cat([embedding.value.flatten(3) for embedding in contents], dim=3)
            score = similarity(keys, query_key.flatten(2))
            best, positions = score.topk(min(top_k, score.shape[1]), dim=1)
            weights = torch.zeros_like(score).scatter_(1, positions, best.softmax(dim=1))
            read.append(readout(weights, values).unflatten(3, query_key.shape[2:]))
        return torch.cat(read, dim=1)


class PlainCore(InferenceCore):
    """The engine on the plain network and the plain memory, in fp32."""

    def __init__(self, network: RDE_VOS, **settings: object) -> None:
        # Nothing of the fast copy is made: it would count as the plain engine's memory.
        with mock.patch.object(inference, "fast_network", lambda network, dtype: network):
            super().__init__(network, **settings)
        self.network = PlainNetwork(network)
        self._memory = PlainMemory(self._memory.spec, self.network.aggregate)


@mock.patch.object(convolution, "trains_by_nnpack", lambda conv, x: False)
def train_pass(
    network: PlainNetwork, frames: Tensor, masks: Tensor, perturbed: Tensor, selector: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """The forward pass of training on clips of five frames, with L_Seg over all pixels.

    Frames are encoded one by one, and so are the objects of each; the STM bank segments every frame from 1 on, the SAM
    bank frames 2 and 4. The arguments are `model.training.ClipTrainer`'s.

    Returns:
        the loss (Eq. 10), and its unweighted terms by their names there.
    """
    masks, perturbed = masks.to(frames), perturbed.to(frames)
    features = [network.encode_key(frames[:, t]) for t in range(5)]
    keys = [feature.key for feature in features]

    def encode(t: int, objects: Tensor) -> Tensor:
        everything = objects.sum(1)
        values = [
            network.encode_object(frames[:, t], features[t].f16, mask, everything - mask) for mask in objects.unbind(1)
        ]
        return torch.stack(values, dim=1)

    def read_frame(memory: list[tuple[Tensor, Tensor]], t: int) -> Tensor:
        memory_keys = torch.cat([key.flatten(2) for key, _ in memory], dim=2)
        memory_values = torch.cat([value.flatten(3) for _, value in memory], dim=3)
        weights = similarity(memory_keys, keys[t].flatten(2)).softmax(1)
        return readout(weights, memory_values).unflatten(3, keys[t].shape[2:])

    def logits(read: Tensor, t: int) -> Tensor:
        objects = network.decode(read, features[t]).sigmoid()
        return soft_aggregation(objects * selector[:, :, None, None])

    def cross_entropy(aggregated: Tensor, t: int) -> Tensor:
        target = torch.cat([masks.new_full(masks[:, t, :1].shape, 0.5), masks[:, t]], dim=1).argmax(1)
        present = torch.cat([torch.ones_like(selector[:, :1]), selector], dim=1) > 0
        return F.cross_entropy(torch.where(present[:, :, None, None], aggregated, -torch.inf), target)

    def divergence(teacher: Tensor, student: Tensor) -> Tensor:
        """The sum over objects of the mean of p·log(p/q), p and q being distributions over channels."""
        log_p, log_q = teacher.log_softmax(2), student.log_softmax(2)
        return sum((log_p.exp() * (log_p - log_q))[:, k].mean() for k in range(teacher.shape[1]))

    values = [encode(0, perturbed)]
    terms = {"mc": divergence(teacher=encode(0, masks[:, 0]), student=values[0])}

    # The STM bank remembers every frame, with the masks that it predicted.
    stm_reads, stm_logits = {}, {}
    for t in range(1, 5):
        stm_reads[t] = read_frame(list(zip(keys, values, strict=False)), t)
        stm_logits[t] = logits(stm_reads[t], t)
        if t < 4:
            values.append(encode(t, stm_logits[t].softmax(1)[:, 1:]))
    terms |= {f"ce_{t}": cross_entropy(stm_logits[t], t) for t in (1, 3)}

    # The SAM bank is the RDE, and remembers those same frames.
    rde = keys[0], values[0]
    for t in range(1, 4):
        rde = network.aggregate(rde, (keys[t], values[t]))
        if t in (1, 3):
            read_next = read_frame([rde], t + 1)
            terms[f"ce_{t + 1}"] = cross_entropy(logits(read_next, t + 1), t + 1)
            terms[f"ug_{t + 1}"] = divergence(teacher=stm_reads[t + 1], student=read_next)

    segmentation = sum(terms[f"ce_{t}"] for t in range(1, 5)) / 2
    return segmentation + 10 * (terms["ug_2"] + terms["ug_4"]) + 10 * terms["mc"], terms
