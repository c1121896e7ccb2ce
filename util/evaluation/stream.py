"""The one way in which every evaluation script runs the engine over videos and keeps the results."""

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from dataset.images import resize_image, resize_mask, short_side_size, to_tensor, write_mask
from dataset.video import Video, in_background
from dataset.video_file import EndOfVideo, VideoFile
from model.checkpoint import load_network
from model.fast import fast_network
from model.inference import STRIDE, InferenceCore, UpdateClock, engine_dtype
from model.network import RDE_VOS
from util.device import synchronize
from util.distributed import Processes
from util.errors import InputError
from util.files import atomic_path


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """How a video is segmented; see `model.inference.InferenceCore`.

    ``size`` is the short side at which frames are segmented; None leaves them as they are.
    """

    bank: str = "2F+L+RDE"
    mem_every: int = 3
    top_k: int = 40
    amp: bool = False
    size: int | None = None

    def check(self, network: RDE_VOS) -> None:
        """Refuse settings that cannot work, before any video is read; see `core`."""
        self.core(network)

    def core(self, network: RDE_VOS) -> InferenceCore:
        """A fresh engine.

        Raises:
            InputError: the settings cannot work: as `InferenceCore`'s ValueError, or the size is too small.
        """
        if self.size is not None and self.size <= STRIDE:
            # SAM pools embeddings by two.
            raise InputError(f"--size is more than {STRIDE} pixels, not {self.size}; 480 is what the field uses")
        try:
            return InferenceCore(network, bank=self.bank, mem_every=self.mem_every, top_k=self.top_k, amp=self.amp)
        except ValueError as error:
            raise InputError(str(error)) from None


def engine_network(path: Path, device: torch.device, amp: bool) -> RDE_VOS:
    """The network of a checkpoint in the form in which engines run it.

    They would make the same of a plain network, but that would stay in memory, too.

    Raises:
        InputError: as `model.checkpoint.load_network`.
    """
    return fast_network(load_network(path, device), engine_dtype(device, amp))


class Segmented(NamedTuple):
    """The result for one frame."""

    number: int  # of the frame in the video
    image: np.ndarray  # the frame itself, uint8 RGB [H,W,3]
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


def segment(network: RDE_VOS, video: Video | VideoFile, settings: EngineSettings) -> Iterator[Segmented]:
    """Segment a video as a stream: frames are decoded a few ahead, and nothing is kept.

    Frames that are neither wanted nor update the memory are not even decoded, and nothing is after the last wanted
    one. With a ``size`` the probabilities go back to the frame's own size before each pixel takes the likeliest id.

    Yields:
        the wanted frames, in order.

    Raises:
        InputError: a frame or mask is missing, corrupt or of the wrong size, or the settings cannot work.
    """
    core = settings.core(network)
    device = next(network.parameters()).device
    full_size = video.size
    size = short_side_size(full_size, settings.size) if settings.size else full_size

    def load(number: int) -> tuple[int, np.ndarray, torch.Tensor, torch.Tensor | None]:
        image, mask = video.read_frame(number), None
        if number in video.masks:
            mask = torch.from_numpy(resize_mask(video.read_given_mask(number), size))
        return number, image, to_tensor(resize_image(image, size)), mask

    passed, seconds = 0, 0.0
    with contextlib.suppress(EndOfVideo):
        for number, image, pixels, mask in in_background(planned_frames(video, settings.mem_every), load):
            started = time.perf_counter()
            for _ in range(passed, number):
                core.skip()
            passed = number + 1
            probability = core.step(pixels, mask, last=number == video.last)
            wanted = video.wanted is None or number in video.wanted
            if wanted:
                if size != full_size:
                    probability = F.interpolate(probability[None], full_size, mode="bilinear", align_corners=False)[0]
                labels = torch.tensor([0, *core.object_ids], dtype=torch.uint8, device=device)
                # Not argmax, which takes 20 times as long on a CPU.
                ids = labels[probability.max(0).indices].cpu().numpy()
            synchronize(device)
            seconds += time.perf_counter() - started
            if wanted:
                yield Segmented(number, image, ids, seconds)
                seconds = 0.0


