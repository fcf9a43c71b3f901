"""Numbers as some tokenizers split them and the fast engine does not: in pairs of digits, or each digit by itself.

In pairs, as nanochat has them (`\\p{N}{1,2}`): the engine is given the split into single digits, and pairs are put
together again, from the left of each number, where the tokenizer merges them.
"""

from __future__ import annotations

import functools
import unicodedata

import numpy as np
from numpy.typing import NDArray

from transforms.segments.code_points import CODE_POINTS, agreed
from transforms.segments.encoded import Encoded
from transforms.segments.segments import FAST, KNOWN, Segments


@functools.cache
def is_number() -> NDArray[np.bool_]:
    """Where a code point that engines know alike is a number (`\\p{N}`): bool, shape (0x110000,), read-only."""
    table = np.zeros(CODE_POINTS, bool)
    for code_point in np.flatnonzero(agreed()).tolist():
        table[code_point] = unicodedata.category(chr(code_point))[0] == "N"
    table.flags.writeable = False
    return table


def numbers_together(
    data: NDArray[np.uint8], positions: NDArray[np.int64], characters: NDArray[np.uint32]
) -> NDArray[np.int64]:
    """The non-ASCII numbers that stand beside another number or a digit: their positions in bytes, int64, ascending.

    Args:
        positions, characters: of the non-ASCII characters in `data` (`transforms.segments.code_points.non_ascii`).
    """
    numbers = positions[is_number()[characters]]
    if not len(numbers):
        return numbers
    ends = _ends(data, numbers)
    together = _digit_at(data, numbers - 1) | _digit_at(data, ends)
    touching = ends[:-1] == numbers[1:]
    together[:-1] |= touching
    together[1:] |= touching
    return numbers[together]


def _ends(data: NDArray[np.uint8], positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where non-ASCII characters end that begin at positions."""
    lead = data[positions]
    return positions + 2 + (lead >= 0xE0) + (lead >= 0xF0)


def _is_digit(octets: NDArray[np.uint8]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (octets - np.uint8(ord("0"))) < 10
    return found


def _digit_at(data: NDArray[np.uint8], places: NDArray[np.int64]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (places >= 0) & (places < len(data))
    return found & _is_digit(data[np.clip(places, 0, len(data) - 1)])


class DigitPairs:
    """Puts pairs of digits together.

    Args:
        digits: the ids of the ten digits.
        pairs: the ids of 00 to 99, or -1 where the tokenizer leaves two tokens.
    """

    def __init__(self, digits: NDArray[np.uint32], pairs: NDArray[np.int64], largest_id: int) -> None:
        self._pairs = pairs
        self._digit_of = np.full(largest_id + 1, -1, np.int8)
        self._digit_of[digits] = np.arange(10)

    def join(self, encoded: Encoded) -> Encoded:
        """The ids of segments whose numbers were split into digits, as they are if split into pairs."""
        places = np.flatnonzero(self._digit_of[encoded.ids] >= 0)
        if len(places) < 2:
            return encoded
        begins = np.ones(len(places), bool)
        begins[1:] = np.diff(places) != 1
        # A number ends where a segment does.
        at_bounds = np.searchsorted(places, encoded.offsets[1:-1])
        begins[at_bounds[at_bounds < len(places)]] = True
        first = np.flatnonzero(begins)
        left = (np.arange(len(places)) - first[np.cumsum(begins) - 1]) % 2 == 0
        left[:-1] &= ~begins[1:]
        left[-1] = False
        heads = places[left]
        left_digit, right_digit = (self._digit_of[encoded.ids[at]].astype(np.int64) for at in (heads, heads + 1))
        pair = self._pairs[left_digit * 10 + right_digit]
        heads, pair = heads[pair >= 0], pair[pair >= 0]
        ids = encoded.ids.copy()
        ids[heads] = pair
        keep = np.ones(len(ids), bool)
        keep[heads + 1] = False
        return Encoded(ids[keep], encoded.offsets - np.searchsorted(heads + 1, encoded.offsets))


def set_digits_apart(
    data: NDArray[np.uint8],
    segments: Segments,
    positions: NDArray[np.int64],
    characters: NDArray[np.uint32],
    digits: NDArray[np.uint32],
    *,
    unmerged: bool,
) -> None:
    """Makes a segment of every number in fast segments: those of ASCII are known, others are encoded by themselves.

    Args:
        positions, characters: as for `numbers_together`.
        digits: the ids of the ten digits.
        unmerged: whether no token but these holds a digit: then digits may stay together, and with one space before
            them. Only more white space before a number is split in another way where the number stands apart.
    """
    numbers = positions[is_number()[characters]]
    numbers = numbers[segments.are_fast(numbers)]
    segments.insert((numbers, _ends(data, numbers)), FAST)
    places = np.flatnonzero(_is_digit(data))
    places = places[segments.are_fast(places)]
    if unmerged:
        before, two_before = data[np.maximum(places - 1, 0)], data[np.maximum(places - 2, 0)]
        other = before >= 0x80
        spaces = (before <= ord(" ")) & ((two_before <= ord(" ")) | (two_before >= 0x80))
        segments.cut(places[(places > segments.bounds[segments.at(places)]) & (other | spaces)])
        return
    segments.insert((places, places + 1), KNOWN, digits[data[places] - ord("0")])
