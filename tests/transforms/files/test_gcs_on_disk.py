"""The emulated bucket with its objects on a disk: written bytes are read back, and no file outlives its names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.services.gcs_disk import StorageOnDisk
from tests.support.services.gcs_emulator import emulated_bucket
from transforms.files import storage
from transforms.files.listing import list_files

_LARGE = bytes(range(256)) * 160_000  # 41 MB, which come in three pieces


@pytest.fixture
def disk(tmp_path: Path) -> StorageOnDisk:
    (tmp_path / "objects").mkdir()
    return StorageOnDisk(tmp_path / "objects")


@pytest.fixture
def bucket(disk: StorageOnDisk, tmp_path: Path) -> Iterator[str]:
    with emulated_bucket(tmp_path, storage=disk) as found:
        yield found


def files(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "objects").iterdir())


def test_objects_of_all_sizes_are_what_was_written(bucket: str, tmp_path: Path) -> None:
    contents = {"empty": b"", "small": b"Br\xc3\xb6tchen", "folder/large": _LARGE, "folder": b"a name above another"}
    for name, content in contents.items():
        storage.write_bytes(f"{bucket}/{name}", content)
    for name, content in contents.items():
        assert storage.read_bytes(f"{bucket}/{name}") == content
    # Temporary objects and pieces have gone.
    assert sorted(path.stat().st_size for path in files(tmp_path)) == sorted(map(len, contents.values()))
    storage.write_bytes(f"{bucket}/small", b"other")
    storage.delete([f"{bucket}/folder/large"])
    assert storage.read_bytes(f"{bucket}/small") == b"other"
    assert {path.removeprefix(f"{bucket}/") for path, _ in list_files(bucket)} == {"empty", "small", "folder"}
    assert len(files(tmp_path)) == 3


def test_a_copy_is_another_name_of_one_file(bucket: str, tmp_path: Path) -> None:
    storage.write_bytes(f"{bucket}/one", b"content")
    storage.duplicate(f"{bucket}/one", f"{bucket}/two")
    assert len({path.stat().st_ino for path in files(tmp_path)}) == 1
    storage.write_bytes(f"{bucket}/one", b"changed")
    assert storage.read_bytes(f"{bucket}/two") == b"content"


def test_a_file_becomes_an_object(bucket: str, disk: StorageOnDisk, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(_LARGE)
    disk.take(bucket.removeprefix("gs://"), "sources/large", tmp_path / "source")
    assert storage.read_bytes(f"{bucket}/sources/large") == _LARGE
    mark = storage.look(f"{bucket}/sources/large")
    storage.write_bytes(f"{bucket}/same", _LARGE)
    assert mark is not None
    assert mark == storage.look(f"{bucket}/same")
    storage.delete([f"{bucket}/sources/large"])
    assert (tmp_path / "source").read_bytes() == _LARGE
