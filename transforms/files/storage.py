"""Files on every filesystem that Beam knows, local or remote, through one set of functions.

Questions that Beam's `FileSystems` leaves open are settled here: a file that is written appears whole or not at all; a
rename replaces its target and may be repeated; deleting a file that is gone is no error; nothing is compressed or
decompressed by its name; and an error names the path and says what to do.

Beam is imported where a path has a scheme, and not for the files of this machine: it takes more than a second.

Transient errors of a remote store are retried by Beam's own clients (for `gs://`: `apache_beam.io.gcp.gcsio_retry`),
and an upload that the store has lost is started over here.
"""

from __future__ import annotations

import contextlib
import errno
import http
import io
import os
import posixpath
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, BinaryIO, Protocol

from transforms.checksums import FileMark, mark_of_file
from transforms.errors import BroetchenError, UsageError
from transforms.files import gcs_objects
from transforms.files.errors import explain_file_errors
from transforms.files.scratch import run_folder
from transforms.first_contact import make_contact

if TYPE_CHECKING:
    from apache_beam.io.filesystem import FileSystem

_GCS = "gs"
# As Beam's `FileSystems` has it.
_SCHEME = re.compile(r"([a-zA-Z][-a-zA-Z0-9+.]*)://.*")
# Of Beam's `CompressionTypes`: bytes are read and written as they are in the file, whatever its name ends with.
_UNCOMPRESSED = "uncompressed"
_CHUNK_BYTES = 8 << 20
_UPLOAD_ATTEMPTS = 5
_MIME_TYPE = "application/octet-stream"
_WILDCARDS = re.compile(r"[*?\[]")
# Of filesystems that give a file one name only, and of links that the system does not allow.
NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
_TEMPORARY = ".{name}.tmp-{unique}"
_ANY_TEMPORARY = re.compile(r"\..*\.tmp-[^/]+")


def scheme(path: str) -> str | None:
    """The word before `://` in a path; None for this machine's own filesystem.

    >>> scheme("gs://bucket/x"), scheme("a/b")
    ('gs', None)
    """
    found = _SCHEME.match(path.strip())
    return found[1] if found else None


def is_local(path: str) -> bool:
    """Whether `path` is on this machine's own filesystem, that is, has no scheme."""
    return scheme(path) is None


def check_scheme(path: str) -> None:
    """Checks, without looking at the path, that Beam has a filesystem for it.

    Raises:
        UsageError: it has none.
    """
    if not is_local(path):
        filesystem(path)


def join(base: str, *parts: str) -> str:
    """`parts` below `base`."""
    if is_local(base):
        return os.path.join(base, *parts)
    joined: str = filesystem(base).join(base, *parts)
    return joined


def split(path: str) -> tuple[str, str]:
    """The folder of `path`, and the name in it; the folder of a bare local name is ``""``."""
    folder, name = posixpath.split(path)
    return folder, name


def without_slash(folder: str) -> str:
    """A folder's path without slashes at its end, but for the root's.

    Raises:
        UsageError: it is empty.

    >>> without_slash("gs://bucket/out/"), without_slash("/")
    ('gs://bucket/out', '/')
    """
    if not folder:
        raise UsageError("the path of a folder is empty; name one, such as ./out")
    return folder.rstrip("/") or "/"


def temporary_path(path: str) -> str:
    """A name next to `path` that nobody else uses, and that no pattern of shard names matches."""
    folder, name = split(path)
    return posixpath.join(folder, _TEMPORARY.format(name=name, unique=uuid.uuid4().hex))


def is_temporary(name: str) -> bool:
    """Whether a file is called as `temporary_path` calls one, in any folder."""
    return _ANY_TEMPORARY.fullmatch(name) is not None


def exists(path: str) -> bool:
    """Whether there is a file (or, where there are folders, a folder) of this name."""
    with explain_file_errors(path, "looked up"):
        return os.path.exists(path) if is_local(path) else bool(filesystem(path).exists(path))


def size(path: str) -> int:
    """The size of a file in bytes.

    Raises:
        BroetchenError: there is no such file.
    """
    with explain_file_errors(path, "looked up"):
        return os.path.getsize(path) if is_local(path) else int(filesystem(path).size(path))


def _is_there(path: str, expected_size: int) -> bool:
    return exists(path) and size(path) == expected_size


def local_mark(path: str) -> FileMark:
    """The mark of a file on a local disk, which is read for it.

    Raises:
        BroetchenError: it cannot be read.
    """
    with explain_file_errors(path, "read"), open(path, "rb") as file:
        return mark_of_file(file)


