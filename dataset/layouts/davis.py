"""The layout of DAVIS 2016 and 2017, as in the downloads."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset.files.video import Video, is_junk, list_frames, read_names
from dataset.layouts.folders import VideoFolders, annotated_folders
from util.errors import InputError
from util.files import folders_near

VOID = 255  # the id of pixels that belong to no object in the masks of DAVIS 2017

# The name of a split on command lines -> its folder, and the name of the file that lists its videos.
_SPLITS = {"train": ("trainval", "train"), "val": ("trainval", "val"), "testdev": ("test-dev", "test-dev")}


def split_folders(davis_root: Path, year: int, split: str) -> VideoFolders:
    """Return the folders of a split of DAVIS. They need not exist."""
    half, listed = _SPLITS[split]
    base = davis_root / half if (davis_root / half).is_dir() else davis_root
    sets = base / "ImageSets"
    remedy = f"check --davis_root, copy it again, or download it with scripts/download.py davis{year}"
    for other in {2016, 2017} - {year}:
        if (sets / str(other)).is_dir() and not (sets / str(year)).exists():
            remedy = f"this is DAVIS {other}; add --davis_year {other}"
    return VideoFolders(
        f"DAVIS {year}",
        base / "JPEGImages" / "480p",
        base / "Annotations" / "480p",
        remedy,
        split=sets / str(year) / f"{listed}.txt",
        annotation_step=0 if split == "testdev" else 1,
        merge_objects=year == 2016,
        void=VOID if year == 2017 else None,
        repeats=5,
    )


@dataclass(frozen=True)
class DAVIS:
    """One split of DAVIS.

    Args:
        root: the folder that holds ``trainval/`` and ``test-dev/``. It may also be one of these two, which hold
            ``JPEGImages/480p``, ``Annotations/480p`` and ``ImageSets``.
        year: 2017, or 2016 for the single-object benchmark, which merges all objects of a video into one.
        split: ``train``, ``val`` or ``testdev``.

    Raises:
        InputError: the year or split is unknown, or the file that lists the videos of the split is missing.
    """

    root: Path
    year: int = 2017
    split: str = "val"

    def __post_init__(self) -> None:
        if self.year not in (2016, 2017) or self.split not in tuple(_SPLITS):
            raise InputError(
                f"DAVIS has no {self.split} of {self.year}; use 2016 or 2017, and one of {', '.join(_SPLITS)}"
            )
        if not self.image_set.is_file():
            raise InputError(f"{self.image_set} is missing; {self._remedy_without_list()}")

    @property
    def image_set(self) -> Path:
        """The file that lists the videos of the split."""
        return self._folders.split

    @property
    def annotations(self) -> Path:
        """The folder of ground-truth masks, with one folder for each video."""
        return self._folders.masks

    @property
    def has_ground_truth(self) -> bool:
        """Whether every frame has a mask. In ``testdev`` only the first frame of a video has one."""
        return self.split != "testdev"

    def videos(self, chosen: Sequence[str] | None = None) -> list[Video]:
        """Return the videos of the split, each with the mask of its first frame.

        Args:
            chosen: the names of the wanted videos; by default all.

        Raises:
            InputError: the split does not list a chosen video; the list of videos cannot be read or is empty; or a
                video has no frames, or no mask for its first frame. If the split has ground truth, also: a frame has no
                mask, or a mask has no frame.
        """
        names = read_names(self.image_set, "copy or download it again")
        if not names:
            raise InputError(f"{self.image_set} lists no video; copy or download it again")
        for name in chosen or ():
            if name not in names:
                raise InputError(f"{self.image_set} does not list {name}; choose from {', '.join(names[:5])}, ...")
        return [self.video(name) for name in names if not chosen or name in chosen]

    def video(self, name: str) -> Video:
        """Return one video with the mask of its first frame. The split need not list the video."""
        images = self._folders.images / name
        frames = list_frames(images)
        masks = [self.annotations / name / f"{frame.stem}.png" for frame in frames]
        for mask in masks if self.has_ground_truth else masks[:1]:
            if not mask.is_file():
                remedy = "copy or download the data set's annotations again"
                if masks[0].is_file() and not any(path.is_file() for path in masks[1:]):
                    remedy = "where only first masks are there, use scripts/eval_folder.py"
                raise InputError(f"{mask} is missing; {remedy}")
        shown = {frame.stem for frame in frames}
        for mask in sorted((self.annotations / name).glob("*.png")) if self.has_ground_truth else ():
            if mask.stem not in shown and not is_junk(mask.name):
                raise InputError(f"{images} has no frame for {mask}; copy or download the data set's images again")
        return Video(
            name, frames, {0: masks[0]}, merge_objects=self.year == 2016, void=VOID if self.year == 2017 else None
        )

    def _remedy_without_list(self) -> str:
        """What to do about a missing list of videos, by what the folder holds instead."""
        lists = self.image_set.parents[1]
        other = 4033 - self.year
        if (lists / str(other) / self.image_set.name).is_file():
            return f"the folder has the lists of DAVIS {other}, so add --year {other}"
        if (lists / "480p").is_dir():
            return (
                f"the folder is the download of DAVIS 2016; download DAVIS 2017, which has the lists of both years, "
                f"and choose --year {self.year}"
            )
        for near in folders_near(self.root, 3, (1, 2)):
            if split_folders(near, self.year, self.split).split.is_file():
                return f"give {near}, which has it"
        if (found := annotated_folders(self.root, ("valid", "train"))) and found.name != "DAVIS":
            return (
                f"for the layout of {found.name} use scripts/eval_folder.py --images {found.images} --masks "
                f"{found.masks}"
            )
        return (
            "point at the folder that holds trainval/ and test-dev/, or download it with scripts/download.py "
            f"davis{self.year}"
        )

    @property
    def _folders(self) -> VideoFolders:
        return split_folders(self.root, self.year, self.split)
