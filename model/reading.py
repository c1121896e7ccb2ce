"""Reading the memory: embeddings, similarity, affinity and readout (Section 3.2, Eq. 2 and 3)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Embedding(NamedTuple):
    """What the memory holds of a frame, or the RDE: one key for all objects, one value for each of the K."""

    key: Tensor  # [B,Ck,h,w]
    value: Tensor  # [B,K,Cv,h,w]


class Similarity:
    """S(p,q) = (2·k(p)ᵀk(q) − ‖k(p)‖²) / √Ck for every query position q and memory position p.

    This is Eq. 2 without the query's own norm, which cancels in the softmax over p, and with the √Ck of the published
    networks. It is computed in fp32 for keys of any type, because half precision cannot represent small differences of
    large norms; neither can TF32, so where torch may multiply fp32 in TF32 or bf16 the product is computed in fp64. The
    terms that do not depend on the query are computed once.

    Args:
        memory_key: [B,M,Ck], a row for each position.
    """

    def __init__(self, memory_key: Tensor) -> None:
        memory_key = memory_key.float()
        scale = math.sqrt(memory_key.shape[2])
        self._key = 2 / scale * memory_key
        self._bias = -memory_key.square().sum(2).unsqueeze(1) / scale

    def __call__(self, query_key: Tensor) -> Tensor:
        """Compare the rows of a query: [B,Q,Ck] -> [B,Q,M]."""
        with torch.autocast(query_key.device.type, enabled=False):
            terms = self._bias, query_key.float(), self._key.transpose(1, 2)
            if _fp32_products_are_exact():
                return torch.baddbmm(*terms)
            return torch.baddbmm(*(term.double() for term in terms)).float()


def _fp32_products_are_exact() -> bool:
    """Whether torch's settings select full fp32 for products of fp32 matrices, not TF32 or bf16."""
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # a single backend has a setting of its own
        return False


# The mark of torch.compiler.assume_constant_result, which itself would import the compiler. A compiled graph keeps the
# result; torch.compile compiles again when the setting changes.
_fp32_products_are_exact._dynamo_marked_constant = True


def read(memory: Sequence[Embedding], query_key: Tensor, similarity: type[Similarity] = Similarity) -> Tensor:
    """Read v^{m→Q} of all objects from all positions of a memory, with one affinity for all objects (Eq. 2 and 3).

    Args:
        memory: embeddings of the same objects.
        query_key: [B,Ck,h,w].

    Returns:
        [B,K,Cv,h,w].
    """
    memory_key = torch.cat([_rows(embedding.key) for embedding in memory], dim=1)
    memory_value = torch.cat([embedding.value.flatten(3) for embedding in memory], dim=3)  # [B,K,Cv,M]
    affinity = similarity(memory_key)(_rows(query_key)).softmax(dim=2)  # W, [B,Q,M]
    readout = memory_value.flatten(1, 2) @ affinity.to(memory_value.dtype).transpose(1, 2)
    return readout.view(*memory_value.shape[:3], *query_key.shape[2:])


class MemoryTable:
    """The memory of one clip in a layout for fast top-k reading: a row for each position.

    A position may have a multiplicity, as in a bank with 2F. Such a position takes as many of the k places, and as much
    weight in the softmax, as repeated rows would.

    Args:
        contents: embeddings of the same objects [1,...], each with the multiplicity of its positions.
    """

    ROWS = 512  # the least number of query positions per chunk; bounds the memory of the similarities
    SIMILARITIES = 2**26  # the most of a larger chunk on a GPU, which takes fewer launches; 256 MiB

    def __init__(
        self, contents: Sequence[tuple[Embedding, int]], similarity: type[Similarity] = Similarity
    ) -> None:  # fmt: skip
        embeddings = [embedding for embedding, _ in contents]
        self._similarity = similarity(torch.cat([_rows(embedding.key) for embedding in embeddings], dim=1))
        # A row holds the values of all objects.
        self._value = torch.cat([_rows(embedding.value.flatten(1, 2))[0] for embedding in embeddings])
        self._objects = embeddings[0].value.shape[1]
        self._count = None
        if any(count != 1 for _, count in contents):
            positions = len(self._value) // len(contents)
            # A copy of the counts from the CPU would wait for a GPU.
            counts = [self._value.new_full((positions,), count, dtype=torch.int64) for _, count in contents]
            self._count = torch.cat(counts)

    def read(self, query_key: Tensor, top_k: int) -> Tensor:
        """`read` over the ``top_k`` most similar positions: query [1,Ck,h,w] -> [1,K,Cv,h,w]."""
        on_cpu = query_key.device.type == "cpu"
        length = self.ROWS if on_cpu else max(self.ROWS, self.SIMILARITIES // len(self._value))
        rows = torch.cat([self._read(rows, top_k) for rows in _rows(query_key).split(length, dim=1)])
        return rows.T.view(1, self._objects, -1, *query_key.shape[2:])

    def _read(self, query_key: Tensor, top_k: int) -> Tensor:
        similarity = self._similarity(query_key)[0]
        score, position = similarity.topk(min(top_k, similarity.shape[1]), dim=1)
        if self._count is not None:
            # Positions take places in the order of their similarity, until all k places are taken.
            count = self._count[position]
            taken_before = count.cumsum(1) - count
            score = score + torch.minimum(count, top_k - taken_before).clamp(min=0).log()
        weight = score.softmax(dim=1).to(self._value.dtype)
        return F.embedding_bag(position, self._value, per_sample_weights=weight, mode="sum")


def _rows(x: Tensor) -> Tensor:
    """[B,C,h,w] -> [B,h·w,C]: a row for each position."""
    return x.flatten(2).transpose(1, 2)
