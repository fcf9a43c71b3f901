"""Batches of documents: the text of a column of strings or bytes, and which rows are left out, and why."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

# Enough text for a batch to keep an encoder busy, and small enough to stay in a processor's cache.
BATCH_TEXT_BYTES = 1 << 20

NULL, EMPTY, NOT_TEXT, TOO_LONG = "null", "empty", "not_text", "too_long"
FILTERED = "filtered"
KINDS = ("document", NULL, EMPTY, NOT_TEXT, TOO_LONG, FILTERED)
"""The kinds of rows, by their numbers in `TextBatch.kinds`."""

LEFT_OUT_SCHEMA = pa.schema([("row", pa.int64()), ("reason", pa.string()), ("value", pa.large_binary())])
"""Rows that are no documents: their number in the row group, from 0, why, and the bytes of the text column."""
_NOTHING_LEFT_OUT = LEFT_OUT_SCHEMA.empty_table()


@dataclasses.dataclass(frozen=True)
class TextBatch:
    """Documents of consecutive rows, and how many rows were left out, by reason.

    Attributes:
        texts: of the documents: no nulls, no empty strings, and valid UTF-8.
        skipped: rows that hold no text, by reason.
        kinds: uint8 [rows], the kind of each row, as an index of `KINDS`.
        filtered_bytes: of the text of the rows that a filter left out.
        table: the rows of the documents with all their columns, the text as a string, where they were asked for.
        stored_bytes: not 0 in the first batch of a row group: the bytes that are read for it, of the wanted columns as
            the file stores them.
        left_out: the rows that `skipped` counts, by `LEFT_OUT_SCHEMA` and in their order, where they were asked for.
    """

    texts: pa.LargeStringArray
    skipped: Mapping[str, int]
    kinds: NDArray[np.uint8]
    table: pa.Table | None = None
    stored_bytes: int = 0
    left_out: pa.Table | None = None
    filtered_bytes: int = 0

    @property
    def rows(self) -> int:
        return len(self.kinds)

    @property
    def filtered(self) -> int:
        """Rows that a filter left out."""
        return int(np.count_nonzero(self.kinds == KINDS.index(FILTERED)))

    @property
    def text_bytes(self) -> int:
        return int(pc.sum(pc.binary_length(self.texts)).as_py() or 0)


def to_texts(
    column: pa.Array,
    table: pa.Table | None = None,
    text_column: str = "text",
    *,
    first_row: int | None = None,
    wanted: pa.BooleanArray | None = None,
) -> TextBatch:
    """The documents of a column of strings or bytes, plain or dictionary-encoded.

    Rows that are null, empty, or not valid UTF-8 are left out and counted; those that are not wanted before them.

    Args:
        table: the rows that are wanted with all their columns, if those are to be kept; their text is in `text_column`.
        first_row: the number of the column's first row, if the batch is to tell which rows were left out.
        wanted: which rows pass the filter: [rows], without nulls; None for all.
    """
    batch = TextBatch(
        column,
        {},
        np.zeros(len(column), np.uint8),
        table,
        left_out=None if first_row is None else _NOTHING_LEFT_OUT,
    )

    def keep(reason: str, kept: pa.Array) -> None:
        nonlocal batch, column
        batch = leave_out(dataclasses.replace(batch, texts=column), reason, kept, first_row=first_row)
        column = batch.texts

    if wanted is not None and wanted.false_count:
        batch = _without_unwanted(dataclasses.replace(batch, texts=column), wanted)
        column = batch.texts
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.null_count:
        keep(NULL, column.is_valid())
    try:
        column.validate(full=True)
        column = column.cast(pa.large_string())
    except pa.ArrowInvalid:
        raw = column.cast(pa.large_binary(), safe=False)
        keep(NOT_TEXT, pa.array([_is_utf8(value) for value in raw.to_pylist()], pa.bool_()))
        column = column.cast(pa.large_binary(), safe=False).cast(pa.large_string())
    lengths = pc.binary_length(column)
    if len(column) and pc.min(lengths).as_py() == 0:
        keep(EMPTY, pc.greater(lengths, 0))
    table = batch.table
    if table is not None:
        table = table.set_column(table.schema.get_field_index(text_column), text_column, column.cast(pa.string()))
    return dataclasses.replace(batch, texts=column, table=table)


def _without_unwanted(batch: TextBatch, wanted: pa.BooleanArray) -> TextBatch:
    unwanted = ~wanted.to_numpy(zero_copy_only=False)
    column = batch.texts.filter(pa.array(unwanted))
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    filtered = pc.binary_length(column.cast(pa.large_binary(), safe=False))
    return dataclasses.replace(
        batch,
        texts=batch.texts.filter(wanted),
        kinds=np.where(unwanted, KINDS.index(FILTERED), batch.kinds).astype(np.uint8),
        filtered_bytes=int(pc.sum(filtered).as_py() or 0),
    )


def unwanted_rows(rows: int, schema: pa.Schema | None = None) -> TextBatch:
    """Rows that are known not to pass the filter, and are not read.

    Args:
        schema: of the columns that are wanted, if there are others than the text.
    """
    table = schema.empty_table() if schema is not None else None
    kinds = np.full(rows, KINDS.index(FILTERED), np.uint8)
    return TextBatch(pa.array([], pa.large_string()), {}, kinds, table, left_out=_NOTHING_LEFT_OUT)


def leave_out(batch: TextBatch, reason: str, kept: pa.Array, *, first_row: int | None = None) -> TextBatch:
    """A batch with fewer documents.

    Args:
        reason: why, one of `KINDS`.
        kept: which documents stay.
        first_row: the number of the batch's first row, if it tells which rows were left out.
    """
    rows = np.flatnonzero(batch.kinds == 0)[~kept.to_numpy(zero_copy_only=False)]
    if not len(rows):
        return batch
    kinds = batch.kinds.copy()
    kinds[rows] = KINDS.index(reason)
    left_out = batch.left_out
    if left_out is not None and first_row is not None:
        more = _left_out(rows + first_row, batch.texts, reason, kept)
        left_out = pa.concat_tables([left_out, more]).sort_by("row")
    return dataclasses.replace(
        batch,
        texts=batch.texts.filter(kept),
        skipped={**batch.skipped, reason: batch.skipped.get(reason, 0) + len(rows)},
        kinds=kinds,
        table=batch.table.filter(kept) if batch.table is not None else None,
        left_out=left_out,
    )


def text_batches(documents: Iterable[bytes]) -> Iterator[pa.LargeStringArray]:
    """Documents in batches of about `BATCH_TEXT_BYTES`; those that are empty or not valid UTF-8 are left out.

    >>> [len(batch) for batch in text_batches([b"a" * BATCH_TEXT_BYTES, b"b", b"", b"c"])]
    [1, 2]
    """
    batch: list[bytes] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document)
        if size >= BATCH_TEXT_BYTES:
            yield to_texts(pa.array(batch, pa.large_binary())).texts
            batch, size = [], 0
    if batch:
        yield to_texts(pa.array(batch, pa.large_binary())).texts


def _left_out(rows: NDArray[np.int64], column: pa.Array, reason: str, kept: pa.Array) -> pa.Table:
    values = column.filter(pc.invert(kept)).cast(pa.large_binary(), safe=False)
    return pa.table([rows, pa.repeat(reason, len(values)), values], schema=LEFT_OUT_SCHEMA)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def text_buffers(texts: pa.LargeStringArray) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The data and offsets of an array without nulls, slices included.

    Returns:
        data, uint8, shape (bytes,), and offsets, int64, shape (texts + 1,), which need not begin with 0; text i is
        `data[offsets[i]:offsets[i + 1]]`.

    >>> _, offsets = text_buffers(pa.array(["ab", "ü", "c"], pa.large_string()).slice(1))
    >>> offsets.tolist()
    [2, 4, 5]
    """
    _, offsets, data = texts.buffers()
    if offsets is None or data is None or not len(texts):  # as Arrow may leave them where there is no text
        return np.empty(0, dtype=np.uint8), np.zeros(len(texts) + 1, dtype=np.int64)
    return (
        np.frombuffer(data, dtype=np.uint8),
        np.frombuffer(offsets, dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1],
    )


