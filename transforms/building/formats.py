"""The content of shard files, and how a part of one becomes another.

It is ids or text in ArrayRecord, text in parquet, or ids in Megatron's format.
"""

from __future__ import annotations

import abc
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from transforms.arrayrecord.example import decode_ids, decode_text, encode_ids, encode_texts
from transforms.arrayrecord.reader import RecordReader
from transforms.arrayrecord.records import FEATURE, slice_records
from transforms.arrayrecord.writer import ShardWriter
from transforms.budget.text_cut import DocumentSpan
from transforms.budget.token_budget import ShardSlice
from transforms.encoding.tokenize import TokenizedBatch
from transforms.files.staged import StagedShard
from transforms.megatron.index import id_type
from transforms.megatron.reader import read_ids
from transforms.megatron.writer import IdWriter
from transforms.parquet.shard import ParquetRows, ParquetShardWriter
from transforms.recipe.spec import DatasetSpec
from transforms.texts import TextBatch

_COPIED_RECORDS = 256


class ShardFormat[Writer: StagedShard](abc.ABC):
    """How a dataset's shards are written."""

    def __init__(self, spec: DatasetSpec) -> None:
        self._spec = spec

    @abc.abstractmethod
    def writer(self, path: str) -> Writer:
        """A file in the making."""

    @abc.abstractmethod
    def write(self, writer: Writer, batch: TextBatch, tokenized: TokenizedBatch) -> None:
        """Appends a batch of documents."""


class TextFormat[Writer: StagedShard](ShardFormat[Writer]):
    """Shards of text, of which single documents can be had."""

    @abc.abstractmethod
    def text(self, shard: str, document: int) -> str:
        """The text of one document of a finished shard."""

    @abc.abstractmethod
    def copy(
        self, writer: Writer, shard: str, spans: Iterable[DocumentSpan], see: Callable[[pa.LargeStringArray], None]
    ) -> None:
        """Appends documents, or parts of some, of a finished shard.

        Args:
            see: is given all texts as they are written.
        """


class IdFormat[Writer: StagedShard](ShardFormat[Writer]):
    """Shards of ids, of which any stretch can be had."""

    @abc.abstractmethod
    def copy(self, writer: Writer, shard: str, piece: ShardSlice, documents: int) -> int:
        """Appends some ids of a finished shard, and counts them. A record at either end may become a shorter one.

        Args:
            documents: that have ids among them.
        """


class TokenRecords(IdFormat[ShardWriter]):
    """ArrayRecord files of ids."""

    def writer(self, path: str) -> ShardWriter:
        return _record_writer(self._spec, path)

    def write(self, writer: ShardWriter, batch: TextBatch, tokenized: TokenizedBatch) -> None:
        writer.write_many(tokenized.records())

    def copy(self, writer: ShardWriter, shard: str, piece: ShardSlice, documents: int) -> int:
        copied = 0
        with RecordReader(shard) as reader:
            ids = (decode_ids(record, FEATURE) for record in reader)
            for batch in itertools.batched(slice_records(ids, piece.skip, piece.take), _COPIED_RECORDS):
                bounds = np.cumsum([0, *map(len, batch)], dtype=np.int64)
                writer.write_many(encode_ids(np.concatenate(batch).astype(np.uint32), bounds, FEATURE))
                copied += int(bounds[-1])
        return copied


class MegatronIds(IdFormat[IdWriter]):
    """Files of ids one after another. Once they are published, an index beside each tells documents apart."""

    def writer(self, path: str) -> IdWriter:
        return IdWriter(path, vocab_size=self._spec.records.vocab_size)

    def write(self, writer: IdWriter, batch: TextBatch, tokenized: TokenizedBatch) -> None:
        assert tokenized.ids is not None
        writer.write(tokenized.ids, int(np.count_nonzero(tokenized.lengths)))

    def copy(self, writer: IdWriter, shard: str, piece: ShardSlice, documents: int) -> int:
        copied = 0
        for ids in read_ids(shard, id_type(self._spec.records.vocab_size), piece.skip, piece.take):
            writer.write(ids, 0 if copied else documents)
            copied += len(ids)
        return copied


class TextRecords(TextFormat[ShardWriter]):
    """ArrayRecord files with a document in each record."""

    def writer(self, path: str) -> ShardWriter:
        return _record_writer(self._spec, path)

    def write(self, writer: ShardWriter, batch: TextBatch, tokenized: TokenizedBatch) -> None:
        writer.write_many(tokenized.records())

    def text(self, shard: str, document: int) -> str:
        with RecordReader(shard) as reader:
            return decode_text(reader[document], FEATURE).decode()

    def copy(
        self, writer: ShardWriter, shard: str, spans: Iterable[DocumentSpan], see: Callable[[pa.LargeStringArray], None]
    ) -> None:
        with RecordReader(shard) as reader:
            for span in spans:
                if span.whole:
                    for records in itertools.batched(reader.between(span.first, span.last), _COPIED_RECORDS):
                        texts = [decode_text(record, FEATURE) for record in records]
                        see(pa.array(texts, pa.large_binary()).cast(pa.large_string()))
                        writer.write_many(records)
                else:
                    text = span.part_of(decode_text(reader[span.first], FEATURE).decode())
                    see(pa.array([text], pa.large_string()))
                    writer.write_many(encode_texts([text.encode()], FEATURE))


class TextRows(TextFormat[ParquetShardWriter]):
    """Parquet files with a document in each row, and the source's other columns beside it."""

    def writer(self, path: str) -> ParquetShardWriter:
        return ParquetShardWriter(path, compression=self._spec.compression)

    def write(self, writer: ParquetShardWriter, batch: TextBatch, tokenized: TokenizedBatch) -> None:
        assert batch.table is not None
        writer.write(batch.table)

    def text(self, shard: str, document: int) -> str:
        with ParquetRows(shard) as rows:
            (table,) = rows.between(document, document + 1)
        text: str = table[self._spec.text_column][0].as_py()
        return text

    def copy(
        self,
        writer: ParquetShardWriter,
        shard: str,
        spans: Iterable[DocumentSpan],
        see: Callable[[pa.LargeStringArray], None],
    ) -> None:
        column = self._spec.text_column
        with ParquetRows(shard) as rows:
            for span in spans:
                for number, table in enumerate(rows.between(span.first, span.last)):
                    if number:
                        # As in the shard: a copy of its beginning has the bytes of a shard that ended there.
                        writer.end_row_group()
                    if not span.whole:
                        text = pa.array([span.part_of(table[column][0].as_py())], table.schema.field(column).type)
                        table = table.set_column(table.schema.get_field_index(column), column, text)
                    see(table[column].cast(pa.large_string()).combine_chunks())
                    writer.write(table)


def _record_writer(spec: DatasetSpec, path: str) -> ShardWriter:
    return ShardWriter(path, group_size=spec.group_size, compression=spec.compression)


def id_format(spec: DatasetSpec) -> IdFormat[Any]:
    """The format of a dataset of ids."""
    return MegatronIds(spec) if spec.records.format == "megatron" else TokenRecords(spec)


def text_format(spec: DatasetSpec) -> TextFormat[Any]:
    """The format of a dataset of text."""
    return TextRows(spec) if spec.records.format == "parquet" else TextRecords(spec)


def shard_format(spec: DatasetSpec) -> ShardFormat[Any]:
    """The format of a dataset."""
    return text_format(spec) if spec.records.is_text else id_format(spec)
