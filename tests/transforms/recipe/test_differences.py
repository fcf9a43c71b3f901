"""How a dataset that is there differs from one that is to be built in its place, by keys and files, in words."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.support.small_builds import SmallBuild, small_build
from transforms.dataset.manifest import Manifest, SourceEntry, TokenizerEntry
from transforms.recipe.differences import (
    config_differences,
    other_dataset,
    source_differences,
    version_differences,
)

CONFIG: dict[str, Any] = {
    "records": {"format": "tokens", "max_tokens": 64},
    "special_tokens": "text",
    "seed": 0,
    "dataset": {"tokens": 20_000, "source": ["a/*.parquet"], "filters": None},
}


@pytest.fixture
def build(tmp_path: Path) -> SmallBuild:
    made = small_build(tmp_path, "tokens", [["a", "b"]])
    return dataclasses.replace(made, spec=dataclasses.replace(made.spec, config=CONFIG))


def manifest_of(build: SmallBuild, **changes: Any) -> Manifest:
    """A manifest of the same dataset with all keys that are compared."""
    (file,) = build.plan.files
    source = [
        SourceEntry(
            path=file.path, size=file.size, footer_sha256=file.footer_sha256, checksum=file.checksum, row_groups=[0]
        )
    ]
    tokenizer = TokenizerEntry(
        path="../t/tokenizer.json", sha256=build.spec.tokenizer.sha256, vocab_size=9, bos_id=None, eos_id=0,
        special_tokens="text",
    )  # fmt: skip
    same: dict[str, Any] = {"config": CONFIG, "tokenizer": tokenizer, "source": source, "versions": build.plan.versions}
    return Manifest.model_construct(**(same | changes))


def all_differences(build: SmallBuild, manifest: Manifest) -> list[str]:
    return [
        *config_differences(build.spec, manifest),
        *source_differences(build.spec, build.plan.files, manifest),
        *version_differences(build.plan.versions, manifest),
    ]


def test_the_same_dataset_has_no_differences(build: SmallBuild) -> None:
    assert not all_differences(build, manifest_of(build))


@pytest.mark.parametrize(
    ("old", "told"),
    [
        ({"seed": 3}, "seed is 3 there and 0 here"),
        ({"special_tokens": "token"}, "tokenizer.special_tokens is token there and text here"),
        (
            {"dataset": CONFIG["dataset"] | {"tokens": 1_500_000}},
            "datasets.small.tokens is 1,500,000 there and 20,000 here",
        ),
        ({"dataset": CONFIG["dataset"] | {"order": "x\x1b[31m"}}, "datasets.small.order is x\\u001b[31m there and not"),
        ({"x\x1b[31m" + "y" * 200: 1}, f"x\\u001b[31m{'y' * 68}… is 1 there and not set here"),
        ({"records": {"format": "tokens"}}, "records.max_tokens is not set there and 64 here"),
        (
            {"dataset": CONFIG["dataset"] | {"source": ["b" * 200]}},
            f'datasets.small.source is ["{"b" * 77}… there and ["a/*.parquet"] here',
        ),
    ],
)
def test_a_key_is_told_with_both_values(build: SmallBuild, old: dict[str, Any], told: str) -> None:
    (found,) = all_differences(build, manifest_of(build, config=CONFIG | old))
    assert found.startswith(told)


def test_tokenizer_sources_and_versions_are_told(build: SmallBuild) -> None:
    same = manifest_of(build)
    old = manifest_of(
        build,
        tokenizer=same.tokenizer.model_copy(update={"sha256": "0" * 64}),
        source=[same.source[0].model_copy(update={"size": 1}), same.source[0].model_copy(update={"path": "gone"})],
        versions={"tokenizers": "0.1"},
    )
    tokenizer, gone, changed, version = all_differences(build, old)
    assert tokenizer.startswith("the tokenizer's SHA-256 is 000000000000… there")
    assert gone == "gone is not in the source any more"
    assert changed == f"{build.plan.files[0].path} is another since"
    assert version.startswith("tokenizers was 0.1 there")
    message = str(other_dataset(build.spec, [tokenizer, gone]))
    assert message.endswith(f"{tokenizer}, {gone}; choose another --output, or replace it with --overwrite")
