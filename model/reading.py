"""Reading the memory: similarity, affinity and readout (Section 3.2, Eq. 2 and 3)."""

import math

import torch
from torch import Tensor


def similarity(memory_key: Tensor, query_key: Tensor) -> Tensor:
    """S = (2·k_mᵀk_q − ‖k_m‖²) / √Ck for every memory position p and query position q.

    Eq. 2 without the query's own norm, which the softmax over p cancels, and with the √Ck of the published networks.
    Computed in fp32, whatever the keys come in: the difference of large norms does not survive half precision.

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


def affinity(similarity: Tensor, top_k: int | None = None) -> Tensor:
    """W of Eq. 3: the softmax of S over the memory positions, or over the ``top_k`` most similar ones of each query.

    Args:
        similarity: [B,M,Q].
        top_k: how many positions each query position reads; None or more than M reads all of them.

    Returns:
        [B,M,Q], columns summing to 1.
    """
    if top_k is None or top_k >= similarity.shape[1]:
        return similarity.softmax(dim=1)
    values, positions = similarity.topk(top_k, dim=1)
    return similarity.new_zeros(similarity.shape).scatter_(1, positions, values.softmax(dim=1))


def readout(affinity: Tensor, memory_value: Tensor) -> Tensor:
    """v^{m→Q} of Eq. 3, with one affinity for all objects.

    Args:
        affinity: [B,M,Q].
        memory_value: [B,K,Cv,M].

    Returns:
        [B,K,Cv,Q].
    """
    return (memory_value.flatten(1, 2) @ affinity.to(memory_value.dtype)).unflatten(1, memory_value.shape[1:3])
