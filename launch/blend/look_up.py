"""The documents that a step of a training in an exact order trained on, by arithmetic in the order's files.

Reads only the few numbers of each file that an answer needs, on any filesystem.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import posixpath
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from launch.blend.lengths import read_lengths
from launch.blend.plan import Blend, DatasetPlan, Split, index_folder, index_hashes, schedule_files
from launch.blend.supply import ENDING
from transforms.errors import BroetchenError
from transforms.files.untrusted import check_regular
from transforms.parquet.source_files import open_source


@dataclass(frozen=True)
class Part:
    """A part of a document in a sequence.

    Attributes:
        sequence: its number in the training, from 0.
        row: its number in the step's batch, from 0, all hosts together.
        position: the first place in the sequence that the part takes.
        dataset: the number of its dataset in the order.
        shard: the file, in the dataset's folder.
        document: its number in the shard, from 0.
        record: its number in the split, from 0.
        first_token, last_token: the tokens of the document, the last one excluded.
    """

    sequence: int
    row: int
    position: int
    dataset: int
    shard: str
    document: int
    record: int
    first_token: int
    last_token: int


def parts_of_step(blend: Blend, folder: str, step: int, split: Split = "train") -> Iterator[Part]:
    """The documents of a step, sequence by sequence, in their order in it.

    The last target of a sequence is not among them: it is the first token of the sequence behind it in its dataset.

    Args:
        blend: the order, as `find_blend` has read it.
        folder: of the order.
        step: from 0.

    Raises:
        BroetchenError: a file cannot be read, or is not as `blend.json` says.
        IndexError: there is no such step.
    """
    of_split = blend.plan.splits[split]
    first = step * blend.plan.batch
    if not 0 <= first < of_split.sequences:
        raise IndexError(f"no step {step}")
    last = min(first + blend.plan.batch, of_split.sequences)
    hashes = index_hashes(of_split, blend.plan.length, blend.plan.seed)
    with contextlib.ExitStack() as stack:
        numbers, places = (
            stack.enter_context(_Array(posixpath.join(folder, name))).rows(first, last).tolist()
            for name in schedule_files(split)
        )
        readers: dict[int, _Dataset] = {}
        for row, (number, place) in enumerate(zip(numbers, places, strict=True)):
            if number not in readers:
                if not 0 <= number < len(of_split.datasets):
                    raise BroetchenError(f"{folder}: its schedule names a dataset that is not there")
                dataset = of_split.datasets[number]
                begin = posixpath.join(folder, index_folder(split, dataset.name), hashes[number])
                readers[number] = stack.enter_context(_Dataset(dataset, begin))
            position = 0
            for record, start, end in readers[number].documents(place):
                shard, document = readers[number].place(record)
                yield Part(first + row, row, position, number, shard, document, record, start, end)
                position += end - start


class _Array:
    """An .npy file, of which rows are read."""

    def __init__(self, path: str, dimensions: int = 1) -> None:
        self._path, self._dimensions = path, dimensions

    def __enter__(self) -> _Array:
        check_regular(self._path)
        self._file = open_source(self._path)
        try:
            if np.lib.format.read_magic(self._file) != (1, 0):
                raise ValueError("it is of another version")
            self._shape, by_columns, self._kind = np.lib.format.read_array_header_1_0(self._file)
            if len(self._shape) != self._dimensions or by_columns or self._kind.kind not in "iu":
                raise ValueError("it is of another form")
        except (ValueError, SyntaxError, tokenize.TokenError) as error:
            self._file.close()
            raise BroetchenError(
                f"{self._path}: is no array ({error}); start the run again, which writes it"
            ) from error
        self._begin = self._file.tell()
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def rows(self, first: int, last: int) -> npt.NDArray[Any]:
        """Rows from `first` to `last`, the last excluded."""
        width = self._kind.itemsize * int(np.prod(self._shape[1:], dtype=np.int64))
        content = b""
        if 0 <= first <= last <= self._shape[0]:
            self._file.seek(self._begin + first * width)
            content = self._file.read((last - first) * width)
        if len(content) != (last - first) * width:
            raise BroetchenError(
                f"{self._path}: has no rows {first:,} to {last:,}; start the run again, which writes it"
            )
        return np.frombuffer(content, self._kind).reshape(-1, *self._shape[1:])


class _Dataset(contextlib.ExitStack):
    """A dataset's sequences."""

    def __init__(self, plan: DatasetPlan, begin: str) -> None:
        super().__init__()
        self._plan, self._begin = plan, begin
        self._ends = list(itertools.accumulate(shard.documents for shard in plan.shards))

    def __enter__(self) -> _Dataset:
        super().__enter__()
        self._documents, self._starts, self._order = (
            self.enter_context(_Array(f"{self._begin}-{what}_index.npy", dimensions))
            for what, dimensions in (("document", 1), ("sample", 2), ("shuffle", 1))
        )
        return self

    def documents(self, place: int) -> Iterator[tuple[int, int, int]]:
        """(number in the split, first token, token behind the last) of each document of a sequence."""
        at = int(self._order.rows(place, place + 1)[0])
        (first, token), (last, end) = self._starts.rows(at, at + 2).tolist()
        for offset, record in enumerate(self._documents.rows(first, last + 1).tolist()):
            start = token if offset == 0 else 0
            stop = end if first + offset == last else self._size(record)
            if start < stop:
                yield record, start, stop

    def place(self, record: int) -> tuple[str, int]:
        """The shard of a document, and the document's number in it."""
        number = bisect.bisect_right(self._ends, record)
        if not 0 <= record < self._ends[-1]:
            raise BroetchenError(f"{self._plan.folder}: has no document {record:,}, of which its order tells")
        return f"{self._plan.shards[number].stem}{ENDING}", record - (self._ends[number - 1] if number else 0)

    def _size(self, record: int) -> int:
        shard, document = self.place(record)
        return int(read_lengths(posixpath.join(self._plan.folder, shard), document, 1)[0])
