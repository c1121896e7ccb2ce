"""How each data set is evaluated: its videos, what is scored by which ground truth, and the files of figures."""

import functools
import zipfile
from collections.abc import Collection, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from dataset.files.video import Video, frame_order
from dataset.layouts.davis import DAVIS
from dataset.layouts.folder_videos import FolderVideos
from dataset.layouts.youtube import AskedObject, YouTubeVOS, meta_path, read_meta
from util.errors import InputError, listed
from util.evaluation.metrics import nanmean
from util.evaluation.output import OutputFolder
from util.evaluation.scoring import (
    ScoringPlan,
    VideoScore,
    check_given_masks,
    check_plans,
    davis_plans,
    format_results,
    global_results,
    write_results,
)
from util.files import atomic_path, write_csv


class Evaluation:
    """The evaluation of one data set. This class has what the data sets share: J&F as means over all objects."""

    script: str  # the script that evaluates the data set
    masks_folder: str  # the subfolder of the output for the masks
    results_file: str  # the name of the file of global figures, in the output
    rule: str  # which frames are written and scored, in a sentence for the report
    title: str  # the name of the data set
    data: Path  # the folder of the data set
    settings: dict[str, object]  # everything about the data, apart from ``data``, that the masks depend on
    videos: list[Video]
    truth: Path | None  # the folder of ground truth, ``<video>/<frame>.png``
    truth_paths: dict[str, Path]  # the flags of the script that the scores depend on, by name
    notes: Sequence[str] = ()  # on the data, for the user
    plans: list[ScoringPlan]  # what is scored of each video that has ground truth, in the order of ``videos``
    flags: Collection[str]  # the flags of the script that name data, see `recorded_evaluation`
    states_confidence = False  # whether the output gets a table of the confidence in each object

    def check(self, *, progress: bool = False) -> list[str]:
        """Check, before any video is segmented, the given masks and the ground truth.

        Returns:
            notes on the ground truth for the user.
        """
        check_given_masks(self.videos)  # first, because the truth of the first frame is often the given mask
        check_plans(self.videos, self.plans, progress=progress)
        return []

    def true_mask(self, video: Video, number: int) -> Path | None:
        """The file with the true mask of a frame; None if there is none."""
        path = self.truth / video.name / video.mask_name(number) if self.truth else None
        return path if path and path.is_file() else None

    def category(self, video: str, object_id: int) -> str:
        """The category of an object, for the report; empty if the data set has none."""
        return ""

    def figures(self, scores: Sequence[VideoScore]) -> dict[str, float]:
        """The global figures, in 0..1 (decay in -1..1), by their names in the file of global figures."""
        return global_results(scores)

    def write(self, scores: Sequence[VideoScore], output: Path) -> None:
        """Write the files of figures."""
        raise NotImplementedError

    def text(self, scores: Sequence[VideoScore]) -> str:
        """The figures for a terminal."""
        return format_results(scores)


class DAVISEvaluation(Evaluation):
    """DAVIS 2016 or 2017, scored as by the official DAVIS code.

    Args:
        names: the names of the videos to evaluate; by default all of the split.
    """

    script, masks_folder, results_file = "eval_davis.py", "", "global_results-val.csv"
    flags = ("davis_path",)
    rule = "The first and the last frame of a video are not scored."

    def __init__(self, davis: DAVIS, names: Sequence[str] | None = None) -> None:
        self.videos = davis.videos(names)
        self.title = f"DAVIS {davis.year} {'test-dev' if davis.split == 'testdev' else davis.split}"
        self.data = davis.root
        self.settings = {"script": self.script, "year": davis.year, "split": davis.split}
        self.settings |= {"videos": sorted(names)} if names else {}
        self.truth = davis.annotations if davis.has_ground_truth else None
        self.truth_paths = {}

    @functools.cached_property
    def plans(self) -> list[ScoringPlan]:
        """Every object in every frame but the first and the last."""
        if self.truth is None:
            return []
        return davis_plans(self.truth, [video.name for video in self.videos], self.settings["year"] == 2016)

    def write(self, scores: Sequence[VideoScore], output: Path) -> None:
        """Write global_results-val.csv and per-sequence_results-val.csv, in the layout of DAVIS's code."""
        write_results(scores, output)


