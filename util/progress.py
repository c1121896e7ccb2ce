"""Progress bars for long work."""

import sys

import progressbar


def progress_bar(total: int, done: int = 0) -> progressbar.ProgressBar | None:
    """Return a progress bar for work that also prints lines; None if stderr is not a terminal.

    Args:
        total: the number of steps.
        done: the number of steps that are finished already.
    """
    if not sys.stderr.isatty():
        return None
    return progressbar.ProgressBar(max_value=total, initial_value=done, redirect_stdout=True)
