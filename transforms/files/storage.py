"""Files on every filesystem that Beam knows, local or remote, through one set of functions.

What Beam's `FileSystems` leaves open is settled here: a file that is written appears whole or not at all; a rename
replaces its target and may be repeated; deleting what is gone is no error; nothing is compressed or decompressed by
its name; and an error names the path and says what to do.

Transient errors of a remote store are retried by Beam's own clients (for `gs://`: `apache_beam.io.gcp.gcsio_retry`),
and an upload that the store has lost is started over here.
"""

from __future__ import annotations

import contextlib
import http
import io
import os
import posixpath
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Protocol

from apache_beam.io.filesystem import CompressionTypes, FileMetadata, FileSystem
from apache_beam.io.filesystems import FileSystems

import transforms.files.hub  # noqa: F401 (registers hf:// with Beam)
from transforms.checksums import FileMark, mark_of_file
from transforms.errors import BroetchenError, UsageError
from transforms.files import gcs_objects, gcs_rename
from transforms.files.errors import explained
from transforms.files.scratch import run_folder

_GCS = "gs"
_CHUNK_BYTES = 8 << 20
_UPLOAD_ATTEMPTS = 5
_MIME_TYPE = "application/octet-stream"
_WILDCARDS = frozenset("*?[")
_TEMPORARY = ".{name}.tmp-{unique}"

_WILDCARD = re.compile(r"[*?\[]")


def is_local(path: str) -> bool:
    """Whether `path` is on this machine's own filesystem, that is, has no scheme."""
    return FileSystems.get_scheme(path) is None


def check_scheme(path: str) -> None:
    """Checks, without looking at the path, that Beam has a filesystem for it.

    Raises:
        UsageError: it has none.
    """
    _filesystem(path)


def join(base: str, *parts: str) -> str:
    """`parts` below `base`."""
    joined: str = _filesystem(base).join(base, *parts)
    return joined


def split(path: str) -> tuple[str, str]:
    """The folder of `path`, and the name in it; the folder of a bare local name is ``""``."""
    folder, name = posixpath.split(path)
    return folder, name


def fixed_folder(pattern: str) -> str:
    """The part of a glob pattern before its first wildcard, up to the last separator, which it includes.

    >>> fixed_folder("gs://corpora/german/*.parquet"), fixed_folder("a.parquet")
    ('gs://corpora/german/', '')
    """
    return _WILDCARD.split(pattern, maxsplit=1)[0].rpartition("/")[0] + "/" if "/" in pattern else ""


def temporary_path(path: str) -> str:
    """A name next to `path` that nobody else uses, and that no pattern of shard names matches."""
    folder, name = split(path)
    return posixpath.join(folder, _TEMPORARY.format(name=name, unique=uuid.uuid4().hex))


def exists(path: str) -> bool:
    """Whether there is a file (or, where there are folders, a folder) of this name."""
    with explained(path, "looked up"):
        return bool(_filesystem(path).exists(path))


def size(path: str) -> int:
    """The size of a file in bytes.

    Raises:
        BroetchenError: there is no such file.
    """
    with explained(path, "looked up"):
        return int(_filesystem(path).size(path))


def _is_there(path: str, expected_size: int) -> bool:
    return exists(path) and size(path) == expected_size


def is_whole(path: str, mark: FileMark) -> bool:
    """Whether a file is there as it was written: on a local disk by its SHA-256, on ``gs://`` by the store's CRC32C.

    Of another store's objects the size is compared: it holds them against checksums of its own.
    """
    found = _look(path)
    if found is None or differs(found, mark):
        return False
    if not is_local(path):
        return True
    if os.path.islink(path) or not os.path.isfile(path):
        return False
    with explained(path, "read"), open(path, "rb") as file:
        return mark_of_file(file) == mark


def differs(found: FileMark, mark: FileMark) -> bool:
    """Whether a file is another than was written, as far as a listing (`list_marks`) tells."""
    return found.bytes != mark.bytes or bool(found.crc32c and mark.crc32c and found.crc32c != mark.crc32c)


def _look(path: str) -> FileMark | None:
    """What the filesystem tells of a file without reading it; None where there is none."""
    if FileSystems.get_scheme(path) != _GCS:
        return FileMark(size(path)) if exists(path) else None
    with explained(path, "looked up"):
        try:
            return gcs_objects.look(path)[1]
        except FileNotFoundError:
            return None


def read_bytes(path: str) -> bytes:
    """All of a file.

    Raises:
        BroetchenError: it cannot be read.
    """
    with explained(path, "read"), _opened(path) as source:
        return source.read()


def write_bytes(path: str, data: bytes) -> None:
    """Writes a file, or replaces it. Readers see the old content or the new, nothing between.

    Raises:
        BroetchenError: it cannot be written; what was there before is still there.
    """
    write_stream(io.BytesIO(data), len(data), path)


