"""Batches of documents in segments: for the fast engine, for the reference, and tokens of a known id.

So a character that engines do not know alike, or the name of a token, costs its surroundings and not its document.
A document can be cut between a letter or digit and a space with another after it (`transforms.segments.cuts`). A window
from the last such cut before a character to the first one after it goes to the reference, and the rest stays fast: no
token crosses a cut, so that the ids are the same as if the reference had encoded it all.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from transforms.segments.code_points import documents_at
from transforms.segments.cuts import first_cut, last_cut

FAST: Final = 0
REFERENCE: Final = 1
KNOWN: Final = 2

Spans = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Where spans begin and end in bytes, in their order and apart: int64, shape (spans,), twice."""


class Segments:
    """Segments of a batch of documents, one after another; each is first a whole document, and fast.

    Attributes:
        bounds: where segments begin in the text, and where the last ends: int64, shape (segments + 1,).
        kinds: int8, shape (segments,).
        known: the ids of the `KNOWN` ones in their order: uint32.
        first: the first segment of each document, and the number of segments: int64, shape (documents + 1,).
    """

    def __init__(self, offsets: NDArray[np.int64]) -> None:
        self.bounds = offsets
        self.kinds = np.zeros(len(offsets) - 1, np.int8)
        self.known: NDArray[np.uint32] = np.empty(0, np.uint32)
        self.first = np.arange(len(offsets))
        self._raw: Spans | None = None

    @property
    def all_fast(self) -> bool:
        return not self.kinds.any()

    def lengths(self) -> NDArray[np.int64]:
        """The lengths of the segments in bytes: int64, shape (segments,)."""
        return np.diff(self.bounds)

    def keep_raw(self) -> None:
        """Notes where segments lie in the text as it is now, before it is normalized; see `raw`."""
        self._raw = self.bounds[:-1], self.bounds[1:]

    def raw(self, kind: int) -> Spans:
        """Where the segments of a kind lay in the text when `keep_raw` was called; none may have been cut since."""
        assert self._raw is not None
        chosen = self.kinds == kind
        return self._raw[0][chosen], self._raw[1][chosen]

    def at(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The segments in which positions lie."""
        return documents_at(self.bounds, positions)

    def are_fast(self, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which positions lie in fast segments."""
        fast: NDArray[np.bool_] = self.kinds[self.at(positions)] == FAST
        return fast

    def cut(self, positions: NDArray[np.int64]) -> None:
        """Begins a segment at each position, of the kind that it is in."""
        places = np.searchsorted(self.bounds, positions, side="left")
        new = self.bounds[np.minimum(places, len(self.bounds) - 1)] != positions
        positions, places = positions[new], places[new]
        was = np.insert(np.arange(len(self.bounds)), places, places - 1)[:-1]
        self.bounds = np.insert(self.bounds, places, positions)
        self.kinds = self.kinds[was]
        self.first = self.first + np.searchsorted(places, self.first, side="right")
        if self._raw is not None:
            self._raw = self._raw[0][was], self._raw[1][was]

    def insert(self, spans: Spans, kind: int, ids: NDArray[np.uint32] | None = None) -> None:
        """Makes segments of spans that are not empty and lie in fast segments.

        Args:
            ids: of the spans, where they are known.
        """
        starts, ends = spans
        if not len(starts):
            return
        self.cut(np.unique(np.concatenate([starts, ends])))
        begins, stops = self.bounds[:-1], self.bounds[1:]
        places = np.minimum(np.searchsorted(starts, begins), len(starts) - 1)
        hit = (starts[places] == begins) & (stops > begins)
        if kind == KNOWN:
            assert ids is not None
            known = (self.kinds == KNOWN) | hit
            merged = np.empty(int(known.sum()), np.uint32)
            merged[hit[known]] = ids
            merged[~hit[known]] = self.known
            self.known = merged
        self.kinds[hit] = kind

    def give_documents(self, positions: NDArray[np.int64]) -> None:
        """Gives all of the documents in which positions lie to the reference."""
        documents = np.unique(np.searchsorted(self.first, self.at(positions), side="right") - 1)
        for first, end in zip(self.first[documents].tolist(), self.first[documents + 1].tolist(), strict=True):
            self.kinds[first:end] = REFERENCE


def windows(data: NDArray[np.uint8], segments: Segments, positions: NDArray[np.int64], *, cut: bool) -> Spans:
    """The surroundings of positions, as far as a document can be cut; whole segments where it cannot.

    Args:
        positions: in fast segments or others, which are passed over; int64, ascending.
        cut: whether documents can be cut at all.
    """
    spans: list[tuple[int, int]] = []
    for position, segment in zip(positions.tolist(), segments.at(positions).tolist(), strict=True):
        # The last window may hold this position already.
        if segments.kinds[segment] != FAST or (spans and position < spans[-1][1]):
            continue
        low, high = int(segments.bounds[segment]), int(segments.bounds[segment + 1])
        if not cut:
            spans.append((low, high))
            continue
        before, after = last_cut(data, low, position), first_cut(data, position, high)
        start = low if before is None else before
        # The cut that `last_cut` finds may lie inside the last window, whose end is a cut as well.
        start = max(start, spans[-1][1]) if spans else start
        spans.append((start, high if after is None else after))
    return spans_of(spans)


def spans_of(found: Iterable[tuple[int, int]]) -> Spans:
    """Spans of pairs.

    >>> [side.tolist() for side in spans_of([(1, 2), (4, 7)])]
    [[1, 4], [2, 7]]
    """
    pairs = np.array(list(found), np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]
