"""Checksums of a file as it was written, to compare with the file that lies there later."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from typing import BinaryIO

import google_crc32c

_CHUNK_BYTES = 4 << 20


@dataclasses.dataclass(frozen=True)
class FileMark:
    """A file as it was written.

    Attributes:
        bytes: its size.
        sha256: of its bytes, in hexadecimal.
        crc32c: of its bytes, in base64 of the big-endian number, as object stores show it
            (https://cloud.google.com/storage/docs/hashes-etags#crc32c).
    """

    bytes: int = 0
    sha256: str = ""
    crc32c: str = ""


def mark_of(content: bytes) -> FileMark:
    """The mark of a file with this content.

    >>> mark_of(b"").crc32c
    'AAAAAA=='
    """
    return FileMark(len(content), hashlib.sha256(content).hexdigest(), _in_base64(google_crc32c.Checksum(content)))


def mark_of_file(file: BinaryIO) -> FileMark:
    """The mark of an open file, which is read from where it stands to its end."""
    sha256, crc32c, size = hashlib.sha256(), google_crc32c.Checksum(), 0
    while chunk := file.read(_CHUNK_BYTES):
        sha256.update(chunk)
        crc32c.update(chunk)
        size += len(chunk)
    return FileMark(size, sha256.hexdigest(), _in_base64(crc32c))


def _in_base64(checksum: google_crc32c.Checksum) -> str:
    return base64.b64encode(checksum.digest()).decode()
