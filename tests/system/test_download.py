"""`broetchen download` from a hub on loopback, and builds that read the copies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from apache_beam.io.filesystems import FileSystems

from tests.support.command import COMMAND, run_command, run_on_terminal
from tests.support.corpora import SAMPLES
from tests.support.services.hub_server import HubServer
from tests.transforms.files.test_hub import CORPUS, shards, write_config
from transforms.errors import BroetchenError
from transforms.files import hub_copy, storage
from transforms.files.listing import list_files

pytestmark = pytest.mark.slow


@pytest.fixture
def hub(tmp_path: Path, hf_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    folder = tmp_path / "hub"
    shutil.copytree(SAMPLES / "corpora" / "fineweb2_german", folder / "data")
    with HubServer({CORPUS: folder}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        yield server


@pytest.fixture
def config(hub: HubServer, tmp_path: Path) -> Path:
    return write_config(tmp_path / "mix.yaml", hub.source(CORPUS, "data/*.parquet"), 50_000)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_build_of_downloaded_files_equals_a_streamed_one(hub: HubServer, config: Path, tmp_path: Path) -> None:
    to = tmp_path / "corpora"
    listed = run_command("download", config, "--to", to, "--dry-run")
    assert listed.returncode == 0, listed.stderr
    assert "data/" in listed.stdout
    assert not to.exists()
    assert not hub.fetched
    assert run_command("download", config, "--to", to).returncode == 0
    assert contents(to) == contents(hub.repositories[CORPUS])
    hub.fetched.clear()
    again = run_command("download", config, "--to", to)
    assert "0 of " in again.stdout
    assert not hub.fetched
    built = run_command("build", config, "--output", tmp_path / "rooted", "--source-root", to, "--quiet")
    assert built.returncode == 0, built.stderr
    assert not hub.fetched
    assert run_command("build", config, "--output", tmp_path / "streamed", "--quiet").returncode == 0
    assert shards(tmp_path / "rooted") == shards(tmp_path / "streamed") != {}


@pytest.fixture
def source(hub: HubServer) -> str:
    (name,) = [path.name for path in sorted((hub.repositories[CORPUS] / "data").iterdir())][:1]
    return hub.source(CORPUS, f"data/{name}")


def test_a_copy_that_was_cut_short_is_continued(hub: HubServer, source: str, tmp_path: Path) -> None:
    original = next(iter((hub.repositories[CORPUS] / "data").glob(source.rpartition("/")[2]))).read_bytes()
    target = tmp_path / "to" / "file"
    target.parent.mkdir()
    (tmp_path / "to" / "file.part").write_bytes(original[:-1000])
    done: list[int] = []
    assert hub_copy.copy_verified(source, str(target), len(original), done.append)
    assert target.read_bytes() == original
    assert sum(done) == len(original)
    assert 0 < hub.fetched.total() < 70_000
    assert contents(tmp_path / "to") == {"file": original}


def test_a_wrong_beginning_is_found_by_the_hash_and_fetched_anew(hub: HubServer, source: str, tmp_path: Path) -> None:
    target = tmp_path / "file"
    size = storage.size(source)
    (tmp_path / "file.part").write_bytes(b"x" * 1000)
    with pytest.raises(BroetchenError, match="has another hash than the hub says"):
        hub_copy.copy_verified(source, str(target), size, lambda _: None)
    assert not target.exists()
    assert hub_copy.copy_verified(source, str(target), size, lambda _: None)
    assert target.stat().st_size == size


def test_to_a_bucket(hub: HubServer, source: str, gcs_prefix: str) -> None:
    size = storage.size(source)
    assert hub_copy.copy_verified(source, f"{gcs_prefix}/a/file", size, lambda _: None)
    assert [(path, length) for path, length in list_files(gcs_prefix)] == [(f"{gcs_prefix}/a/file", size)]
    assert storage.read_bytes(f"{gcs_prefix}/a/file") == FileSystems.open(source).read()


def test_wrong_content_never_gets_a_name_in_a_bucket(hub: HubServer, source: str, gcs_prefix: str) -> None:
    size = storage.size(source)
    done: list[int] = []
    with pytest.raises(BroetchenError, match="has another hash than the hub says"):
        hub_copy.copy_verified(source, f"{gcs_prefix}/a/file", size - 1, done.append)
    assert list_files(gcs_prefix) == []


def test_the_folder_is_named_as_it_is(config: Path, tmp_path: Path) -> None:
    to = tmp_path / "corpora[b] :smile:"
    assert run_command("download", config, "--to", to).stdout.endswith(f"the others were there: {to}\n")


def test_a_config_without_hub_files(tmp_path: Path) -> None:
    config = write_config(tmp_path / "mix.yaml", "here/*.parquet", 5)
    result = run_command("download", config, "--to", tmp_path / "to")
    assert result.returncode == 2
    assert "names no files of the hub" in result.stderr


def original(hub: HubServer, source: str) -> bytes:
    return (hub.repositories[CORPUS] / "data" / source.rpartition("/")[2]).read_bytes()


def started_download(config: Path, to: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [COMMAND, "download", config, "--to", to], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture
def large(hub: HubServer, config: Path) -> Path:
    """The config, and a file that comes in pieces, so that a download of it can be met halfway."""
    for path in (hub.repositories[CORPUS] / "data").iterdir():
        path.unlink()
    (hub.repositories[CORPUS] / "data" / "large.parquet").write_bytes(os.urandom(24 << 20))
    return config


@contextlib.contextmanager
def two_downloads(
    hub: HubServer, config: Path, to: Path
) -> Iterator[tuple[subprocess.Popen[str], subprocess.Popen[str]]]:
    """One that is halfway, and one that waits for it, and says so."""
    hub.store_latency_s = 0.3
    with started_download(config, to) as first:
        deadline = time.monotonic() + 60
        while not any(path.stat().st_size for path in to.rglob("*.part")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        hub.store_latency_s = 10
        with started_download(config, to) as second:
            assert second.stderr is not None
            waits = "/data/large.parquet: another process downloads it; waits until that is done\n"
            assert any(line.endswith(waits) for line in second.stderr)
            hub.store_latency_s = 0
            yield first, second


def ended(download: subprocess.Popen[str]) -> str:
    """The output of a download that has ended without an error."""
    printed, told = download.communicate(timeout=60)
    assert "broetchen: " not in told
    return printed


def test_two_downloads_into_one_folder_fetch_each_file_once(hub: HubServer, large: Path, tmp_path: Path) -> None:
    to = tmp_path / "to"
    with two_downloads(hub, large, to) as (first, second):
        assert ended(first) == f"1 of 1 files fetched, the others were there: {to}\n"
        assert ended(second) == f"0 of 1 files fetched, the others were there: {to}\n"
    assert (first.returncode, second.returncode) == (0, 0)
    assert contents(to) == contents(hub.repositories[CORPUS])
    assert hub.fetched.total() == 24 << 20


def test_a_download_that_is_killed_is_taken_over_by_the_one_that_waits(
    hub: HubServer, large: Path, tmp_path: Path
) -> None:
    to = tmp_path / "to"
    with two_downloads(hub, large, to) as (first, second):
        first.kill()
        assert ended(second) == f"1 of 1 files fetched, the others were there: {to}\n"
    assert second.returncode == 0
    assert contents(to) == contents(hub.repositories[CORPUS])
    # A piece that was on its way to the first is sent again.
    assert hub.fetched.total() <= (24 << 20) + (8 << 20)


def test_one_that_waits_finds_what_the_other_has_made(hub: HubServer, source: str, tmp_path: Path) -> None:
    """It goes by the hash: where that is another, it fetches the file."""
    content, target = original(hub, source), tmp_path / "file"
    for made, fetched in ((content, False), (b"x" * len(content), True)):
        target.unlink(missing_ok=True)

        def finish(amount: int, made: bytes = made) -> None:
            if not amount and not target.exists():  # It waits.
                target.write_bytes(made)
                other.close()

        with (tmp_path / "file.part").open("wb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            assert hub_copy.copy_verified(source, str(target), len(content), finish) == fetched
        assert target.read_bytes() == content
        assert not (tmp_path / "file.part").exists()


def test_the_hash_is_that_of_what_lies_on_the_disk(
    hub: HubServer, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file has other bytes than those sent, whatever has written them."""
    content, target, real = original(hub, source), tmp_path / "file", os.fsync

    def spoil(descriptor: int) -> None:
        real(descriptor)
        os.pwrite(descriptor, b"another", 1000)

    monkeypatch.setattr(os, "fsync", spoil)
    with pytest.raises(BroetchenError, match="has another hash than the hub says"):
        hub_copy.copy_verified(source, str(target), len(content), lambda _: None)
    assert not target.exists()
    assert not (tmp_path / "file.part").exists()


