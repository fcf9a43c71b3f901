"""Outputs as a build writes them, and changes of them that somebody could make: their manifests may be sealed again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from beam_pipelines.config.mix import load_config
from tests.campaign.hostile_build import build_by_steps
from tests.support.corpora import TOKENIZER, Row, write_parquet
from transforms.dataset.findings import Finding
from transforms.dataset.inventory import leftovers
from transforms.dataset.manifest import find_manifests
from transforms.dataset.tokenizer import why_not_recounted
from transforms.dataset.verify import known_findings, shard_checks, shard_problems

GROUPS = [
    [f"Satz {group}, {row} und noch einer mehr {'oder so' * (row % 4)}." for row in range(12)] for group in range(12)
]
"""Row groups of documents, all of them different."""


def write_mix(
    folder: Path,
    files: Mapping[str, Sequence[Sequence[Row]]],
    *,
    tokens: int = 900,
    eval_tokens: int = 100,
    **changes: Any,
) -> Path:
    """A config of one dataset, `a`, of the parquet files `a/<name>.parquet`, and these files.

    Args:
        files: row groups by name.
        changes: sections and keys of the config.
    """
    for name, groups in files.items():
        write_parquet(folder / "a" / f"{name}.parquet", groups)
    content = {
        "name": "verified",
        "tokenizer": {"path": str(TOKENIZER), "bos_token": "<|bos|>", "eos_token": "<|eos|>"},
        "records": {"max_tokens": 16, "add_eos": True},
        "shards": {"target_size": 500},
        "datasets": {"a": {"source": "a/*.parquet", "tokens": tokens, "eval_tokens": eval_tokens}},
    }
    path = folder / "mix.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    return path


def build_output(folder: Path, files: Mapping[str, Sequence[Sequence[Row]]] | None = None, **options: Any) -> Path:
    """Builds such a config, step by step: the dataset `a`, of several shards of train and one of eval."""
    mix = write_mix(folder, {"0": GROUPS[:6], "1": GROUPS[6:]} if files is None else files, **options)
    build_by_steps(load_config(str(mix)), str(folder / "out"))
    return folder / "out"


def manifest_json(output: Path) -> Any:
    """The manifest of the dataset `a`."""
    return json.loads((output / "a" / "manifest.json").read_bytes())


def change_manifest(output: Path, change: Callable[[Any], None]) -> None:
    """Writes the manifest of the dataset `a` again."""
    manifest = manifest_json(output)
    change(manifest)
    (output / "a" / "manifest.json").write_text(json.dumps(manifest))


def make_older(manifest: Any) -> None:
    """Makes it one of format version 1."""
    manifest["format_version"] = 1
    del manifest["rows"]
    for entry in manifest["source"]:
        del entry["starts"], entry["texts"]


def reseal(output: Path) -> None:
    """Gives the manifest the sizes and checksums that shards have now."""

    def change(manifest: Any) -> None:
        for split in manifest["splits"].values():
            for shard in split["shards"]:
                content = (output / "a" / shard["file"]).read_bytes()
                shard["bytes"], shard["sha256"] = len(content), hashlib.sha256(content).hexdigest()
            split["bytes"] = sum(shard["bytes"] for shard in split["shards"])

    change_manifest(output, change)


def findings_of(output: Path) -> list[Finding]:
    """All that is found of an output, but which texts stand in train and eval; in one process, without Beam."""
    manifests = find_manifests(str(output))
    found = [Finding("warning", text) for text in leftovers(str(output), manifests)]
    for folder, manifest in manifests.items():
        found += known_findings(folder, manifest)
        recount = why_not_recounted(folder, manifest) is None
        for check in shard_checks(folder, manifest, "tokenizers", recount=recount):
            found += [Finding("problem", text) for text in shard_problems(check)]
    return found


def told(output: Path, kind: str) -> list[str]:
    """The lines of one kind, without the output's path."""
    return [found.text.removeprefix(f"{output}/") for found in findings_of(output) if found.kind == kind]
