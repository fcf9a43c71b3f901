"""A file that is written locally and published, wherever Beam can write, only when it is whole.

For a local destination it is written under a temporary name beside it, for a remote one in a scratch folder, from where
it is uploaded.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import os
import shutil
from types import TracebackType
from typing import NoReturn, Self

from transforms.checksums import FileMark, mark_of_file
from transforms.coders import register_json_coder
from transforms.errors import BroetchenError, UsageError
from transforms.files import storage
from transforms.files.errors import reason_and_advice
from transforms.files.scratch import run_folder
from transforms.quantities import format_size


def scratch_folder(path: str, scratch_dir: str | None = None) -> str:
    """The local folder in which the file `path` is built: its own, or for a remote one `scratch_dir`.

    Without a `scratch_dir` that is this run's, in the system's folder for temporary files, which `TMPDIR` names.
    """
    if storage.is_local(path):
        return storage.split(path)[0] or "."
    return scratch_dir or run_folder()


def check_space(path: str, needed: int) -> None:
    """Checks that a file of about `needed` bytes can be built for `path`.

    Raises:
        BroetchenError: there is less space than that.
    """
    folder = scratch_folder(path)
    existing = os.path.abspath(folder)
    while not os.path.exists(existing):
        existing = os.path.dirname(existing)
    free = shutil.disk_usage(existing).free
    if free < needed:
        elsewhere = "choose another --output" if storage.is_local(path) else "set TMPDIR to a folder with more"
        raise BroetchenError(
            f"{path}: it takes about {format_size(needed)} on the disk of {folder}, which has {format_size(free)} "
            f"free; free some space, {elsewhere}, or make shards.target_size smaller"
        )


@register_json_coder
@dataclasses.dataclass(frozen=True)
class WrittenShard:
    """A published file: where it is, its records, its size in bytes, and checksums of its bytes (see `FileMark`)."""

    path: str
    records: int
    bytes: int
    sha256: str
    crc32c: str = ""

    @property
    def mark(self) -> FileMark:
        return FileMark(self.bytes, self.sha256, self.crc32c)


class StagedShard(abc.ABC):
    """A shard file in the making; a subclass writes its content.

    A context manager: it closes at the end, and leaves nothing behind after an exception. Not for use from several
    threads at once.

    Args:
        path: of the file, local or of any of Beam's filesystems. A file that is there is replaced.
        scratch_dir: where a remote file is built, which takes its size in space; by default the system's folder for
            temporary files.

    Raises:
        UsageError: `path` is a folder.
        BroetchenError: the file cannot be written there.
    """

    def __init__(self, path: str, scratch_dir: str | None = None) -> None:
        self._path = path
        self._records = 0
        self._written: WrittenShard | None = None
        self._given_up = False
        self._temporary = _create_temporary(path, scratch_dir)

    @property
    def path(self) -> str:
        """The name under which the file is published."""
        return self._path

    @abc.abstractmethod
    def _finish(self) -> None:
        """Completes the local file, and checks that all of `_records` are in it."""

    @abc.abstractmethod
    def _release(self) -> None:
        """Lets go of the local file, which is about to be deleted or has been published."""

    def close(self) -> WrittenShard:
        """Publishes the file. May be called again, and then only answers.

        Raises:
            BroetchenError: the file could not be written or published, or an earlier write failed; there is no new
                file, and one that was there before still is.
        """
        if self._written is not None:
            return self._written
        self._check_open()
        try:
            self._finish()
            with open(self._temporary, "rb") as file:
                os.fsync(file.fileno())
                mark = mark_of_file(file)
            if storage.is_local(self._path):
                storage.rename(self._temporary, self._path)
            else:
                storage.upload(self._temporary, self._path)
        except BaseException as error:
            self._fail(error)
        self._written = WrittenShard(self._path, self._records, mark.bytes, mark.sha256, mark.crc32c)
        self.abort()
        return self._written

    def abort(self) -> None:
        """Gives the file up and deletes its beginning. After `close`, there is nothing to give up."""
        self._given_up = True
        self._release()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._temporary)

    def _check_open(self) -> None:
        if self._given_up:
            state = "closed" if self._written else "given up after an earlier error"
            raise BroetchenError(f"{self._path}: this writer was {state}; make a new one")

    def _fail(self, error: BaseException) -> NoReturn:
        self.abort()
        # ArrayRecord reports a failed write by a RuntimeError whose text names the cause, at the first or a later call.
        if isinstance(error, RuntimeError):
            reason = str(error).split(";")[0]
            raise BroetchenError(
                f"{self._path}: a shard could not be written ({reason}, in {os.path.dirname(self._temporary) or '.'}); "
                "free some space there, or choose another folder, and run it again"
            ) from error
        if isinstance(error, OSError):
            reason, advice = reason_and_advice(error)
            raise BroetchenError(
                f"{self._path}: a shard could not be written, by way of {self._temporary} ({reason}); {advice}"
            ) from error
        raise error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._written is None:
            self.abort()


class OptionalFile[File: StagedShard]:
    """A file that is written where there is something to write into it. A context manager, as the file is."""

    def __init__(self) -> None:
        self._file: File | None = None

    def close(self) -> WrittenShard | None:
        """The file that was written, or None where there is none."""
        return self._file.close() if self._file else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.__exit__(kind, error, traceback)


def _create_temporary(path: str, scratch_dir: str | None) -> str:
    _, name = storage.split(path)
    if not name:
        raise UsageError(f"{path}: a shard needs a file name, and this is a folder")
    folder = scratch_folder(path, scratch_dir)
    if storage.is_local(path):
        storage.makedirs(folder)
    temporary = storage.temporary_path(os.path.join(folder, name))
    try:
        # Writers open files late, and then cannot say much about an error.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        reason, advice = reason_and_advice(error)
        raise BroetchenError(f"{path}: cannot be written, by way of {temporary} ({reason}); {advice}") from error
    return temporary
