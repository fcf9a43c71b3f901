"""The memory of a verification: it never takes a file for sound that is another than the one that was read."""

from __future__ import annotations

import json
import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from transforms.files import storage
from transforms.progress import memory as module
from transforms.progress.memory import Memory, memory_folder

CONTENT = b"these are the bytes of a shard"


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "train-00000-of-00001.arecord"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Memory:
    # The files of these tests have just been written.
    monkeypatch.setattr(module, "_SETTLED_S", -1.0)
    made = Memory(memory_folder(tmp_path / "cache", "verify", ["output", "digest"]))
    made.begin()
    return made


def remember(memory: Memory, shard: Path, value: object = ("found",)) -> None:
    memory.keep("key", memory.look([str(shard)]), list(value))  # type: ignore[call-overload]


def recalled(memory: Memory, shard: Path, key: str = "key") -> object:
    """As the next run does, in another process."""
    return pickle.loads(pickle.dumps(memory)).recall(key, [str(shard)])


def test_what_was_read_is_recalled(memory: Memory, shard: Path) -> None:
    assert recalled(memory, shard) is None
    remember(memory, shard)
    assert recalled(memory, shard) == ["found"]
    assert Memory(memory.folder).paths() == {str(shard)}
    assert recalled(memory, shard, "another key") is None
    assert Memory(memory.folder).recall("key", [str(shard), str(shard) + ".idx"]) is None
    memory.forget()
    assert recalled(memory, shard) is None
    assert not Path(memory.folder).exists()


def of_the_same_size(path: Path) -> None:
    path.write_bytes(CONTENT.replace(b"bytes", b"bites"))


def with_its_time_restored(path: Path) -> None:
    before = path.stat()
    of_the_same_size(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def replaced_by_rename(path: Path) -> None:
    before = path.stat()
    other = path.with_name("other")
    of_the_same_size(other)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


def one_byte_in_place(path: Path) -> None:
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(3)
        file.write(b"X")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced_by_a_link(path: Path) -> None:
    other = path.with_name("other")
    path.rename(other)
    path.symlink_to(other)


@pytest.mark.parametrize(
    "change",
    [of_the_same_size, with_its_time_restored, replaced_by_rename, one_byte_in_place, replaced_by_a_link, Path.unlink],
)
def test_a_file_that_has_changed_is_read_again(memory: Memory, shard: Path, change: Callable[[Path], object]) -> None:
    remember(memory, shard)
    time.sleep(0.02)  # beyond the grain of the kernel's clock, for which `_SETTLED_S` makes room
    change(shard)
    assert recalled(memory, shard) is None


def test_a_file_that_cannot_be_seen_any_more_is_read_again(memory: Memory, tmp_path: Path) -> None:
    trace = tmp_path / "_trace" / "train-00000-of-00001.parquet"
    trace.parent.mkdir()
    trace.write_bytes(CONTENT)
    remember(memory, trace)
    trace.unlink()
    trace.parent.rmdir()
    trace.parent.write_bytes(b"no folder")
    assert recalled(memory, trace) is None


def test_a_file_that_changes_while_it_is_read_is_not_remembered(memory: Memory, shard: Path) -> None:
    seen = memory.look([str(shard)])
    time.sleep(0.02)
    with_its_time_restored(shard)
    memory.keep("key", seen, [])
    assert recalled(memory, shard) is None


def test_a_file_that_has_just_been_written_is_not_remembered(
    memory: Memory, shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another write within the same tick of the clock would leave all its times as they are."""
    monkeypatch.setattr(module, "_SETTLED_S", 10.0)
    assert memory.look([str(shard)]) is None
    remember(memory, shard)
    assert recalled(memory, shard) is None


def test_what_is_too_old_or_from_the_future_does_not_count(
    memory: Memory, shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember(memory, shard)
    now = time.time()
    for at, counts in ((now, True), (now + module.KEPT_S + 60, False), (now - 3600, False)):
        monkeypatch.setattr(time, "time", lambda at=at: at)
        assert (recalled(memory, shard) is not None) == counts


def test_a_damaged_memory_is_left_out(memory: Memory, shard: Path) -> None:
    remember(memory, shard)
    (file,) = Path(memory.folder).iterdir()
    whole = file.read_bytes()
    for damaged in (
        b"",
        whole[:-5],
        whole.replace(b'"key"', b'"kez"'),
        b"\xff\x00" + whole,
        whole[66:],
        b"[]\n",
        b"a b\n",
    ):
        file.write_bytes(damaged)
        assert recalled(memory, shard) is None
    # A line that was cut off when a run was killed leaves those before it.
    file.write_bytes(whole + whole[:40])
    assert recalled(memory, shard) == ["found"]


def test_a_foreign_memory_is_left_out(memory: Memory, shard: Path, tmp_path: Path) -> None:
    remember(memory, shard)
    folder = Path(memory.folder)
    folder.chmod(0o777)
    assert recalled(memory, shard) is None
    folder.chmod(0o700)
    assert recalled(memory, shard) == ["found"]
    (file,) = folder.iterdir()
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert recalled(memory, shard) is None
    file.unlink()
    os.mkfifo(file)
    assert recalled(memory, shard) is None
    moved = folder.with_name("moved")
    folder.rename(moved)
    folder.symlink_to(moved)
    assert recalled(memory, shard) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_another_users_memory_is_left_out(memory: Memory, shard: Path) -> None:
    remember(memory, shard)
    (file,) = Path(memory.folder).iterdir()
    os.chown(file, 12345, 12345)
    assert recalled(memory, shard) is None
    os.chown(file, 0, 0)
    os.chown(memory.folder, 12345, 12345)
    assert recalled(memory, shard) is None


def test_other_parts_have_another_folder_and_old_ones_go(memory: Memory, tmp_path: Path) -> None:
    folder = memory_folder(tmp_path / "cache", "verify", ["output", "digest of other manifests"])
    assert folder != memory.folder
    old = time.time() - module.KEPT_S - 3600
    os.utime(memory.folder, (old, old))
    Memory(folder).begin()
    assert not Path(memory.folder).exists()
    assert Path(folder).stat().st_mode & 0o777 == 0o700


def test_nothing_is_remembered_where_no_folder_can_be_made(tmp_path: Path, shard: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    memory = Memory(memory_folder(tmp_path / "cache", "verify", []))
    memory.begin()
    memory.keep("key", {str(shard): storage.version(str(shard)) or ""}, [])
    assert memory.recall("key", [str(shard)]) is None


def test_in_a_bucket_it_hangs_on_the_generation(memory: Memory, gcs_prefix: str) -> None:
    path = f"{gcs_prefix}/shard.arecord"
    storage.write_bytes(path, CONTENT)
    memory.keep("key", memory.look([path]), ["found"])
    assert Memory(memory.folder).recall("key", [path]) == ["found"]
    storage.write_bytes(path, CONTENT)
    assert Memory(memory.folder).recall("key", [path]) is None


def test_a_line_is_plain_json(memory: Memory, shard: Path) -> None:
    remember(memory, shard)
    (file,) = Path(memory.folder).iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text().partition(" ")[2])["files"] == {str(shard): storage.version(str(shard))}
