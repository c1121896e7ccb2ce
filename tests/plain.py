"""The plain formulas, which the fast code must match.

`segment` goes by the letter of the paper, one object and one position at a time. `PlainCore` is the engine as one would
first write it in PyTorch, batches and all: what speed is measured against.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model import RDE_VOS
from model.aggregation import SpatioTemporalAggregation
from model.blocks import FusionBlock, SharedConv2d, per_object
from model.encoders import KeyFeatures
from model.inference import InferenceCore
from model.memory import MemoryBank
from model.reading import readout, similarity

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
            objects.append(network.decode(readout, features)[0, 0].sigmoid())
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
            values = network.encode_value(padded, features.f16, torch.stack(objects)[None])[0]
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
        return self.network.encode_key(image)

    def encode_value(self, image: Tensor, f16: Tensor, masks: Tensor) -> Tensor:
        encoder, objects = self.network.mask_encoder, masks.shape[1]
        others = masks.sum(1, keepdim=True) - masks
        channels = (per_object(image, objects), masks.flatten(0, 1)[:, None], others.flatten(0, 1)[:, None])
        _, _, x = encoder.backbone(torch.cat(channels, dim=1))
        x = self.fuse(torch.cat([x, per_object(f16, objects)], dim=1))
        return encoder.refine(x + encoder.attention(x)).unflatten(0, masks.shape[:2])

    def aggregate(self, previous: tuple[Tensor, Tensor], latest: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        key = sam(self.network.key_aggregation, previous[0], latest[0])
        value = sam(self.network.value_aggregation, previous[1].flatten(0, 1), latest[1].flatten(0, 1))
        return key, value.view_as(latest[1])

    def decode(self, read: Tensor, features: KeyFeatures) -> Tensor:
        decoder, objects = self.network.decoder, read.shape[1]
        x = self.compress(torch.cat([read.flatten(0, 1), per_object(features.query_value, objects)], dim=1))
        for up, skip in ((decoder.up8, features.f8), (decoder.up4, features.f4)):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = up.block(x + per_object(up.skip(skip), objects))
        logit = F.interpolate(decoder.predict(x.relu()), scale_factor=4, mode="bilinear", align_corners=False)
        return logit.view(*read.shape[:2], *logit.shape[2:])


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
        super().__init__(network, **settings)
        self.network = PlainNetwork(network)
        self._memory = PlainMemory(self._memory.spec, self.network.aggregate)
