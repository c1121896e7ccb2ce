"""Validation during training: the scores of a DAVIS split, and SAM's recurrence over a long video."""

import itertools
from pathlib import Path

import torch

from dataset.files.images import read_mask, to_tensor
from dataset.files.video import Video
from dataset.layouts.davis import DAVIS
from model.inference import pad_to_stride
from model.network import RDE_VOS
from model.reading import Embedding
from util.distributed import Processes
from util.evaluation.output import OutputFolder
from util.evaluation.scoring import VideoScore, global_results, score_videos
from util.evaluation.segmentation import EngineSettings, for_inference, segment
from util.files import remove_leftovers

TIMES = 20  # repetitions of the clip for the recurrence, forward and backward, as in Figure 3


class Validation:
    """Segments and scores a DAVIS split with the current network. The processes share the videos.

    Args:
        davis: the split; it has ground truth.
        output: the folder for the masks. Each validation overwrites the masks of the previous one.
    """

    def __init__(self, davis: DAVIS, output: Path, processes: Processes, dtype: torch.dtype) -> None:
        self._davis = davis
        remove_leftovers(output)  # of a killed run
        self._output = OutputFolder(output)
        self._processes = processes
        self._dtype = dtype
        self._videos = davis.videos()

    def run(self, network: RDE_VOS) -> dict[str, float]:
        """Validate a network without modifying it. Every process must call this method.

        Returns:
            ``J&F``, ``J`` and ``F`` in 0..1 and, for a network with SAM, ``RDE norm`` (see `recurrence`); the same in
            every process.
        """
        fast = for_inference(network, self._dtype)
        settings = EngineSettings() if network.config.aggregation else EngineSettings(bank="2F+L")
        mine = self._videos[self._processes.rank :: self._processes.count]
        for video in mine:
            core = settings.core(fast)
            with self._output.writing(video) as write:
                for result in segment(core, video, autotune=False):
                    write(result)
        names = [video.name for video in mine]
        scores: list[VideoScore] = score_videos(
            self._davis.annotations, self._output.masks, names, merge_objects=self._davis.year == 2016
        )
        figures = global_results(list(itertools.chain(*self._processes.gather(scores))))
        result = {"J&F": figures["J&F-Mean"], "J": figures["J-Mean"], "F": figures["F-Mean"]}
        if network.config.aggregation:
            norm = (
                recurrence(fast, self._davis, self._videos[0], settings.mem_every) if self._processes.is_main else 0.0
            )
            result["RDE norm"] = self._processes.broadcast(norm)
        return result


@torch.inference_mode()
def recurrence(network: RDE_VOS, davis: DAVIS, video: Video, mem_every: int) -> float:
    """The growth of SAM's recurrence: the maximum norm of the RDE's values, relative to those of the first frame.

    SAM folds the frames of the video, with their ground truth, into the RDE, forward and backward, 20 times. Training
    clips have three updates only, so the losses do not show an embedding that grows with every update.

    Args:
        davis: the split of the video; it has ground truth.
        mem_every: θ, the number of frames between updates.
    """
    objects = torch.tensor(video.given_ids[0]).view(-1, 1, 1)
    embeddings = []
    for number in range(0, len(video.frames), mem_every):
        image, _ = pad_to_stride(to_tensor(video.read_frame(number))[None])
        ids = read_mask(davis.annotations / video.name / video.mask_name(number))
        mask, _ = pad_to_stride(torch.from_numpy(ids)[None] == objects)
        image, mask = (each.to(network.device, network.dtype) for each in (image, mask[None]))
        features = network.encode_key(image)
        embeddings.append(Embedding(features.key, network.encode_value(image, features.f16, mask)))
    rde = embeddings[0]
    first, maximum = rde.value.float().norm(), rde.value.new_zeros((), dtype=torch.float32)
    for embedding in [*embeddings[1:], *reversed(embeddings)] * TIMES:
        rde = network.aggregate(rde, embedding)
        maximum = torch.maximum(maximum, rde.value.float().norm())  # propagates NaN
    return float(maximum / first)