def planned_frames(video: Video | VideoFile, mem_every: int) -> Iterator[int]:
    """The numbers of the frames that have to be looked at: those that are wanted, and those that update the memory."""
    clock = UpdateClock(mem_every)
    for number in itertools.count() if video.last is None else range(video.last + 1):
        update = clock.tick(annotated=number in video.masks)
        if update or video.wanted is None or number in video.wanted:
            yield number


def evaluate(
    network: RDE_VOS,
    videos: Sequence[Video],
    output: Path,
    settings: EngineSettings,
    processes: Processes,
    *,
    masks: str = "",
) -> Throughput:
    """Segment videos into ``output/<video>/<frame>.png``, sharing them out over the processes.

    ``masks`` names a folder in ``output`` for the videos' folders.

    A video's folder appears when the video is finished. Finished videos are left alone, so an interrupted run goes on
    where it stopped.

    Returns:
        what all videos together took, whichever run and process they were segmented by; the same in every process.

    Raises:
        InputError: a video cannot be read.
    """
    todo = [video for video in videos if not is_finished(video, output, masks)]
    processes.wait()  # until every process has seen the same unfinished videos
    # Longest first, dealt out in turn: the processes finish at about the same time.
    mine = sorted(todo, key=lambda video: -video.last)[processes.rank :: processes.count]
    with tqdm(
        total=sum(len(video.results) for video in mine), unit="frame", disable=None, position=processes.rank
    ) as progress:
        for number, video in enumerate(mine, start=1):
            progress.set_description(f"video {number}/{len(mine)} {video.name}")
            _segment_to_disk(network, video, output, masks, settings, progress.update)
    processes.wait()
    return throughput(videos, output)


def throughput(videos: Sequence[Video], output: Path) -> Throughput:
    """What finished videos took together.

    Raises:
        InputError: a video's record in ``output`` cannot be read.
    """
    records = [_read_json(_record(video, output)) for video in videos]
    return Throughput(sum(record["frames"] for record in records), sum(record["seconds"] for record in records))


def claim_output(output: Path, model: Path, data: Path, processes: Processes, **settings: object) -> None:
    """Make ``output`` the folder for results of one model on one folder of data with one set of settings.

    Raises:
        InputError: it holds results of another model, of other data or settings, which must not be mixed.
    """
    settings = {"model": _fingerprint(model), "data": str(data.resolve()), **settings}
    path = _settings(output)
    if processes.is_main and not path.is_file():
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=1))
    processes.wait()
    kept = read_settings(output)
    different = [name for name in settings if settings[name] != kept.get(name)]
    if different:
        raise InputError(
            f"{output} holds results made with another {' and '.join(different)}; choose another --output or delete it"
        )


def read_settings(output: Path) -> dict:
    """The settings that the results in ``output`` were made with, as `claim_output` wrote them.

    Raises:
        InputError: ``output`` holds no settings, or they cannot be read.
    """
    return _read_json(_settings(output))


def _segment_to_disk(
    network: RDE_VOS, video: Video, output: Path, masks: str, settings: EngineSettings, advance: Callable[[], object]
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
    folder = output / masks / video.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    os.replace(unfinished, folder)
    with atomic_path(_record(video, output)) as temporary:
        temporary.write_text(json.dumps({"frames": len(video.results), "seconds": seconds}))


def mask_name(video: Video | VideoFile, number: int) -> str:
    """The file name of the mask of a frame."""
    return f"{video.frame_name(number)}.png"


def is_finished(video: Video, output: Path, masks: str = "") -> bool:
    """Whether ``output`` holds all masks of a video, in the folder ``masks``, and the record of what they took."""
    folder = output / masks / video.name
    return _record(video, output).is_file() and all(
        (folder / mask_name(video, number)).is_file() for number in video.results
    )


def _record(video: Video, output: Path) -> Path:
    return output / ".records" / f"{video.name}.json"


def _settings(output: Path) -> Path:
    return output / ".records" / "settings.json"


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path} is missing; point at the folder that the evaluation wrote") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); delete it and run the evaluation again") from None


def _fingerprint(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
