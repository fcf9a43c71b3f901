"""Source files, wherever they lie: which ones patterns name, and how each is opened."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

import transforms.files.hub  # noqa: F401 (registers hf:// with Beam)
from transforms.errors import BroetchenError, one_line
from transforms.files import gcs_objects, hub_path, storage
from transforms.files.errors import explain_file_errors
from transforms.files.listing import expand
from transforms.parquet.read_ahead import ReadAhead

# Google's client takes some milliseconds of a processor for a request.
_SMALLEST_OF_A_BUCKET = 2 << 20


def expand_sources(patterns: Iterable[str]) -> list[tuple[str, int]]:
    """The files that `patterns` name, as (path, size in bytes), in the order of their paths, each once.

    Raises:
        BroetchenError: a pattern matches nothing, or a path that cannot be opened; see
            `transforms.files.listing.expand`.
        UsageError: it is no pattern.
    """
    found: dict[str, int] = {}
    for pattern in patterns:
        found.update((one.path, one.bytes) for one in expand(pattern))
    return sorted(found.items())


def is_on_hub(path: str) -> bool:
    """Whether `path` names a file on the hub."""
    return storage.scheme(path) == hub_path.SCHEME


def is_on_gcs(path: str) -> bool:
    """Whether `path` names an object in Google Cloud Storage."""
    return storage.scheme(path) == "gs"


def reads_ahead(path: str) -> bool:
    """Whether a file's next pieces are fetched while the last are worked on: it lies on the hub, or on ``gs://``."""
    return is_on_hub(path) or is_on_gcs(path)


def open_source(path: str, generation: int | None = None, read_before: int = 0, *, in_order: bool = True) -> Any:
    """A file to be read in parts, as a seekable binary one: a `ReadAhead` where it `reads_ahead`.

    Args:
        path: the file.
        generation: which content of an object on ``gs://`` to read; None for the present one.
        read_before: bytes that the same reader has read of other files; see `ReadAhead`.
        in_order: whether much of it will be read, from one place on. If not, pieces of an object on ``gs://`` are
            fetched as they are read.

    Raises:
        BroetchenError: it cannot be opened, or is of another generation by now.
    """
    try:
        # pyarrow opens local files natively, without the interpreter lock; Beam's file objects serve the others.
        if storage.is_local(path):
            return pa.OSFile(path)
        if is_on_hub(path):
            return ReadAhead(lambda: _open_remote(path), read_before)
        if is_on_gcs(path):
            with explain_file_errors(path, "read"):
                if not in_order:
                    return gcs_objects.open_object(path, generation, looks=True)
                open_object = functools.partial(gcs_objects.open_object, path, generation)
                return ReadAhead(open_object, read_before, smallest_bytes=_SMALLEST_OF_A_BUCKET)
        # Beam's handles of other stores fetch 16 MiB and more for any read: several at once fetch it many times.
        return _open_remote(path)
    except OSError as error:
        raise BroetchenError(f"{path}: cannot be opened: {one_line(error)}") from error


def _open_remote(path: str) -> Any:
    return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
