"""The Python that runs MaxText on this machine: one that the config names, or that of an environment that is made."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from launch import python_environment
from launch.job import Command
from launch.places import LocalPlace
from launch.python_environment import PythonEnvironment
from launch.training_config import TrainingConfig
from transforms.errors import UsageError


@dataclass(frozen=True)
class GivenPython:
    """An interpreter that is there already, as the config says."""

    python: Path

    @property
    def is_ready(self) -> bool:
        """It is there, or nobody can make it."""
        return True

    def commands(self) -> tuple[Command, ...]:
        """None: it is not ours to make."""
        return ()

    def ensure(self) -> Path:
        """The interpreter.

        Raises:
            UsageError: there is none.
        """
        if not os.access(self.python, os.X_OK) or self.python.is_dir():
            raise UsageError(
                f"local.python: {self.python} is no program; name the interpreter of an environment with MaxText"
            )
        return self.python


def trainer_python(config: TrainingConfig, accelerator: str) -> PythonEnvironment | GivenPython:
    """What runs MaxText on the `cpu` or the `gpu`, for all configs but those that say otherwise.

    Raises:
        UsageError: the config names one that is not on this machine.
    """
    given = None if config.local is None else config.local.python
    if given is None:
        return python_environment.trainer(accelerator)
    return GivenPython(Path(LocalPlace().locate(config.resolve(given))))
