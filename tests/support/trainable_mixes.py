"""Small built datasets to train on, and a training config over them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support.command import run_command
from tests.support.corpora import TOKENIZER, write_parquet

TOKENS = {"german": 6000, "english": 3000}


def build_mix(folder: Path, **changes: Any) -> Path:
    """Builds two datasets of some 9,000 tokens into `folder`/mix; `changes` replace the mix config's top-level keys."""
    for dataset in TOKENS:
        groups = [[f"Straße {dataset} {row} and {group} more words. " * 8 for row in range(40)] for group in range(3)]
        write_parquet(folder / dataset / "0.parquet", groups)
    content: dict[str, Any] = {
        "name": "trainable",
        "tokenizer": {"path": str(TOKENIZER), "eos_token": "<|eos|>"},
        "records": {"max_tokens": 64, "add_eos": True},
        "datasets": {
            name: {"source": f"{folder}/{name}/*.parquet", "tokens": tokens, "eval_tokens": 200}
            for name, tokens in TOKENS.items()
        },
    }
    path = folder / "mix.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    built = run_command("build", path, "--output", folder / "mix", "--quiet")
    assert built.returncode == 0, built.stderr
    return folder / "mix"


def training_config(folder: Path, parameters: Mapping[str, Any] | None = None, **changes: Any) -> Path:
    """Writes a training config over `folder`/mix; `changes` replace its top-level keys."""
    content: dict[str, Any] = {
        "name": "a-run",
        "data": {"outputs": "mix"},
        "model": "nano-german-slm",
        "output": "training",
        "parameters": {
            "steps": 8,
            "learning_rate": 0.001,
            "per_device_batch_size": 4,
            "max_target_length": 64,
            "checkpoint_period": 4,
        }
        | dict(parameters or {}),
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    return path
