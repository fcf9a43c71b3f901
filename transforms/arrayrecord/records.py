"""Documents to records: BOS and EOS, the cut into records of bounded length, and slices of record streams. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from transforms.arrayrecord.record_format import FEATURE as FEATURE
from transforms.arrayrecord.record_format import MOST_TOKENS as MOST_TOKENS
from transforms.arrayrecord.record_format import Format as Format
from transforms.arrayrecord.record_format import RecordSpec as RecordSpec
from transforms.arrayrecord.record_format import file_extension as file_extension
from transforms.arrayrecord.record_format import file_extensions as file_extensions
from transforms.arrayrecord.record_format import holds_ids as holds_ids

Ids = npt.NDArray[np.uint32]
Offsets = npt.NDArray[np.int64]


def add_bos_eos(ids: Ids, offsets: Offsets, bos_id: int | None, eos_id: int | None) -> tuple[Ids, Offsets]:
    """Puts an id before and after each document, where it is given.

    Args:
        ids: uint32 [tokens], the documents one after another.
        offsets: int64 [documents + 1], where each begins and ends.

    Returns:
        ids and offsets of the same form: new ones, or those that were given where nothing is added.
    """
    extra = (bos_id is not None) + (eos_id is not None)
    if not extra:
        return ids, offsets
    documents = len(offsets) - 1
    framed_offsets = offsets + extra * np.arange(documents + 1, dtype=np.int64)
    framed = np.empty(framed_offsets[-1], np.uint32)
    inside = np.ones(len(framed), np.bool_)
    if bos_id is not None:
        framed[framed_offsets[:-1]] = bos_id
        inside[framed_offsets[:-1]] = False
    if eos_id is not None:
        framed[framed_offsets[1:] - 1] = eos_id
        inside[framed_offsets[1:] - 1] = False
    framed[inside] = ids
    return framed, framed_offsets


def record_bounds(offsets: Offsets, max_tokens: int) -> Offsets:
    """Cuts each document into records of at most `max_tokens` ids; no record spans two documents.

    Args:
        offsets: int64 [documents + 1].

    Returns:
        int64 [records + 1]; a document without ids has no record.

    >>> record_bounds(np.array([0, 5, 5, 7]), 2)
    array([0, 2, 4, 5, 7])
    """
    lengths = np.diff(offsets)
    if not len(lengths) or lengths.max() <= max_tokens:
        starts = offsets[:-1][lengths > 0]
    else:
        pieces = -(-lengths // max_tokens)
        first_piece = np.cumsum(pieces) - pieces
        within = np.arange(pieces.sum()) - np.repeat(first_piece, pieces)
        starts = np.repeat(offsets[:-1], pieces) + within * max_tokens
    return np.append(starts, offsets[-1]).astype(np.int64)


def slice_records(
    records: Iterable[npt.NDArray[np.integer]], skip: int, take: int
) -> Iterator[npt.NDArray[np.integer]]:
    """The records of ids `skip` to `skip + take` of a stream of records. A record at either end is cut short.

    >>> [r.tolist() for r in slice_records([np.array([1, 2, 3]), np.array([4]), np.array([5, 6])], 2, 3)]
    [[3], [4], [5]]
    """
    for record in records:
        if take <= 0:
            return
        kept = record[skip : skip + take]
        skip = max(0, skip - len(record))
        if len(kept):
            take -= len(kept)
            yield kept
