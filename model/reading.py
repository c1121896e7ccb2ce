"""Reading the memory: similarity, affinity and readout (Section 3.2, Eq. 2 and 3)."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def similarity(memory_key: Tensor, query_key: Tensor) -> Tensor:
    """S = (2·k_mᵀk_q − ‖k_m‖²) / √Ck for every memory position p and query position q.

    Eq. 2 without the query's own norm, which the softmax over p cancels, and with the √Ck of the published networks.
    The result is computed in fp32 whatever the type of the keys: half precision would lose the difference of large
    norms.

    Args:
        memory_key: [B,Ck,M].
        query_key: [B,Ck,Q].

    Returns:
        [B,M,Q].
    """
    with torch.autocast(memory_key.device.type, enabled=False):
        memory_key, query_key = memory_key.float(), query_key.float()
        norm = memory_key.square().sum(1).unsqueeze(2)
        return (2 * memory_key.transpose(1, 2) @ query_key - norm) / math.sqrt(memory_key.shape[1])


def affinity(similarity: Tensor) -> Tensor:
    """W of Eq. 3: the softmax of S [B,M,Q] over the memory positions; columns sum to 1."""
    return similarity.softmax(dim=1)


def readout(affinity: Tensor, memory_value: Tensor) -> Tensor:
    """v^{m→Q} of Eq. 3, with one affinity for all objects.

    Args:
        affinity: [B,M,Q].
        memory_value: [B,K,Cv,M].

    Returns:
        [B,K,Cv,Q].
    """
    return (memory_value.flatten(1, 2) @ affinity.to(memory_value.dtype)).unflatten(1, memory_value.shape[1:3])


class MemoryTable:
    """A memory in a form from which the top k is read quickly: a row for each position.

    The parts of Eq. 2 that do not depend on the query are computed once.

    A position may count several times; a bank with a doubled F needs this. Such a position takes as many of the k
    places, and as many shares of the softmax, as repeated rows would.

    Args:
        key: [M,Ck].
        value: [M,D]; a row holds the values of all objects.
        count: how often each position counts [M], int64.
    """

    ROWS = 512  # query positions that are read at a time; bounds the memory that the similarities take

    def __init__(self, key: Tensor, value: Tensor, count: Tensor) -> None:
        key = key.float()
        scale = math.sqrt(key.shape[1])
        self._key = 2 / scale * key
        self._bias = -key.square().sum(1) / scale
        self._value = value.contiguous()
        self._count = count if bool((count != 1).any()) else None

    def read(self, query_key: Tensor, top_k: int) -> Tensor:
        """Eq. 2 and 3 over the ``top_k`` most similar positions: query [Q,Ck] -> [Q,D]."""
        with torch.autocast(query_key.device.type, enabled=False):
            return torch.cat([self._read(rows, top_k) for rows in query_key.float().split(self.ROWS)])

    def _read(self, query_key: Tensor, top_k: int) -> Tensor:
        similarity = torch.addmm(self._bias, query_key, self._key.T)
        score, position = similarity.topk(min(top_k, similarity.shape[1]), dim=1)
        if self._count is not None:
            # The most similar positions take their places first, until all k places are taken.
            count = self._count[position]
            taken_before = count.cumsum(1) - count
            score = score + torch.minimum(count, top_k - taken_before).clamp(min=0).log()
        weight = score.softmax(dim=1).to(self._value.dtype)
        return F.embedding_bag(position, self._value, per_sample_weights=weight, mode="sum")
