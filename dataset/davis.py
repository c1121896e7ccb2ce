"""DAVIS 2016 and 2017 as their downloads lay them out."""

from dataclasses import dataclass
from pathlib import Path

from dataset.video import Video, list_frames, read_names
from util.errors import InputError

# Split as the user names it -> the folder that holds it and the image set that lists it.
_SPLITS = {"train": ("trainval", "train"), "val": ("trainval", "val"), "testdev": ("test-dev", "test-dev")}


@dataclass(frozen=True)
class DAVIS:
    """One split of DAVIS.

    Args:
        root: the folder that holds ``trainval/`` and ``test-dev/``, or one of them as the download has it (with
            ``JPEGImages/480p``, ``Annotations/480p`` and ``ImageSets``).
        year: 2017, or 2016 for the single-object benchmark, where all objects of a video are one.
        split: ``train``, ``val`` or ``testdev``.

    Raises:
        InputError: the layout is not DAVIS's; the message names the missing file.
    """

    root: Path
    year: int = 2017
    split: str = "val"

    def __post_init__(self) -> None:
        if not self.image_set.is_file():
            raise InputError(f"{self.image_set} is missing; point at the folder that holds trainval/ and test-dev/")

    @property
    def image_set(self) -> Path:
        """The file that lists the videos of the split."""
        return self._base / "ImageSets" / str(self.year) / f"{_SPLITS[self.split][1]}.txt"

    @property
    def annotations(self) -> Path:
        """The folder of ground-truth masks, one folder a video."""
        return self._base / "Annotations" / "480p"

    @property
    def has_ground_truth(self) -> bool:
        """Whether every frame is annotated, not only the first."""
        return self.split != "testdev"

    def videos(self) -> list[Video]:
        """The videos of the split, each with the mask of its first frame.

        Raises:
            InputError: the split cannot be read or lists no video, or a video's frames, its first mask, or, where
                the split has ground truth, any of its masks or a frame for one are missing.
        """
        names = read_names(self.image_set, "copy or download it again")
        if not names:
            raise InputError(f"{self.image_set} lists no video; copy or download it again")
        return [self.video(name) for name in names]

    def video(self, name: str) -> Video:
        """One video, whether or not the split lists it; its frames and masks must be there.

        Raises:
            InputError: as `videos`.
        """
        images = self._base / "JPEGImages" / "480p" / name
        frames = list_frames(images)
        masks = [self.annotations / name / f"{frame.stem}.png" for frame in frames]
        for mask in masks if self.has_ground_truth else masks[:1]:
            if not mask.is_file():
                raise InputError(f"{mask} is missing; copy or download the data set's annotations again")
        shown = {frame.stem for frame in frames}
        for mask in sorted((self.annotations / name).glob("*.png")) if self.has_ground_truth else ():
            if mask.stem not in shown and mask.name[0] != ".":
                raise InputError(f"{images} has no frame for {mask}; copy or download the data set's images again")
        return Video(name, frames, {0: masks[0]}, merge_objects=self.year == 2016)

    @property
    def _base(self) -> Path:
        nested = self.root / _SPLITS[self.split][0]
        return nested if nested.is_dir() else self.root
