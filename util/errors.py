"""What a command line does when it is given something it cannot use."""

import functools
import sys
from collections.abc import Callable


class InputError(Exception):
    """Input from outside cannot be used.

    The message is one sentence that names the file (or flag) and the remedy; command lines print it as it is.
    """


def command_line(main: Callable[[], None]) -> Callable[[], None]:
    """Decorate a script's ``main``: `InputError` ends it with one line on stderr and exit code 2, Ctrl-C with 130.

    So do files and folders that the system refuses, which nobody can ask for in advance.
    """

    @functools.wraps(main)
    def run() -> None:
        try:
            main()
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        except OSError as error:
            if error.filename is None:
                raise
            print(f"error: {error.filename} cannot be used ({error.strerror}); choose another one", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("interrupted; run the same command again to go on", file=sys.stderr)
            sys.exit(130)

    return run