def upload(local: str, path: str) -> None:
    """Copies a local file to `path`, in chunks; it appears there whole or not at all.

    Raises:
        BroetchenError: it cannot be written, or arrived with another size.
    """
    with explained(local, "read"):
        source = open(local, "rb")  # noqa: SIM115
    with source:
        write_stream(source, os.fstat(source.fileno()).st_size, path)


class Rereadable(Protocol):
    """What can be read from its beginning as often as is needed."""

    def seek(self, offset: int, /) -> object:
        """Goes to `offset`, which is 0."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, at most `size`, or all where it is negative; none at the end."""


def write_stream(source: Rereadable, source_size: int, path: str) -> None:
    """Writes all of `source`, in chunks; it appears at `path` whole or not at all, and not if reading it fails.

    Raises:
        BroetchenError: it cannot be written, or arrived with another size.
    """
    # Under a temporary name even on object stores, where an upload appears at its end only: their file objects finish
    # the upload whenever they are closed or collected, also after an error half way.
    for attempt in range(1, _UPLOAD_ATTEMPTS + 1):
        temporary = temporary_path(path)
        try:
            source.seek(0)
            with explained(path, "written"):
                sink = _filesystem(path).create(temporary, _MIME_TYPE, CompressionTypes.UNCOMPRESSED)
                with contextlib.closing(sink):
                    shutil.copyfileobj(source, sink, _CHUNK_BYTES)
                    if is_local(path):
                        sink.flush()
                        os.fsync(sink.fileno())
            written = size(temporary)
            if written != source_size:
                raise BroetchenError(f"{path}: {written:,} of {source_size:,} bytes arrived; run it again")
            rename(temporary, path, size=source_size)
            return
        except BaseException as error:
            with contextlib.suppress(BroetchenError):
                delete([temporary])
            if attempt == _UPLOAD_ATTEMPTS or not _lost_upload(error):
                raise


def _lost_upload(error: BaseException) -> bool:
    # A resumable upload whose session the store has forgotten cannot be resumed, so no client retries it: it has to
    # start over (https://cloud.google.com/storage/docs/resumable-uploads#handling_errors).
    response = getattr(error.__cause__, "response", None)
    return getattr(response, "status_code", None) in (http.HTTPStatus.NOT_FOUND, http.HTTPStatus.GONE)


def rename(source: str, target: str, *, size: int | None = None) -> None:
    """Renames a file within one filesystem, and replaces what is there. May be repeated where `size` is given.

    Args:
        source: the file as it is called now.
        target: its new name; the folder is made where there is none.
        size: of the file in bytes. If `source` is gone and `target` has this size, an earlier attempt did the work.

    Raises:
        BroetchenError: there is neither the one nor the other, or the filesystem refuses.
    """
    if source == target:
        return
    try:
        with explained(source, f"renamed to {target}"):
            if is_local(source):
                makedirs(split(target)[0] or ".")
                os.replace(source, target)
                sync_folder(split(target)[0] or ".")
            elif FileSystems.get_scheme(source) == _GCS:
                gcs_rename.rename(source, target)
            else:
                _filesystem(source).rename([source], [target])
    except BroetchenError:
        if size is None or exists(source) or not _is_there(target, size):
            raise


