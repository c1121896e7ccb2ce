"""A contact sheet of a toy data set, made from its files."""

from pathlib import Path

import cv2
import numpy as np

from dataset.files.images import davis_palette, read_image, read_mask
from small_network.toy.layouts import write_jpeg

_COLUMNS, _ROWS, _TILE = 6, 4, 240
# For each part of the sheet: the title, the folder of images and the folder of masks. Each folder in them is a video.
_SHEETS = (
    ("static: fss", "static/fss", "static/fss"),
    ("static: the other folders", "static", "static"),
    ("BL30K", "BL30K/JPEGImages", "BL30K/Annotations"),
    ("YouTube-VOS train, every 5th frame", "YouTube/train/JPEGImages", "YouTube/train/Annotations"),
    ("YouTube-VOS valid", "YouTube/valid/JPEGImages", "YouTube/valid_gt/Annotations"),
    ("DAVIS train and val", "DAVIS/2017/trainval/JPEGImages/480p", "DAVIS/2017/trainval/Annotations/480p"),
    ("DAVIS test-dev", "DAVIS/2017/test-dev/JPEGImages/480p", "DAVIS/2017/test-dev/Annotations/480p"),
)


def write_preview(root: Path | str) -> Path:
    """Write ``root/preview.jpg`` and return its path.

    The picture shows a few videos of each kind. Each row has frames of one video, above without and below with masks.
    """
    root = Path(root)
    rows: list[np.ndarray] = []
    for title, images, masks in _SHEETS:
        videos = sorted(path for path in (root / images).glob("*") if path.is_dir() and any(path.glob("*.jpg")))
        for number, video in enumerate(videos[:: max(1, len(videos) // _ROWS)][:_ROWS]):
            frames = sorted(video.glob("*.jpg"))
            chosen = [frames[index] for index in np.linspace(0, len(frames) - 1, _COLUMNS).astype(int)]
            tiles = [_tile(frame, root / masks / video.name / f"{frame.stem}.png") for frame in chosen]
            if number == 0:
                strip = np.full((24, _TILE * _COLUMNS, 3), 32, np.uint8)
                cv2.putText(strip, title, (6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
                rows.append(strip)
            rows.append(np.hstack(tiles))
    sheet = np.vstack(rows) if rows else np.zeros((24, _TILE, 3), np.uint8)
    return write_jpeg(root / "preview.jpg", sheet[..., ::-1], 88)


def _tile(frame: Path, mask: Path) -> np.ndarray:
    """Return a small RGB picture of a frame: above as it is, and below with the colours of its mask if it has one."""
    image = read_image(frame)
    height = round(_TILE * image.shape[0] / image.shape[1])
    marked = image
    if mask.is_file():
        ids = read_mask(mask)
        palette = np.frombuffer(davis_palette(), np.uint8).reshape(256, 3)
        ids = np.minimum(ids, 254)  # the last colour of the palette is hard to see on the image
        marked = np.where(ids[..., None] > 0, image // 2 + palette[ids] // 2, image)
    tiles = [cv2.resize(picture, (_TILE, height), interpolation=cv2.INTER_AREA) for picture in (image, marked)]
    return np.vstack(tiles)
