"""Which datasets go into a mixture, by their manifests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from launch.mixture.datasets import read_mixture
from transforms.errors import BroetchenError

SPLIT = {"budget": 5, "tokens": 5, "missing": 0, "documents": 2, "records": 2, "bytes": 9, "shards": []}


def write_manifest(folder: Path, splits: dict[str, Any]) -> None:
    content = {
        "format_version": 1,
        "mix": "mix",
        "dataset": "a",
        "fingerprint": "01",
        "config": {
            "records": {"format": "tokens", "max_tokens": 8},
            "dataset": {"tokens": 5, "on_shortfall": "fail", "text_column": "text"},
        },
        "tokenizer": {
            "path": "../tokenizer-898989898989/tokenizer.json",
            "sha256": "89" * 32,
            "vocab_size": 9,
            "bos_id": None,
            "eos_id": 0,
            "special_tokens": "text",
        },
        "splits": splits,
        "skipped": {},
        "source": [],
        "versions": {},
    }
    (folder / "manifest.json").write_text(json.dumps(content))


def test_what_manifests_say_of_their_splits(tmp_path: Path) -> None:
    write_manifest(tmp_path, {"train": SPLIT | {"budget": 7}, "eval": SPLIT | {"tokens": 0, "records": 0}})
    (component,) = read_mixture([str(tmp_path)]).components
    assert (component.tokens, component.records, component.budget) == (5, 2, 7)
    assert (component.eval_tokens, component.eval_records) == (0, 0)


@pytest.mark.parametrize(
    "splits",
    [
        {},
        {"eval": SPLIT},
        {"train": SPLIT | {"tokens": 0}},
        {"train": SPLIT | {"records": 0}},
        {"train": SPLIT | {"budget": 0}},
    ],
)
def test_a_train_split_that_is_empty(tmp_path: Path, splits: dict[str, Any]) -> None:
    """Any of its numbers may say so; shares and weights are divided by them."""
    write_manifest(tmp_path, splits)
    with pytest.raises(BroetchenError, match="its train split has no tokens, so that it cannot be in a mixture"):
        read_mixture([str(tmp_path)])


def test_an_eval_split_without_records(tmp_path: Path) -> None:
    write_manifest(tmp_path, {"train": SPLIT, "eval": SPLIT | {"records": 0}})
    with pytest.raises(BroetchenError, match="its eval split has tokens, and no records"):
        read_mixture([str(tmp_path)])
