"""`hf://` against a hub on loopback: the filesystem itself, and whole builds that stream from it."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow.parquet as pq
import pytest
import yaml
from apache_beam.io.filesystems import FileSystems
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from tests.support.command import run_command
from tests.support.corpora import SAMPLES, TOKENIZER, documents_of, write_parquet
from tests.support.services.hub_server import COMMIT, HubServer
from transforms.dataset.manifest import read_manifest
from transforms.errors import BroetchenError, UsageError
from transforms.files import storage
from transforms.files.hub import _file
from transforms.files.hub_path import HubPath
from transforms.files.listing import expand, list_files

CORPUS, SECRET = "owner/corpus", "owner/secret"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files of about 17 MB each, of 12 row groups, and a column of numbers that nobody needs."""
    folder = tmp_path_factory.mktemp("hub") / "corpus"
    documents = documents_of(SAMPLES.glob("corpora/fine*/*.parquet"))
    chosen = random.Random(5)
    for number in range(3):
        groups = [[chosen.choice(documents)[: chosen.randrange(200, 9000)] for _ in range(2400)] for _ in range(12)]
        write_parquet(folder / "data" / f"part-{number}.parquet", groups)
    (folder / "README.md").write_text("a corpus\n")
    return folder


@pytest.fixture
def hub(folder: Path, hf_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer({CORPUS: folder, SECRET: folder}, private=frozenset([SECRET])) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "0")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


def write_config(path: Path, source: Any, tokens: int) -> Path:
    config = {
        "name": "streamed",
        "tokenizer": {"path": str(TOKENIZER), "eos_token": "<|eos|>"},
        "shards": {"target_size": "8MiB"},
        "datasets": {"german": {"tokens": tokens, "eval_tokens": 1000, "source": source}},
    }
    path.write_text(yaml.safe_dump(config))
    return path


def shards(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (output / "german").glob("*.arecord")}


def test_paths_are_matched_sized_and_read_by_range(hub: HubServer, folder: Path) -> None:
    pattern = hub.source(CORPUS, "data/part-[01].*")
    paths = [folder / "data" / f"part-{number}.parquet" for number in (0, 1)]
    assert [(one.path, one.bytes) for one in expand(pattern)] == [
        (hub.source(CORPUS, f"data/{path.name}"), path.stat().st_size) for path in paths
    ]
    assert [one.path for one in expand(hub.source(CORPUS, "**/*.md"))] == [hub.source(CORPUS, "README.md")]
    assert list_files(hub.source(CORPUS, "none"), "*.parquet") == []
    first = hub.source(CORPUS, "data/part-0.parquet")
    assert storage.size(first) == paths[0].stat().st_size
    assert FileSystems.checksum(first) == hub.etag(paths[0])
    assert not storage.exists(hub.source(CORPUS, "data/part-9.parquet"))
    with FileSystems.open(first) as handle:
        handle.seek(-8, 2)
        assert handle.read() == paths[0].read_bytes()[-8:]
        handle.seek(1000)
        assert handle.read(300_000) == paths[0].read_bytes()[1000:301_000]
    assert storage.read_bytes(hub.source(CORPUS, "README.md")) == b"a corpus\n"


def test_any_beam_io_takes_such_paths(hub: HubServer, folder: Path) -> None:
    with TestPipeline() as pipeline:
        rows = pipeline | beam.io.ReadFromParquet(hub.source(CORPUS, "data/part-0.parquet"), columns=["id"])
        expected = pq.read_metadata(folder / "data" / "part-0.parquet").num_rows
        assert_that(rows | beam.combiners.Count.Globally(), equal_to([expected]))
    with TestPipeline() as pipeline:
        assert_that(pipeline | beam.io.ReadFromText(hub.source(CORPUS, "*.md")), equal_to(["a corpus"]))


@pytest.mark.slow
def test_a_streamed_build_equals_a_local_one_and_fetches_what_it_needs(
    hub: HubServer, folder: Path, tmp_path: Path
) -> None:
    tokens = 24_000_000
    local = write_config(tmp_path / "local.yaml", str(folder / "data" / "*.parquet"), tokens)
    streamed = write_config(tmp_path / "streamed.yaml", hub.source(CORPUS, "data/*.parquet"), tokens)
    assert run_command("build", local, "--output", tmp_path / "local", "--quiet").returncode == 0
    result = run_command("build", streamed, "--output", tmp_path / "streamed", "--quiet")
    assert result.returncode == 0, result.stderr
    assert shards(tmp_path / "streamed") == shards(tmp_path / "local")
    manifest = read_manifest(str(tmp_path / "streamed" / "german"))
    assert manifest is not None
    need = 0
    for entry in manifest.source:
        path = folder / "data" / HubPath.parse(entry.path).path.removeprefix("data/")
        assert entry.path == hub.source(CORPUS, f"data/{path.name}")
        assert entry.checksum == hub.etag(path)
        metadata = pq.read_metadata(path)
        need += sum(metadata.row_group(group).column(1).total_compressed_size for group in entry.row_groups)
    whole = sum(path.stat().st_size for path in folder.glob("data/*.parquet"))
    print(f"needed {need:,}, fetched {hub.fetched.total():,}, of {whole:,} bytes")
    assert need < 0.8 * whole
    assert hub.fetched.total() <= 1.05 * need + (2 << 20)
    assert run_command("verify", tmp_path / "streamed").returncode == 0


