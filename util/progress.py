"""Progress bars for long work."""

import sys

import progressbar

LINE_EVERY = 30.0  # seconds between two lines where there is no terminal


def training_bar(total: int, done: int) -> progressbar.ProgressBar | None:
    """Return a progress bar for a training, which also prints lines; None if stderr is not a terminal."""
    if not sys.stderr.isatty():
        return None
    return progressbar.ProgressBar(max_value=total, initial_value=done, redirect_stdout=True)


def frames_bar(total: int | None = None) -> progressbar.ProgressBar:
    """Return a bar over frames on stderr, for a ``with`` statement. Without a terminal it prints a line now and then.

    ``bar.update(frames, name=...)`` sets the number of finished frames and the name before the bar.

    Args:
        total: the number of frames; None if it is known only at the end.
    """
    return progressbar.ProgressBar(
        max_value=total or progressbar.UnknownLength,
        prefix="{variables.name} ",
        variables={"name": ""},
        max_error=False,  # a video file may hold more frames than it announces
        min_poll_interval=None if sys.stderr.isatty() else LINE_EVERY,
    )


def hidden(progress: bool) -> bool | None:
    """The value of tqdm's ``disable``: with ``progress`` a bar shows in terminals, and without it nowhere."""
    return None if progress else True
