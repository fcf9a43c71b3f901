"""The folder of files that the machines of any TPU target get: the job, and the lock file of its trainer."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path

from launch import shell_script
from launch.job import Command, JobFile, TrainingJob
from launch.maxtext import ending
from launch.maxtext.command import arguments

LOCK = Path(__file__).parents[1] / "requirements" / "trainer_requirements_tpu.lock"
"""The packages for the machines: MaxText for TPUs, and all that it needs, by version and hash."""

UV_LOCK = LOCK.with_name("uv_requirements.lock")
"""uv, which installs that, by version and hash."""

LOCK_NAME = "trainer.lock"
"""Its name in the folder."""

RUNNER = JobFile("ending.py", Path(ending.__file__).read_text(encoding="utf-8"), "runs MaxText, and says how it ended")
"""The program that runs the trainer on the machines, so that a training that ends early is a failure."""


def write_folder(folder: Path, files: Iterable[JobFile]) -> None:
    """Makes a folder of the files and the lock file."""
    folder.mkdir()
    for file in files:
        file.write(folder)
    (folder / LOCK_NAME).write_bytes(LOCK.read_bytes())


def folder_lines(folder: str, files: Iterable[JobFile]) -> list[str]:
    """The same for a shell script."""
    return [
        shell_script.command_lines(Command(("mkdir", "-p", folder), "the job's files")),
        *(shell_script.file_lines(folder, file) for file in files),
        shell_script.command_lines(Command(("cp", str(LOCK), f"{folder}/{LOCK_NAME}"), "what is installed there")),
    ]


def train_script(job: TrainingJob, folder: str, python: str, *, before: str = "") -> str:
    """The script that trains, on a machine that has the files in `folder`.

    Args:
        job: the training.
        folder: of the job's files on the machine, `RUNNER` among them.
        python: the trainer's interpreter there.
        before: lines that come first.
    """
    # Without the first JAX trains on the CPU where the TPU cannot be reached, as if nothing had happened. The tokenizer
    # is a folder, which nobody needs to ask the hub about.
    environment = {"JAX_PLATFORMS": "tpu,cpu", "HF_HUB_OFFLINE": "1", **job.environment}
    exports = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    command = (python, f"{folder}/{RUNNER.name}", python, *arguments(job, folder))
    train = "\n".join([*exports, f"exec {shlex.join(command)}"])
    return f"""\
#!/bin/bash
# Trains. MaxText goes on from the last checkpoint of this run, if there is one.
set -eu
# Each process of Grain's keeps all shards open that it has read from, and 1,024 files are often the limit.
ulimit -S -n "$(ulimit -H -n)" || true
{before}{train}
"""
