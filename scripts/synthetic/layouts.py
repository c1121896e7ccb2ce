"""Synthetic data sets on disk, in the layouts of static images, BL30K, YouTube-VOS and DAVIS."""

import json
import shutil
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
from util.files import atomic_folder, atomic_path, check_settings, write_lines, write_text

STATIC_FOLDERS = ("fss", "DUTS-TR", "DUTS-TE", "ECSSD", "BIG", "HRSOD")
ANNOTATED_EVERY = 5  # distance between annotated frames in YouTube-VOS
_YOUTUBE_PACE = 0.4  # speed relative to DAVIS; it is slow because only every fifth frame is annotated
_CLASS = 10  # images in a class of FSS-1000
_JPEG_QUALITY = 90
_MOST_OBJECTS = 20
# The kinds of data. The place of a kind is part of the random seeds of its clips.
KINDS = ("static", "bl", "youtube_train", "youtube_valid", "davis_train", "davis_val")


@dataclass(frozen=True)
class SyntheticSettings:
    """The content of a synthetic data set, as the flags of scripts/make_synthetic.py describe it.

    The same settings give the same bytes.
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


def make_synthetic(root: Path | str, settings: SyntheticSettings, progress: bool = False) -> None:
    """Write a synthetic data set. The folder appears when it is complete; if it is there already, it is kept."""
    root = Path(root).resolve()
    _check(settings)
    note = root / "synthetic.json"
    if note.is_file():
        for name, found, wanted in check_settings(note, asdict(settings)):
            raise InputError(
                f"{root} holds synthetic clips made with {name}={found}, not {wanted}; choose a new folder"
            )
        return
    if root.is_file() or (root.is_dir() and any(root.iterdir())):
        raise InputError(f"{root} holds something other than synthetic clips; choose a new folder")
    jobs = [(kind, index) for kind in KINDS for index in range(getattr(settings, kind))]
    objects: dict[str, dict[str, dict]] = {}  # of each clip of YouTube-VOS
    with atomic_folder(root) as folder:
        for kind, index in tqdm(jobs, unit="clip", disable=not progress):
            rng = np.random.default_rng([settings.seed, 1 + KINDS.index(kind), index])
            if kind == "static":
                _draw_image(folder / "static", settings, rng, index)
            elif kind.startswith("youtube"):
                objects[clip_name(kind, index)] = _draw_youtube(folder / "YouTube", settings, rng, kind, index)
            else:
                _draw_dense(folder, settings, rng, kind, index)
        _write_lists(folder, settings, objects)
        check_settings(folder / note.name, asdict(settings))


def clip_name(kind: str, index: int) -> str:
    """Return the name of clip number ``index`` of a kind."""
    return f"{kind.replace('_', '-')}-{index:05d}"


def write_jpeg(path: Path, frame: np.ndarray, quality: int) -> None:
    """Write a uint8 BGR frame [H,W,3] as a JPEG file with this quality (0 to 100)."""
    data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())


def _check(settings: SyntheticSettings) -> None:
    if min(settings.height, settings.width) < 48 or not 1 <= settings.max_objects <= _MOST_OBJECTS:
        raise InputError(
            f"clips have 48×48 pixels at least, and 1 to {_MOST_OBJECTS} objects; change --height, --width or "
            "--max_objects"
        )
    if not any(getattr(settings, kind) for kind in KINDS):
        raise InputError(f"all numbers of clips are 0; give at least one of {', '.join(f'--{kind}' for kind in KINDS)}")
    if settings.frames < (least := max(6, LEAST_SPAN * settings.leave)):
        raise InputError(f"--frames {settings.frames} are too few; give {least} or more, or lower --leave")


def _write_frame(folder: Path, name: str, frame: np.ndarray, ids: np.ndarray | None) -> None:
    write_jpeg(folder / "JPEGImages" / f"{name}.jpg", frame, _JPEG_QUALITY)
    if ids is not None:
        write_mask(folder / "Annotations" / f"{name}.png", ids)


def _draw_image(folder: Path, settings: SyntheticSettings, rng: np.random.Generator, index: int) -> None:
    frame, ids = Scene(rng, settings.height, settings.width, 1, [1]).frame(0)
    number, place = divmod(index, len(STATIC_FOLDERS))
    name = f"class{number // _CLASS:04d}/{number % _CLASS + 1}" if place == 0 else f"{index:06d}"
    stem = folder / STATIC_FOLDERS[place] / name
    write_jpeg(stem.with_suffix(".jpg"), frame, _JPEG_QUALITY)
    Image.fromarray(ids * np.uint8(255)).save(stem.with_suffix(".png"))


def _labels(rng: np.random.Generator, settings: SyntheticSettings) -> range:
    return range(1, 1 + int(rng.integers(1, settings.max_objects + 1)))


def _draw_dense(root: Path, settings: SyntheticSettings, rng: np.random.Generator, kind: str, index: int) -> None:
    """Draw a clip of BL30K or DAVIS, with a mask for every frame."""
    folder, level = (root / "BL30K", "") if kind == "bl" else (root / "DAVIS/2017/trainval", "480p/")
    labels = _labels(rng, settings)
    scene = Scene(rng, settings.height, settings.width, settings.frames, labels, leave=settings.leave)
    for t in range(settings.frames):
        frame, ids = scene.frame(t)
        _write_frame(folder, f"{level}{clip_name(kind, index)}/{t:05d}", frame, ids)


def _draw_youtube(
    folder: Path, settings: SyntheticSettings, rng: np.random.Generator, kind: str, index: int
) -> dict[str, dict]:
    """Draw a clip in which objects appear late. Return its objects for meta.json: categories and frames by id.

    Training clips have masks for all frames. Validation clips have one for every fifth frame in which an object is new,
    and the frames between are in a folder of their own.
    """
    is_train = kind == "youtube_train"
    numbers = range(0, settings.frames * ANNOTATED_EVERY if is_train else settings.frames, ANNOTATED_EVERY)
    labels = _labels(rng, settings)
    newcomers = [label for label in labels[1:] if label == labels[-1] or rng.random() < 0.25]
    arrivals = numbers[1 : max(2, len(numbers) * 2 // 3)]
    late = {label: _YOUTUBE_PACE * int(rng.choice(arrivals)) for label in newcomers}
    scene = Scene(rng, settings.height, settings.width, numbers.stop * _YOUTUBE_PACE, labels, late)
    seen: dict[int, list[str]] = {}
    for t in numbers if is_train else range(settings.frames):
        frame, ids = scene.frame(t * _YOUTUBE_PACE)
        name = f"{clip_name(kind, index)}/{t:05d}"
        if is_train:
            for label in object_ids(ids):
                seen.setdefault(label, []).append(f"{t:05d}")
            _write_frame(folder / "train", name, frame, ids)
            continue
        _write_frame(folder / "all_frames/valid_all_frames", name, frame, None)
        if t in numbers:
            new = [label for label in labels if label not in seen and (ids == label).mean() >= LEAST_AREA / 4]
            seen |= {label: [f"{later:05d}" for later in numbers if later >= t] for label in new}
            _write_frame(folder / "valid", name, frame, ids * np.isin(ids, new) if new else None)
    kinds = {actor.label: actor.kind for actor in scene.actors}
    return {str(label): {"category": kinds[label], "frames": seen[label]} for label in sorted(seen)}


def _write_lists(root: Path, settings: SyntheticSettings, objects: dict[str, dict[str, dict]]) -> None:
    """Write DAVIS's lists of clips, YouTube-VOS's meta.json, and the small copies of its training clips."""
    for split in ("train", "val"):
        count = getattr(settings, f"davis_{split}")
        if names := [clip_name(f"davis_{split}", index) for index in range(count)]:
            lists = root / "DAVIS/2017/trainval/ImageSets"
            write_lines(lists / f"2017/{split}.txt", names)
            write_lines(lists / f"2016/{split}.txt", names[::2])  # the clips of DAVIS 2016 are some of those of 2017
    for half in ("train", "valid"):
        if videos := {name: {"objects": each} for name, each in objects.items() if name.startswith(f"youtube-{half}")}:
            write_text(root / "YouTube" / half / "meta.json", json.dumps({"videos": videos}))
    if settings.youtube_train and min(settings.height, settings.width) <= 480:
        shutil.copytree(root / "YouTube/train", root / "YouTube/train_480p")
