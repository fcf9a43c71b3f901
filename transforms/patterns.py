"""Glob patterns of paths, as a shell means them, on every filesystem alike.

``*`` and ``?`` stand for characters of one name, ``[abc]`` for one of them, and ``**``, alone between two slashes, for
any number of folders. Where a name begins with a dot, only a pattern that begins with one takes it. There are no
braces. In a name that is meant as it is, ``[*]``, ``[?]`` and ``[[]`` stand for the three characters (`quoted`).
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Sequence

from transforms.errors import UsageError

ANY_FOLDERS = "**"

_QUOTED = re.compile(r"\[([*?\[])\]")
# As fnmatch takes it: a bracket that nothing closes is itself.
_WILD = re.compile(r"[*?]|\[!?\]?[^\]]*\]")
_BRACES = re.compile(r"\{[^{}]*,[^{}]*\}")


def quoted(name: str) -> str:
    """A pattern that only `name` matches.

    >>> quoted("mix[1]/a*.parquet")
    'mix[[]1]/a[*].parquet'
    """
    return re.sub(r"([*?\[])", r"[\1]", name)


def unquoted(pattern: str) -> str:
    """The name that `quoted` has quoted."""
    return _QUOTED.sub(r"\1", pattern)


def is_wild(pattern: str) -> bool:
    """Whether a pattern may stand for several names.

    >>> is_wild("a[12].parquet"), is_wild(quoted("a[12].parquet")), is_wild("a[1.parquet")
    (True, False, False)
    """
    return _WILD.search(_QUOTED.sub("", pattern)) is not None


def has_braces(pattern: str) -> bool:
    """Whether somebody may have meant ``{a,b}`` for one of several names, as shells take it."""
    return _BRACES.search(pattern) is not None


def divided(pattern: str) -> tuple[str, tuple[str, ...]]:
    """The folder that a pattern names, with the slash at its end, and the parts of the pattern below it, at least one.

    The folder is a name, and no pattern any more; it is "" where the first part is wild or the only one.

    Raises:
        UsageError: ``**`` is not alone between two slashes.

    >>> divided("gs://corpora/mix[[]1]/*/a*.parquet"), divided("a.parquet")
    (('gs://corpora/mix[1]/', ('*', 'a*.parquet')), ('', ('a.parquet',)))
    """
    parts = pattern.split("/")
    if bad := [part for part in parts if ANY_FOLDERS in part and part != ANY_FOLDERS]:
        raise UsageError(
            f"{pattern}: in {bad[0]}, ** is not alone between two slashes; write **/*.parquet for the files of a "
            "folder and of all folders below it"
        )
    fixed = next((number for number, part in enumerate(parts[:-1]) if is_wild(part)), len(parts) - 1)
    return "".join(f"{unquoted(part)}/" for part in parts[:fixed]), tuple(parts[fixed:])


def fixed_folder(pattern: str) -> str:
    """The folder of `divided`.

    >>> fixed_folder("*/a.parquet"), fixed_folder("/a.parquet"), fixed_folder("~/corpus/de-*/*.parquet")
    ('', '/', '~/corpus/')
    """
    return divided(pattern)[0]


def matches(parts: Sequence[str], names: Sequence[str], *, hidden: bool = False) -> bool:
    """Whether the parts of a pattern match the names of a path below the pattern's folder.

    Args:
        hidden: whether wildcards take names that begin with a dot.

    >>> matches(("**", "*.parquet"), ("de", "2024", "a.parquet")), matches(("*",), (".a.parquet",))
    (True, False)
    """
    if not parts:
        return not names
    if parts[0] == ANY_FOLDERS:
        # At the end it stands for the files of all these folders.
        if matches(parts[1:] or ["*"], names, hidden=hidden):
            return True
        return bool(names) and (hidden or not names[0].startswith(".")) and matches(parts, names[1:], hidden=hidden)
    return (
        bool(names) and matches_name(parts[0], names[0], hidden=hidden) and matches(parts[1:], names[1:], hidden=hidden)
    )


def matches_name(part: str, name: str, *, hidden: bool = False) -> bool:
    """Whether one part of a pattern matches one name; see `matches`."""
    if name.startswith(".") and not hidden and not part.startswith("."):
        return False
    return _expression(part).match(name) is not None


@functools.lru_cache(1000)
def _expression(part: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(part))
