"""The files of unfinished work, beside the output: with them a killed build goes on.

A shard is finished once its count lies there, which is written last. Work that serves other budgets of the same config
and source lies in the same folder:

    <output>/<dataset>/.broetchen/<key>/shard-00007-<attempt>.arecord   the records; .parquet, .bin in other formats
                                        shard-00007-<attempt>.rows      the fate of each row of the source (`ROW`);
                                                                        of a shard that was taken over, its `OldShard`
                                        shard-00007-<attempt>.idx       the index of one that was taken over, where
                                                                        the format has one
                                        bad-rows-00007-<attempt>.parquet  the rows that it left out, if they are kept
                                        trace-00007-<attempt>.parquet   its trace, if there is to be one
                                        shard-00007-<attempt>.tally     how many tokens it has while it is written
                                        shard-00007.json                its `ShardCount`
                                        budgets-<fingerprint>.json      the tokens that each split is to have
                                        publication-<fingerprint>.json  which file each finished shard is renamed to
                                        distrusted-<engine>.json        an engine that was found to err here

Two workers may write one shard at the same time, when a runner takes one of them for dead. So each attempt has names of
its own, and a count takes the place of another only if it holds more. Disks lose files and change bytes: a shard
whose files do not have the checksums of its count is tokenized again, and each .json holds a checksum of itself, its
`seal`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import posixpath
import re
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from transforms.budget.shard_count import Budgets as Budgets
from transforms.budget.shard_count import FinalNames as FinalNames
from transforms.budget.token_budget import ShardCount
from transforms.checksums import FileMark, mark_of
from transforms.coders import from_json, to_json
from transforms.dataset.quarantine import quarantine_folder, quarantine_name
from transforms.dataset.trace import trace_name
from transforms.errors import BroetchenError, one_line
from transforms.files import storage
from transforms.files.exclusive import put_unless
from transforms.files.listing import list_files
from transforms.recipe.shard_plan import OldShard

ROW = np.dtype([("kind", "u1"), ("tokens", "<u4"), ("text", "<u8")])
"""A row of the source that was read: its kind (an index of `transforms.texts.KINDS`), and of a document its tokens,
BOS and EOS included, and the hash of its text (`transforms.texts.text_hashes`)."""

_ATTEMPT_FILE = re.compile(r"(?:shard|bad-rows|trace)-(\d+)-([0-9a-f]{12})\.\w+")


_COUNT_FILE = re.compile(r"shard-(\d+)\.json")


def _rename_back(published: str, here: str, mark: FileMark) -> None:
    if not storage.exists(here) and storage.is_whole(published, mark):
        storage.rename(published, here)


def new_attempt() -> str:
    """Tells one writing of a shard from all others."""
    return uuid.uuid4().hex[:12]


@dataclasses.dataclass(frozen=True)
class Distrusted:
    """An engine, with its version, that gave other ids than the reference; and where."""

    engine: str
    reason: str


class WorkFolder:
    """The unfinished work of one dataset.

    Args:
        path: of the folder.
        extension: of its shard files.
        fingerprint: of the build that works there.
    """

    def __init__(self, path: str, extension: str, fingerprint: str) -> None:
        self.path = path
        self._extension = extension
        self._build = fingerprint[:16]

    def shard(self, ordinal: int, attempt: str) -> str:
        return self._file(f"shard-{ordinal:05d}-{attempt}.{self._extension}")

    def index(self, ordinal: int, attempt: str) -> str:
        """The index of a shard in Megatron's format that is taken over; others get theirs when they are published."""
        return self._file(f"shard-{ordinal:05d}-{attempt}.idx")

    def quarantine(self, ordinal: int, attempt: str) -> str:
        """The file of the rows that a shard left out."""
        return self._file(f"bad-rows-{ordinal:05d}-{attempt}.parquet")

    def trace(self, ordinal: int, attempt: str) -> str:
        """The file of a shard's trace."""
        return self._file(f"trace-{ordinal:05d}-{attempt}.parquet")

    def tally(self, ordinal: int, attempt: str) -> str:
        """The file in which a worker notes how far a shard is (`transforms.progress.tally`)."""
        return self._file(f"shard-{ordinal:05d}-{attempt}.tally")

    def _rows(self, ordinal: int, attempt: str) -> str:
        return self._file(f"shard-{ordinal:05d}-{attempt}.rows")

    def _count(self, ordinal: int) -> str:
        return self._file(f"shard-{ordinal:05d}.json")

    def _final_names(self) -> str:
        return self._file(f"publication-{self._build}.json")

    def _file(self, name: str) -> str:
        return posixpath.join(self.path, name)

    def write_rows(self, ordinal: int, attempt: str, rows: npt.NDArray[np.void]) -> FileMark:
        """Writes the fate of each row, of dtype `ROW`."""
        content = rows.astype(ROW, copy=False).tobytes()
        storage.write_bytes(self._rows(ordinal, attempt), content)
        return mark_of(content)

    def rows(self, count: ShardCount) -> npt.NDArray[np.void]:
        """The fate of each row of a finished shard, of dtype `ROW`: [rows].

        Raises:
            BroetchenError: the file is gone or has changed.
        """
        return np.frombuffer(self._whole_rows(count), ROW)

    def _whole_rows(self, count: ShardCount) -> bytes:
        path = self._rows(count.ordinal, count.attempt)
        content = storage.read_bytes(path)
        if mark_of(content) != count.row_file:
            raise self._damaged(path, "it is not as it was written")
        return content

    def write_old_shard(self, ordinal: int, attempt: str, old: OldShard) -> FileMark:
        """Writes the old manifest's account of a shard that is taken over."""
        content = to_json(old).encode()
        storage.write_bytes(self._rows(ordinal, attempt), content)
        return mark_of(content)

    def old_shard(self, count: ShardCount) -> OldShard:
        """The old manifest's account of a finished shard that was taken over.

        Raises:
            BroetchenError: the file is gone or has changed.
        """
        return from_json(OldShard, self._whole_rows(count))

    def old_index(self, count: ShardCount) -> bytes:
        """The index of a finished shard in Megatron's format that was taken over.

        Raises:
            BroetchenError: the file is gone or has changed.
        """
        path, index = self.index(count.ordinal, count.attempt), self.old_shard(count).index
        content = storage.read_bytes(path)
        if index is None or hashlib.sha256(content).hexdigest() != index.sha256:
            raise self._damaged(path, "it is not as it was written")
        return content

    def lengths(self, count: ShardCount) -> npt.NDArray[np.uint32]:
        """Tokens of each document of a finished shard, uint32 [documents].

        Raises:
            BroetchenError: see `rows`.
        """
        rows = self.rows(count)
        lengths: npt.NDArray[np.uint32] = rows["tokens"][rows["kind"] == 0]
        return lengths

    def finish(self, count: ShardCount) -> ShardCount:
        """Marks a shard, whose files are in place, as finished, unless another attempt has done so with as much of it.

        Returns:
            the count that stands. Where it is another attempt's, the files of this one are deleted.

        Raises:
            BroetchenError: the count cannot be written.
        """

        path = self._count(count.ordinal)

        def stands(content: bytes, late: bytes) -> bool:
            try:
                other = self._parsed(ShardCount, path, content)
            except BroetchenError:
                return False
            ours = self._parsed(ShardCount, path, late)
            return other.source == ours.source and not ours.holds_more(other) and self._is_usable(other)

        kept = self._parsed(ShardCount, path, put_unless(path, _sealed(count), stands))
        if kept.attempt != count.attempt:
            kinds = (self.shard, self._rows, self.index, self.quarantine, self.trace)
            storage.delete([name(count.ordinal, count.attempt) for name in kinds])
        return kept

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
        return count if self._is_usable(count) else None

    def _is_usable(self, count: ShardCount) -> bool:
        return (
            storage.is_whole(self._rows(count.ordinal, count.attempt), count.row_file)
            and storage.is_whole(self.place(count), count.file)
            and (count.quarantine is None or storage.is_whole(self._quarantine_place(count), count.quarantine))
            and (count.trace is None or storage.is_whole(self._trace_place(count), count.trace))
            and (count.has_rows or self._has_old_index(count))
            and self.distrusted(count.engine) is None
        )

    def _has_old_index(self, count: ShardCount) -> bool:
        """Whether the index of a shard that was taken over is there, if it has one; of a remote one by its size."""
        path, index = self.index(count.ordinal, count.attempt), self.old_shard(count).index
        if index is None:
            return True
        found = storage.look(path)
        if found is None or found.bytes != index.bytes:
            return False
        return not storage.is_local(path) or storage.local_mark(path).sha256 == index.sha256

    def place(self, count: ShardCount) -> str:
        """Where a finished shard's file lies: here, or under its final name already.

        Raises:
            BroetchenError: the names are damaged.
        """
        shard = self.shard(count.ordinal, count.attempt)
        return shard if storage.exists(shard) else self._final(count.ordinal) or shard

    def _final(self, ordinal: int) -> str | None:
        """The final path of a shard that this build publishes whole, once that is known."""
        if not storage.exists(self._final_names()):
            return None
        return self._read(FinalNames, self._final_names()).names.get(ordinal)

    def _quarantine_place(self, count: ShardCount) -> str:
        here = self.quarantine(count.ordinal, count.attempt)
        return here if storage.exists(here) else self._published_quarantine(count.ordinal)

    def _trace_place(self, count: ShardCount) -> str:
        here = self.trace(count.ordinal, count.attempt)
        final = None if storage.exists(here) else self._final(count.ordinal)
        return here if final is None else _published_trace(final)

    def _published_quarantine(self, ordinal: int) -> str:
        dataset_folder = posixpath.dirname(posixpath.dirname(self.path))
        return posixpath.join(quarantine_folder(dataset_folder), quarantine_name(ordinal))

    def write_budgets(self, tokens: Mapping[str, int], *, exhausted: bool = False) -> None:
        """Notes how much a build wants, and perhaps that there is less; a later build begins it again."""
        self._write(self._file(f"budgets-{self._build}.json"), Budgets(dict(tokens), exhausted))

    def write_final_names(self, names: FinalNames) -> None:
        self._write(self._final_names(), names)

    def distrust(self, engine: str, reason: str) -> None:
        """Notes that an engine, named with its version, gave other ids than the reference; its shards are not used."""
        self._write(self._distrusted(engine), Distrusted(engine, reason))

    def distrusted(self, engine: str) -> str | None:
        """Why an engine is not to be trusted here, or None.

        Raises:
            BroetchenError: the note is damaged.
        """
        path = self._distrusted(engine)
        return self._read(Distrusted, path).reason if storage.exists(path) else None

    def _distrusted(self, engine: str) -> str:
        return self._file(f"distrusted-{engine.replace(' ', '-')}.json")

    def take_back(self) -> None:
        """Takes back the shards to which a build with another budget, which did not end, has given final names.

        Otherwise a shard of this build might be given the name that one of them has.

        Raises:
            BroetchenError: the names that it noted are damaged, or a file cannot be renamed.
        """
        names = list(map(posixpath.basename, storage.list_marks(self.path)))
        others = [
            posixpath.join(self.path, name)
            for name in names
            if re.fullmatch(r"(publication|budgets)-[0-9a-f]{16}\.json", name) and self._build not in name
        ]
        if not others:
            return
        for path in others:
            if posixpath.basename(path).startswith("publication-"):
                for ordinal, final in self._read(FinalNames, path).names.items():
                    self._take_back(ordinal, final)
        # Left-out rows get their names of shards that are cut as well, which no publication names.
        for match in filter(None, map(_COUNT_FILE.fullmatch, names)):
            count = self._read(ShardCount, self._count(int(match[1])))
            if count.quarantine is not None:
                here = self.quarantine(count.ordinal, count.attempt)
                _rename_back(self._published_quarantine(count.ordinal), here, count.quarantine)
        storage.delete(others)

    def _take_back(self, ordinal: int, final: str) -> None:
        if not storage.exists(self._count(ordinal)):
            return
        count = self._read(ShardCount, self._count(ordinal))
        _rename_back(final, self.shard(ordinal, count.attempt), count.file)
        if count.trace is not None:
            _rename_back(_published_trace(final), self.trace(ordinal, count.attempt), count.trace)

    def sweep(self) -> list[str]:
        """See `sweep_work`."""
        found = storage.list_marks(self.path)
        files = [(path, match) for path in found if (match := _ATTEMPT_FILE.fullmatch(posixpath.basename(path)))]
        attempts: dict[int, set[str]] = {}
        for _, match in files:
            attempts.setdefault(int(match[1]), set()).add(match[2])
        for ordinal, several in attempts.items():
            if self._count(ordinal) not in found:
                attempts[ordinal] = set()
            elif len(several) > 1:
                attempts[ordinal] = {self._read(ShardCount, self._count(ordinal)).attempt}
        left = [path for path, match in files if match[2] not in attempts[int(match[1])]]
        storage.delete(left)
        return left + storage.delete_temporary(self.path)

    def _write(self, path: str, value: Any) -> None:
        storage.write_bytes(path, _sealed(value))

    def _read[T](self, cls: type[T], path: str) -> T:
        return self._parsed(cls, path, storage.read_bytes(path))

    def _parsed[T](self, cls: type[T], path: str, content: bytes) -> T:
        try:
            value = from_json(cls, content)
        except ValueError as error:
            raise self._damaged(path, one_line(error)) from error
        if not _is_sealed(content):
            raise self._damaged(path, "it is not as it was written")
        return value

    def _damaged(self, path: str, why: str) -> BroetchenError:
        return BroetchenError(f"{path}: damaged ({why}); delete the folder {self.path} and build again")


def sweep_work(work_root: str) -> list[str]:
    """Deletes and names the files that killed workers left in unfinished work: those of attempts without a count.

    Only for work that nobody does now.

    Raises:
        BroetchenError: a file cannot be deleted, or a count is damaged.
    """
    folders = {posixpath.dirname(path) for path, _ in list_files(work_root, "*/budgets-*")}
    return [path for folder in sorted(folders) for path in WorkFolder(folder, "", "").sweep()]


def _published_trace(final: str) -> str:
    folder, name = posixpath.split(final)
    return posixpath.join(folder, trace_name(name))


def _sealed(value: Any) -> bytes:
    """A dataclass as JSON, and the SHA-256 of that: a digit that has changed would be believed otherwise."""
    return _with_seal(to_json(value).encode())


def _with_seal(content: bytes) -> bytes:
    return b'%b,"seal":"%b"}' % (content[:-1], hashlib.sha256(content).hexdigest().encode())


def _is_sealed(content: bytes) -> bool:
    """Whether a file is as it was written, by this version or by one whose dataclass had fewer fields."""
    return content == _with_seal(content.rpartition(b',"seal":"')[0] + b"}")
