"""The errors of the project's functions, and how a command line ends with one."""

import functools
import sys
from collections.abc import Callable


class InputError(Exception):
    """Input from outside cannot be used.

    The message is one sentence that names the file or the argument, and the remedy. Command lines print the message
    without change.
    """


def command_line(main: Callable[[], None]) -> Callable[[], None]:
    """Decorate a script's ``main``, so that an error from outside ends the script without a traceback.

    `InputError` ends the script with one line on stderr and exit code 2. So does an `OSError` about a file or folder,
    because a script cannot check in advance everything that the system may refuse. Ctrl-C ends the script with exit
    code 130.
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
