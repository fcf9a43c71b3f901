"""Which datasets are of a mix, and its file."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import yaml

from tests.transforms.card.cards import COMMIT, manifest_of, mix_of, split_of
from transforms.card.mix import mix_text
from transforms.card.seal import is_sealed

MANIFEST = manifest_of("a", {"train": split_of(100)})


def test_a_dataset_of_the_mix_is_one_whatever_the_order_of_its_config() -> None:
    mix = mix_of({"a": {}})
    assert mix.has("a", MANIFEST)
    turned = dict(reversed(list(MANIFEST.config.items())))
    assert mix.has("a", MANIFEST.model_copy(update={"config": turned}))


@pytest.mark.parametrize(
    "changes",
    [
        {"mix": "another"},
        {"dataset": "b"},
        {"config": {**MANIFEST.config, "seed": 1}},
        {"tokenizer": MANIFEST.tokenizer.model_copy(update={"sha256": "cd" * 32})},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_dataset_of_another_mix_config_or_tokenizer_is_none(changes: dict[str, Any]) -> None:
    mix = mix_of({"a": {}, "b": {}})
    assert not mix.has("a", MANIFEST.model_copy(update=changes))
    assert not mix.has("b", MANIFEST)
    assert not mix.has("c", MANIFEST)


@pytest.mark.parametrize(
    "odd", ["1:30", "no", "2025-01-01", "a: b", "# x", "'", "\u2028", "-", "übung [1].parquet", "*x", "&x", ""]
)
def test_the_file_holds_the_config_in_its_order(odd: str) -> None:
    mix = mix_of({"b": {"source": [odd, odd]}, "a": {}})
    text = mix_text(mix, ["0.1.0"])
    assert is_sealed(text.encode())
    found = yaml.safe_load(text)
    assert found == mix.config
    assert list(found["datasets"]) == ["b", "a"]
    assert "&id" not in text
    assert text == mix_text(dataclasses.replace(mix, config=dict(mix.config)), ["0.1.0"])


def test_it_says_where_the_tokenizer_is() -> None:
    assert "leads to the copy beside this file" in mix_text(mix_of({"a": {}}), ["1"])
    hub = mix_of({"a": {}}, tokenizer={"path": "OWNER/NAME", "revision": COMMIT})
    assert f"a copy of it is {hub.tokenizer_path}" in mix_text(hub, ["1"])
