"""The segmentation of a video that can be interrupted and resumed."""

import contextlib
import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from dataset.files.images import write_mask
from dataset.files.video import AnyVideo, Video
from dataset.files.video_file import VideoFile
from model.network import RDE_VOS
from util.device import enough_memory
from util.errors import InputError
from util.evaluation.arguments import MEMORY_REMEDY
from util.evaluation.confidence import append_rows, frame_rows
from util.evaluation.segmentation import EngineSettings, Segmented, Throughput, segment
from util.files import atomic_path, check_settings
from util.parallel import background
from util.progress import frames_bar


class Run:
    """A run that can be resumed: a folder in the output keeps its masks beside the settings that made them.

    Attributes:
        rows: the file of the confidences, see `append_rows`. Each frame's rows are written before its mask.
        end: a file that is there when all frames have masks.
    """

    def __init__(self, output: Path, settings: dict[str, object]) -> None:
        self.folder, self._result = unfinished_folder(output), output / "masks"
        self.rows, self.end = self.folder / "confidence", self.folder / "end"
        if not is_resumable(output):
            shutil.rmtree(self.folder, ignore_errors=True)  # the settings of these masks are unknown
        if names := " and ".join(each.name for each in check_settings(self.folder / "settings.json", settings)):
            raise InputError(
                f"{output} holds an interrupted run with another {names}; choose another --output or delete it"
            )

    @property
    def masks(self) -> Path:
        """The folder of the masks. It moves to the results at the end."""
        unfinished = self.folder / "masks"
        return unfinished if unfinished.is_dir() or not self.end.exists() else self._result

    def first_missing(self, video: AnyVideo, start: int = 0) -> int:
        """The number of the first frame from ``start`` on that has no mask, or the number of frames."""
        number, end = start, len(video.frames) if isinstance(video, Video) else math.inf
        while number < end and (self.masks / video.mask_name(number)).is_file():
            number += 1
        return number

    def finish(self, *, keep_masks: bool) -> None:
        """Move the masks of a complete run to the results, or delete them, and delete the records."""
        if keep_masks and self.masks != self._result:
            os.replace(self.masks, self._result)
        (self.folder / "settings.json").unlink()  # from here on the run is not resumed, because all results are there
        shutil.rmtree(self.folder)

    def abort(self, *, keep: bool) -> None:
        """Report the masks that are kept; without masks, or with ``keep`` False, delete the files of the run."""
        kept = sum(1 for _ in self.masks.glob("[!.]*.png"))
        if kept and keep:
            print(f"note: {kept} masks are kept in {self.masks}; the same command resumes")
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()  # fails if the folder holds other files


def unfinished_folder(output: Path) -> Path:
    """The folder of an unfinished run."""
    return output / ".unfinished"


def is_resumable(output: Path) -> bool:
    """Whether there is an unfinished run."""
    return (unfinished_folder(output) / "settings.json").is_file()


def segment_frames(
    video: AnyVideo,
    network: RDE_VOS,
    settings: EngineSettings,
    save: Callable[[Segmented], None],
    *,
    name: str,
    total: int | None = None,
    ahead: int = 4,
) -> Throughput:
    """Segment a video behind a progress bar with a name; ``save`` is called with each result, in the background."""
    frames, seconds = 0, 0.0
    results = segment(settings.core(network), video, settings.size, confidence=True, ahead=ahead)
    with enough_memory(MEMORY_REMEDY), frames_bar(total) as bar, background(save) as write:
        bar.update(name=name)
        for result in results:
            write(result)
            frames, seconds = frames + result.frames, seconds + result.seconds
            bar.increment()
    return Throughput(frames, seconds)


def segment_into(
    run: Run, network: RDE_VOS, video: AnyVideo, settings: EngineSettings, start: int = 0, backward_from: int = 0
) -> Throughput:
    """Segment a video from frame ``start`` on, or from the first missing mask, and write masks and confidences.

    A video that runs backward begins with frame ``backward_from`` of the original.
    """
    start = run.first_missing(video, start)
    if isinstance(video, VideoFile):
        video = VideoFile(video.path, video.masks, video.reader, start, video.absent)
        total = max(0, video.announced - start) or None
    else:
        video = replace(video, wanted=frozenset(range(start, len(video.frames))))
        total = len(video.wanted)
        if not total:
            return Throughput(0, 0.0)

    def save(result: Segmented) -> None:
        append_rows(run.rows, frame_rows(abs(result.number - backward_from), result.ids, result.confidence))
        write_mask(run.masks / video.mask_name(result.number), result.ids, video.palette)

    name = f"{video.name}, backward" if backward_from else video.name
    return segment_frames(video, network, settings, save, name=name, total=total)


@contextlib.contextmanager
def reversed_video(video: AnyVideo, first: int, folder: Path) -> Iterator[Video]:
    """Yield the video from the first given mask backward to its start.

    A video file cannot be read backward, so these frames are unpacked into a temporary folder, without losses.
    """
    masks = {0: video.masks[first]}
    if isinstance(video, Video):
        yield replace(video, frames=video.frames[first::-1], masks=masks, absent={})
        return
    source = VideoFile(video.path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{video.frame_name(number)}.png" for number in range(first + 1)]
        for number, path in enumerate(tqdm(paths, desc="unpacking", unit="frame", disable=None)):
            image = source.read_frame(number)
            if not path.is_file():
                with atomic_path(path) as temporary:
                    Image.fromarray(image).save(temporary, compress_level=1)
        yield Video(video.name, paths[::-1], masks, reader=video.reader)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
