"""Write the parts of a network as ONNX files, for runtimes without PyTorch.

    python scripts/export.py --model WEIGHTS --output PARTS

Writes PARTS/<part>.onnx, and PARTS/network.json with the numbers that a runtime needs. `scripts/onnx_example.py` runs a
video with these files.

All tensors are fp32, except ``multiplicity``, which is int64. A name denotes the same tensor in all parts.
A frame has H×W pixels. H and W are multiples of ``stride`` = 16, and at least ``least_side`` = 32; other frames are
padded with zeros, centred. h=H/16 and w=W/16. K is the number of objects, T the number of embeddings in the memory.
H, W, K and T are dynamic. The numbers in brackets are the channels of the published network.

key_encoder: ImageE, once for every frame.
    in   image              [1,3,H,W]     RGB from 0 to 1, minus ``mean``, divided by ``std``, padded after that
    out  key                [1,Ck,h,w]    (64)
         query_value        [1,Cv,h,w]    (512)
         f16                [1,C16,h,w]   (1024), for the mask encoder
         f8                 [1,C8,2h,2w]  (512), for the decoder
         f4                 [1,C4,4h,4w]  (256), for the decoder

reading_decoder: similarity, affinity and readout (Eq. 2 and 3, over the ``top_k`` most similar positions), then the
decoder; for every frame after the first mask. All objects share one affinity. Objects that enter at different frames
have different memories, so this part runs once for all objects that enter at the same frame.
    in   key, query_value, f8, f4         of the frame
         memory_key         [T,Ck,h,w]    the keys of the embeddings in the memory
         memory_value       [T,K,Cv,h,w]  the values of the embeddings in the memory
         multiplicity       [T]           how often each embedding counts: 2, 1, 1 for 2F, L, RDE
    out  probability        [1,K,H,W]     of each object alone

Soft aggregation over all objects is left to the caller, because the objects may come from several runs of this part.
The background's probability is Π(1−p) over the objects' probabilities p. All probabilities are clamped to
[1e-7, 1−1e-7]. Each p/(1−p) is divided by the sum of these odds over background and objects. A pixel belongs to the
background or object with the largest result.

mask_encoder: MaskE, for every frame that updates the memory.
    in   image, f16                       of the frame
         masks              [1,K,H,W]     results of soft aggregation without the background; 0 and 1 of a given mask
    out  value              [1,K,Cv,h,w]

sam: SAM, for every frame that updates the memory, but the first. Weights of STCN have no SAM, and no such file.
    in   rde_key            [1,Ck,h,w]    the key of the previous RDE, which starts as the first frame
         rde_value          [1,K,Cv,h,w]  the values of the previous RDE
         key, value                       of the frame that updates the memory
    out  next_rde_key       [1,Ck,h,w]
         next_rde_value     [1,K,Cv,h,w]
"""

import argparse
import inspect
import json
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from model import RDE_VOS, load_network
from model.encoders import KeyFeatures
from model.inference import MIN_SIDE, STRIDE
from model.reading import Embedding
from util.errors import InputError, command_line
from util.evaluation.arguments import add_weights_arguments, weights_notes
from util.files import atomic_path, write_text
from util.imagenet import IMAGE_MEAN, IMAGE_STD
from util.packages import needs

with needs("export"):
    import onnx
    import onnxscript  # noqa: F401  (torch.onnx.export needs it)

Shape = tuple[int | str, ...]  # fixed lengths, and names or multiples of dynamic lengths, such as "16*h"


class Part(nn.Module):
    """A part of a network. The arguments of ``forward`` are its inputs; the top of this file explains them."""

    outputs: tuple[str, ...]  # their names

    def __init__(self, network: RDE_VOS) -> None:
        super().__init__()
        self.network = network


class KeyEncoder(Part):
    """The part ``key_encoder``."""

    outputs = KeyFeatures._fields

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.network.encode_key(image))


class ReadingDecoder(Part):
    """The part ``reading_decoder``.

    It reads as `model.reading.MemoryTable` does, without the table's data-dependent control flow, which a graph cannot
    hold.
    """

    outputs = ("probability",)
    CHUNK = 8  # of the top k, read at a time; bounds the memory of their values

    def __init__(self, network: RDE_VOS, top_k: int) -> None:
        super().__init__(network)
        self.top_k = top_k

    def forward(
        self,
        key: Tensor,
        query_value: Tensor,
        f8: Tensor,
        f4: Tensor,
        memory_key: Tensor,
        memory_value: Tensor,
        multiplicity: Tensor,
    ) -> Tensor:
        position, weight = self._affinity(key, memory_key, multiplicity)
        objects = memory_value.shape[1]
        rows = self._padded(memory_value.permute(0, 3, 4, 1, 2).flatten(0, 2).flatten(1))  # [M+k,K·Cv]
        chunks = zip(position.split(self.CHUNK, dim=1), weight.split(self.CHUNK, dim=1), strict=True)
        readout = sum((w.unsqueeze(1) @ rows[p]).squeeze(1) for p, w in chunks)  # [Q,K·Cv]
        readout = readout.T.unflatten(0, (objects, -1)).unflatten(2, key.shape[2:])[None]
        features = KeyFeatures(key, query_value, f16=key, f8=f8, f4=f4)  # the decoder ignores f16
        return self.network.decode(readout, features).sigmoid()

    def _affinity(self, key: Tensor, memory_key: Tensor, multiplicity: Tensor) -> tuple[Tensor, Tensor]:
        """The top-k memory positions of each query position [Q,k], and their softmax weights [Q,k]."""
        query = key[0].flatten(1).T
        memory = memory_key.permute(0, 2, 3, 1).flatten(0, 2)  # [M,Ck]
        similarity = self.network.similarity(memory[None])(query[None])[0]
        score, position = F.pad(similarity, (0, self.top_k), value=-math.inf).topk(self.top_k, dim=1)
        count = multiplicity[:, None].expand(-1, key.shape[2] * key.shape[3]).flatten()
        count = self._padded(count)[position]
        # A position of multiplicity 2 fills two of the k slots, the most similar positions first.
        filled = count.cumsum(1) - count
        score = score + torch.minimum(count, self.top_k - filled).clamp(min=0).float().log()
        return position, score.softmax(dim=1)

    def _padded(self, rows: Tensor) -> Tensor:
        """Append k positions of multiplicity 0, so that the memory always has k positions."""
        return F.pad(rows, (0, 0) * (rows.ndim - 1) + (0, self.top_k))


