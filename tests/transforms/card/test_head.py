"""The head of a card, as the hub's own library reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from huggingface_hub import DatasetCard, DatasetCardData

from transforms.card.head import head_text, size_category


def head_of(datasets: Mapping[str, Mapping[str, Any]], record_format: str = "tokens") -> dict[str, Any]:
    text = head_text(
        "my-mix",
        datasets,
        records=1234,
        record_format=record_format,
        splits={name: ["train", "eval"] for name in datasets},
    )
    card = DatasetCard(text + "\n# A title\n", ignore_metadata_errors=False)
    assert isinstance(card.data, DatasetCardData)
    return card.data.to_dict()


def test_what_the_hub_reads() -> None:
    assert head_of(
        {"b": {"license": "odc-by", "language": ["de"]}, "a": {"license": "ODC-By-1.0", "language": ["en", "de"]}}
    ) == {
        "license": "odc-by",
        "language": ["de", "en"],
        "pretty_name": "my-mix",
        "size_categories": ["1K<n<10K"],
        "task_categories": ["text-generation"],
        "tags": ["broetchen", "pretraining", "arrayrecord"],
        "viewer": False,
    }


def test_parquet_has_a_configuration_for_each_dataset() -> None:
    head = head_of({"b": {}, "a": {}}, "parquet")
    assert "viewer" not in head
    assert [config["config_name"] for config in head["configs"]] == ["b", "a"]
    assert head["configs"][0]["data_files"] == [
        {"split": "train", "path": "b/train-*.parquet"},
        {"split": "eval", "path": "b/eval-*.parquet"},
    ]


@pytest.mark.parametrize(
    ("licenses", "expected"),
    [
        ([None], {}),
        (["odc-by", None], {}),
        (["odc-by", "cc-by-4.0", "odc-by"], {"license": ["odc-by", "cc-by-4.0"]}),
        (["CC0-1.0"], {"license": "cc0-1.0"}),
        (["LicenseRef-Mine"], {"license": "other", "license_name": "licenseref-mine"}),
        (["mit", "X+", "y"], {"license": ["mit", "other"], "license_name": "x-and-y"}),
        (["other"], {"license": "other"}),
    ],
)
def test_licenses_are_those_that_the_hub_knows(licenses: list[str | None], expected: dict[str, Any]) -> None:
    datasets = {str(number): {"license": license} if license else {} for number, license in enumerate(licenses)}
    head = head_of(datasets)
    assert {key: value for key, value in head.items() if key.startswith("license")} == expected


def test_sizes_are_the_hubs() -> None:
    assert [size_category(10**digits) for digits in range(3, 13)] == [
        *("1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B", "10B<n<100B"),
        *("100B<n<1T", "n>1T"),
    ]
