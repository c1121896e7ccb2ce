"""Composes one video: a background with simulated camera motion, and pasted objects."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from dataset.files.images import write_mask
from dataset.files.video import object_ids
from dataset.layouts.static import read_object
from small_network.sources import Cutout, Sources, SourceVideo, cut_out
from synthetic.layouts import write_jpeg
from synthetic.motion import Absence, Wander, rotation, scaling, translation
from synthetic.textures import log_uniform, pick
from util.errors import InputError

_STILL_BACKGROUND = 0.25  # the probability of a still as background
_FROM_VIDEO = 0.5  # the probability that an object comes from a video, with its motion there, and not from a still
_BEHIND = 0.4  # the probability that an object passes behind the background's own objects
_UNLABELLED = 0.15  # the probability that an object is an unlabelled distractor, which only occludes others
_LEAVES = 0.35  # the probability that an object leaves the frame in the course of the video
_TRIES = 50  # the maximum number of sources that are tried for an object
_VISIBLE = 0.004  # the minimum fraction of the first frame that a pasted object covers


class PastedVideos(NamedTuple):
    """The settings of a folder of pasted videos. The same settings and sources give the same videos."""

    seed: int = 0
    frames: int = 24  # of a video
    height: int = 288  # pixels
    width: int = 416


# A frame of a background: uint8 RGB [H,W,3] and object ids uint8 [H,W], by its number in the new video.
Background = Callable[[int], tuple[np.ndarray, np.ndarray]]


class _Pasted:
    """A pasted object: its cutout in each frame, and its path."""

    def __init__(self, rng: np.random.Generator, cutouts: Sequence[Cutout], settings: PastedVideos) -> None:
        self.cutouts = cutouts  # by frame number
        self.behind = rng.random() < _BEHIND
        self.labelled = rng.random() >= _UNLABELLED
        self.gain = rng.uniform(0.8, 1.2)
        self.adapt = rng.uniform(0, 0.6)
        self.blur = rng.uniform(0.6, 1.4)
        height, width, frames = settings.height, settings.width, settings.frames
        side = math.sqrt(np.mean([cutout.mask.sum() for cutout in cutouts]))
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
        self.absence: Absence | None = None
        if rng.random() < _LEAVES:
            start, length = rng.uniform(0.1, 0.6) * frames, rng.uniform(0.3, 0.8) * frames
            self.absence = Absence(start, start + length, pick(rng, [-1, 1]), 0.12 * frames)

    def matrix(self, t: int, frame_width: int) -> np.ndarray:
        """Return the matrix [3,3] from the pixels of the cutout to those of frame ``t``."""
        height, width = self.cutouts[t].mask.shape
        size = self.scale * math.exp(self.log_scale(t))
        turn = rotation(self.angle(t)) @ scaling(self.flip * size * math.cos(self.facing(t)), size)
        x, y = (centre + drift(t) for centre, drift in zip(self.centre, self.drift, strict=True))
        if self.absence:
            x += 1.8 * frame_width * self.absence.shift(t)  # far enough for an object as wide as the frame
        return translation(x, y) @ turn @ translation(-width / 2, -height / 2)

    def render(self, t: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Return frame ``t`` of the object alone: float32 RGB [H,W,3], and its opacity [H,W], 0 to 1."""
        cutout, matrix = self.cutouts[t], self.matrix(t, width)
        shrink = max(1.0, 1 / math.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
        image, mask = cutout.image, cutout.mask.astype(np.float32)
        if shrink > 1.2:  # anti-aliasing
            sigma = 0.5 * math.sqrt(shrink * shrink - 1)
            image, mask = cv2.GaussianBlur(image, (0, 0), sigma), cv2.GaussianBlur(mask, (0, 0), sigma)
        size = (width, height)
        colours = cv2.warpAffine(image, matrix[:2], size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        opacity = cv2.warpAffine(mask, matrix[:2], size, flags=cv2.INTER_LINEAR)
        opacity = cv2.GaussianBlur(opacity, (0, 0), self.blur)
        # The edge of the mask has pixels of the old background, so half opacity is slightly inside the mask.
        return colours.astype(np.float32) * self.gain, np.clip(1.6 * opacity - 0.4, 0, 1)


def make_video(root: Path, settings: PastedVideos, sources: Sources, index: int) -> bool:
    """Write one video to ``root/JPEGImages/<video>`` and ``root/Annotations/<video>``; False if it exists already."""
    name = f"pasted-{index:05d}"
    images, masks = root / "JPEGImages" / name, root / "Annotations" / name
    last = f"{settings.frames - 1:05d}"
    if (masks / f"{last}.png").is_file():  # it is written last
        return False
    rng = np.random.default_rng([settings.seed, index])
    frames = compose(rng, settings, sources)
    quality = int(rng.integers(85, 96))
    for t, (image, ids) in enumerate(frames):
        write_jpeg(images / f"{t:05d}.jpg", image[..., ::-1], quality)
        write_mask(masks / f"{t:05d}.png", ids)
    return True


def compose(rng: np.random.Generator, settings: PastedVideos, sources: Sources) -> list[tuple[np.ndarray, np.ndarray]]:
    """Compose a random background and random objects.

    Returns:
        The frames, each uint8 RGB [height,width,3] with object ids, uint8 [height,width]. The first frame shows an
        object.
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
    # The background may have any ids, such as 255 in DAVIS 2016; they become 1, 2, ..., then come the pasted objects.
    known = sorted({number for _, ids in own for number in object_ids(ids)})
    compact = np.zeros(256, np.uint8)
    compact[known] = np.arange(1, len(known) + 1)
    own = [(image, compact[ids]) for image, ids in own]
    numbers = [len(known) + index if thing.labelled else 0 for index, thing in enumerate(pasted, start=1)]
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
                # Adapt the object's brightness to that of the video.
                mean, around = (part[covered].mean() for part in (colours, canvas))
                colours = colours + thing.adapt * (around - mean)
            canvas += opacity[..., None] * (colours - canvas)
            result[covered] = number
        frames.append((np.clip(np.rint(canvas), 0, 255).astype(np.uint8), result))
    return _only_visible(frames)


def _only_visible(frames: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Give the objects the ids 1, 2, ... in order, and unlabel those that are hardly visible in the first frame."""
    areas = np.bincount(frames[0][1].ravel(), minlength=256)
    seen = [number for number in object_ids(frames[0][1]) if areas[number] >= _VISIBLE * areas.sum()]
    new = np.zeros(256, np.uint8)
    new[seen] = np.arange(1, len(seen) + 1)
    return [(image, new[ids]) for image, ids in frames]


def _background(rng: np.random.Generator, settings: PastedVideos, sources: Sources) -> Background:
    height, width, frames = settings.height, settings.width, settings.frames
    still = bool(sources.images) and rng.random() < _STILL_BACKGROUND
    if still:
        fixed = pick(rng, sources.images).read(read_object)
        read, size = (lambda t: fixed), fixed[1].shape
    else:
        video = pick(rng, sources.videos)
        indices = _indices(rng, len(video.frames), frames)
        read, size = (lambda t: video.read(indices[t])), video.read(indices[0])[1].shape
    # A moving crop of the source simulates camera motion: fast over a still, and slow over a video, which has camera
    # motion of its own.
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
        if scale < 0.8:  # anti-aliasing
            image = cv2.GaussianBlur(image, (0, 0), 0.5 * math.sqrt(1 / scale**2 - 1))
        shown = cv2.warpAffine(
            image, matrix[:2], (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
        )
        ids = cv2.warpAffine(
            ids, matrix[:2], (width, height), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT_101
        )
        return shown, ids

    return frame


def _indices(rng: np.random.Generator, length: int, frames: int) -> list[int]:
    """Sample frames of a source video: from a random one on, forward or backward, reflected at its ends."""
    step = int(rng.integers(1, 3))
    indices = (int(rng.integers(length)) + pick(rng, [-1, 1]) * step * np.arange(frames)) % (2 * (length - 1))
    return np.minimum(indices, 2 * (length - 1) - indices).tolist()


def _pasted(rng: np.random.Generator, settings: PastedVideos, sources: Sources) -> _Pasted:
    for _ in range(_TRIES):
        if sources.images and rng.random() >= _FROM_VIDEO:
            if cutout := cut_out(*pick(rng, sources.images).read(read_object)):
                return _Pasted(rng, [cutout] * settings.frames, settings)
        elif cutouts := _cutouts(rng, pick(rng, sources.videos), settings.frames):
            return _Pasted(rng, cutouts, settings)
    raise InputError(
        f"none of {_TRIES} images and videos has a complete object of at least 24 pixels to paste; give others with "
        "--images or --videos"
    )


def _cutouts(rng: np.random.Generator, video: SourceVideo, frames: int) -> list[Cutout] | None:
    """Return the cutouts of an object of a video in each frame, or None if it cannot be cut out of one."""
    indices = _indices(rng, len(video.frames), frames)
    ids = object_ids(video.read(indices[0])[1])
    if not ids:
        return None
    number = pick(rng, ids)
    cutouts = {}
    for index in dict.fromkeys(indices):
        image, mask = video.read(index)
        cutouts[index] = cut_out(image, mask == number)
        if cutouts[index] is None:
            return None
    return [cutouts[index] for index in indices]