def sync_folder(folder: str) -> None:
    """Puts a folder's names on the disk, where they survive a power failure; not every filesystem can do this."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def makedirs(path: str) -> None:
    """Makes a folder and those above it. Does nothing where it is there, or where a store has no folders.

    Raises:
        BroetchenError: it cannot be made.
    """
    with explained(path, "made a folder"):
        filesystem = _filesystem(path)
        if is_local(path):
            os.makedirs(path, exist_ok=True)
        elif filesystem.has_dirs() and not filesystem.exists(path):
            filesystem.mkdirs(path)


def list_files(pattern: str) -> list[tuple[str, int]]:
    """The files that match a pattern, as (path, size in bytes), in the order of their paths.

    ``*`` stands for any characters but ``/``, ``**`` for any at all; see
    `apache_beam.io.filesystem.FileSystem.translate_pattern`.

    Raises:
        BroetchenError: they cannot be listed.
    """
    return [(path, int(match.size_in_bytes)) for path, match in _matches(pattern)]


def list_marks(folder: str) -> dict[str, FileMark]:
    """The files in a folder, not those below it, by path: with their sizes, and on ``gs://`` their CRC32C.

    The folder's name is taken as it is, wildcards and all, and a link is no file.

    Raises:
        BroetchenError: they cannot be listed.
    """
    with explained(folder, "listed"):
        if FileSystems.get_scheme(folder) == _GCS:
            return gcs_objects.list_marks(folder)
        if is_local(folder):
            with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
                return {
                    posixpath.join(folder, entry.name): FileMark(entry.stat(follow_symlinks=False).st_size)
                    for entry in entries
                    if entry.is_file(follow_symlinks=False)
                }
            return {}
        return {path: FileMark(size) for path, size in list_files(posixpath.join(folder, "*"))}


def modified_times(pattern: str) -> dict[str, float]:
    """When the files that match a pattern (see `list_files`) were last written, in seconds since 1970, by path.

    An object store tells when it got the object under this name: a rename there is a copy. A file of which a filesystem
    does not tell is left out.

    Raises:
        BroetchenError: they cannot be listed.
    """
    found = {path: float(match.last_updated_in_seconds or 0) for path, match in _matches(pattern)}
    return {path: seconds for path, seconds in found.items() if seconds > 0}


def _matches(pattern: str) -> list[tuple[str, FileMetadata]]:
    # Beam looks for a bare pattern in the folder "", which does not exist.
    bare = is_local(pattern) and not split(pattern)[0]
    with explained(pattern, "listed"):
        matches = _filesystem(pattern).match([f"./{pattern}" if bare else pattern])[0].metadata_list
        return sorted(
            (
                (match.path.removeprefix("./") if bare else match.path, match)
                for match in matches
                if not (is_local(pattern) and os.path.isdir(match.path))
            ),
            key=lambda found: found[0],
        )


def delete(paths: Iterable[str]) -> None:
    """Deletes files; those that are not there are none to delete.

    Raises:
        BroetchenError: one could not be deleted.
    """
    for path in paths:
        with explained(path, "deleted"):
            if is_local(path):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            else:
                _filesystem(path).delete([_literal(path)])


def delete_tree(folder: str) -> None:
    """Deletes all that is below a folder, and the folder; if there is none, does nothing.

    Raises:
        BroetchenError: something could not be deleted.
    """
    with explained(folder, "deleted"):
        if is_local(folder):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder)
            return
        filesystem, prefix = _filesystem(folder), _literal(folder).rstrip("/") + "/"
        if filesystem.match([prefix + "**"], [1])[0].metadata_list:
            filesystem.delete([prefix])
            # Beam logs the objects that it could not delete, and reports none of them.
            left = filesystem.match([prefix + "**"])[0].metadata_list
            if left:
                raise BroetchenError(
                    f"{folder}: {len(left):,} files could not be deleted, {left[0].path} among them; "
                    "delete them by hand, with an account that may"
                )


def delete_temporary(folder: str) -> list[str]:
    """Deletes the temporary files that killed writers left in a folder (not in those below it), and names them.

    Only for a folder in which nobody is writing now.

    Raises:
        BroetchenError: one could not be deleted.
    """
    left = [path for path, _ in list_files(join(folder, _TEMPORARY.format(name="*", unique="*")))]
    delete(left)
    return left


@contextlib.contextmanager
def local_copy(path: str, scratch_dir: str | None = None) -> Iterator[str]:
    """A local path with the content of `path`: itself where it is local, else a copy that is deleted at the end.

    Args:
        path: the file.
        scratch_dir: the folder for the copy; by default this run's in the system's folder for temporary files.

    Raises:
        BroetchenError: there is no such file, it cannot be read, or there is no space for the copy.
    """
    expected = size(path)
    if is_local(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="copy-", dir=scratch_dir or run_folder()) as folder:
        local = os.path.join(folder, split(path)[1])
        with explained(path, f"copied to {folder}"), _opened(path) as source, open(local, "wb") as copy:
            shutil.copyfileobj(source, copy, _CHUNK_BYTES)
        copied = os.path.getsize(local)
        if copied != expected:
            raise BroetchenError(f"{path}: read {copied:,} of {expected:,} bytes; it changed meanwhile: run it again")
        yield local


def _opened(path: str) -> contextlib.AbstractContextManager[BinaryIO]:
    return _filesystem(path).open(path, _MIME_TYPE, CompressionTypes.UNCOMPRESSED)


def _filesystem(path: str) -> FileSystem:
    try:
        return FileSystems.get_filesystem(path)
    except ValueError as error:
        raise UsageError(
            f"{path}: Beam has no filesystem for {FileSystems.get_scheme(path)}://; write a local path without a "
            "scheme, or install the extra of apache-beam for it (gcp, aws, azure)"
        ) from error


def _literal(path: str) -> str:
    # Beam takes every path that it is to delete for a pattern, and has no way to quote one.
    if _WILDCARDS.intersection(path):
        raise BroetchenError(f"{path}: a remote name with * ? or [ cannot be deleted through Beam; rename or delete it")
    return path
