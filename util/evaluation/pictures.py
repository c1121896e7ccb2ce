"""Pictures of results: overlays of masks on frames, and contact sheets of videos."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dataset.files.colours import colour_table
from dataset.files.images import read_mask
from dataset.files.video import Video
from util.evaluation.scoring import VideoScore
from util.files import atomic_path

MARGIN = 8  # pixels between the tiles of a contact sheet


def overlay(frame: np.ndarray, ids: np.ndarray, table: bytes | None = None) -> np.ndarray:
    """Overlay a mask on a frame: objects at half opacity, with opaque contours and a dark line around them.

    Args:
        frame: uint8 RGB [H,W,3].
        ids: uint8 object ids [H,W]; pixels of id 0 keep their colour, but for the line.
        table: 256 RGB triples by id, as `dataset.files.colours.colour_table` makes them; by default those of ids 1, 2,
            ...

    Returns:
        the overlay, uint8 RGB [H,W,3].
    """
    colours = np.frombuffer(table or colour_table(), np.uint8).reshape(-1, 3)[ids]
    blended = np.where(ids[:, :, None] > 0, cv2.addWeighted(frame, 0.5, colours, 0.5, 0), frame)
    edge = contours(ids)
    blended[edge] = colours[edge]
    blended[surroundings(ids)] //= 3
    return blended


def matte(ids: np.ndarray) -> np.ndarray:
    """The objects of a mask, uint8 [H,W], in white on black: uint8 RGB [H,W,3]."""
    return np.repeat(np.where(ids > 0, np.uint8(255), np.uint8(0))[:, :, None], 3, axis=2)


def cutout(frame: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The objects of a frame, uint8 RGB [H,W,3] with ids [H,W], on transparency: uint8 RGBA [H,W,4]."""
    alpha = matte(ids)[:, :, :1]
    return np.dstack([np.where(alpha > 0, frame, 0), alpha])


def contours(ids: np.ndarray) -> np.ndarray:
    """The contours of objects, bool [H,W], from uint8 object ids [H,W].

    A contour is half of 1/240 of the picture's height wide, but at least one pixel.
    """
    width = max(3, ids.shape[0] // 240 | 1)
    neighbourhood = np.ones((width, width), np.uint8)
    return (ids > 0) & (cv2.dilate(ids, neighbourhood) != cv2.erode(ids, neighbourhood))


def surroundings(ids: np.ndarray) -> np.ndarray:
    """The background pixels beside objects, bool [H,W], from uint8 object ids [H,W].

    A dark line there separates an object from a background of its own colour.
    """
    return (ids == 0) & (cv2.dilate(ids, np.ones((3, 3), np.uint8)) > 0)


def contact_sheet(pictures: Sequence[Path], captions: Sequence[str], title: str, output: Path) -> None:
    """Write a contact sheet, four pictures in a row, as a JPEG of about 1300 pixels width.

    Args:
        pictures: image files of one size.
    """
    columns, width = min(4, len(pictures)), 320
    font, title_font = ImageFont.load_default(14), ImageFont.load_default(20)
    tiles = []
    for path in pictures:
        with Image.open(path, formats=("JPEG",)) as picture:
            picture.thumbnail((width, 2 * width))  # JPEG limits a sheet to 65,500 rows
            tiles.append(picture.copy())
    pitch_x, pitch_y = width + MARGIN, tiles[0].height + 20 + MARGIN
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * pitch_x + MARGIN, rows * pitch_y + 36 + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), title, "black", title_font)
    for number, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        x, y = MARGIN + number % columns * pitch_x, 36 + MARGIN + number // columns * pitch_y
        sheet.paste(tile, (x, y))
        draw.text((x, y + tile.height + 2), caption, "black", font)
    with atomic_path(output) as temporary:
        sheet.save(temporary, quality=90)


def evenly_spaced(count: int, most: int = 8) -> list[int]:
    """Up to ``most`` evenly spaced numbers from 0 to ``count``−1, both included."""
    return sorted({round(number) for number in np.linspace(0, count - 1, min(most, count))})


def draw_video(video: Video, masks: Path, output: Path, score: VideoScore | None = None) -> None:
    """Write the overlays of a video, and a contact sheet of evenly spaced frames.

    Writes ``output/<video>/<frame>.jpg`` and ``output/<video>.jpg``.

    Args:
        masks: the folder of the masks; frames without a mask are skipped.
    """
    numbers = [n for n, frame in enumerate(video.frames) if (masks / f"{frame.stem}.png").is_file()]
    pictures = [output / video.name / f"{video.frames[n].stem}.jpg" for n in numbers]
    table = colour_table(video.entries)

    def draw(item: tuple[int, Path]) -> None:
        number, picture = item
        blended = overlay(video.read_frame(number), read_mask(masks / f"{picture.stem}.png"), table)
        with atomic_path(picture) as temporary:
            Image.fromarray(blended).save(temporary, quality=90)

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(draw, zip(numbers, pictures, strict=True)):
            pass
    known = score.frame_means if score else {}
    sampled = [pictures[n] for n in evenly_spaced(len(pictures))]
    captions = [
        f"{picture.stem}   J&F {100 * known[picture.stem]:.1f}" if picture.stem in known else picture.stem
        for picture in sampled
    ]
    title = video.name if not known else f"{video.name}   J&F {100 * score.mean:.1f}"
    contact_sheet(sampled, captions, title, output / f"{video.name}.jpg")
