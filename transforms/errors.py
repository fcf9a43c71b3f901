"""The errors that Brötchen shows to its users.

Every error says what is wrong, where, and what to do about it. The command line prints the message alone; a
traceback appears only with `--debug`.
"""

import difflib
import re
import unicodedata
from collections.abc import Iterable

# Line ends and tabs, the characters that join or do not join their neighbours, and the soft hyphen.
_HARMLESS = frozenset("\n\t\u200c\u200d\u00ad")
# The address of a request, whose query may permit it; urllib3 logs addresses without the server.
_ADDRESS = re.compile(
    r"""(?ix) (https?://) (?: [^\s/?#'"<>]* @ )? ([^\s?#'"<>]*) ([?#][^\s'"<>]*)?
        | \b((?:GET|HEAD|OPTIONS|PATCH|POST|PUT|DELETE)\ ) (/[^\s?#'"<>]*) ([?#][^\s'"<>]*)"""
)
_SHOWN_CHARACTERS = 300
_CONTROLS = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


class BroetchenError(Exception):
    """The job failed: a source is short, a file is damaged, an output is not what its manifest says."""

    exit_code = 1


class UnreachableError(BroetchenError):
    """A service on the network does not answer."""


class UsageError(BroetchenError):
    """The command line or the config is wrong; nothing was started.

    Attributes:
        key: of a section of the config, where the value of one is wrong; else empty.
    """

    exit_code = 2

    def __init__(self, message: str = "", key: str = "") -> None:
        super().__init__(message)
        self.key = key


def did_you_mean(name: str, known: Iterable[str], most: int = 1) -> str:
    """The question whether a name like it was meant; empty where none is near.

    >>> did_you_mean("txt", ["id", "text"]), did_you_mean("txt", ["id"])
    ('did you mean text?', '')
    """
    near = difflib.get_close_matches(name, [*known], n=most)
    return f"did you mean {' or '.join(near)}?" if near else ""


def listed(names: Iterable[object], most: int = 10) -> str:
    """Names one after the other, but not too many of them.

    >>> listed("abcd", most=2)
    'a, b and 2 more'
    """
    shown = [str(name) for name in names]
    rest = len(shown) - most
    return ", ".join(shown[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def without_controls(text: str) -> str:
    """Text as a terminal may have it: characters that steer it, turn the direction of text or break a line are escaped.

    >>> without_controls("a\\x1b[31m\\u202eb\\tö")
    'a\\\\u001b[31m\\\\u202eb\\tö'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        f"\\u{ord(character):04x}"
        if character not in _HARMLESS and unicodedata.category(character) in _CONTROLS
        else character
        for character in text
    )


def without_secrets(text: str) -> str:
    """Text whose web addresses have neither user nor query, by which some of them are signed.

    >>> without_secrets("503 for 'https://me:pass@store.example/a/b?Signature=c&Expires=9' (GET /a?upload_id=7)")
    "503 for 'https://store.example/a/b?…' (GET /a?…"
    """
    return _ADDRESS.sub(
        lambda found: "".join((found[1] or found[4], found[2] or found[5] or "", "?…" if found[3] or found[6] else "")),
        text,
    )


def one_line(error: object) -> str:
    """A library's message on one line, without control characters and `without_secrets`, to be put into one of ours.

    >>> one_line("bad page\\n  header \\x00")
    'bad page header ?'
    """
    text = without_secrets(" ".join(str(error).split()))
    return "".join(character if character.isprintable() else "?" for character in text)


def last_line(text: str) -> str:
    """The last line that says something, short enough to be read: tracebacks end with the error.

    >>> last_line("Traceback …\\n  File …\\nValueError: boom [while running 'Map']\\n>\\n")
    'ValueError: boom'
    """
    lines = [line for line in text.splitlines() if re.search(r"\w", line)]
    line = one_line(re.sub(r" \[while running '[^']*'\]", "", lines[-1])) if lines else ""
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[: _SHOWN_CHARACTERS - 1]}…"