def is_whole(path: str, mark: FileMark) -> bool:
    """Whether a file is there as it was written: on a local disk by its SHA-256, on ``gs://`` by the store's CRC32C.

    Of another store's objects the size is compared: it holds them against checksums of its own.
    """
    found = look(path)
    if found is None or differs(found, mark):
        return False
    if not is_local(path):
        return True
    if os.path.islink(path) or not os.path.isfile(path):
        return False
    return local_mark(path) == mark


def differs(found: FileMark, mark: FileMark) -> bool:
    """Whether a file is another than was written, as far as a listing (`list_marks`) tells."""
    return found.bytes != mark.bytes or bool(found.crc32c and mark.crc32c and found.crc32c != mark.crc32c)


def look(path: str) -> FileMark | None:
    """The size of a file without reading it, on ``gs://`` its CRC32C as well; None without a file."""
    if scheme(path) != _GCS:
        return FileMark(size(path)) if exists(path) else None
    with explain_file_errors(path, "looked up"):
        try:
            return gcs_objects.look(path)[1]
        except FileNotFoundError:
            return None


def version(path: str) -> str | None:
    """Tells one writing of a file from every other, also of the same bytes.

    On a local disk it is made of device, inode, size, and both the times of the last write (which `touch` sets at will)
    and of the last change of anything (which nobody sets); on ``gs://`` it is the generation.

    Returns:
        None without a file, and where a filesystem does not tell.

    Raises:
        BroetchenError: it cannot be looked up.
    """
    with explain_file_errors(path, "looked up"), contextlib.suppress(FileNotFoundError):
        if is_local(path):
            found = os.lstat(path)
            return f"{found.st_dev}-{found.st_ino}-{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}"
        if scheme(path) == _GCS:
            return str(gcs_objects.look(path)[0])
    return None


def read_bytes(path: str) -> bytes:
    """All of a file.

    Raises:
        BroetchenError: it cannot be read.
    """
    with explain_file_errors(path, "read"), _opened(path) as source:
        return source.read()


def write_bytes(path: str, data: bytes) -> None:
    """Writes a file, or replaces it. Readers see the old content or the new, nothing between.

    Raises:
        BroetchenError: it cannot be written; the file that was there before still is.
    """
    write_stream(io.BytesIO(data), len(data), path)


def upload(local: str, path: str) -> None:
    """Copies a local file to `path`, in chunks; it appears there whole or not at all.

    Raises:
        BroetchenError: it cannot be written, or arrived with another size.
    """
    with explain_file_errors(local, "read"):
        source = open(local, "rb")  # noqa: SIM115
    with source:
        write_stream(source, os.fstat(source.fileno()).st_size, path)


