"""The order of training samples. It depends only on the seed, not on the split of the batches.

Batches are split over processes, accumulation steps and runs: training may stop and resume.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from util.errors import InputError

# Separate the two random streams. They come first in a seed, because numpy ignores zeros at the end of a seed.
_ORDER_STREAM, _SAMPLE_STREAM = 1, 2


class SampleKey(NamedTuple):
    """The key of one training sample; all numbers begin at 0."""

    epoch: int
    index: int  # the place of the sample in the data set
    iteration: int  # the training iteration that uses the sample


def sample_rng(seed: int, key: SampleKey) -> np.random.Generator:
    """Return the generator that makes all random choices in one sample.

    It depends only on the seed, and on the epoch and index of the sample.
    """
    return np.random.default_rng((_SAMPLE_STREAM, seed, key.epoch, key.index))


def global_batches(
    length: int,
    *,
    batch_size: int,
    iterations: int,
    start_iteration: int = 0,
    rank: int = 0,
    world_size: int = 1,
    accumulation: int = 1,
    seed: int = 0,
) -> Iterator[list[SampleKey]]:
    """The batches of one process, from an infinite stream of samples: the ``batch_sampler`` of a data loader.

    The stream concatenates all epochs. An epoch contains every sample once, in random order. Global batch ``n`` is the
    samples ``n·batch_size`` to ``(n+1)·batch_size − 1`` of the stream. A batch may contain the end of one epoch and the
    start of the next, so no sample is dropped. Training that resumes at ``start_iteration`` gets the same batches as
    training without a stop.

    A global batch is split into ``world_size·accumulation`` equal micro-batches. Each process yields its
    ``accumulation`` micro-batches in turn. The micro-batches in the order of the ranks are the global batch in its
    order.

    Args:
        batch_size: the number of samples in a global batch, over all processes and accumulation steps.
        iterations: the number of iterations of the whole training. The stream ends there.
        rank, world_size: the number of this process, from 0, and that of all processes.
        accumulation: the number of micro-batches that each process runs in an iteration.
    """
    size, rest = divmod(batch_size, world_size * accumulation)
    if rest:
        raise InputError(
            f"a batch of {batch_size} cannot be split evenly over {world_size} processes × {accumulation} accumulation "
            "steps; choose a batch_size that is a multiple of their product, or start fewer processes"
        )

    @functools.lru_cache(maxsize=1)
    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng((_ORDER_STREAM, seed, epoch)).permutation(length)

    def batches() -> Iterator[list[SampleKey]]:
        for iteration in range(start_iteration, iterations):
            start = iteration * batch_size + rank * accumulation * size
            for _ in range(accumulation):
                places = (divmod(number, length) for number in range(start, start + size))
                yield [SampleKey(epoch, int(order(epoch)[place]), iteration) for epoch, place in places]
                start += size

    return batches()
