"""Built datasets as sequences of records, for scripts and Grain pipelines."""

from __future__ import annotations

import bisect
import functools
import itertools
import operator
import os
import posixpath
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, SupportsIndex, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Tokenizer

from transforms.arrayrecord.records import holds_ids
from transforms.dataset.manifest import Manifest, find_manifests, tokenizer_of
from transforms.dataset.reader import ShardReader, check_ids
from transforms.encoding.pool import borrow_encoder, tokenizer_file
from transforms.errors import BroetchenError, UsageError, without_controls
from transforms.files import storage
from transforms.tokenizer.spec import TokenizerSpec

# Shards that a split keeps open: a local ArrayRecord file takes a file descriptor and an index, a remote one a copy on
# disk, and a parquet file the text of a row group in memory.
_OPEN_LOCAL, _OPEN_REMOTE, _OPEN_PARQUET = 64, 4, 4
# Held on to in a fork: a reader that is forgotten deletes its copy of a remote shard, which is the parent's.
_of_the_parent: list[OrderedDict[int, ShardReader]] = []


class Record:
    """A record of a split: a document, or in a dataset of `format: tokens` at most `records.max_tokens` ids of one.

    Attributes:
        ids: int64 [tokens], as they are in the record, or as its text encodes to (without BOS and EOS).
        text: as it is in the record, or as its ids decode to it without the BOS and EOS that the build added. A record
            of ids may begin or end within a character, which then shows as U+FFFD; and its text is the normalized one
            where the tokenizer normalizes.

    Raises:
        BroetchenError: (when the one of the two that the record does not hold is asked for) the dataset's tokenizer,
            which lies beside the dataset, is not there, or is another one; or the record holds ids that none has.
    """

    def __init__(
        self, tokenizer: TokenizerSpec, *, ids: npt.NDArray[np.int64] | None, text: str | None, added: tuple[int, ...]
    ) -> None:
        self._tokenizer, self._ids, self._text, self._added = tokenizer, ids, text, added

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        if self._ids is None:
            _check_tokenizer(self._tokenizer)
            with borrow_encoder(self._tokenizer, "tokenizers") as encoder:
                self._ids = encoder.encode(pa.array([self._text], pa.large_string())).ids.astype(np.int64)
        return self._ids

    @property
    def text(self) -> str:
        if self._text is None:
            assert self._ids is not None
            _check_tokenizer(self._tokenizer)
            check_ids(self._ids)
            ids = self._ids.tolist()
            start, end = ids[:1] and ids[0] in self._added, ids[1:] and ids[-1] in self._added
            self._text = _decoder(self._tokenizer).decode(ids[bool(start) : len(ids) - bool(end)], False)
        return self._text

    def __repr__(self) -> str:
        if self._text is None:
            return f"Record({len(self.ids)} ids)"
        return f"Record({self._text if len(self._text) <= 40 else f'{self._text[:39]}…'!r})"


def _check_tokenizer(tokenizer: TokenizerSpec) -> None:
    try:
        tokenizer_file(tokenizer)
    except BroetchenError as error:
        raise BroetchenError(
            f"{tokenizer.path}: the tokenizer that the dataset was built with is not there ({error}); where you copy a "
            "dataset, copy its tokenizer's folder beside it"
        ) from error


@functools.lru_cache(maxsize=4)
def _decoder(tokenizer: TokenizerSpec) -> Tokenizer:
    return Tokenizer.from_str(tokenizer_file(tokenizer).json)


