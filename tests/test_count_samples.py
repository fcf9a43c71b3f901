"""`count`: the subtokens of sources are those that `tokenizers` counts, and those of built datasets what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from beam_pipelines.build_mix import build
from beam_pipelines.count_subtokens import count, count_sources
from beam_pipelines.demo import demo_config
from beam_pipelines.mix_config import MixConfig, load_config
from tests.corpora import SAMPLES, documents_of, reference_ids
from transforms.errors import BroetchenError, UsageError
from transforms.manifest import find_manifests

MODES = {"in memory": [], "threads": ["--direct_running_mode=multi_threading", "--direct_num_workers=2"]}


@pytest.fixture(scope="module")
def config() -> MixConfig:
    """A mix of all sample corpora."""
    return demo_config()


@pytest.fixture(scope="module")
def reference(config: MixConfig) -> dict[str, tuple[int, int, int]]:
    """Documents, tokens and bytes of each corpus, by `tokenizers` alone."""
    found = {}
    for name in config.datasets:
        documents = documents_of((SAMPLES / "corpora" / name).glob("*.parquet"))
        tokens = sum(map(len, reference_ids(documents, eos=None)))
        found[name] = (len(documents), tokens, sum(len(document.encode()) for document in documents))
    return found


@pytest.mark.parametrize("engine", ["tokenizers", "gigatoken"])
@pytest.mark.parametrize("mode", MODES)
def test_every_sample_corpus_has_the_tokens_that_tokenizers_counts(
    config: MixConfig, reference: Mapping[str, tuple[int, int, int]], engine: Any, mode: str
) -> None:
    counts = count_sources(config, engine=engine, beam_arguments=MODES[mode])
    found = {name: (one.documents, one.tokens, one.text_bytes) for name, one in counts.items()}
    assert found == reference
    assert list(found) == list(config.datasets)
    assert all(one.skipped == 0 for one in counts.values())


@pytest.mark.parametrize("record_format", ["tokens", "text"])
def test_a_built_dataset_has_the_tokens_of_its_manifest(tmp_path: Path, record_format: str) -> None:
    """With EOS in the one format, which is a token like any other, and without in the other."""
    overrides = {"records.format": record_format, "records.add_eos": record_format == "tokens"}
    config = load_config(str(SAMPLES.parent / "mix_configs" / "demo.yaml"), overrides=overrides)
    build(config, str(tmp_path), quiet=True)
    counts = count([str(tmp_path)], load_config)
    expected = {
        f"{manifest.dataset}/{split}": (entry.documents, entry.tokens)
        for manifest in find_manifests(str(tmp_path)).values()
        for split, entry in manifest.splits.items()
    }
    assert {name: (one.documents, one.tokens) for name, one in counts.items()} == expected
    assert sum(one.tokens for one in counts.values()) == 410_000


def test_the_datasets_asked_for_and_no_others(config: MixConfig, reference: Mapping[str, tuple[int, int, int]]) -> None:
    names = ["fineweb_edu_english", "finepdfs_english"]
    counts = count_sources(config, datasets=names)
    assert {name: one.tokens for name, one in counts.items()} == {name: reference[name][1] for name in names}
    with pytest.raises(UsageError, match="--dataset other: the config has no such dataset"):
        count_sources(config, datasets=["other"])


def test_nothing_is_built_there(tmp_path: Path) -> None:
    with pytest.raises(BroetchenError, match="no finished dataset here"):
        count([str(tmp_path)], load_config)
