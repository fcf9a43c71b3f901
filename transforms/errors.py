"""The errors that Brötchen shows to its users.

Every error says what is wrong, where, and what to do about it. The command line prints the message alone; a
traceback appears only with `--debug`.
"""

from collections.abc import Iterable


class BroetchenError(Exception):
    """The job failed: a source is short, a file is damaged, an output is not what its manifest says."""

    exit_code = 1


class UsageError(BroetchenError):
    """The command line or the config is wrong; nothing was started."""

    exit_code = 2


def listed(names: Iterable[object], most: int = 10) -> str:
    """Names one after the other, but not too many of them.

    >>> listed("abcd", most=2)
    'a, b and 2 more'
    """
    shown = [str(name) for name in names]
    rest = len(shown) - most
    return ", ".join(shown[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def one_line(error: object) -> str:
    """A library's message on one line and without control characters, to be put into one of ours.

    >>> one_line("bad page\\n  header \\x00")
    'bad page header ?'
    """
    return "".join(character if character.isprintable() else "?" for character in " ".join(str(error).split()))
