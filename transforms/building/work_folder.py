"""The files of unfinished work, beside the output: what makes a killed build resumable.

A shard is finished once its count file lies there, which is written last:

    <output>/<dataset>/.broetchen/<fingerprint>/shard-00007.arecord   the records
                                                shard-00007.lengths   tokens of each document, uint32, little endian
                                                bad-rows-00007.parquet  the rows that it left out, if they are kept
                                                shard-00007.json      its `ShardCount`
                                                budgets.json          the tokens that each split is to have
                                                publication.json      which file each finished shard is renamed to

Disks lose files and change bytes: a build that goes on tokenizes a shard anew whose files are not those that its count
tells of, and each .json holds a checksum of itself, its `seal`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import posixpath
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from transforms.budget.token_budget import ShardCount
from transforms.coders import from_json, to_json
from transforms.errors import BroetchenError, one_line
from transforms.files import storage

BUDGETS, PUBLICATION = "budgets.json", "publication.json"


def quarantine_folder(folder: str) -> str:
    """Where the rows that the dataset in `folder` left out lie; no pattern of shard names matches anything there."""
    return posixpath.join(folder, "_quarantine")


def quarantine_name(ordinal: int) -> str:
    """The file of the rows that a shard left out, with the unfinished work as well as in the end."""
    return f"bad-rows-{ordinal:05d}.parquet"


@dataclasses.dataclass(frozen=True)
class Publication:
    """Final path of each shard that is published whole, by ordinal."""

    names: dict[int, str]


@dataclasses.dataclass(frozen=True)
class Budgets:
    """Tokens by split, so that who looks at unfinished work can tell how much there is to do."""

    tokens: dict[str, int]


class WorkFolder:
    """The unfinished work of one dataset under one fingerprint; `extension` is that of its shard files."""

    def __init__(self, path: str, extension: str) -> None:
        self.path = path
        self._extension = extension

    def shard(self, ordinal: int) -> str:
        return self._file(f"shard-{ordinal:05d}.{self._extension}")

    def quarantine(self, ordinal: int) -> str:
        """The file of the rows that a shard left out."""
        return self._file(quarantine_name(ordinal))

    def _count(self, ordinal: int) -> str:
        return self._file(f"shard-{ordinal:05d}.json")

    def _lengths(self, ordinal: int) -> str:
        return self._file(f"shard-{ordinal:05d}.lengths")

    def _file(self, name: str) -> str:
        return posixpath.join(self.path, name)

    def finish(self, count: ShardCount, lengths: npt.NDArray[np.uint32]) -> None:
        """Marks a shard, whose file is already in place, as finished."""
        storage.write_bytes(self._lengths(count.ordinal), lengths.astype("<u4").tobytes())
        self._write(self._count(count.ordinal), count)

    def finished(self, ordinal: int) -> ShardCount | None:
        """The count of a finished shard whose files are as they were written, here or under their final names.

        Raises:
            BroetchenError: the count is damaged, or the names.
        """
        path = self._count(ordinal)
        if not storage.exists(path):
            return None
        count = self._read(ShardCount, path)
        if count.ordinal != ordinal:
            raise self._damaged(path, f"it is that of shard {count.ordinal}")
        if not self._has_lengths(count):
            return None
        if not storage.is_whole(self.place(ordinal), count.file_bytes, count.sha256):
            return None
        if count.quarantine_bytes and not storage.is_whole(
            self._quarantine_place(ordinal), count.quarantine_bytes, count.quarantine_sha256
        ):
            return None
        return count

    def place(self, ordinal: int) -> str:
        """Where a finished shard's file lies: here, or under its final name already.

        Raises:
            BroetchenError: the names are damaged.
        """
        shard, publication = self.shard(ordinal), self._file(PUBLICATION)
        if storage.exists(shard) or not storage.exists(publication):
            return shard
        return self._read(Publication, publication).names.get(ordinal, shard)

    def _quarantine_place(self, ordinal: int) -> str:
        here = self.quarantine(ordinal)
        if storage.exists(here):
            return here
        dataset_folder = posixpath.dirname(posixpath.dirname(self.path))
        return posixpath.join(quarantine_folder(dataset_folder), quarantine_name(ordinal))

    def lengths(self, ordinal: int) -> npt.NDArray[np.uint32]:
        """Tokens of each document of a finished shard, uint32 [documents]."""
        return np.frombuffer(storage.read_bytes(self._lengths(ordinal)), "<u4")

    def _has_lengths(self, count: ShardCount) -> bool:
        path = self._lengths(count.ordinal)
        there = storage.exists(path) and storage.size(path) == 4 * count.documents
        return there and int(self.lengths(count.ordinal).sum()) == count.tokens

    def write_budgets(self, tokens: Mapping[str, int]) -> None:
        self._write(self._file(BUDGETS), Budgets(dict(tokens)))

    def write_publication(self, publication: Publication) -> None:
        self._write(self._file(PUBLICATION), publication)

    def _write(self, path: str, value: Any) -> None:
        storage.write_bytes(path, _sealed(value))

    def _read[T](self, cls: type[T], path: str) -> T:
        content = storage.read_bytes(path)
        try:
            value = from_json(cls, content)
        except ValueError as error:
            raise self._damaged(path, one_line(error)) from error
        if content != _sealed(value):
            raise self._damaged(path, "it is not as it was written")
        return value

    def _damaged(self, path: str, why: str) -> BroetchenError:
        return BroetchenError(f"{path}: damaged ({why}); delete the folder {self.path} and build again")


def _sealed(value: Any) -> bytes:
    """A dataclass as JSON, and the SHA-256 of that: a digit that has changed would be believed otherwise."""
    content = to_json(value)
    return f'{content[:-1]},"seal":"{hashlib.sha256(content.encode()).hexdigest()}"}}'.encode()
