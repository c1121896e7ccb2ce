"""Flags without effect: a user who gives one expects something that does not happen."""

import argparse
from collections.abc import Iterable, Sequence, Set

from util.errors import InputError

Rule = tuple[object, Iterable[str], str]  # a condition, the flags that it leaves without effect, and why


def parse_given(
    parser: argparse.ArgumentParser, words: Sequence[str] | None = None
) -> tuple[argparse.Namespace, set[str]]:
    """Parse the command line.

    Args:
        parser: a parser without subcommands.
        words: the command line; None for that of the process.

    Returns:
        the values of all flags, and the names of those that the command line gives, even if it gives the default.
    """
    arguments = parser.parse_args(words)
    # argparse keeps a value that exists already, so only the flags of the command line replace these None.
    given = vars(parser.parse_args(words, argparse.Namespace(**dict.fromkeys(vars(arguments)))))
    return arguments, {name for name, value in given.items() if value is not None}


def refuse_without_effect(given: Set[str], rules: Iterable[Rule]) -> None:
    """Refuse a flag that another flag, or its absence, makes meaningless.

    Args:
        given: the names of the flags on the command line.
        rules: the reason of a rule goes on after "--flag has no effect".

    Raises:
        InputError: a flag has no effect; the message names both flags.
    """
    for condition, names, reason in rules:
        if condition and (found := sorted(given & set(names))):
            raise InputError(f"--{found[0]} has no effect {reason}; leave out one of them")
