"""The cut of text at an exact number of tokens, where cutting changes the tokens.

Text that is cut and encoded again need not give the first tokens of the whole: the merges see other neighbours, a
prefix space is added, a normalizer composes across the cut. So a cut is looked for, by encoding prefixes, and a
document in which none is found is put back for the next split, and the cut taken from a document after it.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

# How far, in characters, around the likeliest place a cut is looked for.
WINDOW = 64


@dataclasses.dataclass(frozen=True)
class DocumentSpan:
    """Documents `first` to `last` (exclusive) of a shard, or part of one document.

    Attributes:
        ordinal: of the shard.
        tokens: that its text, encoded document by document, gives.
        start, stop: characters of the one document, where the span is a part of it; `stop` None means to its end.
    """

    ordinal: int
    first: int
    last: int
    tokens: int
    start: int = 0
    stop: int | None = None

    @property
    def documents(self) -> int:
        return self.last - self.first

    @property
    def whole(self) -> bool:
        """Whether its documents are whole."""
        return self.start == 0 and self.stop is None

    def part_of(self, text: str) -> str:
        """The span's part of its one document's text."""
        return text[self.start : self.stop]


@dataclasses.dataclass(frozen=True)
class TextCut:
    """The documents that one split takes, in order, and those that it leaves to the next.

    `put_back` are documents that the cut had to skip, since no cut of theirs gave the budget; they lead `rest`.
    """

    taken: tuple[DocumentSpan, ...]
    rest: tuple[DocumentSpan, ...]
    put_back: tuple[DocumentSpan, ...]
    missing: int


def find_cut(text: str, tokens: int, count: Callable[[str], int]) -> int | None:
    """Where to cut `text` so that the text before the cut encodes to exactly `tokens`.

    The count of tokens grows almost steadily with the prefix, so a bisection finds the neighbourhood, and the
    characters within `WINDOW` of it are tried from the nearest on.

    Args:
        count: the number of tokens that a text encodes to.

    Returns:
        the number of characters to keep, 0 < kept < len(text), or None where no such prefix was found.
    """
    low, high = 0, len(text)
    while high - low > 1:
        middle = (low + high) // 2
        if count(text[:middle]) <= tokens:
            low = middle
        else:
            high = middle
    nearest_first = [low, *(low + sign * step for step in range(1, WINDOW + 1) for sign in (1, -1))]
    return next((kept for kept in nearest_first if 0 < kept < len(text) and count(text[:kept]) == tokens), None)


def find_last_cut(text: str, tokens: int, count: Callable[[str], int]) -> int | None:
    """As `find_cut`, for the text after the cut: where to cut `text` so that the rest gives exactly `tokens`."""
    # A text whose prefixes are as long as the ends of `text`.
    kept = find_cut(text, tokens, lambda prefix: count(text[len(text) - len(prefix) :]))
    return None if kept is None else len(text) - kept


def take_exactly(
    spans: Sequence[DocumentSpan],
    budget: int,
    lengths: Callable[[int], npt.NDArray[np.integer]],
    cut: Callable[[DocumentSpan, int], tuple[DocumentSpan, DocumentSpan] | None],
) -> TextCut:
    """Takes spans from the front until they hold exactly `budget` tokens.

    Args:
        spans: the documents there are, in order. Documents without tokens behind the last one taken are not taken:
            how many of them there are, depends on how far was read.
        lengths: tokens of each document of a shard, by ordinal.
        cut: splits a span of one document so that the first part has the tokens asked for, or says that it cannot.
    """
    queue, taken, put_back, missing = deque(spans), [], [], budget
    while missing and queue:
        span = queue.popleft()
        if span.tokens < missing or (span.tokens == missing and _ends_with_tokens(span, lengths)):
            taken.append(span)
            missing -= span.tokens
        elif span.documents > 1:
            queue.extendleft(reversed(_open_at(span, missing, lengths(span.ordinal))))
        elif parts := cut(span, missing):
            taken.append(parts[0])
            missing -= parts[0].tokens
            queue.appendleft(parts[1])
        else:
            put_back.append(span)
    return TextCut(tuple(taken), (*put_back, *queue), tuple(put_back), missing)


def take_last_exactly(
    spans: Sequence[DocumentSpan],
    budget: int,
    lengths: Callable[[int], npt.NDArray[np.integer]],
    cut: Callable[[DocumentSpan, int], tuple[DocumentSpan, DocumentSpan] | None],
) -> TextCut:
    """As `take_exactly`, from the back, of a source of which nothing is left out: the rest is all that is not taken.

    Args:
        spans: the documents of the whole source, or those that later splits have left, in order.
        lengths: tokens of each document of a shard, by ordinal.
        cut: splits a span of one document so that the second part has the tokens asked for, or says that it cannot.

    Returns:
        of the rest, the part of the document that was cut comes last, as it does in a split that another one follows.
    """
    queue, taken, put_back, missing = list(spans), [], [], budget
    cut_off: list[DocumentSpan] = []
    while missing and queue:
        span = queue.pop()
        if span.tokens <= missing:
            taken.append(span)
            missing -= span.tokens
        elif span.documents > 1:
            queue.extend(_open_from_end(span, missing, lengths(span.ordinal)))
        elif parts := cut(span, missing):
            cut_off.append(parts[0])
            taken.append(parts[1])
            missing -= parts[1].tokens
        else:
            put_back.append(span)
    return TextCut(tuple(taken[::-1]), (*queue, *put_back[::-1], *cut_off), tuple(put_back[::-1]), missing)


def _ends_with_tokens(span: DocumentSpan, lengths: Callable[[int], npt.NDArray[np.integer]]) -> bool:
    return span.documents == 1 or bool(lengths(span.ordinal)[span.last - 1])


def _open_at(span: DocumentSpan, tokens: int, lengths: npt.NDArray[np.integer]) -> list[DocumentSpan]:
    """Splits a run into the documents that `tokens` covers whole, the one that it ends in, and those after."""
    ends = np.cumsum(lengths[span.first : span.last], dtype=np.int64)
    whole = int(np.searchsorted(ends, tokens, side="left"))
    whole += whole < len(ends) and int(ends[whole]) == tokens
    return _parts(span, ends, whole)


def _open_from_end(span: DocumentSpan, tokens: int, lengths: npt.NDArray[np.integer]) -> list[DocumentSpan]:
    """The same from the back: the documents before the one in which `tokens` end, that one, and those after."""
    ends = np.cumsum(lengths[span.first : span.last], dtype=np.int64)
    # The first document that is after so many tokens, or fewer, of the end; the one before it reaches further.
    return _parts(span, ends, int(np.searchsorted(ends, span.tokens - tokens, side="left")))


def _parts(span: DocumentSpan, ends: npt.NDArray[np.int64], middle: int) -> list[DocumentSpan]:
    """The documents before the `middle` one, that one, and those after; without those that are none.

    Args:
        ends: tokens up to the end of each document of the span.
    """
    marks = (span.first, span.first + middle, span.first + middle + 1, span.last)
    totals = (0, *(int(ends[mark - span.first - 1]) if mark > span.first else 0 for mark in marks[1:]))
    return [
        DocumentSpan(span.ordinal, first, last, end - begin)
        for first, last, begin, end in zip(marks, marks[1:], totals, totals[1:], strict=False)
        if last > first
    ]
