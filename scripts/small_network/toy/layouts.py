"""Synthetic data sets on disk, in the layouts of static images, BL30K, YouTube-VOS and DAVIS."""

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from dataset.files.images import write_mask
from dataset.files.video import object_ids
from small_network.toy.scene import LEAST_AREA, LEAST_SPAN, Scene, random_scene
from util.errors import InputError
from util.files import atomic_path, check_settings, write_lines, write_text
from util.parallel import in_processes

STATIC_FOLDERS = ("fss", "DUTS-TR", "DUTS-TE", "ECSSD", "BIG", "HRSOD")
ANNOTATED_EVERY = 5  # distance between annotated frames in YouTube-VOS
_YOUTUBE_PACE = 0.4  # speed relative to DAVIS; it is slow because only every fifth frame is annotated
_STATIC_BATCH = 10  # number of images in one job, and in a class of FSS-1000
_LATEST_AREA = LEAST_AREA / 4  # fraction of the frame at which an object that enters late counts as visible


@dataclass(frozen=True)
class ToySettings:
    """The content of a synthetic data set. The same settings give the same bytes.

    Attributes:
        seed: determines all random choices.
        height, width: the size of the frames, in pixels.
        frames: the number of frames in a video. YouTube-VOS's training videos have this number of annotated frames,
            five apart.
        max_objects: the largest number of annotated objects in a video.
        leave: if it is above 0, the objects of BL30K and DAVIS leave the frame repeatedly, for at least this number of
            frames, and return.
        static, bl, youtube_train, ...: the number of images or videos of each kind.
    """

    seed: int = 0
    height: int = 480
    width: int = 854
    frames: int = 25
    max_objects: int = 5
    leave: int = 0
    static: int = 60
    bl: int = 4
    youtube_train: int = 6
    youtube_valid: int = 6
    davis_train: int = 6
    davis_val: int = 4
    davis_test: int = 2


def make_toy_data(root: Path | str, settings: ToySettings, workers: int = 1, progress: bool = False) -> None:
    """Write a synthetic data set. An interrupted run with the same settings is resumed.

    Args:
        root: the folder to write to.
        settings: the content of the data set.
        workers: the number of processes. With 1, no other process is started.
        progress: whether to show a progress bar on stderr.

    Raises:
        InputError: the settings are out of range, ``root`` holds other data.
    """
    root = Path(root)
    _check(settings)
    _check_settings(root, settings)
    jobs = [(kind, index) for kind in _KINDS for index in range(_jobs(settings, kind))]
    waiting = [job for job in jobs if not _finished(root, *job)]
    done = tqdm(total=len(jobs), initial=len(jobs) - len(waiting), unit="video", disable=not progress)
    with done:
        for _ in _draw_all(root, settings, waiting, workers):
            done.update()
    _write_lists(root, settings)


def video_name(kind: str, index: int) -> str:
    """Return the name of video number ``index`` of a kind."""
    return f"{kind.replace('_', '-')}-{index:05d}"


def _check(settings: ToySettings) -> None:
    limits = {
        "seed": (0, 2**63), "height": (48, 4320), "width": (48, 7680), "frames": (6, 100_000), "max_objects": (1, 20),
    }  # fmt: skip
    for name, value in asdict(settings).items():
        low, high = limits.get(name, (0, 10**6))
        if not low <= value <= high:
            raise InputError(f"--{name} {value} is out of range; choose a number from {low} to {high}")
    if settings.frames < LEAST_SPAN * settings.leave:
        raise InputError(
            f"{settings.frames} frames are too few for objects to leave and return; "
            f"raise --frames to at least {LEAST_SPAN * settings.leave}, or lower --leave {settings.leave}"
        )