class MaskEncoder(Part):
    """The part ``mask_encoder``."""

    outputs = ("value",)

    def forward(self, image: Tensor, f16: Tensor, masks: Tensor) -> Tensor:
        return self.network.encode_value(image, f16, masks)


class SAM(Part):
    """The part ``sam``."""

    outputs = ("next_rde_key", "next_rde_value")

    def forward(self, rde_key: Tensor, rde_value: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.aggregate(Embedding(rde_key, rde_value), Embedding(key, value))


def tensor_shapes(network: RDE_VOS) -> dict[str, Shape]:
    """The shape of every input and output of the parts, by name."""
    config = network.config
    c4, c8, c16 = network.key_encoder.backbone.channels
    key, value = (config.key_channels, "h", "w"), (config.value_channels, "h", "w")
    masks = (1, "K", "16*h", "16*w")
    return {
        "image": (1, 3, "16*h", "16*w"),
        "key": (1, *key),
        "query_value": (1, *value),
        "f16": (1, c16, "h", "w"),
        "f8": (1, c8, "2*h", "2*w"),
        "f4": (1, c4, "4*h", "4*w"),
        "memory_key": ("T", *key),
        "memory_value": ("T", "K", *value),
        "multiplicity": ("T",),
        "probability": masks,
        "masks": masks,
        "value": (1, "K", *value),
        "rde_key": (1, *key),
        "rde_value": (1, "K", *value),
        "next_rde_key": (1, *key),
        "next_rde_value": (1, "K", *value),
    }


def export(part: Part, shapes: dict[str, Shape], path: Path) -> None:
    """Write a part in eval mode as an ONNX file, and check the file. For the shapes see `tensor_shapes`."""
    # Lengths of 1 would become fixed.
    example = {"h": 4, "w": 5, "K": 2, "T": 3}
    # torch requires that poolings leave more than one position. The graph is also correct if they leave one.
    dims = {name: torch.export.Dim(name, min=4 if name in "hw" else None) for name in example}
    inputs = list(inspect.signature(part.forward).parameters)
    tensors, dynamic = [], []
    for name in inputs:
        size = [length if isinstance(length, int) else _length(length, example) for length in shapes[name]]
        tensors.append(torch.ones(size, dtype=torch.int64 if name == "multiplicity" else torch.float32))
        dynamic.append({i: _length(text, dims) for i, text in enumerate(shapes[name]) if isinstance(text, str)})
    # torch.export.export fails if a length cannot be dynamic; torch.onnx.export alone would fix the length silently.
    program = torch.export.export(part, tuple(tensors), dynamic_shapes=tuple(dynamic))
    written = torch.onnx.export(program, input_names=inputs, output_names=part.outputs, verbose=False)
    values = [*written.model.graph.inputs, *written.model.graph.outputs]
    written.rename_axes(
        {
            found: length
            for value in values
            for found, length in zip(value.shape, shapes[value.name], strict=True)
            if isinstance(length, str)
        }
    )
    with atomic_path(path) as temporary:
        written.save(temporary, external_data=False)
        onnx.checker.check_model(temporary, full_check=True)


def _length(text: str, lengths: dict) -> object:
    """The length that a text such as "h" or "16*h" denotes."""
    factor, _, name = text.rpartition("*")
    return int(factor) * lengths[name] if factor else lengths[name]


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_weights_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, help="folder for the files")
    return parser.parse_args()


@command_line
def main() -> None:
    """Run the command line."""
    arguments = parse_arguments()
    settings_path = arguments.output / "network.json"
    if settings_path.exists():
        raise InputError(f"{settings_path} already exists; choose another --output or delete it")
    for line in weights_notes(arguments.model):
        print(line)
    network = load_network(arguments.model).requires_grad_(False)
    parts = {
        "key_encoder": KeyEncoder(network),
        "reading_decoder": ReadingDecoder(network, arguments.top),
        "mask_encoder": MaskEncoder(network),
    }
    if network.config.aggregation:
        parts["sam"] = SAM(network)
    shapes = tensor_shapes(network)
    paths = {name: arguments.output / f"{name}.onnx" for name in parts}
    for name, part in tqdm(parts.items(), unit="part", disable=None):
        export(part.eval(), shapes, paths[name])
    settings = {
        "parts": list(parts),
        "key_channels": network.config.key_channels,
        "value_channels": network.config.value_channels,
        "top_k": arguments.top,
        "stride": STRIDE,
        "least_side": MIN_SIDE,
        "mean": IMAGE_MEAN,
        "std": IMAGE_STD,
    }
    write_text(settings_path, json.dumps(settings, indent=1) + "\n")
    for path in (*paths.values(), settings_path):
        print(f"{path} ({path.stat().st_size / 2**20:.1f} MiB)")


if __name__ == "__main__":
    main()
