"""Mixes and manifests of cards, without a build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transforms.card.mix import CardMix, digest_of
from transforms.dataset.manifest import Manifest, ShardEntry, SourceEntry, SplitEntry, TokenizerEntry

SHA = "ab" * 32
COMMIT = "c292233c833e336628618a88a648727eb3dff0a7"


def mix_of(datasets: Mapping[str, Mapping[str, Any]], record_format: str = "tokens", **others: Any) -> CardMix:
    """A mix of these datasets, whose sources are their own names unless they have some."""
    config = {
        "name": "my-mix",
        "tokenizer": {"path": f"./tokenizer-{SHA[:12]}/tokenizer.json", "special_tokens": "text"},
        "records": {"format": record_format, "max_tokens": 2048, "add_bos": False, "add_eos": True},
        "datasets": {name: {"source": [f"{name}/*.parquet"], **dataset} for name, dataset in datasets.items()},
    } | others
    return CardMix(config, {name: digest_of(deciding(name, record_format)) for name in datasets}, SHA)


def deciding(name: str, record_format: str = "tokens") -> dict[str, Any]:
    return {
        "records": {"format": record_format, "max_tokens": 2048},
        "dataset": {"tokens": 100, "on_shortfall": "keep", "text_column": "text", "source": name},
    }


def split_of(tokens: int, *, missing: int = 0, shards: int = 1, **others: Any) -> SplitEntry:
    entries = [
        ShardEntry(
            file=f"train-{index:05d}-of-{shards:05d}.arecord",
            tokens=tokens if index == 0 else 0,
            documents=0,
            records=0,
            bytes=0,
            sha256=SHA,
        )
        for index in range(shards)
    ]
    values = {
        "budget": tokens + missing,
        "documents": tokens // 10,
        "records": tokens // 5,
        "bytes": tokens * 2,
    } | others
    return SplitEntry(tokens=tokens, missing=missing, shards=entries, **values)


def manifest_of(
    name: str,
    splits: Mapping[str, SplitEntry],
    *,
    record_format: str = "tokens",
    sources: Sequence[str] = ("a.parquet",),
    **others: Any,
) -> Manifest:
    values: dict[str, Any] = {
        "mix": "my-mix",
        "fingerprint": SHA,
        "config": deciding(name, record_format),
        "tokenizer": TokenizerEntry(
            path=f"../tokenizer-{SHA[:12]}/tokenizer.json",
            sha256=SHA,
            vocab_size=65_536,
            bos_id=None,
            eos_id=1,
            special_tokens="text",
        ),
        "skipped": {},
        "versions": {"broetchen": "0.1.0"},
    }
    entries = [SourceEntry(path=path, size=1, footer_sha256=SHA, checksum=None, row_groups=[0]) for path in sources]
    return Manifest(format_version=2, dataset=name, splits=splits, source=entries, **values | others)