class YouTubeEvaluation(Evaluation):
    """YouTube-VOS, by the rules of its server.

    Args:
        train_meta: the list whose categories count as seen; by default the one of the training split.
    """

    script, masks_folder = "eval_youtube.py", "Annotations"
    flags = ("yv_path", "gt", "train_meta")

    def __init__(self, youtube: YouTubeVOS, truth: Path | None = None, train_meta: Path | None = None) -> None:
        self.videos = youtube.videos()
        self.title = f"YouTube-VOS {youtube.split}"
        self.results_file = f"global_results-{youtube.split}.csv"
        self.rule = (
            "An object is scored in the frames in which the server asks for it, but not in the first of them. "
            f"There are masks of {'all frames' if youtube.output_all else 'these frames only'}."
        )
        self.data = youtube.root
        self.settings = {
            "script": self.script,
            "split": youtube.split,
            "output_all": youtube.output_all,
            "all_frames": youtube.has_all_frames,
        }
        self.truth = truth
        self.truth_paths = {}
        self.notes = _youtube_notes(youtube, self.videos)
        self._youtube = youtube
        self._seen: Collection[str] = set()
        if truth:
            train_meta = train_meta or meta_path(youtube.root, "train")
            trained = read_meta(train_meta)
            self.truth_paths = {"gt": truth, "train_meta": train_meta}
            self._seen = {item.category for item in chain(*trained.values())}

    @functools.cached_property
    def plans(self) -> list[ScoringPlan]:
        """Every object in the frames in which the server asks for it, but not in the first, whose mask is given."""
        made = []
        for video, objects in self._youtube.asked.items() if self.truth else ():
            if any(item.category is None for item in objects):
                raise InputError(
                    f"meta.json lacks the category of an object of {video}, so it is unknown whether it is seen or "
                    "unseen; use a meta.json with categories, or leave out the ground truth"
                )
            frames = {frame: [item.id for item in objects if frame in item.frames[1:]] for frame in _asked(objects)}
            plan = ScoringPlan(
                self.truth / video, [item.id for item in objects], {name: ids for name, ids in frames.items() if ids}
            )
            if missing := next((path for path in map(plan.mask, plan.frames) if not path.is_file()), None):
                raise InputError(
                    f"{missing} is missing; give the folder with the ground truth of all videos, "
                    "<video>/<frame>.png, as --gt, or leave out the ground truth"
                )
            made.append(plan)
        return made

    def category(self, video: str, object_id: int) -> str:
        """The category, with ground truth also "seen" or "unseen"."""
        (category,) = (item.category for item in self._youtube.asked[video] if item.id == object_id)
        return f"{category}, {self._kind(category)}" if category and self.truth else category or ""

    def figures(self, scores: Sequence[VideoScore]) -> dict[str, float]:
        """The figures of Table 4, in 0..1.

        Returns:
            "Overall", "J_seen", "F_seen", "J_unseen", "F_unseen": the means of J and F over the objects of seen and of
            unseen categories, and Overall, the mean of these four. Figures without objects are NaN, and left out of
            Overall.
        """
        rows = [row for row in self._rows(scores) if row[4]]
        figures = {
            f"{measure}_{kind}": nanmean(np.array([row[column] for row in rows if row[3] == kind]))
            for kind in ("seen", "unseen")
            for measure, column in (("J", 5), ("F", 6))
        }
        return {"Overall": nanmean(np.array(list(figures.values()))), **figures}

    def write(self, scores: Sequence[VideoScore], output: Path) -> None:
        """Write global_results-<split>.csv, the figures of Table 4, and per-object_results-<split>.csv; in 0..1."""
        figures = self.figures(scores)
        write_csv(output / self.results_file, [list(figures), list(figures.values())])
        header = ["Video", "Object", "Category", "Kind", "Frames", "J", "F"]
        write_csv(output / f"per-object_results-{self._youtube.split}.csv", [header, *self._rows(scores)])

    def text(self, scores: Sequence[VideoScore]) -> str:
        """The figures of Table 4 in one line, in percent."""
        return "  ".join(f"{name} {100 * figure:.1f}" for name, figure in self.figures(scores).items())

    def write_submission(self, output: Path, path: Path) -> None:
        """Write the zip file for the server: the masks of all frames that the server asks for, and nothing else.

        Args:
            output: the folder that holds ``Annotations/<video>/<frame>.png``.
        """
        asked = self._youtube.asked
        names = [f"Annotations/{video}/{frame}.png" for video in asked for frame in _asked(asked[video])]
        with atomic_path(path) as temporary:
            # PNG files are compressed already.
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
                for name in names:
                    archive.write(output / name, name)
            with zipfile.ZipFile(temporary) as archive:
                if archive.testzip():
                    raise InputError(f"{path} was damaged while it was written; check the disk and run again")

    def _kind(self, category: str) -> str:
        return "seen" if category in self._seen else "unseen"

    def _rows(self, scores: Sequence[VideoScore]) -> list[list]:
        """The video, id, category, kind, number of scored frames, and mean J and F of each object."""
        return [
            [score.name, item.id, item.category, self._kind(item.category), each.frames, each.j.mean, each.f.mean]
            for score in scores
            for item, each in zip(self._youtube.asked[score.name], score.objects, strict=True)
        ]


