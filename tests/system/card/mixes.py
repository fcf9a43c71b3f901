"""A small mix of two datasets, built by the command, and the files at its output."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support.command import run_command, without_hint
from tests.support.corpora import TOKENIZER, write_parquet

DATASETS: Mapping[str, Mapping[str, Any]] = {
    "a": {"tokens": 500, "eval_tokens": 60, "license": "odc-by", "language": "de"},
    "b": {"tokens": 300, "license": "cc0-1.0", "language": ["en", "de"]},
}


def write_mix(folder: Path, datasets: Mapping[str, Mapping[str, Any]] = DATASETS, **others: Any) -> Path:
    """Writes its sources, if they are not there, and `folder/mix.yaml`; the sources are relative to that."""
    for name in ("a", "b"):
        if not (folder / name).exists():
            rows = [f"{name} {row}: Brötchen und Brot, {row * row} Stück." for row in range(60)]
            write_parquet(folder / name / "0.parquet", [rows[:20], rows[20:]])
    content = {
        "name": "small",
        "tokenizer": {"path": str(TOKENIZER), "eos_token": "<|eos|>"},
        "shards": {"target_size": 600},
        "datasets": {name: {"source": f"{name}/*.parquet", **dataset} for name, dataset in datasets.items()},
    }
    (folder / "mix.yaml").write_text(yaml.safe_dump(content | others, sort_keys=False))
    return folder / "mix.yaml"


def build(config: Path, output: Path, *options: str, command: str = "build") -> subprocess.CompletedProcess[str]:
    return run_command(command, config, "--output", output, "--quiet", *options)


def built(config: Path, output: Path, *options: str, command: str = "build") -> Path:
    """The output of a build that has gone well, without a warning."""
    done = build(config, output, *options, command=command)
    assert (done.returncode, without_hint(done.stderr)) == (0, "")
    return output


def program_of(output: Path) -> str:
    """The lines of Python that the card gives to read with."""
    (found,) = re.findall(r"```python\n(.*?)```", (output / "README.md").read_text(), re.S)
    return str(found)
