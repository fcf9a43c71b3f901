"""`broetchen status`: how far a build is, from its output alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from beam_pipelines.config.mix import MixConfig, load_config
from beam_pipelines.jobs.build import build
from tests.support.command import run_command
from tests.support.corpora import SAMPLES, TOKENIZER
from transforms.building.status import read_progress
from transforms.errors import BroetchenError
from transforms.files import storage


def make_config(folder: Path, **tokens: int) -> MixConfig:
    """Datasets of one small corpus each, with these budgets and 100 tokens for evaluation."""
    source = str(SAMPLES / "corpora" / "fineweb2_german" / "*.parquet")
    content = {
        "name": "status",
        "tokenizer": {"path": str(TOKENIZER), "eos_token": "<|eos|>"},
        "shards": {"target_size": "64KiB"},
        "datasets": {name: {"source": source, "tokens": budget, "eval_tokens": 100} for name, budget in tokens.items()},
    }
    path = folder / "mix.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_config(str(path))


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One dataset that is finished, and one whose source ended before its budget, so that its work lies there still."""
    folder = tmp_path_factory.mktemp("status")
    with pytest.raises(BroetchenError, match="large"):
        build(make_config(folder, large=9_000_000, small=30_000), str(folder / "out"), quiet=True)
    return folder / "out"


def test_finished_and_unfinished_datasets(output: Path) -> None:
    large, small = read_progress(str(output))
    assert (small.dataset, small.state, small.wanted, small.tokens) == ("small", "finished", 30_100, 30_100)
    assert (large.dataset, large.state, large.wanted) == ("large", "failed: source exhausted", 9_000_100)
    assert 100_000 < large.tokens < 9_000_000
    assert large.shards == len(list((output / "large" / ".broetchen").glob("*/shard-*.json"))) > 1


def test_before_the_first_shard_nothing_is_done(output: Path, tmp_path: Path) -> None:
    (budgets,) = (output / "large" / ".broetchen").glob("*/budgets-*.json")
    begun = tmp_path / "out" / budgets.relative_to(output)
    begun.parent.mkdir(parents=True)
    shutil.copy(budgets, begun)
    (progress,) = read_progress(str(tmp_path / "out"))
    assert (progress.dataset, progress.tokens, progress.shards) == ("large", 0, 0)


def test_a_dataset_that_is_finished_while_its_work_is_read(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(output, tmp_path / "out")
    manifest = tmp_path / "out" / "large" / "manifest.json"
    read_bytes = storage.read_bytes

    def finish_and_read(path: str) -> bytes:
        if "/large/.broetchen/" in path and not manifest.exists():
            content = (output / "small" / "manifest.json").read_text().replace('"small"', '"large"')
            manifest.write_text(content)
            storage.delete_tree(str(tmp_path / "out" / "large" / ".broetchen"))
        return read_bytes(path)

    monkeypatch.setattr(storage, "read_bytes", finish_and_read)
    large, _ = read_progress(str(tmp_path / "out"))
    assert (large.dataset, large.state) == ("large", "finished")


def test_in_a_bucket(output: Path, gcs_prefix: str) -> None:
    for path in output.rglob("*.json"):
        storage.upload(str(path), f"{gcs_prefix}/{path.relative_to(output)}")
    assert read_progress(gcs_prefix) == read_progress(str(output))


def test_the_command(output: Path) -> None:
    result = run_command("status", output, "--format", "json")
    assert result.returncode == 0, result.stderr
    assert [(row["dataset"], row["state"]) for row in json.loads(result.stdout)] == [
        ("large", "failed: source exhausted"),
        ("small", "finished"),
    ]
    shown = run_command("status", output)
    assert "failed: source exhausted" in shown.stdout
    assert "30,100" in shown.stdout
    assert "100.00 %" in shown.stdout


def test_where_no_build_was(tmp_path: Path) -> None:
    result = run_command("status", tmp_path)
    assert result.returncode == 1
    assert "no dataset here, neither finished nor begun" in result.stderr
