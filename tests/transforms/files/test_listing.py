"""The files of a pattern: the same on a disk, in a bucket and on the hub; and names that are no readable file."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.services.hub_server import HubServer
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.files.hub_path import HubPath
from transforms.files.listing import expand, list_files

FILES = (
    "a.parquet", "b1.parquet", "b[1].parquet", ".a.parquet", "._a.parquet", "b?.parquet", "x,y.parquet",
    "de/a.parquet", "de/.hidden.parquet", "de/2024/a.parquet", "de/2024/deep/a.parquet", ".git/a.parquet",
    "mix[1]/a.parquet", "mix1/a.parquet", "{a,b}/a.parquet",
)  # fmt: skip

PATTERNS = {
    "*.parquet": ["a.parquet", "b1.parquet", "b?.parquet", "b[1].parquet", "x,y.parquet"],
    "b?.parquet": ["b?.parquet"],
    "b[1].parquet": ["b[1].parquet"],
    "b[[]1].parquet": ["b[1].parquet"],
    "[b][?]*.parquet": ["b?.parquet"],
    "[!b]*.parquet": ["a.parquet", "x,y.parquet"],
    ".*.parquet": ["._a.parquet", ".a.parquet"],
    "*/a.parquet": ["de/a.parquet", "mix1/a.parquet", "mix[1]/a.parquet", "{a,b}/a.parquet"],
    "mix[1]/*": ["mix1/a.parquet"],
    "mix[[]1]/*": ["mix[1]/a.parquet"],
    "mix[1]/a.parquet": ["mix[1]/a.parquet"],
    "{a,b}/*": ["{a,b}/a.parquet"],
    "de/**/*.parquet": ["de/2024/a.parquet", "de/2024/deep/a.parquet", "de/a.parquet"],
    "**/deep/*": ["de/2024/deep/a.parquet"],
    "de/2024/**": ["de/2024/a.parquet", "de/2024/deep/a.parquet"],
    ".git/*": [".git/a.parquet"],
}


def fill(write: Callable[[str], object]) -> None:
    for name in FILES:
        write(name)


@pytest.fixture
def hub(tmp_path: Path, hf_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer({"owner/corpus": tmp_path / "root"}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        yield server


@pytest.fixture(params=["local", "gs", "hub"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "gs":
        prefix: str = request.getfixturevalue("gcs_prefix")
        fill(lambda name: storage.write_bytes(f"{prefix}/{name}", b"12"))
        return prefix
    folder = tmp_path / "root"
    fill(lambda name: storage.write_bytes(str(folder / name), b"12"))
    if request.param == "local":
        return str(folder)
    server: HubServer = request.getfixturevalue("hub")
    return server.source("owner/corpus", "").rstrip("/")


def test_the_same_words_mean_the_same(root: str) -> None:
    for pattern, wanted in PATTERNS.items():
        found = expand(f"{root}/{pattern}")
        assert [one.path.removeprefix(f"{root}/") for one in found] == sorted(wanted), pattern
        assert {one.bytes for one in found} == {2}


def test_what_names_no_file(root: str) -> None:
    for pattern, message in {
        "de": r"de: is a folder; write .*/de/\*\.parquet for the files in it",
        "mix[[]1]": r"is a folder; write .*/mix\[\[\]1\]/\*\.parquet",
        "fr/*.parquet": r"fr/\*\.parquet: no file matches; (check the path|there is no fr in )",
        "de/{a,c}.parquet": r"no file matches; braces are not taken: write a list of patterns",
    }.items():
        with pytest.raises(BroetchenError, match=message):
            expand(f"{root}/{pattern}")


def test_what_was_built_is_no_source_by_a_wildcard(root: str, request: pytest.FixtureRequest) -> None:
    if root.startswith("hf://"):
        pytest.skip("a repository is only read")
    shard = "train-00000-of-00001.parquet"
    for name in (shard, "_quarantine/bad-rows-00000.parquet", f"_trace/{shard}"):
        storage.write_bytes(f"{root}/out/german/{name}", b"12")
    # Of another tool.
    storage.write_bytes(f"{root}/out/german/manifest.json", b'{"files": []}')
    assert len(expand(f"{root}/out/*/*.parquet")) == 1
    storage.write_bytes(f"{root}/out/german/manifest.json", b'{\n "format": "broetchen-dataset"}')
    for pattern in ("**/*.parquet", "out/*/*.parquet", "out/**/bad-rows*", "out/*/_trace/*"):
        with pytest.raises(BroetchenError, match=r": also matches files of .*/out/german, a dataset that was built"):
            expand(f"{root}/{pattern}")
    assert len(expand(f"{root}/out/german/*.parquet")) == 1
    storage.delete([f"{root}/out/german/{shard}"])
    assert len(expand(f"{root}/*/a.parquet")) == 4


# --- A disk ----------------------------------------------------------------------------------------------------------


def test_links_to_folders_and_files_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.parquet").write_bytes(b"12")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "data" / "b.parquet").symlink_to(tmp_path / "real" / "a.parquet")
    (tmp_path / "real" / "circle").symlink_to(tmp_path / "data")
    found = {one.path.removeprefix(f"{tmp_path}/data/") for one in expand(f"{tmp_path}/data/**/*.parquet")}
    assert found == {"b.parquet", "link/a.parquet"}
    assert [one.path for one in expand(f"{tmp_path}/data/*/a.parquet")] == [f"{tmp_path}/data/link/a.parquet"]


def test_in_a_folder_of_ours_no_link_to_a_folder_is_followed(tmp_path: Path) -> None:
    """It may lead to all of the disk."""
    (tmp_path / "elsewhere" / "b").mkdir(parents=True)
    (tmp_path / "elsewhere" / "b" / "manifest.json").write_bytes(b"1")
    (tmp_path / "elsewhere" / "manifest.json").write_bytes(b"1")
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "a" / ".hidden").write_bytes(b"12")
    for name in ("link", "a/link", "a/.broetchen"):
        (tmp_path / "out" / name).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "out" / "nowhere").symlink_to("gone")
    out = f"{tmp_path}/out"
    assert list_files(out) == [(f"{out}/a/.hidden", 2), (f"{out}/nowhere", 0)]
    for pattern in ("*/manifest.json", "**/manifest.json", "a/link/manifest.json", "*/.broetchen/*/manifest.json"):
        assert list_files(out, pattern) == []
    assert list_files(f"{out}/link", "*.json") == [(f"{out}/link/manifest.json", 1)]


def test_what_matches_and_is_no_file_to_read(tmp_path: Path) -> None:
    def dangling(path: Path) -> None:
        path.symlink_to("../blobs/0123")

    for make, message in (
        (dangling, r"x\.parquet: is a link to \.\./blobs/0123, where nothing is"),
        (Path.mkdir, r"matches .*x\.parquet, which is a folder; write .*/x\.parquet/\*\.parquet"),
        (os.mkfifo, r"x\.parquet: is no regular file, and matches "),
    ):
        folder = tmp_path / make.__name__
        folder.mkdir()
        (folder / "a.parquet").write_bytes(b"12")
        make(folder / "x.parquet")
        with pytest.raises(BroetchenError, match=message):
            expand(f"{folder}/*.parquet")
        assert expand(f"{folder}/a*")
    with pytest.raises(BroetchenError, match="is a link to"):
        expand(f"{tmp_path}/dangling/x.parquet")


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/\xe4.parquet", "wb"):
        pass
    with pytest.raises(BroetchenError, match=r"\\xe4\.parquet: its name is not UTF-8, .*; rename it") as raised:
        expand(f"{tmp_path}/*.parquet")
    assert str(raised.value).encode()


def test_a_folder_that_may_not_be_listed(tmp_path: Path) -> None:
    if not os.geteuid():
        pytest.skip("root lists all folders")
    (tmp_path / "de").mkdir(mode=0)
    with pytest.raises(BroetchenError, match="cannot be listed"):
        expand(f"{tmp_path}/*/a.parquet")


def test_only_the_folder_that_is_meant_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b/c"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a.parquet").write_bytes(b"1")
    listed: list[str] = []
    scan = os.scandir

    def seen(path: str) -> Any:
        listed.append(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", seen)
    assert expand(f"{tmp_path}/*.parquet")
    assert listed == [f"{tmp_path}/"]


def test_brackets_of_a_folder_get_a_hint(tmp_path: Path) -> None:
    (tmp_path / "mix[1]").mkdir()
    (tmp_path / "mix[1]" / "a.parquet").write_bytes(b"1")
    with pytest.raises(BroetchenError, match=r"no file matches; \[…\] stands for one .*write \[\[\] for a \["):
        expand(f"{tmp_path}/mix[1]/*.parquet")


def test_a_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.parquet").write_bytes(b"1")
    shutil.copytree(".", "de[1]")
    assert [one.path for one in expand("*.parquet")] == ["a.parquet"]
    assert [one.path for one in expand("**/*.parquet")] == ["a.parquet", "de[1]/a.parquet"]
    assert [one.path for one in expand("./*.parquet")] == ["./a.parquet"]
    assert [path for path, _ in list_files("de[1]")] == ["de[1]/a.parquet"]


def test_files_that_go_while_they_are_listed(tmp_path: Path) -> None:
    """They are our own work, which another process clears away."""
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            for number in range(50):
                (tmp_path / f"{number}.json").write_bytes(b"1")
            for number in range(50):
                (tmp_path / f"{number}.json").unlink()

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(200):
            assert all(size in (0, 1) for _, size in list_files(str(tmp_path), "*.json"))
    finally:
        stop.set()
        thread.join()


# --- The hub ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "revision"),
    [
        ("@refs/convert/parquet", "refs/convert/parquet"),
        ("@~parquet", "refs/convert/parquet"),
        ("@refs/pr/7", "refs/pr/7"),
        ("@main", "main"),
        ("", ""),
    ],
)
def test_revisions_that_the_hub_makes(written: str, revision: str) -> None:
    found = HubPath.parse(f"hf://datasets/owner/corpus{written}/default/train/0000.parquet")
    assert (found.repository, found.revision, found.path) == ("owner/corpus", revision, "default/train/0000.parquet")
