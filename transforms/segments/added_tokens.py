"""Finds the added tokens of a tokenizer in text as `tokenizers` does: leftmost first, of several the longest.

Special tokens that are taken for text are found all the same, and hide others that overlap with them; they are then
left as text. Runs of one character, as the runs of spaces of GPT-NeoX, are found by arithmetic, the others by a regular
expression in the documents that hold one.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from transforms.segments.code_points import Form
from transforms.segments.segments import FAST, Segments, Spans, spans_of
from transforms.texts import text_array

Found = tuple[Spans, NDArray[np.uint32]]
_Run = tuple[int, NDArray[np.uint32]]
_TEXT = -1


class AddedTokens:
    """Some added tokens of a tokenizer: either those to look for before it normalizes, or those after.

    Args:
        tokens: as a tokenizer.json has them.
        id_of: the id of one, by its name.
        text: the names of those that are text.
        form: the normalization of the text in which they are looked for, and so of their names.
    """

    def __init__(
        self,
        tokens: Sequence[Mapping[str, Any]],
        id_of: Callable[[str], int],
        text: frozenset[str],
        form: Form | None,
    ) -> None:
        self._ids: dict[bytes, int] = {}
        for token in tokens:
            name: str = token["content"]
            written = unicodedata.normalize(form, name) if form else name
            self._ids[written.encode()] = _TEXT if name in text else id_of(name)
        self._runs, others = _runs(self._ids)
        self._pattern = self._filter = None
        if others:
            longest_first = sorted(others, key=len, reverse=True)
            self._pattern = re.compile(b"|".join(re.escape(name) for name in longest_first))
            self._filter = pattern_of(name.decode() for name in others)

    def find(self, data: NDArray[np.uint8], segments: Segments) -> Found:
        """Where tokens stand in the fast segments of a text, and their ids."""
        found = [self._find_run(data, segments, character, *run) for character, run in self._runs.items()]
        if self._pattern is not None:
            found.append(self._find_others(data, segments))
        starts = np.concatenate([np.empty(0, np.int64), *(spans[0] for spans, _ in found)])
        order = np.argsort(starts, kind="stable")
        ends = np.concatenate([np.empty(0, np.int64), *(spans[1] for spans, _ in found)])
        all_ids = np.concatenate([np.empty(0, np.uint32), *(ids for _, ids in found)])
        return (starts[order], ends[order]), all_ids[order]

    def _find_run(
        self, data: NDArray[np.uint8], segments: Segments, character: int, shortest: int, ids: NDArray[np.uint32]
    ) -> Found:
        """Takes a run in pieces of the longest token, and the rest of it as one piece, if it is a token."""
        longest = shortest + len(ids) - 1
        is_it = data == character
        # Where a run goes on for so long at least.
        positions = np.flatnonzero(is_it[1:] & is_it[:-1] if shortest == 2 else is_it)
        at = segments.at(positions)
        positions = positions[(positions + shortest <= segments.bounds[at + 1]) & (segments.kinds[at] == FAST)]
        if not len(positions):
            return spans_of([]), ids[:0]
        at = segments.at(positions)
        begins = np.ones(len(positions), bool)
        begins[1:] = (np.diff(positions) != 1) | (np.diff(at) != 0)
        ends_here = np.ones(len(positions), bool)
        ends_here[:-1] = begins[1:]
        starts, ends = positions[begins], positions[ends_here] + shortest
        lengths = ends - starts
        pieces = lengths // longest + (lengths % longest >= shortest)
        number = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        first = np.repeat(starts, pieces) + number * longest
        size = np.minimum(longest, np.repeat(ends, pieces) - first)
        return (first, first + size), ids[size - shortest]

    def _find_others(self, data: NDArray[np.uint8], segments: Segments) -> Found:
        assert self._pattern is not None
        bounds = segments.bounds
        holds = pc.match_substring_regex(text_array(data, np.ascontiguousarray(bounds)), self._filter)
        spans: list[tuple[int, int]] = []
        ids: list[int] = []
        view = memoryview(data)
        for segment in np.flatnonzero(holds.to_numpy(zero_copy_only=False) & (segments.kinds == FAST)).tolist():
            for match in self._pattern.finditer(view[: int(bounds[segment + 1])], int(bounds[segment])):
                token_id = self._ids[bytes(match.group())]
                if token_id != _TEXT:
                    spans.append(match.span())
                    ids.append(token_id)
        return spans_of(spans), np.array(ids, np.uint32)


def pattern_of(names: Iterable[str]) -> str | None:
    """An RE2 pattern that matches where one of the names stands; None for no names."""
    return "|".join("".join(f"\\x{{{ord(character):x}}}" for character in name) for name in names) or None


def _runs(ids: Mapping[bytes, int]) -> tuple[dict[int, _Run], list[bytes]]:
    """Tokens of one ASCII character several times, by the character, and all other names.

    Of a character the shortest length, which is one or two, and the ids for each length from there on. Only where no
    other token holds the character, and there is one of each length, is a run of it taken apart so.
    """
    by_character: dict[int, dict[int, int]] = defaultdict(dict)
    for name, token_id in ids.items():
        if len(set(name)) == 1 and name[0] < 0x80 and token_id != _TEXT:
            by_character[name[0]][len(name)] = token_id
    runs: dict[int, _Run] = {}
    taken: set[bytes] = set()
    for character, lengths in by_character.items():
        names = {bytes([character]) * length for length in lengths}
        shortest = min(lengths)
        has_each = sorted(lengths) == list(range(shortest, max(lengths) + 1))
        if shortest <= 2 and has_each and not any(character in name for name in ids.keys() - names):
            runs[character] = shortest, np.array([lengths[size] for size in sorted(lengths)], np.uint32)
            taken |= names
    return runs, [name for name in ids if name not in taken]