@pytest.mark.slow
def test_a_streamed_vocabulary_corpus_has_all_columns_and_fetches_each_byte_once(
    hub: HubServer, folder: Path, tmp_path: Path
) -> None:
    for name, source in (("local", str(folder / "data" / "*.parquet")), ("hub", hub.source(CORPUS, "data/*.parquet"))):
        config = write_config(tmp_path / f"{name}.yaml", source, 15_000_000)
        done = run_command("vocab", config, "--output", tmp_path / name, "--quiet")
        assert done.returncode == 0, done.stderr
    local, streamed = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "german").glob("*.parquet")}
        for name in ("local", "hub")
    )
    assert streamed == local != {}
    manifest = read_manifest(str(tmp_path / "hub" / "german"))
    assert manifest is not None
    need = 0
    for entry in manifest.source:
        metadata = pq.read_metadata(folder / HubPath.parse(entry.path).path)
        groups = [metadata.row_group(group) for group in entry.row_groups]
        need += sum(group.column(leaf).total_compressed_size for group in groups for leaf in range(group.num_columns))
    print(f"needed {need:,}, fetched {hub.fetched.total():,}")
    assert hub.fetched.total() <= 1.05 * need + (3 << 20)


@pytest.mark.slow
def test_cut_connections_are_retried(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    local = write_config(tmp_path / "local.yaml", str(folder / "data" / "part-0.parquet"), 400_000)
    streamed = write_config(tmp_path / "streamed.yaml", hub.source(CORPUS, "data/part-0.parquet"), 400_000)
    hub.cut_every = 4
    assert run_command("build", local, "--output", tmp_path / "local", "--quiet").returncode == 0
    result = run_command("build", streamed, "--output", tmp_path / "streamed", "--quiet")
    assert result.returncode == 0, result.stderr
    assert shards(tmp_path / "streamed") == shards(tmp_path / "local")


def test_an_address_of_the_store_is_used_again_and_asked_for_anew_when_it_expires(hub: HubServer, folder: Path) -> None:
    content = (folder / "data" / "part-1.parquet").read_bytes()
    for expired_after, wanted in ((0, 1), (3, 4)):
        _file.cache_clear()
        hub.resolved.clear()
        hub.expired_after, hub.store_answers = expired_after, 0
        with FileSystems.open(hub.source(CORPUS, "data/part-1.parquet")) as handle:
            assert [handle.read(100_000) for _ in range(12)] == [content[i * 100_000 :][:100_000] for i in range(12)]
        assert hub.resolved.total() == wanted


def test_a_revision_that_does_not_exist(hub: HubServer) -> None:
    path = hub.source(CORPUS, "data/*.parquet", revision="f" * 40)
    with pytest.raises(BroetchenError, match=r"@f{40}/data/\*\.parquet: the repository has no such revision"):
        expand(path)


@pytest.mark.slow
def test_a_private_repository_needs_a_token_which_stays_secret(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "mix.yaml", hub.source(SECRET, "data/part-0.parquet"), 20_000)
    refused = run_command("build", config, "--output", tmp_path / "out")
    assert refused.returncode == 2
    assert "no such repository, or it is private" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not hub.authorized
    monkeypatch.setenv("HF_TOKEN", hub.token)
    done = run_command("build", config, "--output", tmp_path / "out", "--debug")
    assert done.returncode == 0, done.stderr
    assert hub.authorized
    assert not any("/store/" in path for path in hub.authorized)
    assert hub.token not in done.stdout + done.stderr
    assert not any(hub.token.encode() in path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())


def test_a_file_that_changes_under_its_etag(hub: HubServer, tmp_path: Path) -> None:
    hub.repositories[CORPUS] = tmp_path / "mine"
    path = tmp_path / "mine" / "a.bin"
    path.parent.mkdir()
    path.write_bytes(bytes(300_000))
    with FileSystems.open(hub.source(CORPUS, "a.bin")) as handle:
        assert handle.read(100_000) == bytes(100_000)
        path.write_bytes(b"\1" * 300_000)
        with pytest.raises(BroetchenError, match=r"a\.bin: its content changed while it was read"):
            handle.read(100_000)


def test_only_full_commits_are_read(hub: HubServer) -> None:
    for path in (hub.source(CORPUS, "README.md", revision="main"), f"hf://datasets/{CORPUS}/README.md"):
        with pytest.raises(BroetchenError, match="not pinned to a full commit hash"):
            storage.read_bytes(path)


@pytest.mark.slow
def test_an_unpinned_source_is_taken_where_that_is_allowed_and_its_commit_kept(
    hub: HubServer, folder: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path / "mix.yaml", f"hf://datasets/{CORPUS}/data/part-0.parquet", 20_000)
    refused = run_command("build", config, "--output", tmp_path / "unpinned")
    assert refused.returncode == 2
    assert "is not pinned to a full revision" in refused.stderr
    assert "allow_unpinned: true" in refused.stderr
    allowed = ("--set", "datasets.german.allow_unpinned=true")
    done = run_command("build", config, "--output", tmp_path / "unpinned", *allowed)
    assert done.returncode == 0, done.stderr
    assert f"{CORPUS} is not pinned, and is now at {COMMIT}" in done.stderr
    manifest = read_manifest(str(tmp_path / "unpinned" / "german"))
    assert manifest is not None
    assert [entry.path for entry in manifest.source] == [hub.source(CORPUS, "data/part-0.parquet")]
    assert manifest.config["dataset"]["source"] == [hub.source(CORPUS, "data/part-0.parquet")]


@pytest.mark.slow
def test_a_dataset_by_its_name_config_and_split(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    hub.repositories[CORPUS] = mine = tmp_path / "mine"
    for number, place in enumerate(["data/deu_Latn/train", "data/deu_Latn/test", "data/fra_Latn/train"]):
        (mine / place).mkdir(parents=True)
        for part in "ab":
            shutil.copy(folder / "data" / f"part-{number}.parquet", mine / place / f"{part}.parquet")
    (mine / "README.md").write_text(CARD)
    path = tmp_path / "mix.yaml"
    source = {"dataset": CORPUS, "config": "deu_Latn", "revision": COMMIT}

    def build(**changes: str) -> subprocess.CompletedProcess[str]:
        write_config(path, {key: value for key, value in (source | changes).items() if value}, 20_000)
        return run_command("build", path, "--output", tmp_path / "out", "--quiet")

    done = build()
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(str(tmp_path / "out" / "german"))
    assert manifest is not None
    assert manifest.config["dataset"]["source"] == [
        hub.source(CORPUS, f"data/deu_Latn/train/{part}.parquet") for part in "ab"
    ]
    again = build(config="deu_Latn", split="train")
    assert again.returncode == 0, again.stderr
    for wrong, message in (
        ({"config": "nld_Latn"}, "set `config` to one of them"),
        ({"config": ""}, "set `config` to one of them"),
        ({"split": "validation"}, "no split 'validation'; it has train, test"),
        ({"revision": "f" * 40}, "no such revision"),
        ({"revision": ""}, "is not pinned"),
        ({"dataset": "owner/none"}, "there is no such repository"),
    ):
        refused = build(**wrong)
        assert refused.returncode in (1, 2)
        assert message in refused.stderr
        assert "Traceback" not in refused.stderr


CARD = """---
configs:
- config_name: deu_Latn
  data_files:
  - {split: train, path: data/deu_Latn/train/*}
  - {split: test, path: data/deu_Latn/test/*}
- config_name: fra_Latn
  data_files:
  - {split: train, path: data/fra_Latn/train/*}
---
A corpus in two languages.
"""


def test_nothing_is_written(hub: HubServer) -> None:
    path = hub.source(CORPUS, "new.txt")
    for change in (
        lambda: storage.write_bytes(path, b""),
        lambda: storage.delete([path]),
        lambda: storage.rename(path, path + "2"),
    ):
        with pytest.raises(BroetchenError, match="the hub is only read here"):
            change()


def test_a_hub_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(BroetchenError, match="the hub cannot be reached"):
        storage.exists(f"hf://datasets/{CORPUS}@{COMMIT}/README.md")


@pytest.mark.parametrize("text", ["hf://models/a/b@c/d", "hf://datasets/a", "hf://datasets/a/b@c/../d", "a/b"])
def test_what_is_no_path_of_the_hub(text: str) -> None:
    with pytest.raises(UsageError, match="not a path of a hub dataset"):
        HubPath.parse(text)


ODD_NAMES = [
    "C#/0.parquet",
    "a b/x@y.parquet",
    "50%/50%25.parquet",
    "[1]/a&b=c?.parquet",
    "ä/+.parquet",
    "@main/1.parquet",
]


def test_names_of_any_kind_are_listed_and_opened_as_they_are(
    tmp_path: Path, hf_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = tmp_path / "corpus"
    for number, name in enumerate(ODD_NAMES):
        write_parquet(corpus / name, [[f"Text {number}"]])
    with HubServer({CORPUS: corpus}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        found = expand(server.source(CORPUS, "**/*.parquet"))
        assert sorted(one.path for one in found) == sorted(server.source(CORPUS, name) for name in ODD_NAMES)
        config = write_config(tmp_path / "mix.yaml", server.source(CORPUS, "*/*.parquet"), 20)
        done = run_command("build", config, "--output", tmp_path / "out", "--set", "datasets.german.on_shortfall=keep")
        assert done.returncode == 0, done.stderr
        manifest = read_manifest(str(tmp_path / "out" / "german"))
        assert manifest is not None
        assert sorted(source.path for source in manifest.source) == sorted(server.source(CORPUS, n) for n in ODD_NAMES)