class Rereadable(Protocol):
    """A stream that can be read from its beginning as often as is needed."""

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
            with explain_file_errors(path, "written"), contextlib.closing(_created(temporary)) as sink:
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
    """Renames a file within one filesystem, and replaces one of that name. May be repeated where `size` is given.

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
        with explain_file_errors(source, f"renamed to {target}"):
            if is_local(source):
                makedirs(split(target)[0] or ".")
                os.replace(source, target)
                sync_folder(split(target)[0] or ".")
            elif scheme(source) == _GCS:
                gcs_objects.rename(source, target)
            else:
                filesystem(source).rename([source], [target])
    except BroetchenError:
        if size is None or exists(source) or not _is_there(target, size):
            raise


def duplicate(source: str, target: str) -> None:
    """Gives a file a second name, or where that cannot be, copies it: a hard link on a disk, a copy of the store's own.

    Neither file may be written to afterwards: on a disk both are one.

    Args:
        source: a regular file.
        target: a name that no file has; the folder is made where there is none.

    Raises:
        BroetchenError: there is no `source`, or `target` cannot be written.
    """
    with explain_file_errors(source, f"copied to {target}"):
        if is_local(source) and is_local(target):
            makedirs(split(target)[0] or ".")
            try:
                os.link(source, target, follow_symlinks=False)
                sync_folder(split(target)[0] or ".")
                return
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
        elif scheme(source) == scheme(target) == _GCS:
            gcs_objects.copy(source, target)
            return
        with _opened(source) as content:
            write_stream(content, size(source), target)


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
    with explain_file_errors(path, "made a folder"):
        if is_local(path):
            os.makedirs(path, exist_ok=True)
            return
        store = filesystem(path)
        if store.has_dirs() and not store.exists(path):
            store.mkdirs(path)


def list_marks(folder: str) -> dict[str, FileMark]:
    """The files in a folder, not those below it, by path: with their sizes, and on ``gs://`` their CRC32C.

    The folder's name is taken as it is, wildcards and all, and a link is no file.

    Raises:
        BroetchenError: they cannot be listed.
    """
    with explain_file_errors(folder, "listed"):
        if scheme(folder) == _GCS:
            return gcs_objects.list_marks(folder)
        if is_local(folder):
            with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
                return {
                    posixpath.join(folder, entry.name): FileMark(entry.stat(follow_symlinks=False).st_size)
                    for entry in entries
                    if entry.is_file(follow_symlinks=False)
                }
            return {}
        prefix = folder.rstrip("/") + "/"
        listed = filesystem(folder).match([f"{as_beam_pattern(prefix)}*"])[0].metadata_list
        return {
            file.path: FileMark(int(file.size_in_bytes))
            for file in listed
            if posixpath.dirname(file.path) == prefix[:-1]
        }


def delete(paths: Iterable[str]) -> None:
    """Deletes files; missing ones are ignored.

    Raises:
        BroetchenError: one could not be deleted.
    """
    for path in paths:
        with explain_file_errors(path, "deleted"):
            if is_local(path):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            elif scheme(path) == _GCS:
                gcs_objects.delete(path)
            else:
                filesystem(path).delete([_literal(path)])


def delete_tree(folder: str) -> None:
    """Deletes all that is below a folder, and the folder; if there is none, does nothing.

    Raises:
        BroetchenError: something could not be deleted.
    """
    with explain_file_errors(folder, "deleted"):
        if is_local(folder):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder)
            return
        if left := _delete_below(folder.rstrip("/") + "/"):
            raise BroetchenError(
                f"{folder}: {len(left):,} files could not be deleted, {left[0]} among them; "
                "delete them by hand, with an account that may"
            )


def _delete_below(prefix: str) -> list[str]:
    """Deletes the objects below a folder of a store; returns those that remain."""
    if scheme(prefix) == _GCS:
        return gcs_objects.delete_below(prefix)
    below = _literal(prefix) + "**"
    store = filesystem(prefix)
    if not store.match([below], [1])[0].metadata_list:
        return []
    # Beam logs the objects that it could not delete, and reports none of them.
    store.delete([prefix])
    return [found.path for found in store.match([below])[0].metadata_list]


def delete_temporary(folder: str) -> list[str]:
    """Deletes the temporary files that killed writers left in a folder (not in those below it), and names them.

    Only for a folder in which nobody is writing now.

    Raises:
        BroetchenError: one could not be deleted.
    """
    left = [path for path in list_marks(folder) if is_temporary(posixpath.basename(path))]
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
        with explain_file_errors(path, f"copied to {folder}"), _opened(path) as source, open(local, "wb") as copy:
            shutil.copyfileobj(source, copy, _CHUNK_BYTES)
        copied = os.path.getsize(local)
        if copied != expected:
            raise BroetchenError(f"{path}: read {copied:,} of {expected:,} bytes; it changed meanwhile: run it again")
        yield local


def _opened(path: str) -> contextlib.AbstractContextManager[BinaryIO]:
    return open(path, "rb") if is_local(path) else filesystem(path).open(path, _MIME_TYPE, _UNCOMPRESSED)


def _created(path: str) -> BinaryIO:
    if not is_local(path):
        return filesystem(path).create(path, _MIME_TYPE, _UNCOMPRESSED)
    if folder := os.path.dirname(path):
        os.makedirs(folder, exist_ok=True)
    return open(path, "wb")


def filesystem(path: str) -> FileSystem:
    """Beam's filesystem of a path.

    Raises:
        UsageError: it has none for this scheme.
        UnreachableError: nobody answers where it is; see `transforms.first_contact`.
    """
    from apache_beam.io.filesystems import FileSystems

    import transforms.files.hub  # noqa: F401 (registers hf:// with Beam)

    make_contact(path)
    try:
        return FileSystems.get_filesystem(path)
    except ValueError as error:
        raise UsageError(
            f"{path}: Beam has no filesystem for {scheme(path)}://; write a local path without a "
            "scheme, or install the extra of apache-beam for it (gcp, aws, azure)"
        ) from error


def as_beam_pattern(name: str) -> str:
    """A pattern of Beam's that a name fits, and perhaps others: it has no way to quote a wildcard."""
    return _WILDCARDS.sub("?", name)


def _literal(path: str) -> str:
    # Beam takes every path that it is to delete for a pattern.
    if _WILDCARDS.search(path):
        raise BroetchenError(f"{path}: a remote name with * ? or [ cannot be deleted through Beam; rename or delete it")
    return path
