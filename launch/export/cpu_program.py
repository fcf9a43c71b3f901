"""Programs that compute on this machine's processor, by the Python of another environment: MaxText's, or PyTorch's."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from launch.job import TrainingJob, Value
from launch.local.environment import compiled_folder
from launch.maxtext.command import config_arguments, trainer_environment
from launch.processes import Outcome, last_lines, run_logged

_SHOWN_LINES = 20


def cpu_arguments(job: TrainingJob, folder: Path, parameters: Mapping[str, Value]) -> tuple[str, ...]:
    """The arguments of one of MaxText's programs: `CONFIG KEY=VALUE…`, for the processor. The job's files are written.

    Args:
        job: the model, and its parameters.
        folder: where the files go; it is there.
        parameters: of the program, which win over the job's.
    """
    for file in job.files:
        file.write(folder)
    processor: dict[str, Value] = {
        "hardware": "cpu",
        "skip_jax_distributed_system": True,
        "jax_cache_dir": compiled_folder(),
    }
    whole = TrainingJob(job.name, {**job.parameters, **parameters, **processor}, job.files)
    return config_arguments(whole, str(folder))


def run_on_cpu(command: Sequence[str | Path], folder: Path) -> Outcome:
    """Runs a program in a folder, in which it leaves its log, without asking the hub anything.

    The end of its output is the `errors` of the outcome.
    """
    log = folder / "program.log"
    log.unlink(missing_ok=True)
    environment = trainer_environment(os.environ) | {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}
    code = run_logged(command, log, folder=folder, environment=environment)
    return Outcome(code, "", last_lines(log, _SHOWN_LINES))
