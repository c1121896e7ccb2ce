"""The formulas of the paper, written without the algebra that makes the project's code short or quick.

`segment` handles one object and one memory position at a time. `train_pass` handles one frame at a time.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model import RDE_VOS
from model.decoder import soft_aggregation
from model.reading import Embedding
from model.sam import SpatioTemporalAggregation

# The rows of Table 5: the embeddings that are read after the first update.
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
# The embeddings that are read before the first update: RDE is F, there is no L, and F counts once.
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
    network: RDE_VOS,
    images: list[Tensor],
    masks: dict[int, Tensor],
    bank: str,
    mem_every: int,
    top_k: int,
    absent: dict[int, list[int]] | None = None,
) -> list[Tensor]:
    """Segment a video as the paper says; each object has a memory of its own.

    Args:
        images: frames [3,H,W].
        masks: integer ids [H,W] by frame number.
        absent: the ids of objects that a mask shows to be absent, by frame number.

    Returns:
        probabilities [K+1,H,W] for each frame.
    """
    height, width = images[0].shape[1:]
    extra_height, extra_width = (max(32, math.ceil(side / 16) * 16) - side for side in (height, width))
    top, left = extra_height // 2, extra_width // 2
    bottom, right = extra_height - top, extra_width - left
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
            for i in (absent or {}).get(t, []):
                objects[ids.index(i)] = torch.zeros_like(mask)
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
                    pair = [Embedding(k[None], v[None, None]) for k, v in (memory["RDE"][0], frame)]
                    rde = network.aggregate(*pair)
                    memory["RDE"] = [(rde.key[0], rde.value[0, 0])]
    return results


def sam(module: SpatioTemporalAggregation, previous: Tensor, latest: Tensor) -> Tensor:
    """SAM as the paper writes it, with convolutions over (time, height, width)."""

    def conv3d(conv: nn.Conv2d, x: Tensor) -> Tensor:
        padding, dilation = ((0, *pair) for pair in (conv.padding, conv.dilation))
        return F.conv3d(x, conv.weight[:, :, None], conv.bias, padding=padding, dilation=(1, *dilation[1:]))

    x = torch.stack([previous, latest], dim=2)
    extract, enhance, squeeze = module.extract, module.enhance, module.squeeze
    omega = conv3d(extract.omega, x).flatten(2)
    phi, g = (F.max_pool3d(conv3d(conv, x), (1, 2, 2)).flatten(2) for conv in (extract.phi, extract.g))
    y = (omega.transpose(1, 2) @ phi / phi.shape[2]) @ g.transpose(1, 2)
    x = x + conv3d(extract.out, y.transpose(1, 2).unflatten(2, x.shape[2:]))
    pyramid = torch.cat([conv3d(branch, x) for branch in enhance.branches], dim=1).relu()
    x = x + conv3d(enhance.merge, pyramid).relu()
    channels = x.shape[1]
    kernel = squeeze.weight.unflatten(1, (2, channels)).transpose(1, 2)  # [C,C,2,3,3]
    return F.conv3d(x, kernel, squeeze.bias, padding=(0, 1, 1))[:, :, 0]


def train_pass(
    network: RDE_VOS, frames: Tensor, masks: Tensor, perturbed: Tensor, selector: Tensor, *, release: bool = False
) -> tuple[Tensor, dict[str, Tensor]]:
    """The forward pass of training on clips of an odd number of frames, with L_Seg over all pixels.

    The STM bank segments every frame from 1 on, the SAM bank segments frames 2, 4 and so on. The arguments are those of
    `model.clip_loss.ClipLoss`; ``release`` computes the losses as the authors' release does, with μ = γ = 5.

    Returns:
        the loss (Eq. 10), and its unweighted terms by the names of `ClipLoss`.
    """
    masks, perturbed = masks.to(frames), perturbed.to(frames)
    length = frames.shape[1]
    features = [network.encode_key(frames[:, t]) for t in range(length)]
    keys = [feature.key for feature in features]

    def encode(t: int, objects: Tensor) -> Tensor:
        return network.encode_value(frames[:, t], features[t].f16, objects)

    def read_frame(memory: list[tuple[Tensor, Tensor]], t: int) -> Tensor:
        """Eq. 2 and 3, with the √Ck of the published networks."""
        memory_keys = torch.cat([key.flatten(2) for key, _ in memory], dim=2)
        memory_values = torch.cat([value.flatten(3) for _, value in memory], dim=3)
        distance = (memory_keys.unsqueeze(3) - keys[t].flatten(2).unsqueeze(2)).square().sum(1)
        weights = (-distance / math.sqrt(memory_keys.shape[1])).softmax(1)
        readout = torch.stack([values @ weights for values in memory_values.unbind(1)], dim=1)
        return readout.unflatten(3, keys[t].shape[2:])

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

    # The STM bank remembers every frame with its predicted masks.
    stm_reads, stm_logits = {}, {}
    for t in range(1, length):
        stm_reads[t] = read_frame(list(zip(keys, values, strict=False)), t)
        stm_logits[t] = logits(stm_reads[t], t)
        if t < length - 1:
            values.append(encode(t, stm_logits[t].softmax(1)[:, 1:]))
    terms |= {f"ce_{t}": cross_entropy(stm_logits[t], t) for t in range(1, length, 2)}

    # The SAM bank is the RDE of the same frames.
    rde = Embedding(keys[0], values[0])
    for t in range(1, length - 1):
        rde = network.aggregate(rde, Embedding(keys[t], values[t]))
        if t % 2:
            read_next = read_frame([rde], t + 1)
            terms[f"ce_{t + 1}"] = cross_entropy(logits(read_next, t + 1), t + 1)
            compared = [stm_reads[t + 1], read_next]
            if release:  # the decoder's inputs
                query_value = features[t + 1].query_value.unsqueeze(1).repeat(1, masks.shape[2], 1, 1, 1)
                compared = [torch.cat([read, query_value], dim=2) for read in compared]
            terms[f"ug_{t + 1}"] = divergence(*compared)

    guidance = sum(terms[f"ug_{t}"] for t in range(2, length, 2))
    if release:
        total = 0
        for t in range(1, length):
            total = (total + terms[f"ce_{t}"]) / 2
        return total + 5 * guidance + 5 * terms["mc"], terms
    segmentation = sum(terms[f"ce_{t}"] for t in range(1, length)) / 2
    return segmentation + 10 * guidance + 10 * terms["mc"], terms
