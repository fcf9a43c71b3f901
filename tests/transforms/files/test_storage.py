"""Local files and gs:// go through the same tests."""

from __future__ import annotations

import hashlib
import io
import os
import posixpath
import random
import threading
import tracemalloc
from pathlib import Path

import pytest

from transforms.errors import BroetchenError, UsageError
from transforms.files import storage
from transforms.files.listing import list_files


@pytest.fixture(params=["local", "gcs"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "root") if request.param == "local" else request.getfixturevalue("gcs_prefix")


def names(root: str) -> list[str]:
    return [path.removeprefix(f"{root}/") for path, _ in list_files(root)]


def test_a_folder_without_a_name_is_none():
    """A shell's empty variable is not the root."""
    assert [storage.without_slash(given) for given in ("out//", "gs://b/", "/")] == ["out", "gs://b", "/"]
    with pytest.raises(UsageError, match=r"^the path of a folder is empty; name one"):
        storage.without_slash("")


def test_write_read_and_replace(root):
    path = storage.join(root, "folder", "data.gz")  # a name that Beam would otherwise compress and decompress
    assert not storage.exists(path)
    storage.write_bytes(path, b"first")
    storage.write_bytes(path, b"second one")
    assert storage.exists(path)
    assert storage.read_bytes(path) == b"second one"
    assert storage.size(path) == 10
    assert names(root) == ["folder/data.gz"]


def test_an_empty_file(root):
    storage.write_bytes(f"{root}/empty", b"")
    assert storage.size(f"{root}/empty") == 0
    assert storage.read_bytes(f"{root}/empty") == b""


class _BreaksHalfWay(io.BytesIO):
    """Gives one chunk, then fails."""

    chunks = 0

    def read(self, size: int | None = -1) -> bytes:
        self.chunks += 1
        if self.chunks > 1:
            raise OSError(5, "Input/output error")
        return b"x" * (size or 1)


def test_a_write_that_breaks_half_way_leaves_what_was_there(root):
    path = f"{root}/file"
    storage.write_bytes(path, b"old")
    with pytest.raises(BroetchenError, match=r"/file: cannot be written \(Input/output error\)"):
        storage.write_stream(_BreaksHalfWay(), 1 << 40, path)
    assert storage.read_bytes(path) == b"old"
    assert names(root) == ["file"]


def test_a_source_that_ends_early_is_not_published(root):
    with pytest.raises(BroetchenError, match="3 of 4 bytes arrived"):
        storage.write_stream(io.BytesIO(b"abc"), 4, f"{root}/file")
    assert names(root) == []


def test_readers_see_the_old_content_or_the_new(tmp_path):
    path = str(tmp_path / "file")
    contents = [bytes([digit]) * 300_000 for digit in b"ab"]
    storage.write_bytes(path, contents[0])
    seen, done = set(), threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(storage.read_bytes(path))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for turn in range(40):
            storage.write_bytes(path, contents[turn % 2])
    finally:
        done.set()
        reader.join()
    assert seen <= set(contents)


def test_upload_and_local_copy(root, tmp_path):
    data = random.Random(0).randbytes(20_000_000)  # more than one chunk of Beam's and of ours
    local = tmp_path / "source"
    local.write_bytes(data)
    path = f"{root}/uploaded.bin"
    storage.upload(str(local), path)
    assert names(root) == ["uploaded.bin"]
    with storage.local_copy(path, scratch_dir=str(tmp_path)) as copy:
        with open(copy, "rb") as file:
            assert hashlib.file_digest(file, "sha256").digest() == hashlib.sha256(data).digest()
        assert (copy == path) == storage.is_local(path)
    assert os.path.exists(copy) == storage.is_local(path)
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith("broetchen-")] == []


