"""Objects in Google Cloud Storage, beyond Beam's interface: checksums of a listing, conditions.

A conditional request names the generation that it means (`ifGenerationMatch` and `ifSourceGenerationMatch`), so that
the store decides between two writers (https://cloud.google.com/storage/docs/request-preconditions). And names are
names: Beam takes those that it is to delete for patterns.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from transforms.checksums import FileMark
from transforms.errors import BroetchenError
from transforms.first_contact import make_contact

if TYPE_CHECKING:
    from apache_beam.io.filesystem import FileMetadata

_MIME_TYPE = "application/octet-stream"
# Smaller reads fetch this much, where little will be read, here and there, and where others plan the fetches.
_LOOK_BYTES = 1 << 20
_LEAST_BYTES = 64 << 10


def gcs_bucket(path: str) -> tuple[Any, str]:
    """The bucket of ``gs://bucket/name`` by Beam's own client, with its credentials and retries, and the name in it."""
    from apache_beam.io.gcp.gcsio import parse_gcs_path  # which is there only where the gcp extra is installed

    make_contact(path)
    bucket, name = parse_gcs_path(path, object_optional=True)
    return _gcs_io(path).client.bucket(bucket), name


def _gcs_io(path: str) -> Any:
    # Beam takes a second to import, and a command that looks at local files needs none of it.
    from apache_beam.io.filesystems import FileSystems

    filesystem: Any = FileSystems.get_filesystem(path)
    return filesystem._gcsIO()


def look(path: str) -> tuple[int, FileMark]:
    """The generation of the object that has this name now, its size and its CRC32C.

    Raises:
        FileNotFoundError: there is none.
        google.api_core.exceptions.GoogleAPIError: the store refuses.
    """
    bucket, name = gcs_bucket(path)
    blob = bucket.get_blob(name)
    if blob is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return int(blob.generation), FileMark(int(blob.size), crc32c=str(blob.crc32c))


def open_object(path: str, generation: int | None = None, *, looks: bool = False) -> Any:
    """A seekable handle on an object that fetches the bytes to read, and few beside them; Beam's own fetches 16 MiB.

    Args:
        path: ``gs://bucket/name``.
        generation: every range is of this one, even if the name has another by then; None for the present one.
        looks: whether little will be read, here and there, by more reads than it is worth to ask for.

    Raises:
        BroetchenError: (also from its `read`) it was replaced or deleted.
        google.api_core.exceptions.GoogleAPIError: the store refuses.
    """
    chunk = _LOOK_BYTES if looks else _LEAST_BYTES
    if generation is None:
        return _gcs_io(path).open(path, "r", read_buffer_size=chunk)
    from apache_beam.io.gcp.gcsio import BeamBlobReader
    from google.api_core.exceptions import NotFound

    class OneGeneration(BeamBlobReader):
        def read(self, size: int = -1) -> bytes:
            try:
                return bytes(super().read(size))
            except NotFound as error:
                raise _replaced(path) from error

    bucket, name = gcs_bucket(path)
    try:
        return OneGeneration(bucket.blob(name, generation=generation), chunk_size=chunk)
    except NotFound as error:
        raise _replaced(path) from error


def _replaced(path: str) -> BroetchenError:
    return BroetchenError(
        f"{path}: has changed since its footer was read; run it again, while nobody changes the source"
    )


def list_marks(folder: str) -> dict[str, FileMark]:
    """The objects right below ``gs://bucket/folder``, by path.

    Raises:
        google.api_core.exceptions.GoogleAPIError: the store refuses.
    """
    bucket, name = gcs_bucket(folder.rstrip("/") + "/")
    blobs = bucket.list_blobs(prefix=name, delimiter="/", fields="items(name,size,crc32c),prefixes,nextPageToken")
    return {
        f"gs://{bucket.name}/{blob.name}": FileMark(int(blob.size), crc32c=str(blob.crc32c))
        for blob in blobs
        if blob.name != name
    }


