"""Exports of a project: masks, videos, cutouts, a folder in the layout of DAVIS, and a zip archive of all."""

import shlex
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from annotation.errors import Refused
from annotation.frames import UNPACKED_QUALITY, is_jpeg
from annotation.jobs import Job, Notice
from annotation.project import NONE, Project, refuse_links
from dataset.files.images import write_mask
from dataset.files.video import object_ids
from dataset.files.video_file import video_writer
from dataset.layouts.davis import VOID
from util.device import choose_device
from util.errors import InputError
from util.evaluation.pictures import cutout, matte, overlay
from util.files import atomic_folder, atomic_path
from util.training.recipe import CPU_FLAGS, CPU_TIME

PARTS = ("masks", "overlay", "davis", "cutout", "matte", "zip")  # the archive comes last: it holds the others


class _Stopped(Exception):
    """The export was stopped."""


class Export:
    """An export of a project: some of `PARTS`, in their order; "zip" not alone."""

    def __init__(self, project: Project, parts: Sequence[str]) -> None:
        self._project = project
        self._video = project.frames.video
        self._parts = parts
        self._labelled = project.labelled()
        self._folder = project.folder / "export"
        refuse_links(project.folder)
        if not self._labelled:
            raise Refused(400, "there is no mask yet; mark an object first")
        if "davis" in parts:
            self._refuse_gaps()

    @property
    def total(self) -> int:
        """The number of frames to write, over all parts."""
        counts = {"zip": 0, "overlay": len(self._video.frames), "matte": len(self._video.frames)}
        return sum(counts.get(part, len(self._labelled)) for part in self._parts)

    def run(self, job: Job) -> Notice | None:
        """Write the parts, of which each replaces an older one when it is complete; None if the job was stopped."""
        sentences: list[str] = []
        paths: list[Path] = []
        try:
            for part in self._parts:
                if part == "zip":
                    sentence, path = self._write_zip(job, paths)
                elif part == "davis":
                    sentence, path = self._write_davis(job)
                elif part in ("overlay", "matte"):
                    sentence, path = self._write_video(job, part)
                else:
                    sentence, path = self._write_images(job, part)
                sentences.append(sentence)
                paths.append(path)
        except _Stopped:
            return None
        except OSError as error:
            raise InputError(
                f"{error.filename2 or error.filename or self._folder} cannot be written ({error.strerror or error}); "
                f"free some space in {self._folder}, and export again"
            ) from None
        lines = ["; ".join(sentences), *([training_command(self._folder / "DAVIS")] if "davis" in self._parts else [])]
        return Notice("\n".join(lines), tuple(paths))

    def _masks(self, job: Job, numbers: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield frames and their masks [H,W], and count them, until the job is stopped."""
        for number in numbers:
            if job.stopped:
                raise _Stopped
            yield number, self._project.read(number).ids
            job.passed(number)

    def _write_images(self, job: Job, part: str) -> tuple[str, Path]:
        palette = self._project.palette()
        with atomic_folder(self._folder / part) as folder:
            for number, ids in self._masks(job, self._labelled):
                path = folder / self._video.mask_name(number)
                if part == "masks":
                    write_mask(path, ids, palette)
                else:
                    with atomic_path(path) as temporary:
                        Image.fromarray(cutout(self._video.read_frame(number), ids)).save(temporary)
        return f"{'masks' if part == 'masks' else 'cutouts'} of {len(self._labelled)} frames", self._folder / part

    def _write_video(self, job: Job, part: str) -> tuple[str, Path]:
        path, palette = self._folder / f"{part}.mp4", self._project.palette()
        count = len(self._video.frames)
        with video_writer(path, self._video.size, self._project.frames.fps, lossless=part == "matte") as append:
            for number, ids in self._masks(job, range(count)):
                append(matte(ids) if part == "matte" else overlay(self._video.read_frame(number), ids, palette))
        return f"{'matte' if part == 'matte' else 'overlay video'} of {count} frames", path

    def _write_zip(self, job: Job, paths: Sequence[Path]) -> tuple[str, Path]:
        """Archive the other parts, without compression, because their files are compressed already."""
        path = zip_path(self._project)
        with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for part in paths:
                for file in [part] if part.is_file() else sorted(each for each in part.rglob("*") if each.is_file()):
                    if job.stopped:
                        raise _Stopped
                    archive.write(file, _as_utf8(str(file.relative_to(self._folder))))
        return "a zip archive of all this", path

    def _write_davis(self, job: Job) -> tuple[str, Path]:
        """Write the frames from the first one that shows an object to the last one with a mask.

        The ids become 1, 2, ... in the order in which the objects enter, because DAVIS scores the ids up to the highest
        one in the first mask.
        """
        first = next((number for number in self._labelled if self._project.read(number).ids.any()), None)
        if first is None:
            raise InputError("no mask shows an object; mark an object first")
        last = self._labelled[-1]
        name = _as_utf8("-".join(self._video.name.split()).lstrip(".") or "video")
        new_ids: dict[int, int] = {}
        with atomic_folder(self._folder / "DAVIS") as folder:
            images, masks = (folder / kind / "480p" / name for kind in ("JPEGImages", "Annotations"))
            images.mkdir(parents=True)
            for number, ids in self._masks(job, [number for number in self._labelled if number >= first]):
                for i in object_ids(ids):
                    new_ids.setdefault(i, len(new_ids) + 1)
                if number == first:
                    scored = len(new_ids)
                if len(new_ids) >= VOID:
                    raise InputError(f"DAVIS allows {VOID - 1} objects; delete one, or leave out the DAVIS folder")
                table = np.zeros(256, np.uint8)
                table[list(new_ids)] = list(new_ids.values())
                write_mask(masks / self._video.mask_name(number), table[ids])
                self._copy_frame(number, images / f"{self._video.frame_name(number)}.jpg")
            for year in ("2016", "2017"):
                (folder / "ImageSets" / year).mkdir(parents=True)
                for split in ("train", "val"):
                    (folder / "ImageSets" / year / f"{split}.txt").write_text(f"{name}\n", encoding="utf-8")
        sentence = f"DAVIS folder of the frames {first} to {last}"
        if first > 0 or last < len(self._video.frames) - 1:
            sentence += ", without the frames before and after that have no mask of an object"
        if changed := [f"{old} → {new}" for old, new in new_ids.items() if old != new]:
            sentence += f", with new ids ({', '.join(changed)})"
        if len(new_ids) > scored:
            sentence += f"; DAVIS scores only the objects of its first frame, {scored} of {len(new_ids)}"
        return sentence, self._folder / "DAVIS"

    def _copy_frame(self, number: int, target: Path) -> None:
        source = self._video.frames[number]
        if is_jpeg(source):
            shutil.copyfile(source, target)  # no link: edits of the exported frame must not change the video
        else:
            Image.fromarray(self._video.read_frame(number)).save(target, quality=UNPACKED_QUALITY)

    def _refuse_gaps(self) -> None:
        """Refuse frames without a mask between frames with one: DAVIS needs a mask for every frame."""
        first, last = self._labelled[0], self._labelled[-1]
        gaps = [number for number in range(first, last) if self._project.kind(number) == NONE]
        if gaps:
            raise Refused(
                400,
                f"{len(gaps)} frames between masks have none, frame {gaps[0]} first; propagate through them, or leave "
                "out the DAVIS folder",
            )


def training_command(folder: Path) -> str:
    """A line with the command that trains the small network on an export, with settings that suit this machine."""
    command = f"python train.py --stage 2 --id own --videos {shlex.quote(str(folder.resolve()))}"
    command += " --load_network model/weights/small.pth"
    if choose_device("auto").type == "cpu":
        return f"To train on it on a CPU, in about {CPU_TIME}: {command} {CPU_FLAGS}"
    return f"To train on it: {command} --iterations 2000 --batch_size 4"


def _as_utf8(name: str) -> str:
    """A name with question marks where its bytes are not UTF-8, because lists and archives can hold no other names."""
    return name.encode(errors="replace").decode()


def zip_path(project: Project) -> Path:
    """The archive of the last export."""
    return project.folder / "export" / "export.zip"
