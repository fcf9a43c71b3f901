"""Encodes long documents in pieces, where it is certain that the pieces give the ids of the whole.

`tokenizers` takes some 200 bytes of memory for each byte of a document, so that one of 200 MB would take 40 GB. Between
a letter, of any script, or an ASCII digit and a space with another after it, each of the proven pre-tokenizers splits,
whatever stands before and after: none of their patterns matches a letter or digit with a space after it, or looks
behind. No normalizer that is used composes anything there either, and no prefix space is added to what begins with a
space.
"""

from __future__ import annotations

import functools
import itertools
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transforms.encoding import code_points
from transforms.errors import BroetchenError
from transforms.quantities import format_size

PIECE_BYTES = 1 << 20
"""About how long the pieces are."""

LARGEST_PIECE = 16 << 20
"""What cannot be cut and is longer than this is refused: it would take gigabytes."""

_SPACE = ord(" ")
_LOOK_BYTES = 64 << 10


def can_be_cut(added_tokens: Sequence[dict[str, Any]]) -> bool:
    """Whether no added token that is looked for in text can be found across a cut, or takes the space at one.

    Tokens of spaces cannot, since only one stands at a cut.
    """
    return not any(
        token["rstrip"] or any(_holds_a_cut(name) for name in _forms(token["content"])) for token in added_tokens
    )


def _holds_a_cut(name: str) -> bool:
    return any(after == " " and stands_at_cuts()[ord(before)] for before, after in itertools.pairwise(name))


@functools.cache
def stands_at_cuts() -> NDArray[np.bool_]:
    """Which code points may stand on either side of a cut: bool, shape (0x110000,), read-only.

    The ASCII digits, and letters of any script that all engines know and no normalizer changes or joins to others.
    """
    table = code_points.inert("NFC") & code_points.inert("NFKC")
    for code_point in np.flatnonzero(table).tolist():
        table[code_point] = unicodedata.category(chr(code_point))[0] == "L"
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


def _forms(name: str) -> tuple[str, str]:
    """A name, and what it may be looked for as, once text is normalized."""
    return name, unicodedata.normalize("NFKC", name)


def piece_ends(data: NDArray[np.uint8], offsets: NDArray[np.int64], *, cut: bool) -> NDArray[np.int64]:
    """Where the pieces of documents end.

    Args:
        data: all documents, one after the other, as UTF-8.
        offsets: where each begins in it, and where the last ends; int64 [documents + 1].
        cut: whether long documents may be cut.

    Returns:
        int64 [pieces + 1], which begins with `offsets[0]` and holds all of `offsets`.

    Raises:
        BroetchenError: a piece is too long.

    >>> text = np.frombuffer(b"ab " * 700_000, np.uint8)
    >>> piece_ends(text, np.array([0, len(text)]), cut=True).tolist()
    [0, 1048577, 2097155, 2100000]
    """
    lengths = np.diff(offsets)
    if not len(lengths) or lengths.max() <= PIECE_BYTES:
        return offsets
    ends = [int(offsets[0])]
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        pieces = [start, *(_cuts(data, start, end) if cut else ()), end]
        ends += pieces[1:]
        longest = max(b - a for a, b in itertools.pairwise(pieces))
        if longest > LARGEST_PIECE:
            raise BroetchenError(
                f"a document of {format_size(end - start)} has {format_size(longest)} in one piece, and at most "
                f"{format_size(LARGEST_PIECE)} can be encoded at once; it begins with "
                f"{data[start : start + 40].tobytes().decode(errors='replace')!r}: take it out of the source"
            )
    return np.array(ends, np.int64)


def _cuts(data: NDArray[np.uint8], start: int, end: int) -> Iterator[int]:
    while end - start > PIECE_BYTES:
        found = first_cut(data, start + PIECE_BYTES, end)
        if found is None:
            return
        start = found
        yield start


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


def _whole(data: NDArray[np.uint8], place: int, end: int) -> int:
    """The next place that begins a character."""
    while place < end and data[place] & 0xC0 == 0x80:
        place += 1
    return place
