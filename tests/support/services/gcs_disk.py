"""The objects of the emulated bucket on a disk, where they are too many or too large for memory."""

from __future__ import annotations

import os
from pathlib import Path

from gcp_storage_emulator.exceptions import BadRequest
from gcp_storage_emulator.handlers import objects
from gcp_storage_emulator.storage import RESUMABLE_DIR, Storage, _FileStore


class Content(bytes):
    """All bytes of a file that is never written again, so that their next name can be another of the same file.

    Attributes:
        path: of the file.
    """

    path: Path


class _Files(_FileStore):  # type: ignore[misc]
    """Files by the names of objects, each under a number, since names of objects can be no names of files."""

    def __init__(self, folder: Path) -> None:
        super().__init__(use_memory=True)
        self._files: dict[str, Path] = {}
        self._folder, self._number = folder, 0

    def write_bytes(self, rel: str, content: bytes | Content) -> None:
        """Gives a name to some bytes; those of another file are not copied."""
        path = self._new()
        if isinstance(content, Content):
            os.link(content.path, path)
        else:
            path.write_bytes(content)
        self._put(rel, path)

    def append(self, rel: str, more: bytes) -> None:
        """Adds bytes to those that have a name, or begins with them."""
        rel = self._norm(rel)
        if rel not in self._files:
            self._put(rel, self._new())
        with self._files[rel].open("ab") as file:
            file.write(more)

    def take(self, rel: str, path: Path) -> None:
        """Gives a name to the bytes of a file, which must not be written to any more."""
        number = self._new()
        os.link(path, number)
        self._put(rel, number)

    def read_bytes(self, rel: str) -> Content:
        """The bytes that have a name."""
        path = self._files.get(self._norm(rel))
        if path is None:
            raise FileNotFoundError(rel)
        content = Content(path.read_bytes())
        content.path = path
        return content

    def size(self, rel: str) -> int:
        """How many bytes have a name; none where nothing has it."""
        path = self._files.get(self._norm(rel))
        return path.stat().st_size if path else 0

    def remove_file(self, rel: str) -> None:
        """Takes a name away, and the bytes that no other name has."""
        path = self._files.get(self._norm(rel))
        super().remove_file(rel)
        if path:
            path.unlink()

    def _put(self, rel: str, path: Path) -> None:
        rel = self._norm(rel)
        before = self._files.get(rel)
        self._files[rel] = path
        if before:
            before.unlink()

    def _new(self) -> Path:
        self._number += 1
        return self._folder / str(self._number)


class StorageOnDisk(Storage):  # type: ignore[misc]
    """A store that lasts as long as this process, with its objects in a folder.

    Each is read whole for every range that is asked for, so that they should not be larger than some 100 MB. A copy is
    another name of the same file. An upload in pieces is written piece by piece.

    Args:
        folder: an empty one.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(use_memory_fs=True)
        self._store = _Files(folder)

    def take(self, bucket: str, name: str, path: Path) -> None:
        """Makes a file an object, without a copy, once the server runs.

        Args:
            bucket: its name.
            name: of the object.
            path: the file, on the same disk, which must not be written to any more.
        """
        place = self._object_path(bucket, name)
        self._store.take(place, path)
        content = self._store.read_bytes(place)
        server = os.environ["STORAGE_EMULATOR_HOST"]
        made = objects._make_object_resource(server, bucket, name, "application/octet-stream", str(len(content)))
        self.objects.setdefault(bucket, {})[name] = objects._checksums(content, made)

    def get_resumable_byte_count(self, file_id: str) -> int:
        """How much of an upload has come."""
        return self._store.size(self._object_path(RESUMABLE_DIR, self.safe_id(file_id)))

    def add_to_resumable_upload(
        self, file_id: str, content: bytes, total_size: int | None = None, expected_start: int | None = None
    ) -> bytes | None:
        """Adds a piece of an upload; returns all of it once it is whole."""
        name = self.safe_id(file_id)
        size = self.get_resumable_byte_count(file_id)
        if expected_start is not None and expected_start != size:
            raise BadRequest(f"Content-Range starts at {expected_start}, and {size} bytes are there")
        self._store.append(self._object_path(RESUMABLE_DIR, name), content or b"")
        size += len(content or b"")
        if total_size is None or size < total_size:
            return None
        whole = self.get_file(RESUMABLE_DIR, name, show_error=False)
        return whole if size == total_size else whole[:total_size]

    def _write_config_to_file(self) -> None:
        """Keeps no list of its objects on the disk, which would be written again at each change."""
