"""The one way in which every evaluation script runs the engine over videos and keeps the results."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from dataset.images import to_tensor, write_mask
from dataset.video import Video, in_background
from model.inference import InferenceCore
from model.network import RDE_VOS
from util.device import synchronize
from util.distributed import Processes
from util.errors import InputError
from util.files import atomic_path


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """How a video is segmented; see `model.inference.InferenceCore`."""

    bank: str = "2F+L+RDE"
    mem_every: int = 3
    top_k: int = 40
    amp: bool = False

    def check(self, network: RDE_VOS) -> None:
        """Refuse settings that cannot work, before any video is read.

        Raises:
            InputError: as `InferenceCore`'s ValueError.
        """
        try:
            InferenceCore(network, **asdict(self))
        except ValueError as error:
            raise InputError(str(error)) from None


class Segmented(NamedTuple):
    """The result for one frame."""

    number: int  # of the frame in the video
    ids: np.ndarray  # uint8 object ids [H,W]
    seconds: float  # the network's time since the result before this one


class Throughput(NamedTuple):
    """What the results in a folder took."""

    frames: int
    seconds: float  # of the network and what belongs to it, without reading and writing

    @property
    def fps(self) -> float:
        """Frames per second as the paper counts them: all frames over the processing time."""
        return self.frames / self.seconds if self.seconds else float("nan")


def segment(network: RDE_VOS, video: Video, settings: EngineSettings) -> Iterator[Segmented]:
    """Segment a video as a stream: frames are decoded a few ahead, and nothing is kept.

    Raises:
        InputError: a frame or mask is missing, corrupt or of the wrong size.
    """
    core = InferenceCore(network, **asdict(settings))
    device = next(network.parameters()).device

    def load(number: int) -> tuple[int, torch.Tensor, torch.Tensor | None]:
        mask = torch.from_numpy(video.read_given_mask(number)) if number in video.masks else None
        return number, to_tensor(video.read_frame(number)), mask

    last = len(video.frames) - 1
    for number, image, mask in in_background(range(len(video.frames)), load):
        started = time.perf_counter()
        probability = core.step(image, mask, last=number == last)
        labels = torch.tensor([0, *core.object_ids], dtype=torch.uint8, device=device)
        ids = labels[probability.argmax(0)].cpu().numpy()
        synchronize(device)
        yield Segmented(number, ids, time.perf_counter() - started)


def evaluate(
    network: RDE_VOS,
    videos: Sequence[Video],
    output: Path,
    settings: EngineSettings,
    processes: Processes,
) -> Throughput:
    """Segment videos into ``output/<video>/<frame>.png``, sharing them out over the processes.

    A video's folder appears when the video is finished. Finished videos are left alone, so an interrupted run goes on
    where it stopped.

    Returns:
        what all videos together took, whichever run and process they were segmented by; the same in every process.

    Raises:
        InputError: a video cannot be read.
    """
    todo = [video for video in videos if not _is_finished(video, output)]
    processes.wait()  # until every process has seen the same unfinished videos
    # Longest first, dealt out in turn: the processes finish at about the same time.
    mine = sorted(todo, key=lambda video: -len(video.frames))[processes.rank :: processes.count]
    with tqdm(
        total=sum(len(video.frames) for video in mine), unit="frame", disable=None, position=processes.rank
    ) as progress:
        for number, video in enumerate(mine, start=1):
            progress.set_description(f"video {number}/{len(mine)} {video.name}")
            _segment_to_disk(network, video, output, settings, progress.update)
    processes.wait()
    records = [json.loads(_record(video, output).read_text()) for video in videos]
    return Throughput(sum(record["frames"] for record in records), sum(record["seconds"] for record in records))


def claim_output(output: Path, model: Path, processes: Processes, **settings: object) -> None:
    """Make ``output`` the folder for results of one model with one set of settings.

    Raises:
        InputError: it holds results of another model or other settings, which must not be mixed.
    """
    settings = {"model": _fingerprint(model), **settings}
    path = output / ".records" / "settings.json"
    if processes.is_main and not path.is_file():
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=1))
    processes.wait()
    kept = json.loads(path.read_text())
    different = [name for name in settings if settings[name] != kept.get(name)]
    if different:
        raise InputError(
            f"{output} holds results made with another {' and '.join(different)}; choose another --output or delete it"
        )


def _segment_to_disk(
    network: RDE_VOS, video: Video, output: Path, settings: EngineSettings, advance: Callable[[], object]
) -> None:
    unfinished = output / ".records" / f"{video.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    palette = video.palette

    def write(result: Segmented) -> float:
        write_mask(unfinished / mask_name(video, result.number), result.ids, palette)
        return result.seconds

    seconds = 0.0
    for frame_seconds in in_background(segment(network, video, settings), write):
        seconds += frame_seconds
        advance()
    shutil.rmtree(output / video.name, ignore_errors=True)
    os.replace(unfinished, output / video.name)
    with atomic_path(_record(video, output)) as temporary:
        temporary.write_text(json.dumps({"frames": len(video.frames), "seconds": seconds}))


def mask_name(video: Video, number: int) -> str:
    """The file name of the mask of a frame."""
    return f"{video.frames[number].stem}.png"


def _is_finished(video: Video, output: Path) -> bool:
    folder = output / video.name
    return _record(video, output).is_file() and all(
        (folder / mask_name(video, number)).is_file() for number in range(len(video.frames))
    )


def _record(video: Video, output: Path) -> Path:
    return output / ".records" / f"{video.name}.json"


def _fingerprint(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