class SplitRecords:
    """The records of one split by their number, in the order of the build: shard after shard.

    A Grain `RandomAccessDataSource`: `grain.MapDataset.source(split)` reads from it, with threads, which take turns,
    and with processes, forks among them. A shard is opened when a record of it is first asked for, and stays open until
    others take its place.
    """

    def __init__(self, folder: str, manifest: Manifest, split: str) -> None:
        entry = manifest.splits[split]
        self._name, self._tokens, self._folder = f"{manifest.dataset}/{split}", entry.tokens, folder
        self._format, self._text_column = manifest.record_format, manifest.text_column
        self._shards = [(posixpath.join(folder, shard.file), shard.records, shard.bytes) for shard in entry.shards]
        self._ends = list(itertools.accumulate(shard.records for shard in entry.shards))
        self._fingerprint = manifest.fingerprint
        self._tokenizer = tokenizer_of(folder, manifest)
        added = (manifest.tokenizer.bos_id, manifest.tokenizer.eos_id)
        self._added = tuple(token for token in added if token is not None)
        self._most_open = _OPEN_LOCAL if storage.is_local(folder) else _OPEN_REMOTE
        if self._format == "parquet":
            self._most_open = _OPEN_PARQUET
        self._begin()

    def _begin(self) -> None:
        self._lock, self._open = threading.Lock(), OrderedDict[int, ShardReader]()
        _splits.add(self)

    def _begin_fork(self) -> None:
        """Leaves what is open to the parent, and its lock, which a thread of the parent may have held."""
        _of_the_parent.append(self._open)
        self._begin()

    @property
    def tokens(self) -> int:
        """The tokens of all its records."""
        return self._tokens

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: SupportsIndex) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...

    def __getitem__(self, index: SupportsIndex | slice) -> Record | list[Record]:
        """A record by its number, from the end where that is negative; or the records of a slice.

        Raises:
            IndexError: there is none of that number.
            BroetchenError: its shard is missing, damaged, or not the one that the manifest describes.
        """
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = operator.index(index)
        number += len(self) if number < 0 else 0
        if not 0 <= number < len(self):
            raise IndexError(f"{self._name}: no record {index}; it has {len(self):,}")
        shard = bisect.bisect_right(self._ends, number)
        within = number - (self._ends[shard - 1] if shard else 0)
        with self._lock:
            reader = self._reader(shard)
            if not holds_ids(self._format):
                return Record(self._tokenizer, ids=None, text=reader.text(within), added=())
            return Record(self._tokenizer, ids=next(reader.ids(within, within + 1)), text=None, added=self._added)

    def __iter__(self) -> Iterator[Record]:
        return (self[number] for number in range(len(self)))

    def close(self) -> None:
        """Closes the shards that are open, and deletes copies of remote ones. Reading opens them again."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].__exit__()

    def _reader(self, shard: int) -> ShardReader:
        if shard not in self._open:
            path, records, size = self._shards[shard]
            if (found := storage.size(path)) != size:
                raise BroetchenError(
                    f"{path}: {found:,} bytes, and its manifest says {size:,}; the file was changed or is damaged: see "
                    "what broetchen verify says, and build it again"
                )
            while len(self._open) >= self._most_open:
                self._open.popitem(last=False)[1].__exit__()
            self._open[shard] = ShardReader(path, self._format, self._text_column, expected=records).__enter__()
        self._open.move_to_end(shard)
        return self._open[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_open")}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def __repr__(self) -> str:
        # Grain's DataLoader compares it to tell whether a checkpoint belongs to the same data.
        return f"SplitRecords({self._name}, records={len(self)}, fingerprint={self._fingerprint})"


_splits: weakref.WeakSet[SplitRecords] = weakref.WeakSet()


def _begin_forks() -> None:
    for split in list(_splits):
        split._begin_fork()


os.register_at_fork(after_in_child=_begin_forks)


class BuiltDataset(Mapping[str, SplitRecords]):
    """A built dataset: its splits by name, `train` first.

    Attributes:
        folder: where it lies.
        manifest: as it was read.
    """

    def __init__(self, folder: str, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self._splits = {name: SplitRecords(folder, manifest, name) for name in manifest.splits}

    def __getitem__(self, split: str) -> SplitRecords:
        if split not in self._splits:
            raise KeyError(f"{self.folder} has no split {split!r}; it has {', '.join(self._splits)}")
        return self._splits[split]

    def __iter__(self) -> Iterator[str]:
        return iter(self._splits)

    def __len__(self) -> int:
        return len(self._splits)

    def close(self) -> None:
        """Closes all shards that are open; `with open_dataset(…) as dataset` does at the end of its block."""
        for split in self._splits.values():
            split.close()

    def __enter__(self) -> BuiltDataset:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        splits = ", ".join(f"{name}: {len(records):,} records" for name, records in self.items())
        return f"BuiltDataset({without_controls(self.folder)}, {splits})"


def open_dataset(uri: str | os.PathLike[str]) -> BuiltDataset:
    """Opens a built dataset: `open_dataset("my-mix/german")["train"][0].text`.

    Nothing but the manifest is read; a shard is held against it when it is opened. `broetchen verify` checks all of it.

    Args:
        uri: the dataset's folder, local or on any filesystem that Beam knows (`gs://…`). Remote ArrayRecord files are
            copied to the folder for temporary files, four at a time for each split; parquet is read in place. For
            random access to much of it, copy the output first.

    Raises:
        UsageError: several datasets lie there; the message names them.
        BroetchenError: no finished dataset is there, or its manifest is damaged.
    """
    uri = os.fspath(uri)
    found = find_manifests(uri)
    if len(found) > 1:
        names = ", ".join(posixpath.basename(folder) for folder in found)
        raise UsageError(f"{uri}: holds several datasets ({names}); open one of them, such as {next(iter(found))}")
    ((folder, manifest),) = found.items()
    return BuiltDataset(folder, manifest)
