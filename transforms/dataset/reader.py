"""Reads built shards of every format by the numbers of their records: ids, and texts."""

from __future__ import annotations

import bisect
import contextlib
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from transforms.arrayrecord.example import decode_ids, decode_text
from transforms.arrayrecord.reader import RecordReader
from transforms.arrayrecord.records import FEATURE, Format
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.files.untrusted import check_regular
from transforms.megatron.reader import PairReader
from transforms.parquet.footer import read_footer
from transforms.parquet.texts import read_texts
from transforms.texts import text_batches


def row_group_ends(path: str, text_column: str) -> list[int]:
    """The number of rows of a parquet file up to the end of each of its row groups.

    Raises:
        BroetchenError: the file is not there or damaged, or has no such column.
    """
    groups = read_footer(path, storage.size(path), text_column).row_groups
    return list(itertools.accumulate(group.rows for group in groups))


def check_ids(ids: npt.ArrayLike) -> None:
    """Checks that ids are such as a tokenizer may have, before one decodes them.

    Raises:
        BroetchenError: one is negative, or takes more than 32 bits.
    """
    found = np.asarray(ids, np.int64)
    if len(found) and not 0 <= found.min() <= found.max() < 2**32:
        raise BroetchenError(
            f"a record holds the ids {found.min()} to {found.max()}, which no tokenizer has; see what broetchen verify "
            "says, and build it again"
        )


class ShardReader:
    """The records of one built shard by their number, wherever it lies. A remote ArrayRecord file is copied first.

    Use it as a context manager, from one thread at a time.

    Example:
        >>> with ShardReader("samples/corpora/fineweb_edu_english/000_00000.parquet", "parquet", "text") as shard:
        ...     len(shard), shard.text(8)[:14]
        (9, 'Navigation\\n\\nin')

    Args:
        path: of the shard.
        record_format: of its records, as the manifest's config says (`records.format`).
        text_column: of parquet; the other formats have none.
        expected: how many records the manifest says it has; None leaves that unchecked.

    Raises:
        BroetchenError: the file is not there or damaged, is no regular file, or has another number of records.
    """

    def __init__(self, path: str, record_format: Format, text_column: str = "", *, expected: int | None = None) -> None:
        self._path, self._format, self._text_column, self._expected = path, record_format, text_column, expected
        self._stack = contextlib.ExitStack()
        # Of parquet: the text of the row group that a single document was last taken from.
        self._group: tuple[int, pa.ChunkedArray] | None = None

    def __enter__(self) -> ShardReader:
        check_regular(self._path)
        if self._format == "parquet":
            self._ends = row_group_ends(self._path, self._text_column)
        elif self._format == "megatron":
            self._pair = self._stack.enter_context(PairReader(self._path))
        else:
            self._records = self._stack.enter_context(RecordReader(self._path))
        records = len(self)
        if self._expected not in (None, records):
            with contextlib.suppress(BroetchenError):
                self._stack.close()
            raise BroetchenError(
                f"{self._path}: holds {records:,} records, and its manifest says {self._expected:,}; the file was "
                "changed or is damaged: see what broetchen verify says, and build it again"
            )
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()
        self._group = None

    def __len__(self) -> int:
        if self._format == "parquet":
            return self._ends[-1] if self._ends else 0
        return len(self._pair if self._format == "megatron" else self._records)

    def ids(self, first: int = 0, last: int | None = None) -> Iterator[npt.NDArray[np.int64]]:
        """The ids of records `first` to `last`, the last excluded, int64 [tokens] each; of a shard of ids.

        Raises:
            IndexError: there are no such records.
            BroetchenError: a record cannot be read, or holds no ids.
        """
        last = self._last(first, last)
        if self._format == "parquet":
            raise BroetchenError(f"{self._path}: holds text, and no ids; read it by `texts`")
        if self._format == "megatron":
            yield from self._pair.between(first, last)
            return
        for record in self._records.between(first, last):
            yield decode_ids(record, FEATURE)

    def texts(self, first: int = 0, last: int | None = None) -> Iterator[pa.LargeStringArray]:
        """The documents `first` to `last`, the last excluded, in batches of about a megabyte; of a shard of text.

        Raises:
            IndexError: there are no such documents.
            BroetchenError: a record cannot be read, or holds no text.
        """
        self._check_text()
        last = self._last(first, last)
        if first == last:
            return
        if self._format == "parquet":
            start, end = bisect.bisect_right(self._ends, first), bisect.bisect_left(self._ends, last)
            number, batches = self._start(start), self._texts_of(range(start, end + 1))
        else:
            records = self._records.between(first, last)
            number, batches = first, text_batches(decode_text(record, FEATURE) for record in records)
        for texts in batches:
            wanted = texts[max(0, first - number) : max(0, last - number)]
            number += len(texts)
            if len(wanted):
                yield wanted
        if number < last:
            raise BroetchenError(f"{self._path}: has records without text, which no build writes; build it again")

    def text(self, index: int) -> str:
        """One document; of a shard of text. Of parquet, its row group stays in memory until another one is needed.

        Raises:
            IndexError: there is no such document.
            BroetchenError: the record cannot be read, or holds no text.
        """
        self._check_text()
        self._last(index, index + 1)
        if self._format != "parquet":
            try:
                return decode_text(self._records[index], FEATURE).decode()
            except UnicodeDecodeError as error:
                raise BroetchenError(f"{self._path}: record {index} is not UTF-8: {error}") from error
        group = bisect.bisect_right(self._ends, index)
        if self._group is None or self._group[0] != group:
            self._group = group, pa.chunked_array(self._texts_of([group]), pa.large_string())
        return str(self._group[1][index - self._start(group)].as_py())

    def _check_text(self) -> None:
        if self._format == "megatron":
            raise BroetchenError(f"{self._path}: holds ids, and no text; read it by `ids`")

    def _last(self, first: int, last: int | None) -> int:
        """The end of a slice that there is."""
        end = len(self) if last is None else last
        if not 0 <= first <= end <= len(self):
            raise IndexError(f"{self._path}: no records {first} to {end}; it has {len(self):,}")
        return end

    def _start(self, group: int) -> int:
        return self._ends[group - 1] if group else 0

    def _texts_of(self, groups: Sequence[int]) -> Iterator[pa.LargeStringArray]:
        for group, batch in read_texts(self._path, groups, self._text_column):
            if any(batch.skipped.values()):
                raise BroetchenError(
                    f"{self._path}: row group {group} has rows without text, which no build writes; build it again"
                )
            yield batch.texts
