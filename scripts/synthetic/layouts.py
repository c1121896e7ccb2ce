"""Synthetic data sets on disk, in the layouts of static images, BL30K, YouTube-VOS and DAVIS."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from dataset.files.images import write_mask
from dataset.files.video import object_ids
from synthetic.scene import LEAST_AREA, LEAST_SPAN, Scene
from util.errors import InputError
from util.files import atomic_path, check_settings, write_lines, write_text

STATIC_FOLDERS = ("fss", "DUTS-TR", "DUTS-TE", "ECSSD", "BIG", "HRSOD")
ANNOTATED_EVERY = 5  # distance between annotated frames in YouTube-VOS
_YOUTUBE_PACE = 0.4  # speed relative to DAVIS; it is slow because only every fifth frame is annotated
_CLASS = 10  # images in a class of FSS-1000
_JPEG_QUALITY = 90
# The kinds of data. The place of a kind is part of the random seeds of its clips.
KINDS = ("static", "bl", "youtube_train", "youtube_valid", "davis_train", "davis_val", "davis_test")


@dataclass(frozen=True)
class SyntheticSettings:
    """The content of a synthetic data set. The same settings give the same bytes.

    Attributes:
        seed: determines all random choices.
        height, width: the size of the frames, in pixels.
        frames: the number of frames in a clip. YouTube-VOS's training clips have this number of annotated frames, five
            apart.
        max_objects: the largest number of annotated objects in a clip.
        leave: if it is above 0, the objects of BL30K and DAVIS leave the frame repeatedly, for at least this number of
            frames, and return.
        static, bl, youtube_train, ...: the number of images or clips of each kind.
    """

    seed: int = 0
    height: int = 480
    width: int = 854
    frames: int = 25
    max_objects: int = 5
    leave: int = 0
    static: int = 0
    bl: int = 0
    youtube_train: int = 0
    youtube_valid: int = 0
    davis_train: int = 0
    davis_val: int = 0
    davis_test: int = 0


def make_synthetic(root: Path | str, settings: SyntheticSettings, progress: bool = False) -> None:
    """Write a synthetic data set. Existing files of the same settings are kept, so an interrupted run is resumed.

    Raises:
        InputError: the settings are out of range, or ``root`` holds other data.
    """
    root = Path(root)
    _check(settings)
    _check_folder(root, settings)
    jobs = [(kind, index) for kind in KINDS for index in range(getattr(settings, kind))]
    meta: dict[str, dict] = {"youtube_train": {}, "youtube_valid": {}}
    with tqdm(total=len(jobs) * settings.frames, unit="frame", disable=not progress) as bar:
        for kind, index in jobs:
            rng = np.random.default_rng([settings.seed, 1 + KINDS.index(kind), index])
            if kind == "static":
                _draw_image(root / "static", settings, rng, index)
            elif kind in meta:
                draw = _draw_youtube_train if kind == "youtube_train" else _draw_youtube_valid
                meta[kind][clip_name(kind, index)] = {"objects": draw(root / "YouTube", settings, rng, index, bar)}
            else:
                _draw_dense(root, settings, rng, kind, index, bar)
    _write_lists(root, settings, meta)


def clip_name(kind: str, index: int) -> str:
    """Return the name of clip number ``index`` of a kind."""
    return f"{kind.replace('_', '-')}-{index:05d}"


def write_jpeg(path: Path, frame: np.ndarray, quality: int) -> None:
    """Write a uint8 BGR frame [H,W,3] as a JPEG file with this quality (0 to 100)."""
    data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())


def _check(settings: SyntheticSettings) -> None:
    limits = {
        "seed": (0, 2**63), "height": (48, 4320), "width": (48, 7680), "frames": (6, 100_000), "max_objects": (1, 20),
    }  # fmt: skip
    for name, value in asdict(settings).items():
        low, high = limits.get(name, (0, 10**6))
        if not low <= value <= high:
            raise InputError(f"--{name} {value} is out of range; choose a number from {low} to {high}")
    if not any(getattr(settings, kind) for kind in KINDS):
        raise InputError(f"all numbers of clips are 0; give at least one of {', '.join(f'--{kind}' for kind in KINDS)}")
    if settings.frames < LEAST_SPAN * settings.leave:
        raise InputError(
            f"{settings.frames} frames are too few for objects to leave and return; "
            f"raise --frames to at least {LEAST_SPAN * settings.leave}, or lower --leave {settings.leave}"
        )


def _check_folder(root: Path, settings: SyntheticSettings) -> None:
    """Write the settings to a file in ``root``. If the file exists already, compare the settings with it."""
    note = root / "synthetic.json"
    if not note.is_file() and (root.is_file() or (root.is_dir() and any(root.iterdir()))):
        raise InputError(f"{root} holds something other than synthetic clips; choose a new folder")
    for name, found, wanted in check_settings(note, asdict(settings)):
        raise InputError(
            f"{root} holds synthetic clips made with {name}={found}, not {wanted}; "
            f"choose a new folder, or the settings in {note.name}"
        )


def _once(path: Path, write: Callable[..., object], *arguments: object) -> None:
    """Write a file unless it exists: files appear complete, and equal settings give equal files."""
    if not path.is_file():
        write(path, *arguments)


def _write_frame(folder: Path, name: str, frame: np.ndarray) -> None:
    _once(folder / "JPEGImages" / f"{name}.jpg", write_jpeg, frame, _JPEG_QUALITY)


def _write_ids(folder: Path, name: str, ids: np.ndarray) -> None:
    _once(folder / "Annotations" / f"{name}.png", write_mask, ids)


def _write_grey(path: Path, mask: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        Image.fromarray(mask).save(temporary)


def _draw_image(folder: Path, settings: SyntheticSettings, rng: np.random.Generator, index: int) -> None:
    frame, ids = Scene(rng, settings.height, settings.width, 1, [1]).frame(0)
    number, place = divmod(index, len(STATIC_FOLDERS))
    name = f"class{number // _CLASS:04d}/{number % _CLASS + 1}" if place == 0 else f"{index:06d}"
    stem = folder / STATIC_FOLDERS[place] / name
    _once(stem.with_suffix(".jpg"), write_jpeg, frame, _JPEG_QUALITY)
    _once(stem.with_suffix(".png"), _write_grey, ids * np.uint8(255))


def _draw_dense(
    root: Path, settings: SyntheticSettings, rng: np.random.Generator, kind: str, index: int, bar: tqdm
) -> None:
    """Draw a clip of BL30K or DAVIS: a mask for every frame, and in test-dev for the first frame only."""
    half = "test-dev" if kind == "davis_test" else "trainval"
    folder, level = (root / "BL30K", "") if kind == "bl" else (root / "DAVIS/2017" / half, "480p/")
    labels = range(1, 1 + int(rng.integers(1, settings.max_objects + 1)))
    scene = Scene(rng, settings.height, settings.width, settings.frames, labels, leave=settings.leave)
    for t in range(settings.frames):
        frame, ids = scene.frame(t)
        name = f"{level}{clip_name(kind, index)}/{t:05d}"
        _write_frame(folder, name, frame)
        if t == 0 or half != "test-dev":
            _write_ids(folder, name, ids)
        bar.update()


def _draw_youtube_train(
    folder: Path, settings: SyntheticSettings, rng: np.random.Generator, index: int, bar: tqdm
) -> dict[str, dict]:
    """Draw a clip with a mask for every frame. Some objects appear late. Return its objects for meta.json."""
    labels = range(1, 1 + int(rng.integers(1, settings.max_objects + 1)))
    step = ANNOTATED_EVERY * _YOUTUBE_PACE
    late = {label: step * _arrival(rng, settings.frames) for label in labels[1:] if rng.random() < 0.25}
    scene = Scene(rng, settings.height, settings.width, settings.frames * step, labels, late)
    seen: dict[int, list[str]] = {label: [] for label in labels}
    for number in range(settings.frames):
        frame, ids = scene.frame(number * step)
        t = f"{number * ANNOTATED_EVERY:05d}"
        name = f"{clip_name('youtube_train', index)}/{t}"
        _write_frame(folder / "train", name, frame)
        _write_ids(folder / "train", name, ids)
        for label in object_ids(ids):
            seen[label].append(t)
        small = min(1.0, 480 / min(ids.shape))
        if small < 1:
            frame = cv2.resize(frame, None, fx=small, fy=small, interpolation=cv2.INTER_AREA)
            ids = cv2.resize(ids, frame.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        _write_frame(folder / "train_480p", name, frame)
        _write_ids(folder / "train_480p", name, ids)
        bar.update()
    return _objects(scene, seen)


def _draw_youtube_valid(
    folder: Path, settings: SyntheticSettings, rng: np.random.Generator, index: int, bar: tqdm
) -> dict[str, dict]:
    """Draw a clip whose objects enter at different frames. Return its objects for meta.json.

    In every second clip the last object enters late, and ids have gaps in the others. In every third clip no object
    enters before the second annotated frame.
    """
    with_late = index % 2 == 0 and settings.max_objects > 1
    count = int(rng.integers(1 + with_late, settings.max_objects + 1))
    labels = list(range(1, count + 1))
    if index % 2:
        labels = sorted((rng.choice(3 * count, count, replace=False) + 1).tolist())
    annotated = range(0, settings.frames, ANNOTATED_EVERY)
    newcomers = [label for label in labels[1:] if rng.random() < 0.25 or (with_late and label == labels[-1])]
    arrival = {label: ANNOTATED_EVERY * _arrival(rng, len(annotated)) for label in newcomers}
    late = {label: t * _YOUTUBE_PACE for label, t in arrival.items()}
    scene = Scene(rng, settings.height, settings.width, settings.frames * _YOUTUBE_PACE, labels, late)
    start = ANNOTATED_EVERY if index % 3 == 1 else 0
    known: dict[int, list[str]] = {}
    for t in range(settings.frames):
        frame, ids = scene.frame(t * _YOUTUBE_PACE)
        name = f"{clip_name('youtube_valid', index)}/{t:05d}"
        _write_frame(folder / "all_frames/valid_all_frames", name, frame)
        bar.update()
        if t not in annotated:
            continue
        _write_frame(folder / "valid", name, frame)
        visible = [label for label in labels if t >= start and (ids == label).mean() >= LEAST_AREA / 4]
        new = [label for label in visible if label not in known and t >= min(arrival.get(label, 0), ANNOTATED_EVERY)]
        known |= {label: [f"{later:05d}" for later in annotated if later >= t] for label in new}
        if new:
            _write_ids(folder / "valid", name, ids * np.isin(ids, new))
    return _objects(scene, known)


def _arrival(rng: np.random.Generator, count: int) -> int:
    """Return which of ``count`` annotated frames, from the second on, is the first one of an object that is late."""
    return int(rng.integers(1, max(2, count * 2 // 3)))


def _objects(scene: Scene, frames: dict[int, list[str]]) -> dict[str, dict]:
    """Return the entry of meta.json for the objects of a clip: categories and frames by id."""
    kinds = {actor.label: actor.kind for actor in scene.actors}
    return {str(label): {"category": kinds[label], "frames": frames[label]} for label in sorted(frames)}


def _write_lists(root: Path, settings: SyntheticSettings, meta: dict[str, dict]) -> None:
    """Write DAVIS's lists of clips, and YouTube-VOS's meta.json."""
    for kind, half, split in (
        ("davis_train", "trainval", "train"), ("davis_val", "trainval", "val"), ("davis_test", "test-dev", "test-dev"),
    ):  # fmt: skip
        if names := [clip_name(kind, index) for index in range(getattr(settings, kind))]:
            lists = root / "DAVIS/2017" / half / "ImageSets"
            _once(lists / f"2017/{split}.txt", write_lines, names)
            if half == "trainval":  # the clips of DAVIS 2016 are some of those of DAVIS 2017
                _once(lists / f"2016/{split}.txt", write_lines, names[::2])
    for kind, folders in (("youtube_train", ("train", "train_480p")), ("youtube_valid", ("valid",))):
        for folder in folders if meta[kind] else ():
            _once(root / "YouTube" / folder / "meta.json", write_text, json.dumps({"videos": meta[kind]}))
