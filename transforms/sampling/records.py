"""The records of a run of a shard, whatever it holds: their ids, and where documents begin among them."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from transforms.arrayrecord.example import decode_ids, decode_text
from transforms.arrayrecord.reader import RecordReader
from transforms.arrayrecord.records import FEATURE
from transforms.dataset.manifest import Manifest, ShardEntry
from transforms.dataset.verify import tokenizer_of
from transforms.encoding.pool import borrow_encoder
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.parquet.footer import read_footer
from transforms.parquet.texts import read_texts
from transforms.sampling.runs import Run
from transforms.texts import text_batches

# A document that goes on for so many records after the end of a run is not followed any further.
_FOLLOWED_RECORDS = 4096


@dataclasses.dataclass(frozen=True)
class Record:
    """A record of a shard.

    Attributes:
        number: in the shard, from 0 on.
        ids: [tokens], as they are in it, or as its text encodes to.
        begins: whether a document begins with it.
    """

    number: int
    ids: npt.NDArray[np.integer]
    begins: bool


@dataclasses.dataclass(frozen=True)
class Framing:
    """How records of ids tell where documents begin.

    Attributes:
        bos_id, eos_id: what each document has before and after it; None where nothing is added.
        max_tokens: of a record. Without BOS and EOS, a document is taken to go on after a record that is full.
    """

    bos_id: int | None
    eos_id: int | None
    max_tokens: int

    @property
    def exact(self) -> bool:
        """Whether they tell for certain."""
        return self.bos_id is not None or self.eos_id is not None

    def begins(self, previous: npt.NDArray[np.int64] | None, ids: npt.NDArray[np.int64]) -> bool:
        """Whether a document begins with a record.

        Args:
            previous: int64 [tokens], the ids of the record before it in the shard; None where it is the first.
            ids: int64 [tokens], its own.
        """
        if previous is None or not len(previous):
            return True
        if self.eos_id is not None:
            return bool(previous[-1] == self.eos_id)
        if self.bos_id is not None:
            return bool(len(ids) and ids[0] == self.bos_id)
        return len(previous) < self.max_tokens


def id_records(path: str, shard: ShardEntry, run: Run, framing: Framing) -> Iterator[Record]:
    """The records of ids of a run, and those after it while the document in which it ends may go on.

    Raises:
        BroetchenError: the shard is missing or damaged, or has not as many records as the manifest says.
    """
    with RecordReader(path) as reader:
        _check_records(path, len(reader), shard)
        start, end = max(0, run.first - 1), min(len(reader), run.last + _FOLLOWED_RECORDS)
        previous = None
        for number, record in enumerate(reader.between(start, end), start):
            ids = decode_ids(record, FEATURE)
            if number >= run.first:
                yield Record(number, ids, framing.begins(previous, ids))
            previous = ids


def text_records(path: str, shard: ShardEntry, run: Run, folder: str, manifest: Manifest) -> Iterator[Record]:
    """The documents of text of a run, or, of parquet, to the end of the row group in which it ends, encoded.

    Args:
        path: of the shard.
        shard: what the manifest says of it.
        run: of parquet, one that begins with a row group.
        folder, manifest: of the dataset, beside which its tokenizer lies.

    Raises:
        BroetchenError: the shard is missing or damaged, or has not as many records as the manifest says.
        UsageError: the tokenizer cannot be loaded.
    """
    tokenizer, number = tokenizer_of(folder, manifest), run.first
    if manifest.config["records"]["format"] == "parquet":
        batches = _parquet_texts(path, shard, run, manifest.config["dataset"]["text_column"])
    else:
        batches = _record_texts(path, shard, run)
    for texts in batches:
        with borrow_encoder(tokenizer, "auto") as encoder:
            encoded = encoder.encode(texts)
        for start, end in itertools.pairwise(encoded.offsets.tolist()):
            yield Record(number, encoded.ids[start:end], begins=True)
            number += 1


def _record_texts(path: str, shard: ShardEntry, run: Run) -> Iterator[pa.LargeStringArray]:
    with RecordReader(path) as reader:
        _check_records(path, len(reader), shard)
        yield from text_batches(decode_text(record, FEATURE) for record in reader.between(run.first, run.last))


def row_group_ends(path: str, text_column: str) -> list[int]:
    """The number of rows of a parquet file up to the end of each of its row groups."""
    groups = read_footer(path, storage.size(path), text_column).row_groups
    return list(itertools.accumulate(group.rows for group in groups))


def _parquet_texts(path: str, shard: ShardEntry, run: Run, text_column: str) -> Iterator[pa.LargeStringArray]:
    """The documents from `run.first`, which begins a row group, to the end of the row group of the run's last."""
    ends = row_group_ends(path, text_column)
    _check_records(path, ends[-1] if ends else 0, shard)
    groups = range(bisect.bisect_right(ends, run.first), bisect.bisect_left(ends, run.last) + 1)
    for _, batch in read_texts(path, groups, text_column):
        yield batch.texts


def _check_records(path: str, found: int, shard: ShardEntry) -> None:
    if found != shard.records:
        raise BroetchenError(
            f"{path}: holds {found:,} records, and its manifest says {shard.records:,}; the file was changed or is "
            "damaged: see what broetchen verify says, and build it again"
        )