def _check_settings(root: Path, settings: ToySettings) -> None:
    """Write the settings to a file in ``root``. If the file exists already, compare the settings with it."""
    note = root / "toy_data.json"
    if not note.is_file() and (root.is_file() or (root.is_dir() and any(root.iterdir()))):
        raise InputError(f"{root} holds something other than toy data; choose a new folder")
    described = asdict(settings)
    if not described["leave"]:
        del described["leave"]  # data of older versions lack this setting
    for name, found, wanted in check_settings(note, described):
        raise InputError(
            f"{root} holds toy data made with {name}={found}, not {wanted}; "
            "choose a new folder, or the settings in its toy_data.json"
        )


def _jobs(settings: ToySettings, kind: str) -> int:
    count = getattr(settings, kind)
    return -(-count // _STATIC_BATCH) if kind == "static" else count


def _record(root: Path, kind: str, index: int) -> Path:
    return root / ".toy" / kind / f"{index:05d}.json"


def _finished(root: Path, kind: str, index: int) -> bool:
    """Return whether a job is finished and all its files still exist."""
    try:
        record = json.loads(_record(root, kind, index).read_text())
        return all((root / name).is_file() for name in record["files"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _draw_all(root: Path, settings: ToySettings, jobs: list[tuple[str, int]], workers: int) -> Iterator[None]:
    if workers <= 1 or len(jobs) <= 1:
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)  # more threads are not faster for pictures of this size
        try:
            for job in jobs:
                yield _run(root, settings, job)
        finally:
            cv2.setNumThreads(threads)
        return
    yield from in_processes(functools.partial(_run, root, settings), jobs, workers)


def _run(root: Path, settings: ToySettings, job: tuple[str, int]) -> None:
    """Draw one video or one batch of images, and write a record of its files."""
    kind, index = job
    files, objects = _KINDS[kind][1](root, settings, index)
    record = {"files": sorted(path.relative_to(root).as_posix() for path in files), "objects": objects}
    write_text(_record(root, kind, index), json.dumps(record))


def _rng(settings: ToySettings, kind: str, index: int) -> np.random.Generator:
    """Return the generator that makes all random choices of a video. Every video has a seed of its own."""
    return np.random.default_rng([settings.seed, _KINDS[kind][0], index])


class _Video:
    """Writes the files of one video and remembers their paths."""

    def __init__(self, name: str, quality: int) -> None:
        self.files: list[Path] = []
        self._name, self._quality = name, quality

    def image(self, folder: Path, index: int, frame: np.ndarray) -> None:
        self.files.append(write_jpeg(folder / self._name / f"{index:05d}.jpg", frame, self._quality))

    def mask(self, folder: Path, index: int, ids: np.ndarray) -> None:
        path = folder / self._name / f"{index:05d}.png"
        write_mask(path, ids)
        self.files.append(path)


def write_jpeg(path: Path, frame: np.ndarray, quality: int) -> Path:
    """Write a uint8 BGR frame [H,W,3] as a JPEG file with this quality (0 to 100). Return ``path``."""
    data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())
    return path


def _draw_static(root: Path, settings: ToySettings, batch: int) -> tuple[list[Path], dict]:
    files = []
    for index in range(batch * _STATIC_BATCH, min(settings.static, (batch + 1) * _STATIC_BATCH)):
        rng = _rng(settings, "static", index)
        scene = random_scene(rng, settings.height, settings.width, 1, [1])
        frame, ids = scene.frame(0)
        number, place = divmod(index, len(STATIC_FOLDERS))
        folder = root / "static" / STATIC_FOLDERS[place]
        if place == 0:
            stem = folder / f"class{number // _STATIC_BATCH:04d}" / f"{number % _STATIC_BATCH + 1}"
        else:
            stem = folder / f"{index:06d}"
        files.append(write_jpeg(stem.with_suffix(".jpg"), frame, int(rng.integers(75, 96))))
        with atomic_path(stem.with_suffix(".png")) as temporary:
            Image.fromarray(ids * np.uint8(255)).save(temporary)
        files.append(stem.with_suffix(".png"))
    return files, {}


def _draw_bl(root: Path, settings: ToySettings, index: int) -> tuple[list[Path], dict]:
    return _draw_dense(root / "BL30K", root / "BL30K", settings, "bl", index)


def _draw_davis(kind: str) -> Callable[[Path, ToySettings, int], tuple[list[Path], dict]]:
    half = "test-dev" if kind == "davis_test" else "trainval"

    def draw(root: Path, settings: ToySettings, index: int) -> tuple[list[Path], dict]:
        base = root / "DAVIS" / "2017" / half
        return _draw_dense(base, base, settings, kind, index, "480p", first_only=half == "test-dev")

    return draw


def _draw_dense(
    images: Path, masks: Path, settings: ToySettings, kind: str, index: int, level: str = "", first_only: bool = False
) -> tuple[list[Path], dict]:
    """Draw a video with a mask for every frame, or for the first frame only."""
    rng = _rng(settings, kind, index)
    labels = range(1, 1 + int(rng.integers(1, settings.max_objects + 1)))
    size = (settings.height, settings.width)
    scene = random_scene(rng, *size, settings.frames, labels, leave=settings.leave)
    video = _Video(video_name(kind, index), int(rng.integers(80, 96)))
    for t in range(settings.frames):
        frame, ids = scene.frame(t)
        video.image(images / "JPEGImages" / level, t, frame)
        if t == 0 or not first_only:
            video.mask(masks / "Annotations" / level, t, ids)
    return video.files, {}


def _draw_youtube_train(root: Path, settings: ToySettings, index: int) -> tuple[list[Path], dict]:
    """Draw a video with a mask for every frame. Some objects appear late."""
    rng = _rng(settings, "youtube_train", index)
    labels = _labels(rng, int(rng.integers(1, settings.max_objects + 1)), gaps=False)
    step = ANNOTATED_EVERY * _YOUTUBE_PACE
    late = {label: step * _arrival(rng, settings.frames) for label in labels[1:] if rng.random() < 0.25}
    scene = random_scene(rng, settings.height, settings.width, settings.frames * step, labels, late)
    video = _Video(video_name("youtube_train", index), int(rng.integers(80, 96)))
    seen: dict[int, list[str]] = {label: [] for label in labels}
    for number in range(settings.frames):
        frame, ids = scene.frame(number * step)
        t = number * ANNOTATED_EVERY
        video.image(root / "YouTube/train/JPEGImages", t, frame)
        video.mask(root / "YouTube/train/Annotations", t, ids)
        for label in object_ids(ids):
            seen[label].append(f"{t:05d}")
        small = min(1.0, 480 / min(ids.shape))
        if small < 1:
            frame = cv2.resize(frame, None, fx=small, fy=small, interpolation=cv2.INTER_AREA)
            ids = cv2.resize(ids, frame.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        video.image(root / "YouTube/train_480p/JPEGImages", t, frame)
        video.mask(root / "YouTube/train_480p/Annotations", t, ids)
    return video.files, _objects(scene, seen)


def _draw_youtube_valid(root: Path, settings: ToySettings, index: int) -> tuple[list[Path], dict]:
    """Draw a video whose objects enter at different frames.

    In every second video the last object enters late. In every third video no object enters before the second annotated
    frame.
    """
    rng = _rng(settings, "youtube_valid", index)
    with_late = index % 2 == 0 and settings.max_objects > 1
    labels = _labels(rng, int(rng.integers(1 + with_late, settings.max_objects + 1)), gaps=index % 2 == 1)
    annotated = range(0, settings.frames, ANNOTATED_EVERY)
    newcomers = [label for label in labels[1:] if rng.random() < 0.25 or (with_late and label == labels[-1])]
    arrival = {label: ANNOTATED_EVERY * _arrival(rng, len(annotated)) for label in newcomers}
    late = {label: t * _YOUTUBE_PACE for label, t in arrival.items()}
    scene = random_scene(rng, settings.height, settings.width, settings.frames * _YOUTUBE_PACE, labels, late)
    video = _Video(video_name("youtube_valid", index), int(rng.integers(80, 96)))
    start = ANNOTATED_EVERY if index % 3 == 1 else 0
    known: dict[int, list[str]] = {}
    for t in range(settings.frames):
        frame, ids = scene.frame(t * _YOUTUBE_PACE)
        video.image(root / "YouTube/all_frames/valid_all_frames/JPEGImages", t, frame)
        if t not in annotated:
            continue
        video.image(root / "YouTube/valid/JPEGImages", t, frame)
        new = []
        for label in labels:
            earliest = max(start, ANNOTATED_EVERY * (label in arrival))
            if label not in known and t >= earliest and (ids == label).mean() >= _LATEST_AREA:
                known[label] = [f"{later:05d}" for later in annotated if later >= t]
                new.append(label)
        if new:
            video.mask(root / "YouTube/valid/Annotations", t, ids * np.isin(ids, new))
        if known:
            video.mask(root / "YouTube/valid_gt/Annotations", t, ids * np.isin(ids, list(known)))
    return video.files, _objects(scene, known)


def _arrival(rng: np.random.Generator, count: int) -> int:
    """Return which of ``count`` annotated frames, from the second on, is the first one of an object that is late."""
    return int(rng.integers(1, max(2, count * 2 // 3)))


def _objects(scene: Scene, frames: dict[int, list[str]]) -> dict[str, dict]:
    """Return the entry of meta.json for the objects of a video: categories and frames by id."""
    kinds = {actor.label: actor.picture.kind for actor in scene.actors}
    return {str(label): {"category": kinds[label], "frames": frames[label]} for label in sorted(frames)}


def _labels(rng: np.random.Generator, count: int, gaps: bool) -> list[int]:
    """Return object ids in order: 1 to ``count``, or with ``gaps`` a random choice from 1 to 3·``count``."""
    if not gaps:
        return list(range(1, count + 1))
    return sorted((rng.choice(3 * count, count, replace=False) + 1).tolist())


def _write_lists(root: Path, settings: ToySettings) -> None:
    """Write the files that list the videos: DAVIS's image sets and YouTube-VOS's meta.json."""
    for kind, half, split in (
        ("davis_train", "trainval", "train"), ("davis_val", "trainval", "val"), ("davis_test", "test-dev", "test-dev"),
    ):  # fmt: skip
        names = [video_name(kind, index) for index in range(getattr(settings, kind))]
        if names:
            sets = root / "DAVIS" / "2017" / half / "ImageSets"
            write_lines(sets / "2017" / f"{split}.txt", names)
            if half == "trainval":  # the videos of DAVIS 2016 are some of those of DAVIS 2017
                write_lines(sets / "2016" / f"{split}.txt", names[::2])
    for kind, folders in (("youtube_train", ("train", "train_480p")), ("youtube_valid", ("valid", "valid_gt"))):
        videos = {}
        for index in range(getattr(settings, kind)):
            record = json.loads(_record(root, kind, index).read_text())
            videos[video_name(kind, index)] = {"objects": record["objects"]}
        for folder in folders if videos else ():
            write_text(root / "YouTube" / folder / "meta.json", json.dumps({"videos": videos}))


# The kinds of data. Each has a number that is part of its seeds, and a function that draws one job.
_KINDS: dict[str, tuple[int, Callable[[Path, ToySettings, int], tuple[list[Path], dict]]]] = {
    "static": (1, _draw_static),
    "bl": (2, _draw_bl),
    "youtube_train": (3, _draw_youtube_train),
    "youtube_valid": (4, _draw_youtube_valid),
    "davis_train": (5, _draw_davis("davis_train")),
    "davis_val": (6, _draw_davis("davis_val")),
    "davis_test": (7, _draw_davis("davis_test")),
}
