"""The layout of BL30K, the synthetic training videos that were released with MiVOS."""

from pathlib import Path

from dataset.layouts.folders import VideoFolders


def training_folders(bl_root: Path) -> VideoFolders:
    """Return the folders of BL30K's videos. All videos are for training, and every frame has a mask.

    Args:
        bl_root: the folder that holds ``JPEGImages/<video>/`` and ``Annotations/<video>/``.
    """
    return VideoFolders(
        "BL30K",
        bl_root / "JPEGImages",
        bl_root / "Annotations",
        "copy it again, or check --bl_root",
        crop_area=0.25,
        min_area=1e-3,  # small objects are ignored here and nowhere else
    )
