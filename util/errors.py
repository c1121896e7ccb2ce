"""The errors of the project's functions, and how a command line ends with one."""

import contextlib
import functools
import io
import json
import multiprocessing
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn


class InputError(Exception):
    """Input from outside cannot be used.

    The message is one sentence that names the file or the argument, and the remedy. Command lines print the message
    without change.
    """


def listed(names: Sequence[str]) -> str:
    """The first five names, and how many more there are, for a message."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def command_line(main: Callable[[], None]) -> Callable[[], None]:
    """Decorate a script's ``main``, so that an error from outside ends the script without a traceback.

    `InputError` ends the script with one line on stderr and exit code 2. So does an `OSError` of the system, because a
    script cannot check in advance everything that the system may refuse. Ctrl-C ends the script with exit code 130.
    SIGTERM ends it with 143, and its worker processes end, too. If the reader of stdout has gone, as ``head`` does, the
    script exits silently, with the exit code of SIGPIPE, 141.
    """

    @functools.wraps(main)
    def run() -> None:
        try:
            signal.signal(signal.SIGTERM, _terminate)
            for stream in (sys.stdout, sys.stderr):
                if isinstance(stream, io.TextIOWrapper):
                    stream.reconfigure(errors="backslashreplace")  # names of files need not be UTF-8
            try:
                main()
            finally:
                sys.stdout.flush()  # otherwise a failure would show only when Python ends
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            _tell_torchrun(str(error))
            sys.exit(2)
        except OSError as error:
            if error.strerror is None:  # an error of a library, not of the system
                raise
            reader_has_gone = isinstance(error, BrokenPipeError) and _reader_has_gone()
            if reader_has_gone or not _stdout_works():
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout once more
            if reader_has_gone:
                sys.exit(141)
            if error.filename is None:
                message = f"the system refused to read or write ({error.strerror}); free some disk space, and try again"
            else:
                message = f"{error.filename} cannot be used ({error.strerror}); choose another one"
            print(f"error: {message}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("interrupted; run the same command again to resume", file=sys.stderr)
            sys.exit(130)

    return run


def _terminate(number: int, frame: object) -> NoReturn:
    """End the worker processes, which Python's default would leave alone, and unwind the stack."""
    for child in multiprocessing.active_children():
        child.terminate()
    sys.exit(128 + number)


def _tell_torchrun(message: str) -> None:
    """Let torchrun end its report on failed processes with the message, which would otherwise scroll away."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        with contextlib.suppress(OSError):
            Path(path).write_text(json.dumps({"message": f"error: {message}", "timestamp": str(int(time.time()))}))


def _reader_has_gone() -> bool:
    """Whether stdout is a pipe that nobody reads; an error may also come from another pipe."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _stdout_works() -> bool:
    try:
        sys.stdout.flush()
    except OSError:
        return False
    return True
