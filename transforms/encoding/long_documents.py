"""Encodes long documents in pieces, where it is certain that the pieces give the ids of the whole.

`tokenizers` takes some 200 bytes of memory for each byte of a document, so that one of 200 MB would take 40 GB. Between
an ASCII letter or digit and a space with another after it, each of the proven pre-tokenizers splits, whatever stands
before and after: none of their patterns matches a letter or digit with a space after it, or looks behind. No normalizer
that is used composes anything there either, and no prefix space is added to what begins with a space.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from transforms.errors import BroetchenError
from transforms.quantities import format_size

PIECE_BYTES = 1 << 20
"""About how long the pieces are."""

LARGEST_PIECE = 16 << 20
"""What cannot be cut and is longer than this is refused: it would take gigabytes."""

CUT = re.compile(rb"[A-Za-z0-9] [A-Za-z0-9]")
"""Where a document can be cut: before the space."""

_ACROSS = re.compile("[A-Za-z0-9] ")


def can_be_cut(added_tokens: Sequence[dict[str, Any]]) -> bool:
    """Whether no added token that is looked for in text can be found across a cut, or takes the space at one.

    Tokens of spaces cannot, since only one stands at a cut.
    """
    return not any(
        token["rstrip"] or any(_ACROSS.search(name) for name in _forms(token["content"])) for token in added_tokens
    )


def _forms(name: str) -> tuple[str, str]:
    """A name, and what it may be looked for as, once text is normalized."""
    return name, unicodedata.normalize("NFKC", name)


def piece_ends(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], *, cut: bool) -> npt.NDArray[np.int64]:
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
    view = memoryview(data)
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        pieces = [start, *(_cuts(view, start, end) if cut else ()), end]
        ends += pieces[1:]
        longest = max(b - a for a, b in itertools.pairwise(pieces))
        if longest > LARGEST_PIECE:
            raise BroetchenError(
                f"a document of {format_size(end - start)} has {format_size(longest)} in one piece, and at most "
                f"{format_size(LARGEST_PIECE)} can be encoded at once; it begins with "
                f"{bytes(view[start : start + 40]).decode(errors='replace')!r}: take it out of the source"
            )
    return np.array(ends, np.int64)


def _cuts(data: memoryview, start: int, end: int) -> Iterator[int]:
    while end - start > PIECE_BYTES:
        found = CUT.search(data, start + PIECE_BYTES, end)
        if found is None:
            return
        start = found.start() + 1
        yield start
