"""The records of a run of a shard of any format: their ids, and where documents begin among them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from transforms.arrayrecord.records import Format
from transforms.dataset.manifest import Manifest, ShardEntry, tokenizer_of
from transforms.dataset.reader import ShardReader
from transforms.encoding.pool import borrow_encoder
from transforms.sampling.runs import Run

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
        bos_id, eos_id: the ids before and after each document; None where none is added.
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


def id_records(path: str, record_format: Format, shard: ShardEntry, run: Run, framing: Framing) -> Iterator[Record]:
    """The records of ids of a run, and those after it while the document in which it ends may go on.

    Raises:
        BroetchenError: the shard is missing or damaged, or has not as many records as the manifest says.
    """
    with ShardReader(path, record_format, expected=shard.records) as reader:
        start, end = max(0, run.first - 1), min(len(reader), run.last + _FOLLOWED_RECORDS)
        previous = None
        for number, ids in enumerate(reader.ids(start, end), start):
            if number >= run.first:
                yield Record(number, ids, framing.begins(previous, ids))
            previous = ids


def text_records(path: str, shard: ShardEntry, run: Run, folder: str, manifest: Manifest) -> Iterator[Record]:
    """The documents of text of a run, encoded.

    Args:
        path: of the shard.
        shard: its entry in the manifest.
        run: of its documents.
        folder, manifest: of the dataset, beside which its tokenizer lies.

    Raises:
        BroetchenError: the shard is missing or damaged, or has not as many records as the manifest says.
        UsageError: the tokenizer cannot be loaded.
    """
    tokenizer, number = tokenizer_of(folder, manifest), run.first
    with ShardReader(path, manifest.record_format, manifest.text_column, expected=shard.records) as reader:
        for texts in reader.texts(run.first, run.last):
            with borrow_encoder(tokenizer, "auto") as encoder:
                encoded = encoder.encode(texts)
            for start, end in itertools.pairwise(encoded.offsets.tolist()):
                yield Record(number, encoded.ids[start:end], begins=True)
                number += 1
