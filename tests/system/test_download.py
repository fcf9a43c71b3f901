"""`broetchen download` from a hub on loopback, and builds that read what it fetched."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from apache_beam.io.filesystems import FileSystems

from tests.support.command import run_command
from tests.support.corpora import SAMPLES
from tests.support.services.hub_server import HubServer
from tests.transforms.files.test_hub import CORPUS, shards, write_config
from transforms.errors import BroetchenError
from transforms.files import hub_copy, storage

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
    assert [(path, length) for path, length in storage.list_files(f"{gcs_prefix}/**")] == [
        (f"{gcs_prefix}/a/file", size)
    ]
    assert storage.read_bytes(f"{gcs_prefix}/a/file") == FileSystems.open(source).read()


def test_wrong_content_never_gets_a_name_in_a_bucket(hub: HubServer, source: str, gcs_prefix: str) -> None:
    size = storage.size(source)
    done: list[int] = []
    with pytest.raises(BroetchenError, match="has another hash than the hub says"):
        hub_copy.copy_verified(source, f"{gcs_prefix}/a/file", size - 1, done.append)
    assert storage.list_files(f"{gcs_prefix}/**") == []


def test_the_folder_is_named_as_it_is(config: Path, tmp_path: Path) -> None:
    to = tmp_path / "corpora[b] :smile:"
    assert run_command("download", config, "--to", to).stdout.endswith(f"the others were there: {to}\n")


def test_a_config_without_hub_files(tmp_path: Path) -> None:
    config = write_config(tmp_path / "mix.yaml", "here/*.parquet", 5)
    result = run_command("download", config, "--to", tmp_path / "to")
    assert result.returncode == 2
    assert "names no files of the hub" in result.stderr
