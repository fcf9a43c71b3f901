"""One `broetchen build` of one dataset, as a command to be timed, and its output."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from benchmarks.harness.places import ROOT


def build_command(
    source: str,
    tokens: int,
    folder: Path,
    shard_size: str,
    options: Sequence[str] = (),
    *,
    tokenizer: Path = ROOT / "samples" / "tokenizer.json",
    on_shortfall: str = "fail",
    filters: Sequence[Sequence[object]] = (),
) -> list[str]:
    """The command that builds `tokens` of `source` into `folder`, where it also puts the mix config.

    Args:
        source: a glob pattern of parquet files.
        tokens: the budget.
        folder: an empty one.
        shard_size: about the size of a shard, as "8MiB".
        options: more options of the command.
        tokenizer: its tokenizer.json, with the samples' EOS token.
        on_shortfall, filters: as in a mix config.
    """
    config = {
        "name": "benchmark",
        "tokenizer": {"path": str(tokenizer), "eos_token": "<|eos|>"},
        "shards": {"target_size": shard_size},
        "on_shortfall": on_shortfall,
        "datasets": {
            "corpus": {
                "tokens": tokens,
                "source": source,
                **({"filters": [list(one) for one in filters]} if filters else {}),
            }
        },
    }
    path = folder / "mix.yaml"
    path.write_text(yaml.safe_dump(config))
    return [
        *(sys.executable, "-m", "beam_pipelines", "build", str(path)),
        *("--output", str(folder / "output"), "--quiet", *options),
    ]


def shard_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each shard that the command left in `folder`, by name."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((folder / "output" / "corpus").glob("*.arecord"))
    }
