"""Segmentation of a camera or a stream as it comes, until Ctrl-C."""

import contextlib
import csv
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from dataset.files.given_masks import find_masks, read_given
from dataset.files.stream import Stream
from dataset.files.video import check_mask_sizes
from model.network import RDE_VOS
from segmenting.run import segment_frames
from util.errors import InputError
from util.evaluation.confidence import COLUMNS, frame_rows, table
from util.evaluation.segmentation import EngineSettings, Segmented, Throughput


@contextlib.contextmanager
def stopped_by_signals(stream: Stream) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM stop a stream. A second signal ends the process as usual."""
    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in earlier.items():
            signal.signal(number, handler)

    def stop(number: int, frame: object) -> None:
        stream.stop()
        # print is not safe in a handler.
        os.write(2, b"\nnote: the stream ends; the frames that have been read are still segmented\n")
        restore()

    for number in earlier:
        signal.signal(number, stop)
    try:
        yield
    finally:
        restore()


def give_first_mask(stream: Stream, given: Sequence[Path]) -> None:
    """Give a stream the mask of its first frame, or a mask for each object of it."""
    check_mask_sizes(find_masks(given), stream.size, stream.name)
    assigned, reader = read_given(given, "")
    if later := max(assigned):
        raise InputError(
            f"{assigned[later]} is named after frame {later}, but a stream takes a mask of its first frame only; give "
            "one mask, and name it 00000.png"
        )
    stream.masks, stream.reader = assigned, reader


def segment_stream(
    stream: Stream,
    network: RDE_VOS,
    settings: EngineSettings,
    confidence: Path,
    write: Callable[[int, np.ndarray, np.ndarray], None],
) -> Throughput:
    """Segment a stream until it ends or is stopped, and write the results of each frame as it comes.

    Args:
        confidence: the CSV file for the confidences.
        write: takes the number of a frame, the frame and its mask.
    """
    with open(confidence, "w", encoding="utf-8", newline="") as file, stopped_by_signals(stream):
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)

        def save(result: Segmented) -> None:
            rows.writerows(table(stream, frame_rows(result.number, result.ids, result.confidence)))
            file.flush()
            write(result.number, result.image, result.ids)
            del stream.steps[result.number]

        ahead = 0 if stream.is_live else 4
        return segment_frames(stream, network, settings, save, name=stream.name, ahead=ahead)
