"""The checkpoints of a run, as MaxText leaves them below the run's folder, local or on gs://."""

from __future__ import annotations

import re

from launch.config.training import TrainingConfig
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.files.listing import list_files

# Orbax's mark of a checkpoint that is whole.
_COMMITTED = re.compile(r".*/checkpoints/(\d+)/commit_success\.txt")


def run_folder(config: TrainingConfig) -> str:
    """The folder that a run writes to: a local path or gs://…."""
    return storage.join(config.output_directory(), config.name)


def checkpoint_folder(config: TrainingConfig, step: int) -> str:
    """Where the checkpoint of a step is."""
    return storage.join(run_folder(config), "checkpoints", str(step))


def checkpoint_steps(run: str) -> list[int]:
    """The steps that a run has whole checkpoints of, by the run's folder."""
    found = list_files(run, "checkpoints/*/commit_success.txt")
    return sorted(int(match[1]) for path, _ in found if (match := _COMMITTED.fullmatch(path)))


def chosen_step(config: TrainingConfig, step: int | None) -> int:
    """The step whose checkpoint is meant: the one that was asked for, or the last.

    Raises:
        BroetchenError: there is no checkpoint of it.
    """
    run = run_folder(config)
    steps = checkpoint_steps(run)
    if not steps:
        raise BroetchenError(f"{run} has no checkpoint; train first, with parameters.checkpoint_period below the steps")
    if step is not None and step not in steps:
        raise BroetchenError(f"{run} has no checkpoint of step {step}; there is one of {', '.join(map(str, steps))}")
    return steps[-1] if step is None else step
