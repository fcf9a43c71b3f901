"""Writing a file unless one is there that is to be kept, even against other writers at the same moment."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from transforms.files import gcs_objects, storage
from transforms.files.errors import explain_file_errors


def put_unless(path: str, data: bytes, keeps: Callable[[bytes, bytes], bool]) -> bytes:
    """Writes a file unless one is there that is to be kept.

    Args:
        path: of the file; its folder is made where there is none.
        data: the content to write.
        keeps: whether to keep a first content rather than put a second in its place; an order among all contents.

    Returns:
        the content of the file then: `data`, or the one that was kept. Only local filesystems and ``gs://`` decide
        between two writers of one moment; elsewhere the later one wins.

    Raises:
        BroetchenError: it cannot be written.
    """
    with explain_file_errors(path, "written"):
        if storage.scheme(path) == "gs":
            return gcs_objects.put_unless(path, data, keeps)
        if storage.is_local(path):
            storage.makedirs(storage.split(path)[0] or ".")
            return _put_local(path, data, keeps)
        if storage.exists(path) and keeps(found := storage.read_bytes(path), data):
            return found
        storage.write_bytes(path, data)
        return data


def _put_local(path: str, data: bytes, keeps: Callable[[bytes, bytes], bool]) -> bytes:
    offered, aside = storage.temporary_path(path), storage.temporary_path(path)
    try:
        with open(offered, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        while not _take_name(offered, path):
            with contextlib.suppress(FileNotFoundError):
                if keeps(stored := Path(path).read_bytes(), data):
                    return stored
                os.rename(path, aside)
                # Another writer may have put a better one there since it was read. It was told that its own stands, so
                # it is offered from now on: a third one may have taken the name meanwhile.
                if (moved := Path(aside).read_bytes()) != stored and keeps(moved, data):
                    data, offered, aside = moved, aside, offered
        storage.sync_folder(storage.split(path)[0] or ".")
        return data
    finally:
        for left in (offered, aside):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(left)


def _take_name(file: str, name: str) -> bool:
    """Gives a file a name that no file has, by link(2); False where one has it."""
    try:
        os.link(file, name)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in storage.NO_LINKS:
            raise
        if os.path.exists(name):
            return False
        os.rename(file, name)
    return True
