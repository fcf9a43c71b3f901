"""Copies of hub files that are whole and of the right content, or not there: resumable, checked by size and hash."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable

from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from transforms import files
from transforms.errors import BroetchenError

_CHUNK_BYTES = 4 << 20


def copy_verified(source: str, target: str, size: int, advance: Callable[[int], None]) -> bool:
    """Copies a file of the hub, unless it is there; a file has its name only once its hash was found right.

    To a local target a copy that was cut short is continued; to a remote one it starts anew.

    Args:
        source: `hf://…`, whose checksum is the content's SHA-256, or the SHA-1 of its git blob.
        target: on any filesystem that Beam writes.
        size: of the source in bytes.
        advance: is told the number of bytes that were done since the last call.

    Returns:
        whether anything was fetched.

    Raises:
        BroetchenError: the source cannot be read, the target cannot be written, or the content is not the hub's.
    """
    if files.exists(target) and files.size(target) == size:
        advance(size)
        return False
    checksum = str(FileSystems.checksum(source))
    digest = hashlib.sha256() if len(checksum) == 64 else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    local = files.is_local(target)
    unfinished = f"{target}.part" if local else files.temporary_path(target)
    files.makedirs(files.split(target)[0])
    try:
        with FileSystems.open(source, compression_type=CompressionTypes.UNCOMPRESSED) as remote:
            kept = _hash_kept(unfinished, size, digest.update, advance) if local else 0
            sink = (
                open(unfinished, "r+b" if kept else "wb")  # noqa: SIM115
                if local
                else FileSystems.create(unfinished, compression_type=CompressionTypes.UNCOMPRESSED)
            )
            with contextlib.closing(sink):
                remote.seek(kept)
                if local:
                    sink.seek(kept)
                while kept < size:
                    chunk = remote.read(min(_CHUNK_BYTES, size - kept))
                    if not chunk:
                        raise BroetchenError(f"{source}: ends after {kept:,} of {size:,} bytes; run it again")
                    sink.write(chunk)
                    digest.update(chunk)
                    kept += len(chunk)
                    advance(len(chunk))
                if local:
                    sink.flush()
                    os.fsync(sink.fileno())
        if digest.hexdigest() != checksum:
            files.delete([unfinished])
            raise BroetchenError(f"{source}: what arrived has another hash than the hub says; run it again")
        files.rename(unfinished, target, size=size)
    except OSError as error:
        reason, advice = files.explain(error)
        raise BroetchenError(f"{target}: cannot be written ({reason}); {advice}") from error
    finally:
        if not local:
            with contextlib.suppress(BroetchenError):
                files.delete([unfinished])
    return True


def _hash_kept(path: str, size: int, update: Callable[[bytes], None], advance: Callable[[int], None]) -> int:
    """Reads what an earlier run has left of a copy; returns its bytes, 0 where there is none that can be continued."""
    try:
        kept = os.path.getsize(path)
    except FileNotFoundError:
        return 0
    if kept > size:
        return 0
    with open(path, "rb") as part:
        while chunk := part.read(_CHUNK_BYTES):
            update(chunk)
            advance(len(chunk))
    return kept