def text_hashes(texts: pa.LargeStringArray) -> NDArray[np.uint64]:
    """XXH3-64 (https://github.com/Cyan4973/xxHash) of the UTF-8 bytes of each text: uint64 [texts].

    It finds texts that have changed, not texts that were changed to have the same hash.

    >>> hex(text_hashes(pa.array(["Käse"], pa.large_string()))[0])
    '0x96f95abc6b20086a'
    """
    data, offsets = text_buffers(texts)
    view = memoryview(data)
    hashed = (xxhash.xxh3_64_intdigest(view[start:stop]) for start, stop in itertools.pairwise(offsets.tolist()))
    return np.fromiter(hashed, np.uint64, len(texts))


def combined_hash(hashes: NDArray[np.uint64]) -> str:
    """One hash, in 16 hexadecimal digits, of the hashes of several texts, in their order.

    >>> combined_hash(np.array([1, 2], np.uint64))
    '07ee86c281446bef'
    """
    return xxhash.xxh3_64_hexdigest(hashes.astype("<u8").tobytes())


def text_array(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> pa.LargeStringArray:
    """The array of such data, which must be valid UTF-8 in each text, and offsets."""
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return cast("pa.LargeStringArray", pa.Array.from_buffers(pa.large_string(), len(offsets) - 1, buffers))
