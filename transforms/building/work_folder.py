"""The files of unfinished work, beside the output: what makes a killed build resumable.

A shard is finished once its count file lies there, which is written last:

    <output>/<dataset>/.broetchen/<fingerprint>/shard-00007.arecord   the records
                                                shard-00007.lengths   tokens of each document, uint32, little endian
                                                bad-rows-00007.parquet  the rows that it left out, if they are kept
                                                shard-00007.json      its `ShardCount`
                                                budgets.json          the tokens that each split is to have
                                                publication.json      which file each finished shard is renamed to
"""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from transforms.budget.token_budget import ShardCount
from transforms.coders import from_json, to_json
from transforms.errors import BroetchenError
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

    def _publication(self) -> str:
        return self._file(PUBLICATION)

    @property
    def _dataset_folder(self) -> str:
        return posixpath.dirname(posixpath.dirname(self.path))

    def _file(self, name: str) -> str:
        return posixpath.join(self.path, name)

    def finish(self, count: ShardCount, lengths: npt.NDArray[np.uint32]) -> None:
        """Marks a shard, whose file is already in place, as finished."""
        storage.write_bytes(self._lengths(count.ordinal), lengths.astype("<u4").tobytes())
        storage.write_bytes(self._count(count.ordinal), to_json(count).encode())

    def finished(self, ordinal: int) -> ShardCount | None:
        """The count of a finished shard whose files are still there, here or already under their final names."""
        if not storage.exists(self._count(ordinal)):
            return None
        count = self._read(ShardCount, self._count(ordinal))
        places = [self.shard(ordinal)]
        if storage.exists(self._publication()):
            name = self._read(Publication, self._publication()).names.get(ordinal)
            places += [name] if name else []
        if not _is_at_one_of(places, count.file_bytes):
            return None
        if count.quarantine_bytes:
            published = posixpath.join(quarantine_folder(self._dataset_folder), quarantine_name(ordinal))
            if not _is_at_one_of([self.quarantine(ordinal), published], count.quarantine_bytes):
                return None
        return count

    def lengths(self, ordinal: int) -> npt.NDArray[np.uint32]:
        """Tokens of each document of a finished shard, uint32 [documents]."""
        return np.frombuffer(storage.read_bytes(self._lengths(ordinal)), "<u4")

    def write_budgets(self, tokens: Mapping[str, int]) -> None:
        path = self._file(BUDGETS)
        if not storage.exists(path):
            storage.write_bytes(path, to_json(Budgets(dict(tokens))).encode())

    def write_publication(self, publication: Publication) -> None:
        storage.write_bytes(self._publication(), to_json(publication).encode())

    def _read[T](self, cls: type[T], path: str) -> T:
        try:
            return from_json(cls, storage.read_bytes(path))
        except ValueError as error:
            raise BroetchenError(f"{path}: damaged ({error}); delete the folder {self.path} and build again") from error


def _is_at_one_of(places: Iterable[str], size: int) -> bool:
    return any(storage.exists(place) and storage.size(place) == size for place in places)
