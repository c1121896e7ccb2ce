"""Imports of masks from other programs, as annotations."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from annotation.errors import Refused
from annotation.project import Project, refuse_links
from dataset.files.given_masks import read_given
from dataset.files.images import PaintedMasks
from dataset.files.masks import described
from dataset.files.video import check_mask_sizes, object_ids, read_sized_mask
from util.errors import InputError
from util.files import is_plain_name

MOST_BYTES = 2**30  # of all files of an import
LONGEST_NAME = 255  # bytes of a file's name


def import_masks(project: Project, files: Mapping[str, bytes], frame: int | None) -> dict[str, Any]:
    """Read masks of any format, and make them the annotations of their frames.

    Args:
        files: the contents of image files by name. A folder for each object is a part of the name.
        frame: the number of the frame of a single file; None for files that are named after their frames.

    Returns:
        ``frames``: the numbers of the frames; ``sentences``: descriptions of the masks, and notes.
    """
    video = project.frames.video
    refuse_links(project.folder)
    if frame is not None and len(files) > 1:
        raise Refused(400, "a frame has one mask; choose one file, or the folder")
    # In the project, because the folder for temporary files may be missing, full or not writable.
    with tempfile.TemporaryDirectory(prefix=".import.", suffix=f".{os.getpid()}.tmp", dir=project.folder) as folder:
        paths = []
        for name, content in files.items():
            if not all(is_plain_name(part) and len(os.fsencode(part)) <= LONGEST_NAME for part in name.split("/")):
                raise Refused(400, f"{name[:40]} is no name of a file, or too long; rename it")
            paths.append(Path(folder) / name)
            paths[-1].parent.mkdir(exist_ok=True)
            paths[-1].write_bytes(content)
        try:
            check_mask_sizes(paths, video.size, video.name)
            if frame is not None:
                assigned, reader = {frame: paths[0]}, PaintedMasks(paths)
            else:
                names = [video.frame_name(number) for number in range(len(project))]
                assigned, reader = read_given(paths, video.name, names)
            masks = {
                number: read_sized_mask(path, video.size, video.name, read=reader.read)
                for number, path in assigned.items()
            }
        except InputError as error:
            raise Refused(400, str(error).replace(f"{folder}/", "")) from None
        notes = [note.replace(f"{folder}/", "") for note in reader.notes]
    if empty := [assigned[number].name for number, mask in masks.items() if not object_ids(mask)]:
        notes.append(f"{', '.join(empty[:5])} shows no object")
    project.import_masks(masks)
    shown = [described(assigned[number].name, masks[number]) for number in list(masks)[:3]]
    if len(masks) > len(shown):
        shown = [f"masks of {len(masks)} frames", *shown, "…"]
    return {"frames": list(masks), "sentences": [*shown, *notes]}
