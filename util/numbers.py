"""Numbers on command lines: the ``type`` functions of argparse that all scripts share.

argparse ends a script with exit code 2 and the message of the `argparse.ArgumentTypeError`, after the name of the flag.
"""

import argparse
import math


def positive(text: str) -> int:
    """A whole number from 1 on."""
    return _whole(text, least=1)


def non_negative(text: str) -> int:
    """A whole number from 0 on."""
    return _whole(text, least=0)


def seed(text: str) -> int:
    """A seed of random numbers, which torch and numpy take from 0 to 2^63 - 1."""
    return _whole(text, least=0, most=2**63 - 1)


def positive_float(text: str) -> float:
    """A finite number above 0."""
    number = _finite(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no finite number above 0")
    return number


def non_negative_float(text: str) -> float:
    """A finite number from 0 on."""
    number = _finite(text)
    if not number >= 0:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no finite number from 0 on")
    return number


def _finite(text: str) -> float:
    """The number that a text stands for; NaN where the text is no finite number."""
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _whole(text: str, least: int, most: int | None = None) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least or (most is not None and number > most):
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is no whole number from {least} {'on' if most is None else f'to {most}'}"
        )
    return number
