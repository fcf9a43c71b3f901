"""The commands and programs of a card work in the folder where it lies."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import datasets
import pytest

from tests.support.command import run_command
from tests.support.documents import ROOT
from tests.system.card.mixes import built, program_of, write_mix
from transforms.dataset.manifest import read_manifest


def run_program(output: Path) -> str:
    """The output of the card's program, run as its reader would, with Brötchen installed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program_of(output)],
        cwd=output,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("build", []),
        ("vocab", []),
        pytest.param("vocab", ["--format", "arrayrecord"], marks=pytest.mark.slow),
    ],
)
def test_the_five_lines_read_the_first_dataset(tmp_path: Path, command: str, options: list[str]) -> None:
    output = built(write_mix(tmp_path), tmp_path / "out", *options, command=command)
    manifest = read_manifest(str(output / "a"))
    assert manifest is not None
    shown = r"\[[\d ]+\]" if command == "build" else r"a \d+.*"
    assert re.fullmatch(rf"{manifest.splits['train'].records} {shown}\n", run_program(output))


@pytest.mark.slow
def test_the_demo_has_a_card_that_works(tmp_path: Path) -> None:
    done = run_command("demo", "--output", tmp_path / "demo", "--quiet")
    assert done.returncode == 0, done.stderr
    assert (
        "5 datasets with 400,000 tokens to train on and 10,000 held out"
        in (tmp_path / "demo" / "README.md").read_text()
    )
    assert re.fullmatch(r"\d+ \[[\d ]+\]\n", run_program(tmp_path / "demo"))


def test_datasets_finds_the_configurations_of_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    output = built(write_mix(tmp_path), tmp_path / "out", command="vocab")
    assert datasets.get_dataset_config_names(str(output)) == ["a", "b"]
    found = datasets.load_dataset(str(output), "a", cache_dir=str(tmp_path / "cache"))
    assert set(found) == {"train", "eval"}
    manifest = read_manifest(str(output / "a"))
    assert manifest is not None
    assert {name: len(split) for name, split in found.items()} == {
        name: split.records for name, split in manifest.splits.items()
    }


def test_the_hubs_command_knows_the_options_of_the_upload(tmp_path: Path) -> None:
    """As it is installed here; it is not run, as there is no hub to take it."""
    text = (built(write_mix(tmp_path), tmp_path / "out") / "README.md").read_text()
    (line,) = re.findall(r"^hf upload .*", text, re.M)
    told = subprocess.run(
        [Path(sys.executable).with_name("hf"), "upload", "--help"], capture_output=True, text=True, timeout=120
    )
    assert told.returncode == 0, told.stderr
    assert "split into several commits" in " ".join(told.stdout.split())
    assert all(option in told.stdout for option in re.findall(r"--[a-z-]+", line))
