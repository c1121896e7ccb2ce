"""Makes one video: a background under a moving window, and the objects that are pasted into it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dataset.images import write_mask
from dataset.video import object_ids
from pasting.sources import Cutout, Sources, SourceVideo, cut_out, read_still
from toy.motion import Wander, rotation, scaling, translation
from toy.textures import log_uniform, pick
from util.errors import InputError
from util.files import atomic_path

_STILL_BACKGROUND = 0.25  # the share of videos whose background is a still
_FROM_VIDEO = 0.5  # the share of pasted objects that come from another video and move as they did there
_BEHIND = 0.4  # the share of pasted objects that pass behind the background's own objects
_UNLABELLED = 0.15  # the share of pasted objects that are no target: they only cover others
_TRIES = 50  # how many sources are tried for an object
_VISIBLE = 0.004  # the least share of the first frame that a pasted object has to cover


@dataclass(frozen=True)
class PastedVideos:
    """The settings of a folder of pasted videos. The same settings and sources give the same videos.

    Attributes:
        seed: determines all random choices.
        frames: the number of frames in a video.
        height, width: the size of the frames, in pixels.
    """

    seed: int = 0
    frames: int = 24
    height: int = 288
    width: int = 416


# A frame of a background: uint8 RGB [H,W,3] and object ids uint8 [H,W], by its number in the new video.
Background = Callable[[int], tuple[np.ndarray, np.ndarray]]


class _Pasted:
    """An object that is pasted: its look in each frame, and its path."""

    def __init__(self, rng: np.random.Generator, looks: Sequence[Cutout], settings: PastedVideos) -> None:
        self.looks = looks  # by the number of the frame
        self.behind = rng.random() < _BEHIND
        self.labelled = rng.random() >= _UNLABELLED
        self.gain = rng.uniform(0.8, 1.2)
        self.adapt = rng.uniform(0, 0.6)
        self.blur = rng.uniform(0.6, 1.4)
        height, width, frames = settings.height, settings.width, settings.frames
        side = math.sqrt(np.mean([look.mask.sum() for look in looks]))
        self.scale = log_uniform(rng, 0.12, 0.55) * height / side
        self.flip = pick(rng, [-1, 1])
        self.centre = rng.uniform(0.15, 0.85) * width, rng.uniform(0.2, 0.8) * height
        # A period of three videos is nearly a straight path.
        pace = rng.uniform(0.6, 3) * frames
        reach = log_uniform(rng, 0.03, 0.35)
        self.drift = Wander(rng, reach * width, pace), Wander(rng, 0.6 * reach * height, pace)
        self.log_scale = Wander(rng, log_uniform(rng, 0.03, 0.4), rng.uniform(1, 3) * frames)
        self.angle = Wander(rng, log_uniform(rng, 0.03, 0.5), rng.uniform(0.7, 3) * frames)
        self.facing = Wander(rng, log_uniform(rng, 0.02, 0.6), rng.uniform(1, 3) * frames)

    def matrix(self, t: int) -> np.ndarray:
        """Return the matrix [3,3] from the pixels of the look to those of frame ``t``."""
        height, width = self.looks[t].mask.shape
        size = self.scale * math.exp(self.log_scale(t))
        turn = rotation(self.angle(t)) @ scaling(self.flip * size * math.cos(self.facing(t)), size)
        x, y = (centre + drift(t) for centre, drift in zip(self.centre, self.drift, strict=True))
        return translation(x, y) @ turn @ translation(-width / 2, -height / 2)

    def render(self, t: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Return frame ``t`` of the object alone: float32 RGB [H,W,3], and its opacity [H,W], 0 to 1."""
        look, matrix = self.looks[t], self.matrix(t)
        shrink = max(1.0, 1 / math.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
        image, mask = look.image, look.mask.astype(np.float32)
        if shrink > 1.2:  # an image that shrinks is blurred first
            sigma = 0.5 * math.sqrt(shrink * shrink - 1)
            image, mask = cv2.GaussianBlur(image, (0, 0), sigma), cv2.GaussianBlur(mask, (0, 0), sigma)
        size = (width, height)
        colours = cv2.warpAffine(image, matrix[:2], size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        opacity = cv2.warpAffine(mask, matrix[:2], size, flags=cv2.INTER_LINEAR)
        opacity = cv2.GaussianBlur(opacity, (0, 0), self.blur)
        # The mask's own edge has pixels of the old background, so half opacity is a little inside of it.
        return colours.astype(np.float32) * self.gain, np.clip(1.6 * opacity - 0.4, 0, 1)


def make_video(root: Path, settings: PastedVideos, sources: Sources, index: int) -> bool:
    """Write one video to ``root/JPEGImages/<video>`` and ``root/Annotations/<video>``.

    Returns:
        Whether the video was written; False if it was there already.

    Raises:
        InputError: a source cannot be read, or a file cannot be written.
    """
    name = f"pasted-{index:05d}"
    images, masks = root / "JPEGImages" / name, root / "Annotations" / name
    last = f"{settings.frames - 1:05d}"
    if (masks / f"{last}.png").is_file():  # it is written last
        return False
    rng = np.random.default_rng([settings.seed, index])
    frames = compose(rng, settings, sources)
    quality = int(rng.integers(85, 96))
    for t, (image, ids) in enumerate(frames):
        data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        with atomic_path(images / f"{t:05d}.jpg") as temporary:
            temporary.write_bytes(data.tobytes())
        write_mask(masks / f"{t:05d}.png", ids)
    return True


def compose(rng: np.random.Generator, settings: PastedVideos, sources: Sources) -> list[tuple[np.ndarray, np.ndarray]]:
    """Choose a background and objects at random, and put them together.

    Returns:
        The frames, each uint8 RGB [height,width,3] with object ids, uint8 [height,width]. The first frame shows an
        object.

    Raises:
        InputError: a source cannot be read, or no source has an object that can be pasted.
    """
    while True:
        background = _background(rng, settings, sources)
        own = [background(t) for t in range(settings.frames)]
        pasted = [_pasted(rng, settings, sources) for _ in range(int(rng.integers(1, 4)))]
        frames = _merge(own, pasted)
        if frames[0][1].any():
            return frames


def _merge(
    own: Sequence[tuple[np.ndarray, np.ndarray]], pasted: Sequence[_Pasted]
) -> list[tuple[np.ndarray, np.ndarray]]:
    # Ids may be any numbers, such as the 255 of DAVIS 2016; the pasted objects follow them.
    known = sorted({number for _, ids in own for number in object_ids(ids)})
    compact = np.zeros(256, np.uint8)
    compact[known] = np.arange(1, len(known) + 1)
    own = [(image, compact[ids]) for image, ids in own]
    numbers = [len(known) + place if thing.labelled else 0 for place, thing in enumerate(pasted, start=1)]
    frames = []
    for t, (image, ids) in enumerate(own):
        height, width = ids.shape
        canvas, result = image.astype(np.float32), ids.copy()
        front = cv2.GaussianBlur((ids > 0).astype(np.float32), (0, 0), 0.8)  # the background's own objects
        for thing, number in zip(pasted, numbers, strict=True):
            colours, opacity = thing.render(t, height, width)
            if thing.behind:
                opacity = opacity * (1 - front)
            covered = opacity > 0.5
            if covered.any():
                # Part of the difference in brightness goes, as if the object stood in the light of the video.
                mean, around = (part[covered].mean() for part in (colours, canvas))
                colours = colours + thing.adapt * (around - mean)
            canvas += opacity[..., None] * (colours - canvas)
            result[covered] = number
        frames.append((np.clip(np.rint(canvas), 0, 255).astype(np.uint8), result))
    return _only_visible(frames)


def _only_visible(frames: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Give the objects the ids 1, 2, ... in order, and drop the ids of those that the first frame hardly shows."""
    areas = np.bincount(frames[0][1].ravel(), minlength=256)
    seen = [number for number in object_ids(frames[0][1]) if areas[number] >= _VISIBLE * areas.sum()]
    new = np.zeros(256, np.uint8)
    new[seen] = np.arange(1, len(seen) + 1)
    return [(image, new[ids]) for image, ids in frames]


def _background(rng: np.random.Generator, settings: PastedVideos, sources: Sources) -> Background:
    height, width, frames = settings.height, settings.width, settings.frames
    still = bool(sources.images) and rng.random() < _STILL_BACKGROUND
    if still:
        fixed = read_still(pick(rng, sources.images))
        read, size = (lambda t: fixed), fixed[1].shape
    else:
        video = pick(rng, sources.backgrounds)
        places = _places(rng, len(video.frames), frames)
        read, size = (lambda t: video.read(places[t])), video.read(places[0])[1].shape
    # The window covers a part of the source, of the shape of the new frames, and moves: fast over a still, and a
    # little over a video, which has a camera already.
    source_height, source_width = size
    part = rng.uniform(0.5, 0.95) * min(1.0, source_width / source_height * height / width)
    zoom = height / (part * source_height)
    room_x, room_y = source_width - width / zoom, source_height - height / zoom
    liveliness = log_uniform(rng, 0.2, 1.0) if still else log_uniform(rng, 0.03, 0.3)
    pace = rng.uniform(0.8, 3) * frames
    x, y = rng.uniform(0, room_x), rng.uniform(0, room_y)
    drift = [Wander(rng, liveliness * 0.5 * max(room, 1), pace) for room in (room_x, room_y)]
    roll, log_zoom = Wander(rng, 0.12 * liveliness, pace), Wander(rng, 0.25 * liveliness, pace)
    flip = pick(rng, [-1, 1])

    def frame(t: int) -> tuple[np.ndarray, np.ndarray]:
        image, ids = read(t)
        left = float(np.clip(x + drift[0](t), 0, room_x))
        top = float(np.clip(y + drift[1](t), 0, room_y))
        scale = zoom * math.exp(log_zoom(t))
        centre = translation(-left - width / zoom / 2, -top - height / zoom / 2)
        matrix = translation(width / 2, height / 2) @ rotation(roll(t)) @ scaling(flip * scale, scale) @ centre
        if scale < 0.8:  # an image that shrinks is blurred first
            image = cv2.GaussianBlur(image, (0, 0), 0.5 * math.sqrt(1 / scale**2 - 1))
        shown = cv2.warpAffine(
            image, matrix[:2], (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
        )
        ids = cv2.warpAffine(
            ids, matrix[:2], (width, height), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT_101
        )
        return shown, ids

    return frame


def _places(rng: np.random.Generator, length: int, frames: int) -> list[int]:
    """Choose frames of a source video: from a random one on, forwards or backwards, turning round at its ends."""
    step = int(rng.integers(1, 3))
    places = (int(rng.integers(length)) + pick(rng, [-1, 1]) * step * np.arange(frames)) % (2 * (length - 1))
    return np.minimum(places, 2 * (length - 1) - places).tolist()


def _pasted(rng: np.random.Generator, settings: PastedVideos, sources: Sources) -> _Pasted:
    for _ in range(_TRIES):
        if sources.images and rng.random() >= _FROM_VIDEO:
            look = cut_out(*read_still(pick(rng, sources.images)))
            if look:
                return _Pasted(rng, [look] * settings.frames, settings)
        elif looks := _looks(rng, pick(rng, sources.backgrounds), settings.frames):
            return _Pasted(rng, looks, settings)
    raise InputError(
        f"none of {_TRIES} images and videos shows a whole object of at least 24 pixels to paste; give others with "
        "--images or --videos"
    )


def _looks(rng: np.random.Generator, video: SourceVideo, frames: int) -> list[Cutout] | None:
    """Return how an object of a video looks in each frame, or None if it is cut, small or out of sight in one."""
    places = _places(rng, len(video.frames), frames)
    ids = object_ids(video.read(places[0])[1])
    if not ids:
        return None
    number = pick(rng, ids)
    looks = {}
    for place in dict.fromkeys(places):
        image, shown = video.read(place)
        looks[place] = cut_out(image, shown == number)
        if looks[place] is None:
            return None
    return [looks[place] for place in places]
