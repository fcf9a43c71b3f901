"""`Encoded`, the ids of a batch of documents: how batches are put together, and where two of them differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NO_IDS = np.empty(0, dtype=np.uint32)


@dataclass(frozen=True)
class Encoded:
    """The ids of a batch of documents.

    Attributes:
        ids: uint32, shape (tokens,), all documents' ids one after another.
        offsets: int64, shape (documents + 1,), beginning with 0; document i is `ids[offsets[i]:offsets[i + 1]]`.
    """

    ids: NDArray[np.uint32]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, documents: Iterable[Sequence[int]]) -> Encoded:
        """The ids of documents, each a list of its own.

        >>> Encoded.of([[5, 6], [], [7]])
        Encoded(ids=array([5, 6, 7], dtype=uint32), offsets=array([0, 2, 2, 3]))
        """
        ids = [np.array(document, dtype=np.uint32) for document in documents]
        return cls(np.concatenate([_NO_IDS, *ids]), offsets_of([len(some) for some in ids]))


def concatenated(parts: Sequence[Encoded]) -> Encoded:
    """The documents of all parts, of which there is at least one; a single part is given back as it is."""
    if len(parts) == 1:
        return parts[0]
    return Encoded(
        np.concatenate([part.ids for part in parts]),
        offsets_of(np.concatenate([np.diff(part.offsets) for part in parts])),
    )


def interleaved(kinds: NDArray[np.generic], parts: Mapping[Any, Encoded]) -> Encoded:
    """One batch of several: document i is the next of `parts[kinds[i]]`.

    Args:
        kinds: of any dtype, shape (documents of all batches,).

    >>> interleaved(np.array([0, 1, 0]), {0: Encoded.of([[1, 2], [3]]), 1: Encoded.of([[7]])}).ids.tolist()
    [1, 2, 7, 3]
    """
    lengths = np.empty(len(kinds), dtype=np.int64)
    for kind, part in parts.items():
        lengths[kinds == kind] = np.diff(part.offsets)
    ids = np.empty(lengths.sum(), dtype=np.uint32)
    of_kind = np.repeat(kinds, lengths)
    for kind, part in parts.items():
        ids[of_kind == kind] = part.ids
    return Encoded(ids, offsets_of(lengths))


def first_difference(expected: Encoded, found: Encoded) -> str | None:
    """Where two encodings of the same documents first differ, to stand after an engine's name; None if they do not.

    >>> first_difference(Encoded.of([[5], [6, 7]]), Encoded.of([[5], [6, 8]]))
    'gives other ids in document 1, position 1: 8, not 7'
    """
    if np.array_equal(expected.ids, found.ids) and np.array_equal(expected.offsets, found.offsets):
        return None
    counts = [len(some.offsets) - 1 for some in (found, expected)]
    if counts[0] != counts[1]:
        return f"gives ids for {counts[0]} documents, not {counts[1]}"
    for document in range(counts[0]):
        got, want = (some.ids[some.offsets[document] : some.offsets[document + 1]] for some in (found, expected))
        if not np.array_equal(got, want):
            break
    common = min(len(got), len(want))
    position = int(np.append(np.flatnonzero(got[:common] != want[:common]), common)[0])
    shown = [str(ids[position]) if position < len(ids) else "the end" for ids in (got, want)]
    return f"gives other ids in document {document}, position {position}: {shown[0]}, not {shown[1]}"


def offsets_of(lengths: list[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Where parts of these lengths begin that stand one after another, and where the last ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
