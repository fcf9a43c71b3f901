"""The bytes that a build from `gs://` fetches of its sources, by the ranges that the store is asked for."""

from __future__ import annotations

import random
import threading
import urllib.parse
import uuid
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from tests.support.command import run_command
from tests.support.corpora import SAMPLES, TOKENIZER, documents_of, write_parquet
from tests.support.services.gcs_emulator import Handler
from transforms.dataset.manifest import read_manifest
from transforms.files import storage


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """The path, the first and the last byte of each range that is asked for, as long as the test runs."""
    ranges: list[tuple[str, int, int]] = []
    lock, really = threading.Lock(), Handler.do_GET

    def do_get(handler: Any) -> None:
        if asked := handler.headers.get("range"):
            first, last = map(int, asked.removeprefix("bytes=").split("-"))
            with lock:
                ranges.append((urllib.parse.unquote(handler.path), first, last))
        really(handler)

    monkeypatch.setattr(Handler, "do_GET", do_get)
    return ranges


@pytest.mark.slow
def test_a_build_fetches_what_it_needs(gcs_bucket: str, fetched: list[tuple[str, int, int]], tmp_path: Path) -> None:
    documents = documents_of(SAMPLES.glob("corpora/fine*/*.parquet"))
    chosen = random.Random(5)
    where = f"{gcs_bucket}/{uuid.uuid4().hex}"
    for number in range(2):
        groups = [[chosen.choice(documents)[: chosen.randrange(200, 9000)] for _ in range(2400)] for _ in range(12)]
        path = tmp_path / "data" / f"part-{number}.parquet"
        write_parquet(path, groups)
        storage.upload(str(path), f"{where}/{path.name}")
    manifests = {}
    for name, source in (("here", str(tmp_path / "data" / "*.parquet")), ("there", f"{where}/*.parquet")):
        config = {
            "name": "streamed",
            "tokenizer": {"path": str(TOKENIZER), "eos_token": "<|eos|>"},
            "shards": {"target_size": "2MiB"},
            "datasets": {"german": {"tokens": 10_000_000, "eval_tokens": 1000, "source": source}},
        }
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
        fetched.clear()
        done = run_command("build", tmp_path / f"{name}.yaml", "--output", tmp_path / name, "--quiet")
        assert done.returncode == 0, done.stderr
        manifests[name] = read_manifest(str(tmp_path / name / "german"))
    assert manifests["there"] is not None
    shards = {path.name: path.read_bytes() for path in (tmp_path / "there" / "german").glob("*.arecord")}
    assert shards == {path.name: path.read_bytes() for path in (tmp_path / "here" / "german").glob("*.arecord")} != {}
    need = 0
    for entry in manifests["there"].source:
        metadata = pq.read_metadata(tmp_path / "data" / entry.path.rpartition("/")[2])
        need += sum(metadata.row_group(group).column(1).total_compressed_size for group in entry.row_groups)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "data").iterdir()}
    whole = sum(sizes.values())
    total = sum(
        min(last + 1, size) - first
        for path, first, last in fetched
        for name, size in sizes.items()
        if path.partition("?")[0].endswith(f"/{name}")
    )
    print(f"needed {need:,}, fetched {total:,} in {len(fetched)} requests, of {whole:,} bytes")
    assert need < 0.7 * whole
    assert total <= 1.05 * need + (3 << 20)
