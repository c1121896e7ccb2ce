"""The data set of a training stage, a concatenation of sources of clips."""

import bisect
import itertools
import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from dataset.samples.batches import SampleKey, sample_rng
from util.errors import InputError

# Seconds to wait before the second and the third attempt at a sample. File servers may fail temporarily.
RETRY_AFTER = (1.0, 5.0)


class SampleSource(Protocol):
    """Clips of one kind, such as those of one folder of videos."""

    name: str  # the name of the data set
    unit: str  # "videos" or "images"; each yields one clip per epoch

    def __len__(self) -> int: ...

    def sample(self, index: int, rng: np.random.Generator, progress: float) -> dict[str, torch.Tensor | str]:
        """Make sample number ``index``, as `dataset.samples.sample.make_sample` describes it.

        Args:
            progress: the finished fraction of training, 0 to 1.
        """


class TrainingData(Dataset):
    """The concatenated samples of several sources. The index is a `SampleKey`.

    Samples have the format of `make_sample`. A sample depends only on the seed and its key. The copies of a repeated
    source have different keys, so they are augmented differently.

    Args:
        parts: the sources, each with its number of repetitions per epoch.
        iterations: the number of iterations of the whole training. The gaps between frames depend on it.

    Attributes:
        summary: the sources and their repetitions, for the user.
    """

    def __init__(self, parts: Sequence[tuple[SampleSource, int]], *, iterations: int, seed: int) -> None:
        self.summary = f"{sum(len(source) * repeats for source, repeats in parts)} samples an epoch: " + ", ".join(
            f"{source.name} ({len(source)} {source.unit}{f' × {repeats}' if repeats > 1 else ''})"
            for source, repeats in parts
        )
        self.sources = [source for source, repeats in parts for _ in range(repeats)]
        self.ends = list(itertools.accumulate(len(source) for source in self.sources))
        self.iterations = iterations
        self.seed = seed

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, key: SampleKey) -> dict[str, torch.Tensor | str]:
        place = bisect.bisect_right(self.ends, key.index)
        source = self.sources[place]
        index = key.index - (self.ends[place] - len(source))
        for seconds in RETRY_AFTER:
            try:
                return source.sample(index, sample_rng(self.seed, key), key.iteration / self.iterations)
            except InputError:
                time.sleep(seconds)
        return source.sample(index, sample_rng(self.seed, key), key.iteration / self.iterations)
