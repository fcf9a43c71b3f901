"""`broetchen train` as its users meet it: its refusals, and their exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command import run_command
from tests.support.trainable_mixes import training_config

HELP = ("start", "status", "logs", "stop", "delete", "export", "--target", "--dry-run", "--yes", "--set")


def test_the_help_teaches():
    shown = run_command("train", "--help")
    assert shown.returncode == 0
    assert all(word in shown.stdout for word in HELP)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["status", "--dry-run"], "--dry-run is for start, not for status; leave it out"),
        (["logs", "--yes"], "--yes is for start and delete, not for logs; leave it out"),
        (["--follow"], "--follow is for logs, not for start; leave it out"),
        (["stop", "--step", "5"], "--step is for export, not for stop; leave it out"),
        (["--set", "steps"], "--set steps: not of the form KEY=VALUE, such as --set parameters.steps=100"),
        (["--set", "steps=5"], "run.yaml (--set steps): steps: is not a key that exists here"),
        (["--target", "tpu-vm"], "the config has no section `tpu_vm`"),
        (["--target", "xpk"], "the config has no section `xpk`"),
    ],
)
def test_bad_usage(tmp_path: Path, arguments: list[str], message: str):
    ended = run_command("train", training_config(tmp_path), *arguments)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_config_that_is_not_there(tmp_path: Path):
    ended = run_command("train", tmp_path / "no.yaml")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "no.yaml: there is no such config; check the path" in ended.stderr


def test_datasets_that_are_not_built(tmp_path: Path):
    ended = run_command("train", training_config(tmp_path), "--dry-run")
    assert ended.returncode == 1
    assert "no finished dataset here" in ended.stderr