def list_below(prefix: str, *, deep: bool) -> Iterator[FileMetadata]:
    """The objects below ``gs://bucket/folder/``; those of folders below it only where `deep`.

    Raises:
        google.api_core.exceptions.GoogleAPIError: the store refuses.
    """
    from apache_beam.io.filesystem import FileMetadata

    bucket, name = gcs_bucket(prefix)
    fields = "items(name,size,updated),prefixes,nextPageToken"
    for blob in bucket.list_blobs(prefix=name, delimiter=None if deep else "/", fields=fields):
        yield FileMetadata(f"gs://{bucket.name}/{blob.name}", int(blob.size), blob.updated.timestamp())


def delete(path: str) -> None:
    """Deletes an object, if it is there; Beam's client retries, which the store's own does only with a generation.

    Raises:
        google.api_core.exceptions.GoogleAPIError: the store refuses.
    """
    _gcs_io(path).delete(path)


def delete_below(prefix: str) -> list[str]:
    """Deletes the objects below ``gs://bucket/folder/``, by a hundred at a time; returns those that are still there.

    Raises:
        google.api_core.exceptions.GoogleAPIError: the store refuses to list them.
    """
    paths = [found.path for found in list_below(prefix, deep=True)]
    _gcs_io(prefix).delete_batch(paths)
    return [found.path for found in list_below(prefix, deep=True)] if paths else []


def put_unless(path: str, data: bytes, keeps: Callable[[bytes, bytes], bool]) -> bytes:
    """See `transforms.files.exclusive.put_unless`.

    Raises:
        google.api_core.exceptions.GoogleAPIError: the store refuses.
    """
    from google.api_core.exceptions import NotFound, PreconditionFailed

    bucket, name = gcs_bucket(path)
    while True:
        blob = bucket.get_blob(name)
        if blob is not None:
            try:
                content = bytes(bucket.blob(name, generation=blob.generation).download_as_bytes())
            except NotFound:  # It was replaced meanwhile.
                continue
            # An object of equal content is this very request's own, if its answer was lost.
            if content == data or keeps(content, data):
                return content
        try:
            bucket.blob(name).upload_from_string(
                data, _MIME_TYPE, if_generation_match=blob.generation if blob else 0, checksum="crc32c"
            )
            return data
        except PreconditionFailed:
            continue


def rename(source: str, target: str) -> None:
    """Gives an object another name, and replaces the object of that name: copies and deletes it.

    Beam's own rename takes the objects that have the names when its requests arrive, so two attempts could mix. Here
    each is done only if the objects are still those that were looked at, and may be repeated.

    Raises:
        FileNotFoundError: there is no `source`.
        BroetchenError: another process has written other content to `target` meanwhile; `source` is still there.
        google.api_core.exceptions.GoogleAPIError: the store refuses.
    """
    # The client is there only where the gcp extra of Beam is installed.
    from google.api_core.exceptions import NotFound, PreconditionFailed

    blob = copy(source, target)
    # It may be gone, by this very request or another attempt's; or written again, by one that will rename it itself.
    with contextlib.suppress(NotFound, PreconditionFailed):
        blob.delete(if_generation_match=blob.generation)


def copy(source: str, target: str) -> Any:
    """Has the store copy an object, and replace the one named `target`; see `rename`.

    Returns:
        the object that was copied, as it was looked at.
    """
    from google.api_core.exceptions import PreconditionFailed

    (old, source_name), (new, target_name) = gcs_bucket(source), gcs_bucket(target)
    blob = old.get_blob(source_name)
    if blob is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
    replaced = new.get_blob(target_name)
    try:
        old.copy_blob(
            blob,
            new,
            target_name,
            if_source_generation_match=blob.generation,
            if_generation_match=replaced.generation if replaced else 0,
        )
    except PreconditionFailed as error:
        # This very request may have been done before its answer was lost, and another attempt writes the same bytes.
        if not _same_content(blob, new.get_blob(target_name)):
            raise BroetchenError(
                f"{target}: another process has written it meanwhile; make sure that only one build writes there, and "
                "run it again"
            ) from error
    return blob


def _same_content(one: Any, other: Any) -> bool:
    return other is not None and (one.size, one.crc32c) == (other.size, other.crc32c)
