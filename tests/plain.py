"""The plain formulas: one object, one frame, one position at a time. Slow on purpose; the fast code must match them."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from model import RDE_VOS

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