class FolderEvaluation(Evaluation):
    """Any folder of videos, scored by the J and F of DAVIS.

    An object is scored in every frame that has ground truth, is in the results and comes after the object's first given
    mask. Frames whose given mask holds the object are not scored for it. Unlike on DAVIS the last frame is scored,
    because the ground truth may end anywhere in the video.
    """

    script, masks_folder, results_file = "eval_folder.py", "masks", "global_results.csv"
    flags = ("images", "masks", "gt")
    states_confidence = True

    def __init__(self, folder: FolderVideos, *, progress: bool = False) -> None:
        self.videos = folder.videos(progress=progress)
        self.title = "/".join(folder.images.resolve().parts[-3:]).lstrip("/")
        self.data = folder.images
        self.settings = {
            "script": self.script,
            "masks": str(folder.masks.resolve()),
            "new_only": folder.new_only,
            "every": folder.every,
            "only_gt": str(folder.truth.resolve()) if folder.only_truth else None,
        }
        written = "all frames" if folder.every == 1 else f"one frame in {folder.every}"
        self.rule = (
            "An object is scored in the frames that have ground truth and come after its first given mask. "
            f"There are masks of {'the frames with ground truth' if folder.only_truth else written}."
        )
        self.truth = folder.truth
        self.truth_paths = {"gt": folder.truth} if folder.truth else {}
        self._folder = folder
        self.notes = self._notes()

    @functools.cached_property
    def plans(self) -> list[ScoringPlan]:
        """What the class describes, for every video that has ground truth."""
        plans = []
        for video in self.videos:
            truth = self._folder.true_masks(video.name, video.frames)
            if truth:
                frames = {number: _predicted(video, number) for number in video.results if number in truth}
                named = {video.frame_name(number): ids for number, ids in frames.items() if ids}
                masks = {video.frame_name(number): path for number, path in truth.items()}
                plans.append(
                    ScoringPlan(
                        self.truth / video.name, sorted(video.entries), named, masks=masks, read=video.read_mask
                    )
                )
        if self.truth and not any(plan.frames for plan in plans):
            raise InputError(
                f"no mask in {self.truth} can be scored: each is a given mask, comes before its objects or belongs to "
                "a frame that is not written; give the truth of more frames or, if the given masks are the truth, "
                "choose --new_only"
            )
        return plans

    def true_mask(self, video: Video, number: int) -> Path | None:
        """The file with the true mask of a frame, of any format; None if there is none."""
        return self._folder.true_masks(video.name, video.frames).get(number)

    def check(self, *, progress: bool = False) -> list[str]:
        """As `Evaluation.check`. The notes name the objects that only the ground truth shows."""
        check_given_masks(self.videos)
        shown = check_plans(self.videos, self.plans, progress=progress)
        return [
            f"{plan.truth} shows object {object_id}, which no given mask shows; it is not scored"
            for plan in self.plans
            for object_id in sorted(shown[plan.truth.name] - set(plan.ids))
        ]

    def write(self, scores: Sequence[VideoScore], output: Path) -> None:
        """Write global_results.csv and per-object_results.csv."""
        figures = self.figures(scores)
        write_csv(output / self.results_file, [list(figures), list(figures.values())])
        rows = [
            [score.name, item.id, item.frames, item.j.mean, item.f.mean] for score in scores for item in score.objects
        ]
        write_csv(output / "per-object_results.csv", [["Video", "Object", "Frames", "J-Mean", "F-Mean"], *rows])

    def _notes(self) -> list[str]:
        folder, notes = self._folder, []
        rest = folder.without_masks()
        if rest:
            notes.append(f"{folder.masks} has no masks of {len(rest)} videos, which are not segmented: {listed(rest)}")
        scored = {plan.truth.name for plan in self.plans if plan.frames}
        rest = [video.name for video in self.videos if video.name not in scored]
        if folder.truth and rest:
            notes.append(f"{folder.truth} has no mask to score {len(rest)} videos by: {listed(rest)}")
        return notes