def test_upload_streams(tmp_path):
    local = tmp_path / "source"
    with local.open("wb") as file:
        file.truncate(200_000_000)
    tracemalloc.start()
    try:
        storage.upload(str(local), str(tmp_path / "target"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert storage.size(str(tmp_path / "target")) == 200_000_000
    assert peak < 30_000_000


def test_upload_of_nothing(root, tmp_path):
    with pytest.raises(BroetchenError, match=r"absent: cannot be read \(No such file or directory\); check the path"):
        storage.upload(str(tmp_path / "absent"), f"{root}/file")
    assert names(root) == []


def test_rename_replaces(root):
    storage.write_bytes(f"{root}/a", b"new")
    storage.write_bytes(f"{root}/folder/b", b"old one")
    storage.rename(f"{root}/a", f"{root}/folder/b")
    assert names(root) == ["folder/b"]
    assert storage.read_bytes(f"{root}/folder/b") == b"new"


def test_rename_to_a_new_folder_and_to_itself(root):
    storage.write_bytes(f"{root}/a", b"data")
    storage.rename(f"{root}/a", f"{root}/deep/er/b")
    storage.rename(f"{root}/deep/er/b", f"{root}/deep/er/b")
    assert names(root) == ["deep/er/b"]


def test_rename_may_be_repeated(root):
    storage.write_bytes(f"{root}/a", b"data")
    for _ in range(2):
        storage.rename(f"{root}/a", f"{root}/b", size=4)
    assert storage.read_bytes(f"{root}/b") == b"data"


@pytest.mark.parametrize("size", [None, 5])
def test_a_rename_that_was_not_done_before_fails(root, size):
    storage.write_bytes(f"{root}/b", b"data")  # somebody else's
    with pytest.raises(BroetchenError, match=f"cannot be renamed to {root}/b .*; check the path"):
        storage.rename(f"{root}/a", f"{root}/b", size=size)


def test_list_files(root):
    for name in ("b-2", "b-1", "a-1", "folder/b-3"):
        storage.write_bytes(f"{root}/{name}", name.encode() * 2)
    assert list_files(root, "b-*") == [(f"{root}/b-1", 6), (f"{root}/b-2", 6)]
    assert list_files(root, "b-[2]") == [(f"{root}/b-2", 6)]
    assert list_files(root, "**/*-3") == [(f"{root}/folder/b-3", 20)]
    assert list_files(root, "a-1") == [(f"{root}/a-1", 6)]
    assert list_files(root, "none*") == []
    assert list_files(root, "folder") == []


def test_list_files_of_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    storage.write_bytes("a.txt", b"1")
    storage.write_bytes("folder/b.txt", b"22")
    assert list_files("", "*.txt") == [("a.txt", 1)]
    assert list_files("", "a.txt") == [("a.txt", 1)]
    assert list_files("folder", "*.txt") == [("folder/b.txt", 2)]


def test_delete(root):
    storage.write_bytes(f"{root}/a", b"1")
    storage.write_bytes(f"{root}/b", b"2")
    storage.delete([f"{root}/a", f"{root}/absent", f"{root}/a"])
    assert names(root) == ["b"]


def test_names_are_names(root):
    """Brackets and stars in them are no pattern, for whatever is done to a file or a folder."""
    for name in ("x[1]", "x1", "x*", "xx", "out[1]/a", "out[1]/.a.tmp-1", "out[1]/deep/b", "out1/a", "out1/.a.tmp-1"):
        storage.write_bytes(f"{root}/{name}", b"1")
    storage.delete([f"{root}/x[1]", f"{root}/x*"])
    assert {"x1", "xx"} == {name for name in names(root) if name.startswith("x")}
    assert {posixpath.basename(path) for path in storage.list_marks(f"{root}/out[1]")} == {"a", ".a.tmp-1"}
    assert list_files(f"{root}/out[1]", "a") == [(f"{root}/out[1]/a", 1)]
    assert list_files(f"{root}/out[1]", "*/*") == [(f"{root}/out[1]/deep/b", 1)]
    assert storage.delete_temporary(f"{root}/out[1]") == [f"{root}/out[1]/.a.tmp-1"]
    storage.rename(f"{root}/out[1]/a", f"{root}/out[2]/*")
    assert storage.read_bytes(f"{root}/out[2]/*") == b"1"
    storage.delete_tree(f"{root}/out[1]")
    assert [name for name in names(root) if name.startswith("out")] == ["out1/.a.tmp-1", "out1/a", "out[2]/*"]


def test_delete_tree(root):
    for name in ("tree/a", "tree/deep/b", "tree-2/c", "d"):
        storage.write_bytes(f"{root}/{name}", b"1")
    storage.delete_tree(f"{root}/tree")
    storage.delete_tree(f"{root}/tree")
    assert names(root) == ["d", "tree-2/c"]
    assert not storage.exists(f"{root}/tree")


def test_delete_temporary(root):
    for path in ("a", "b"):
        storage.write_bytes(f"{root}/{path}", b"1")
        storage.write_bytes(storage.temporary_path(f"{root}/{path}"), b"1")
    kept = storage.temporary_path(f"{root}/deeper/c")
    storage.write_bytes(kept, b"1")
    assert len(storage.delete_temporary(root)) == 2
    assert sorted(names(root)) == sorted(["a", "b", kept.removeprefix(f"{root}/")])


def test_temporary_names_are_hidden_and_unique():
    first, second = (storage.temporary_path("gs://bucket/folder/train-00000.arecord") for _ in range(2))
    assert first != second
    assert first.startswith("gs://bucket/folder/.train-00000.arecord.tmp-")
    assert storage.temporary_path("name").startswith(".name.tmp-")


def test_makedirs(root):
    for _ in range(2):
        storage.makedirs(f"{root}/a/b")
    storage.write_bytes(f"{root}/a/b/c", b"1")
    assert names(root) == ["a/b/c"]


def test_is_local():
    assert storage.is_local("relative/path")
    assert storage.is_local("/absolute:path//x")
    assert not storage.is_local("gs://bucket/x")


@pytest.mark.parametrize(
    "action", [storage.size, storage.read_bytes, lambda path: storage.local_copy(path).__enter__()]
)
def test_what_is_not_there(root, action):
    with pytest.raises(BroetchenError, match=r"/absent: cannot be .* \(.*[Nn]o[t ].*\); check the path"):
        action(f"{root}/absent")


def test_a_folder_that_is_a_file(tmp_path):
    storage.write_bytes(str(tmp_path / "file"), b"1")
    for action in (lambda path: storage.write_bytes(path, b""), storage.read_bytes):
        with pytest.raises(BroetchenError, match=r"file/below: cannot be .* a part of the path is a file"):
            action(str(tmp_path / "file" / "below"))
    with pytest.raises(BroetchenError, match="this is a folder; name a file"):
        storage.read_bytes(str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(BroetchenError, match=r"file: cannot be written \(Permission denied\); get permission"):
        storage.write_bytes(str(tmp_path / "file"), b"")


def test_a_bucket_that_is_not_there(gcs_bucket):
    for action in (lambda path: storage.write_bytes(path, b""), lambda path: list_files(path, "*")):
        with pytest.raises(BroetchenError, match=r"^gs://absent/file.*HTTP 404 Not Found.*the bucket exists"):
            action("gs://absent/file")
    with pytest.raises(BroetchenError, match=r"^gs://absent: cannot be looked up .*; check the path"):
        storage.exists("gs://absent")


@pytest.mark.parametrize(
    "action",
    [storage.exists, storage.read_bytes, list_files, storage.makedirs, lambda path: storage.delete([path])],
)
def test_an_unknown_scheme(action):
    with pytest.raises(UsageError, match=r"gopher://host/x: Beam has no filesystem for gopher://"):
        action("gopher://host/x")


def test_a_second_name(root, tmp_path):
    storage.write_bytes(f"{root}/old/a b[1]", b"content")
    before = storage.look(f"{root}/old/a b[1]")
    storage.duplicate(f"{root}/old/a b[1]", f"{root}/new/folder/a")
    assert storage.read_bytes(f"{root}/new/folder/a") == b"content"
    assert storage.look(f"{root}/old/a b[1]") == storage.look(f"{root}/new/folder/a") == before
    storage.delete([f"{root}/old/a b[1]"])
    assert storage.read_bytes(f"{root}/new/folder/a") == b"content"
    storage.duplicate(f"{root}/new/folder/a", str(tmp_path / "here"))
    assert (tmp_path / "here").read_bytes() == b"content"
    with pytest.raises(BroetchenError, match=r"gone: cannot be copied to .*/there"):
        storage.duplicate(f"{root}/gone", f"{root}/there")
    assert not storage.exists(f"{root}/there")
