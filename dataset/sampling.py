"""Which samples each training step sees: a pure function of the seed and the iteration, however the work is split."""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from util.errors import InputError

# numpy's seed sequences ignore trailing zeros, so the streams are told apart by their first number.
_ORDER_STREAM, _SAMPLE_STREAM = 1, 2


class SampleKey(NamedTuple):
    """What a training data set is asked for: the sample's place in its epoch's randomness, and in training."""

    epoch: int
    index: int
    iteration: int


def sample_rng(seed: int, key: SampleKey) -> np.random.Generator:
    """The generator that draws everything random in one sample; no other state takes part."""
    return np.random.default_rng((_SAMPLE_STREAM, seed, key.epoch, key.index))


class GlobalBatchSampler:
    """One process's share of an endless, shuffled stream of global batches (a ``batch_sampler`` for a data loader).

    The samples of all epochs form one stream, each epoch shuffled without replacement; global batch ``n`` is samples
    ``n·batch_size`` to ``(n+1)·batch_size − 1`` of it. Nothing is dropped where an epoch ends within a batch, and
    training resumed at ``start_iteration`` sees exactly the batches that an uninterrupted run would have seen.

    A global batch is cut into ``world_size·accumulation`` equal micro-batches. Each process yields its
    ``accumulation`` ones in turn; laid end to end, rank by rank, they are the global batch in its order.

    Args:
        length: samples in the data set.
        batch_size: samples in a global batch, over all processes and accumulation steps.
        iterations: the stream ends before this iteration.
        start_iteration: the first iteration wanted.
        rank, world_size: this process, out of how many.
        accumulation: micro-batches that each process runs per iteration.
        seed: of the order within the epochs.

    Raises:
        InputError: the global batch cannot be cut into equal micro-batches.
    """

    def __init__(
        self,
        length: int,
        *,
        batch_size: int,
        iterations: int,
        start_iteration: int = 0,
        rank: int = 0,
        world_size: int = 1,
        accumulation: int = 1,
        seed: int = 0,
    ) -> None:
        if batch_size < 1 or batch_size % (world_size * accumulation):
            raise InputError(
                f"a batch of {batch_size} cannot be split evenly over {world_size} processes × {accumulation} "
                "accumulation steps; choose a --batch_size that is a multiple of their product"
            )
        self.length = length
        self.batch_size = batch_size
        self.iterations = iterations
        self.start_iteration = start_iteration
        self.rank = rank
        self.accumulation = accumulation
        self.micro_batch_size = batch_size // (world_size * accumulation)
        self.seed = seed

    def __len__(self) -> int:
        return max(0, self.iterations - self.start_iteration) * self.accumulation

    def __iter__(self) -> Iterator[list[SampleKey]]:
        @functools.lru_cache(maxsize=1)
        def order(epoch: int) -> np.ndarray:
            return np.random.default_rng((_ORDER_STREAM, self.seed, epoch)).permutation(self.length)

        share = self.rank * self.accumulation * self.micro_batch_size
        for iteration in range(self.start_iteration, self.iterations):
            start = iteration * self.batch_size + share
            for _ in range(self.accumulation):
                places = (divmod(number, self.length) for number in range(start, start + self.micro_batch_size))
                yield [SampleKey(epoch, int(order(epoch)[place]), iteration) for epoch, place in places]
                start += self.micro_batch_size