def recorded_evaluation(output: Path, **paths: Path | None) -> Evaluation:
    """The evaluation of the results in an output folder, from the settings of the evaluation script.

    Args:
        paths: flags of the evaluation script by name, each with a path or None: ``davis_path``; ``yv_path``,
            ``train_meta``; ``images``, ``masks``; ``gt``. The defaults are the paths that the script used.
    """
    folder = OutputFolder(output)
    settings = folder.settings()
    kinds = {kind.script: kind for kind in (DAVISEvaluation, YouTubeEvaluation, FolderEvaluation)}
    if not (kind := kinds.get(settings.get("script"))):
        raise InputError(
            f"{output} was not written by eval_davis.py, eval_youtube.py or eval_folder.py; give the output of one"
        )
    paths = {name: path for name, path in paths.items() if path}
    if unknown := paths.keys() - kind.flags:
        raise InputError(f"{output} was written by {kind.script}, which needs no --{min(unknown)}; leave it out")
    paths = {**folder.truth(), **paths}
    gt, data = paths.get("gt"), Path(settings["data"])
    if kind is DAVISEvaluation:
        davis = DAVIS(paths.get("davis_path", data), settings["year"], settings["split"])
        return DAVISEvaluation(davis, settings.get("videos"))
    if kind is YouTubeEvaluation:
        youtube = YouTubeVOS(paths.get("yv_path", data), settings["split"], settings["output_all"])
        return YouTubeEvaluation(youtube, gt, paths.get("train_meta"))
    only_gt = settings["only_gt"]
    videos = FolderVideos(
        paths.get("images", data),
        paths.get("masks", Path(settings["masks"])),
        gt or (Path(only_gt) if only_gt else None),
        new_only=settings["new_only"],
        every=settings["every"],
        only_truth=bool(only_gt),
    )
    return FolderEvaluation(videos)


def _predicted(video: Video, number: int) -> list[int]:
    """The ids of the objects that have entered before a frame and that no given mask of the frame shows, in order."""
    given = video.given_ids.get(number, ())
    return sorted(object_id for object_id, entry in video.entries.items() if entry < number and object_id not in given)


def _asked(objects: Sequence[AskedObject]) -> list[str]:
    """The names of the frames in which the server asks for any of the objects, in order."""
    frames = {frame for item in objects for frame in item.frames}
    return sorted(frames, key=frame_order(frames))


def _youtube_notes(youtube: YouTubeVOS, videos: Sequence[Video]) -> list[str]:
    notes = []
    if not youtube.has_all_frames:
        notes.append(f"all_frames/ is missing, so only the frames of {youtube.images} are used")
    for video in videos:
        shown = set(chain(*video.new_objects.values()))
        notes += [
            f"{youtube.annotations / video.name / item.frames[0]}.png lacks object {item.id}, which starts there; "
            "no mask will hold it"
            for item in youtube.asked[video.name]
            if item.id not in shown
        ]
    return notes
