"""Where documents can be cut: between a letter, of any script, or an ASCII digit, and a space with another after it.

`transforms.encoding.long_documents` says for which tokenizers the parts then give the ids of the whole.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from transforms.segments import code_points

NEAR_BYTES = 64 << 10
"""How far from a place a cut is called near."""

_SPACE = ord(" ")
_LOOK_BYTES = 64 << 10


@functools.cache
def stands_at_cuts() -> NDArray[np.bool_]:
    """Which code points may stand on either side of a cut: bool, shape (0x110000,), read-only.

    The ASCII digits, and letters of any script that all engines know and no normalizer changes or joins to others.
    """
    # A character that NFKC leaves alone, NFC does as well.
    points = np.flatnonzero(code_points.inert("NFKC"))
    table = np.zeros(code_points.CODE_POINTS, np.bool_)
    table[points] = [chr(code_point).isalpha() for code_point in points.tolist()]  # which is the category L
    table[ord("0") : ord("9") + 1] = True
    table.flags.writeable = False
    return table


def cuts_in(data: NDArray[np.uint8], start: int, end: int) -> NDArray[np.int64]:
    """Where a document can be cut in a part of it, which begins and ends with whole characters: int64, ascending.

    >>> cuts_in(np.frombuffer("ab cd  e, für öl. Я ем".encode(), np.uint8), 0, 27).tolist()
    [2, 14, 22]
    """
    part = data[start:end]
    spaces = np.flatnonzero(part == _SPACE)
    spaces = spaces[(spaces > 0) & (spaces < len(part) - 1)]
    before = spaces - 1
    for _ in range(3):
        # Back to the first byte of the character.
        before = before - ((part[np.maximum(before, 0)] & 0xC0) == 0x80)
    at_cuts = stands_at_cuts()
    return start + spaces[at_cuts[_characters_at(part, before)] & at_cuts[_characters_at(part, spaces + 1)]]


def _characters_at(data: NDArray[np.uint8], places: NDArray[np.int64]) -> NDArray[np.uint32]:
    """The code points that begin at places."""
    characters = data[places].astype(np.uint32)
    longer = np.flatnonzero(characters >= 0x80)
    if len(longer):
        sizes = 1 + (characters[longer] >= 0xC0).astype(np.int64) + (characters[longer] >= 0xE0)
        sizes += characters[longer] >= 0xF0
        value = characters[longer] & (0x7F >> sizes).astype(np.uint32)
        for number in range(1, 4):
            more = np.flatnonzero(sizes > number)
            following = data[np.minimum(places[longer[more]] + number, len(data) - 1)] & 0x3F
            value[more] = (value[more] << np.uint32(6)) | following
        characters[longer] = value
    return characters


def first_cut(data: NDArray[np.uint8], start: int, end: int) -> int | None:
    """The first cut between `start`, which may lie within a character, and `end`; None where there is none."""
    look = 256
    while start < end:
        stop = _whole(data, min(end, start + look), end)
        found = cuts_in(data, _whole(data, start, end), stop)
        if len(found):
            return int(found[0])
        if stop == end:
            return None
        # A cut that lies across the bound is seen as well.
        start, look = max(start + 1, stop - 8), min(_LOOK_BYTES, look * 4)
    return None


def last_cut(data: NDArray[np.uint8], start: int, end: int) -> int | None:
    """The last cut between two places that begin characters; None where there is none."""
    look = 256
    while end > start:
        begin = _whole(data, max(start, end - look), end)
        found = cuts_in(data, begin, end)
        if len(found):
            return int(found[-1])
        if begin <= start or end - begin <= 8:
            return None
        end, look = _whole(data, begin + 8, end), min(_LOOK_BYTES, look * 4)
    return None


def cut_is_near(data: NDArray[np.uint8], place: int) -> bool:
    """Whether a document can be cut within `NEAR_BYTES` of a place that begins a character.

    >>> cut_is_near(np.frombuffer("我们".encode() * 40_000 + b" a b", np.uint8), 120_000)
    False
    """
    start, end = _whole(data, max(0, place - NEAR_BYTES), place), min(len(data), place + NEAR_BYTES)
    if len(data) <= NEAR_BYTES:
        return True
    return last_cut(data, start, place) is not None or first_cut(data, place, end) is not None


def _whole(data: NDArray[np.uint8], place: int, end: int) -> int:
    """The next place that begins a character."""
    while place < end and data[place] & 0xC0 == 0x80:
        place += 1
    return place
