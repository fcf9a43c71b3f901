"""Objects in Google Cloud Storage, with what Beam's interface does not offer: checksums of a listing, conditions.

A conditional request names the generation that it means, so that the store decides between two writers
(https://cloud.google.com/storage/docs/request-preconditions).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

from apache_beam.io.filesystems import FileSystems

from transforms.checksums import FileMark
from transforms.errors import BroetchenError

_MIME_TYPE = "application/octet-stream"


def gcs_bucket(path: str) -> tuple[Any, str]:
    """The bucket of ``gs://bucket/name`` by Beam's own client, with its credentials and retries, and the name in it."""
    from apache_beam.io.gcp.gcsio import parse_gcs_path  # which is there only where the gcp extra is installed

    filesystem: Any = FileSystems.get_filesystem(path)
    bucket, name = parse_gcs_path(path, object_optional=True)
    return filesystem._gcsIO().client.bucket(bucket), name


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


def open_generation(path: str, generation: int) -> Any:
    """A seekable handle on one generation of an object: every range is of that one, whatever has its name by then.

    Raises:
        BroetchenError: (from its `read`, too) it was replaced or deleted.
        google.api_core.exceptions.GoogleAPIError: the store refuses.
    """
    from apache_beam.io.gcp.gcsio import DEFAULT_READ_BUFFER_SIZE, BeamBlobReader
    from google.api_core.exceptions import NotFound

    class OneGeneration(BeamBlobReader):
        def read(self, size: int = -1) -> bytes:
            try:
                return bytes(super().read(size))
            except NotFound as error:
                raise _replaced(path) from error

    bucket, name = gcs_bucket(path)
    try:
        return OneGeneration(bucket.blob(name, generation=generation), chunk_size=DEFAULT_READ_BUFFER_SIZE)
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
    return {f"gs://{bucket.name}/{blob.name}": FileMark(int(blob.size), crc32c=str(blob.crc32c)) for blob in blobs}


def put_unless(path: str, data: bytes, keeps: Callable[[bytes, bytes], bool]) -> bytes:
    """See `transforms.files.exclusive.put_unless`.

    Raises:
        google.api_core.exceptions.GoogleAPIError: the store refuses.
    """
    from google.api_core.exceptions import NotFound, PreconditionFailed

    bucket, name = gcs_bucket(path)
    while True:
        found = bucket.get_blob(name)
        if found is not None:
            try:
                content = bytes(bucket.blob(name, generation=found.generation).download_as_bytes())
            except NotFound:  # It was replaced meanwhile.
                continue
            # Equal to it is what this very request has written, if its answer was lost.
            if content == data or keeps(content, data):
                return content
        try:
            bucket.blob(name).upload_from_string(
                data, _MIME_TYPE, if_generation_match=found.generation if found else 0, checksum="crc32c"
            )
            return data
        except PreconditionFailed:
            continue
