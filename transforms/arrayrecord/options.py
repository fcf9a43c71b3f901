"""How ArrayRecord groups and compresses records: the choices of a config, and its option string. Pure arithmetic."""

from __future__ import annotations

import re
from typing import Any

from transforms.errors import UsageError
from transforms.quantities import shown

MOST_GROUPED = 2**31 - 1
"""Records that are compressed together, at most."""

# Levels (lowest, highest, default) of the codecs, as ArrayRecord's option parser takes them. Its `snappy` has levels
# too, but does not record them in the file.
_LEVELS = {"zstd": (-131072, 22, 3), "brotli": (0, 11, 6), "snappy": None, "none": None}


def parse_compression(value: Any) -> tuple[str, int | None]:
    """The codec and the level of a compression, such as `zstd:9`: the codec's own where none is written.

    Returns:
        codec and level; the level is None where the codec has none.

    Raises:
        UsageError: there is no such compression, or it has no such level.

    >>> parse_compression("zstd:9"), parse_compression("brotli"), parse_compression("none")
    (('zstd', 9), ('brotli', 6), ('none', None))
    """
    codec, colon, level = value.partition(":") if isinstance(value, str) else ("", "", "")
    if codec not in _LEVELS:
        choices = ", ".join(_LEVELS)
        raise UsageError(f"{shown(value)} is no compression of ArrayRecord; write {choices}, or zstd:3 for a level")
    levels = _LEVELS[codec]
    if levels is None:
        if colon:
            raise UsageError(f"{shown(value)} has a level, which {codec} does not take; write {codec}")
        return codec, None
    lowest, highest, default = levels
    if not colon:
        return codec, default
    if not re.fullmatch(r"0|-?[1-9][0-9]{0,6}", level) or not lowest <= int(level) <= highest:
        raise UsageError(f"{shown(value)} has no valid level; {codec} takes whole numbers from {lowest} to {highest}")
    return codec, int(level)


def writer_options(group_size: int = 1, compression: str = "zstd") -> str:
    """ArrayRecord's option string, always the same for the same meaning, since ArrayRecord keeps it in the file.

    Args:
        group_size: records that are compressed together. 1 reads fastest at random, and Grain asks for it.
        compression: ``zstd``, ``brotli``, ``snappy`` or ``none``; the first two with a level if wanted (``zstd:6``).
            High levels of brotli take milliseconds for each group.

    Raises:
        UsageError: there is no such compression, or a number is out of range.

    >>> writer_options(1, "zstd")
    'group_size:1,zstd:3'
    >>> writer_options(16, "none")
    'group_size:16,uncompressed'
    """
    if isinstance(group_size, bool) or not isinstance(group_size, int) or not 1 <= group_size <= MOST_GROUPED:
        raise UsageError(f"group_size is {group_size!r}; use a whole number from 1 to {MOST_GROUPED:,}")
    codec, level = parse_compression(compression)
    written = {"none": "uncompressed"}.get(codec, codec)
    return f"group_size:{group_size},{written}" + ("" if level is None else f":{level}")
