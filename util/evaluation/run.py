"""What the evaluation scripts share: segmenting, scoring and drawing the videos of a data set."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from dataset.files.masks import described
from dataset.files.video import Video
from model.network import RDE_VOS
from util.device import choose_device, device_name, enough_memory, peak_memory
from util.distributed import Processes
from util.evaluation.arguments import MEMORY_REMEDY, network_notes
from util.evaluation.output import OutputFolder
from util.evaluation.pictures import draw_video
from util.evaluation.protocols import Evaluation
from util.evaluation.scoring import score_plans
from util.evaluation.segmentation import EngineSettings, Throughput, engine_network, input_size, segment
from util.progress import frames_bar


def segment_videos(
    evaluation: Evaluation, output: OutputFolder, processes: Processes, settings: EngineSettings, *,
    model: Path, device: str, amp: bool, compiled: bool,
) -> None:  # fmt: skip
    """Segment the videos of a data set into an output folder, and print speed and peak memory.

    All input is checked before the first video is segmented. Every process has to call this function.

    Args:
        processes: the videos are distributed over these processes.
        device: the name of the device, or "auto"; see `util.device.choose_device`.
        amp, compiled: see `util.evaluation.segmentation.engine_network`.

    Raises:
        InputError: the data, the network or the settings are invalid, or the folder holds other results.
    """
    notes = [*evaluation.notes, *evaluation.check(progress=processes.is_main)]
    chosen = choose_device(device)
    if processes.is_main:
        for note in [*network_notes(model, chosen, amp=amp), *(f"note: {note}" for note in notes)]:
            print(note)
        for line in given_masks(evaluation.videos):
            print(line)
    network = engine_network(model, chosen, amp, compiled=compiled)
    settings.check(network)
    for video in evaluation.videos:
        input_size(video, settings.size)  # before the first one is segmented
    described = {**evaluation.settings, **asdict(settings), "amp": amp}
    described |= {"compile": True} if compiled else {}  # older folders have no such setting
    output.check_settings(model, evaluation.data, processes, **described)
    with enough_memory(MEMORY_REMEDY):
        speed = evaluate(
            network, evaluation.videos, output, settings, processes, confidence=evaluation.states_confidence
        )
    memory = peak_memory(chosen)
    if processes.is_main:
        print(f"FPS         {speed.text(chosen)}")
        print(f"peak memory {memory / 2**30:.3f} GiB ({chosen})")
        if evaluation.states_confidence:
            output.write_confidence(evaluation.videos)


def evaluate(
    network: RDE_VOS, videos: Sequence[Video], output: OutputFolder, settings: EngineSettings, processes: Processes,
    *, confidence: bool = False,
) -> Throughput:  # fmt: skip
    """Segment videos into an output folder, distributed over the processes.

    Finished videos are skipped, so an interrupted run resumes. A video is segmented again if its given masks or its
    frames have changed.

    Args:
        processes: the processes; each of them has to call this function.
        confidence: whether to record the confidence in each object, too.

    Returns:
        the throughput over all videos, including those of earlier runs and other processes.
    """
    unfinished = [video for video in videos if not output.is_current(video)]
    for video in unfinished if processes.is_main else ():
        if output.is_finished(video):
            print(f"note: the frames of {video.name} have been replaced since it was segmented, so it is done again")
    processes.wait()  # until every process has found the same unfinished videos
    # Longest videos first, in turns, so that all processes finish at about the same time.
    mine = sorted(unfinished, key=lambda video: -video.last)[processes.rank :: processes.count]
    if mine:
        with frames_bar(sum(len(video.results) for video in mine)) as bar:
            for number, video in enumerate(mine, start=1):
                bar.update(name=f"video {number}/{len(mine)} {video.name}")
                core = settings.core(network)
                with output.writing(video, device_name(network.device)) as write:
                    for result in segment(core, video, settings.size, confidence=confidence):
                        write(result)
                        bar.increment()
    processes.wait()
    return output.throughput(videos)


def given_masks(videos: Sequence[Video], most: int = 20) -> Iterator[str]:
    """Describe the first ``most`` given masks, a line for each, with notes for the user and the number of masks."""
    masks = [(video, number) for video in videos for number in sorted(video.masks)]
    for video, number in masks[:most]:
        yield described(f"{video.name}/{video.masks[number].name}", video.read_given_mask(number))
    for video in videos:
        yield from (f"note: {note}" for note in (video.reader.notes if video.reader else ()))
    if len(masks) > most:
        yield f"... and {len(masks) - most} more masks; {len(videos)} videos in all"


def score_and_draw(evaluation: Evaluation, output: OutputFolder, *, overlay: bool) -> None:
    """Score the masks in an output folder if there is ground truth, and draw overlays on request.

    Args:
        overlay: whether to draw ``overlay/<video>/<frame>.jpg`` and a contact sheet ``overlay/<video>.jpg``.
    """
    scores = {}
    if evaluation.truth:
        scored = score_plans(evaluation.plans, output.masks, progress=True)
        evaluation.write(scored, output.path)
        if evaluation.truth_paths:
            output.record_truth(**evaluation.truth_paths)
        print(evaluation.text(scored))
        scores = {score.name: score for score in scored}
    if overlay:
        for video in tqdm(evaluation.videos, desc="drawing", unit="video", disable=None):
            draw_video(video, output.masks / video.name, output.path / "overlay", scores.get(video.name))