def test_where_a_filesystem_has_no_locks_each_download_writes_its_own(
    hub: HubServer, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, target = original(hub, source), tmp_path / "to" / "file"
    target.parent.mkdir()
    (tmp_path / "to" / "file.part").write_bytes(b"another's")

    def flock(descriptor: int, how: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    assert hub_copy.copy_verified(source, str(target), len(content), lambda _: None)
    assert contents(tmp_path / "to") == {"file": content, "file.part": b"another's"}


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_a_link_in_the_place_of_the_unfinished_file_is_not_written(
    hub: HubServer, source: str, tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    link(tmp_path / "file.part", victim)
    with pytest.raises(BroetchenError, match=r"file\.part: is a (symbolic link|file with 2 names)"):
        hub_copy.copy_verified(source, str(tmp_path / "file"), storage.size(source), lambda _: None)
    assert victim.read_text() == "precious"
    assert not (tmp_path / "file").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
@pytest.mark.parametrize("name", ["file", "file.part"])
def test_another_users_file_is_neither_written_nor_replaced(
    hub: HubServer, source: str, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("theirs")
    (tmp_path / name).chmod(0o666)
    os.chown(tmp_path / name, 54_321, -1)
    with pytest.raises(BroetchenError, match=rf"{name}: is a file of user 54321, and is neither written nor deleted"):
        hub_copy.copy_verified(source, str(tmp_path / "file"), storage.size(source), lambda _: None)
    assert (tmp_path / name).read_text() == "theirs"


def test_a_check_names_what_is_wrong_and_fetches_nothing(hub: HubServer, config: Path, tmp_path: Path) -> None:
    to = tmp_path / "to"
    first = next((hub.repositories[CORPUS] / "data").iterdir())
    shutil.copy(first, first.with_name("third.parquet"))
    assert run_command("download", config, "--to", to).returncode == 0
    hub.fetched.clear()
    whole = run_command("download", config, "--to", to, "--check")
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.endswith(f" files are as the hub has them: {to}\n")
    other, missing, short = sorted(path for path in to.rglob("*") if path.is_file())
    content = bytearray(other.read_bytes())
    content[1000] ^= 1
    other.write_bytes(content)
    short.write_bytes(short.read_bytes()[:-1])
    size = missing.stat().st_size
    missing.rename(f"{missing}.part")
    wrong = run_command("download", config, "--to", to, "--check")
    assert wrong.returncode == 1
    assert wrong.stdout.splitlines() == [
        f"{other}: has another hash than the hub says",
        f"{missing}: is missing",
        f"{short}: has {short.stat().st_size:,} bytes instead of {short.stat().st_size + 1:,}",
    ]
    assert f"{to}: 3 of " in wrong.stderr
    assert "delete those that are wrong, and run it again without --check" in wrong.stderr
    assert not hub.fetched
    other.unlink()
    assert run_command("download", config, "--to", to).returncode == 0
    assert hub.fetched.total() < len(content) + short.stat().st_size + size + (1 << 20)
    assert run_command("download", config, "--to", to, "--check").returncode == 0


def test_a_check_shows_how_far_it_is(config: Path, tmp_path: Path) -> None:
    assert run_command("download", config, "--to", tmp_path / "to").returncode == 0
    code, shown = run_on_terminal("download", config, "--to", tmp_path / "to", "--check", columns=120)
    assert code == 0, shown
    assert "checking" in shown


def test_a_check_is_no_dry_run(config: Path, tmp_path: Path) -> None:
    done = run_command("download", config, "--to", tmp_path, "--check", "--dry-run")
    assert done.returncode == 2
    assert "choose one of the two" in done.stderr


def test_a_check_of_a_bucket_reads_its_objects(hub: HubServer, source: str, gcs_prefix: str) -> None:
    size = storage.size(source)
    done: list[int] = []
    assert hub_copy.wrong_copy(source, f"{gcs_prefix}/file", size, done.append) == "is missing"
    storage.write_bytes(f"{gcs_prefix}/file", original(hub, source))
    assert hub_copy.wrong_copy(source, f"{gcs_prefix}/file", size, done.append) is None
    storage.write_bytes(f"{gcs_prefix}/file", bytes(size))
    assert "another hash" in str(hub_copy.wrong_copy(source, f"{gcs_prefix}/file", size, done.append))
    assert sum(done) == 3 * size
    assert not hub.fetched
