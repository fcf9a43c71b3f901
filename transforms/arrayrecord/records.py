"""Documents to records: BOS and EOS, the cut into records of bounded length, and slices of record streams. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

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


Format = Literal["tokens", "text", "parquet", "megatron"]

MOST_TOKENS = 2**31 - 1
"""Of a record: what a config may allow at most, and what one in Megatron's format can have."""

# The feature of `tf.train.Example` that holds a record's ids or text; MaxText's default column.
FEATURE = "text"


@dataclasses.dataclass(frozen=True)
class RecordSpec:
    """How documents become records; `bos_id` and `eos_id` are None where none is added.

    Attributes:
        max_tokens: of a record of ids; `MOST_TOKENS` in Megatron's format, where a record is a document.
        vocab_size: of the tokenizer; in Megatron's format it decides how many bytes an id takes.
    """

    format: Format
    max_tokens: int
    bos_id: int | None
    eos_id: int | None
    vocab_size: int = 0

    @property
    def is_text(self) -> bool:
        """Whether text is written, and the budget counts what the text encodes to."""
        return not holds_ids(self.format)

    @property
    def extension(self) -> str:
        """Of the shard files."""
        return file_extension(self.format)

    @property
    def extensions(self) -> tuple[str, ...]:
        """Of all files of a dataset's splits."""
        return file_extensions(self.format)


def holds_ids(record_format: Format) -> bool:
    """Whether shards in a format hold ids; those of the others hold text."""
    return record_format in ("tokens", "megatron")


def file_extension(record_format: Format) -> str:
    """The extension of shard files in a format; in Megatron's, of the ids, which have an index beside them."""
    return _EXTENSIONS[record_format]


def file_extensions(record_format: Format) -> tuple[str, ...]:
    """The extensions of all files of a dataset's splits in a format: of shards, and of the indices beside them."""
    extension = file_extension(record_format)
    return (extension, "idx") if record_format == "megatron" else (extension,)


_EXTENSIONS: Mapping[Format, str] = {
    "tokens": "arecord",
    "text": "arecord",
    "parquet": "parquet",
    "megatron": "bin",
}
