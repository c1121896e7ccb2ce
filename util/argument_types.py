"""Numbers on command lines: ``type`` functions for argparse.

On an `argparse.ArgumentTypeError` argparse ends the script with exit code 2, and prints the flag and the message.
"""

import argparse
import math
from collections.abc import Callable


def positive(text: str) -> int:
    """An integer from 1 to 2^31 - 1; libraries fail on larger ones."""
    return _integer(text, minimum=1, maximum=2**31 - 1)


def non_negative(text: str) -> int:
    """An integer >= 0."""
    return _integer(text, minimum=0)


def seed(text: str) -> int:
    """A random seed. torch and numpy accept 0 to 2^63 - 1."""
    return _integer(text, minimum=0, maximum=2**63 - 1)


def positive_float(text: str) -> float:
    """A finite number > 0."""
    return _finite(text, "> 0", lambda number: number > 0)


def non_negative_float(text: str) -> float:
    """A finite number >= 0."""
    return _finite(text, ">= 0", lambda number: number >= 0)


def _finite(text: str, limits: str, is_within: Callable[[float], bool]) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and is_within(number)):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a finite number {limits}")
    return number


def _integer(text: str, minimum: int, maximum: int | None = None) -> int:
    try:
        number = int(text)
    except ValueError:
        number = minimum - 1
    if number < minimum or (maximum is not None and number > maximum):
        limits = f">= {minimum}" if maximum is None else f"from {minimum} to {maximum}"
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not an integer {limits}")
    return number
