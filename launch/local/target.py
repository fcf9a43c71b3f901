"""`--target local`: trains on this machine, in the trainer's own environment.

A run's files are in a folder of its name: checkpoints, the log of all its starts, the files of its last one, and the
lock by which `status`, `logs` and `stop` find its process.
"""

from __future__ import annotations

import codecs
import dataclasses
import logging
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from launch import shell_script
from launch.checks.budget import DryRun, budget
from launch.checks.checked_job import CheckedJob, checked_job
from launch.config.training import LocalConfig, TrainingConfig
from launch.job import Command, TrainingJob, Value
from launch.local import environment
from launch.local.environment import trainer_python
from launch.local.log import EventFolder, History
from launch.local.losses import plot_losses, print_losses
from launch.local.outcome import crash, early_end, ending_of
from launch.local.process import POLL_S, held, owner_of, run_trainer, stop_trainer
from launch.local.progress import follow_steps
from launch.maxtext.checkpoints import checkpoint_steps
from launch.maxtext.command import arguments, left_out, trainer_environment
from launch.maxtext.ending import saved_steps
from launch.places import LocalPlace
from launch.run_state import RunState
from transforms.config.document import Problem
from transforms.errors import BroetchenError, UsageError
from transforms.files import storage

_LOGGER = logging.getLogger(__name__)

# The packages that the lock files of `environment.trainer` leave out, by the parameters that ask for them.
_REPORTING = {
    "use_vertex_tensorboard": "cloud-accelerator-diagnostics",
    "managed_mldiagnostics": "google-cloud-mldiagnostics",
}


class Local:
    """One training run on this machine."""

    def __init__(self, config: TrainingConfig) -> None:
        """A run of `config`; its section `local` may be missing."""
        self._config = config
        self._section = config.local or LocalConfig()
        self._place = LocalPlace()

    @property
    def place(self) -> LocalPlace:
        """This machine's file systems."""
        return self._place

    def start(self, *, yes: bool = False, quiet: bool = False) -> None:
        """Trains until the run ends; a run that was started before goes on from its last checkpoint.

        With `quiet` no progress is shown.

        Raises:
            UsageError: the config does not fit, or the run is running.
            BroetchenError: the trainer cannot be installed, or has failed.
        """
        folder = self._folder()
        checked = self._checked()
        job = checked.job
        steps = job.parameters.get("steps")
        done = max(checkpoint_steps(str(folder)), default=-1)
        if isinstance(steps, int) and done >= steps - 1:
            _LOGGER.info("%s: all %d steps are done; a larger `parameters.steps` goes on", job.name, steps)
            self._report(self._events(folder).read(), folder)
            return
        python = trainer_python(self._config, self._section.accelerator).ensure()
        with held(_lock(folder)) as lock:
            if lock is None:
                raise UsageError(f"{job.name} is running already; `stop` it first, or give this run another name")
            if checked.order is not None:
                checked.order.write()
            _write_files(job, folder / "job")
            checked.note(self._config)
            if done >= 0:
                _LOGGER.info("%s: goes on from the checkpoint of step %d", job.name, done)
            self._train([str(python), *arguments(job, str(folder / "job"))], job, folder, lock, quiet)
        self._report(self._events(folder).read(), folder)

    def dry_run(self) -> DryRun:
        """The resources of a run, and a script that does the same by hand.

        Raises:
            UsageError: the config does not fit.
        """
        checked = self._checked()
        script = self._script(checked, self._folder())
        return DryRun(budget(checked, peak_tflops=None, price=None), script)

    def status(self) -> None:
        """Prints whether the run is running, its last step, and its checkpoints."""
        self.state().tell()

    def state(self) -> RunState:
        """Whether the run is running, its last step, and its checkpoints."""
        folder = self._folder()
        owner = owner_of(_lock(folder))
        history = self._events(folder).read()
        steps, saved = self._config.parameters.get("steps"), checkpoint_steps(str(folder))
        steps = int(steps) if isinstance(steps, float) and steps.is_integer() else steps
        facts: dict[str, object] = {
            "run": self._config.name,
            "folder": str(folder),
            "running": owner is not None,
            "process": owner,
            "steps": steps,
            "last_step": None,
            "loss": None,
            "tokens_per_second": None,
            "ended_early": None,
            "checkpoints": list(saved),
        }
        lines = [f"run          {self._config.name}: {f'running, process {owner}' if owner else 'not running'}"]
        unsaved = ""
        if history.steps:
            last = history.steps[-1]
            rate = history.tokens_per_second()
            pace = f", {rate:,.0f} tokens a second" if rate else ""
            facts |= {"last_step": last.number, "loss": last.loss, "tokens_per_second": rate}
            lines.append(f"last step    {last.number} of {steps}: loss {last.loss:.3f}{pace}")
            if owner is None and last.number not in saved:
                unsaved = f"; {saved_steps(last.number, max(saved, default=None))}"
        if owner is None and _log(folder).exists() and (ending := ending_of(_log(folder))).is_early:
            facts["ended_early"] = ending.reason()
            lines.append(f"ended early  {ending.reason()}")
        lines.append(f"checkpoints  {', '.join(map(str, saved)) or 'none'}{unsaved}")
        return RunState(facts, tuple(lines))

    def logs(self, *, follow: bool = False) -> None:
        """Prints the trainer's log, of all its starts.

        Raises:
            BroetchenError: there is none.
        """
        folder = self._folder()
        try:
            file = _log(folder).open("rb")
        except FileNotFoundError as error:
            raise BroetchenError(f"{_log(folder)} is not there; the run was never started") from error
        with file:
            # A character may be in two blocks, or half written.
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            while True:
                running = follow and owner_of(_lock(folder)) is not None
                while block := file.read(1 << 16):
                    print(decoder.decode(block), end="", flush=True)
                if not running:
                    return
                time.sleep(POLL_S)

    def stop(self) -> None:
        """Stops the run. It goes on from its last checkpoint when it is started again."""
        lock = _lock(self._folder())
        owner = owner_of(lock)
        if owner is None:
            print(f"{self._config.name}: it is not running")
            return
        stop_trainer(lock, owner)
        print(f"{self._config.name}: stopped")

    def delete(self, *, yes: bool = False) -> None:
        """There are no machines to delete; says where the run's files are."""
        print(f"{self._config.name}: there are no machines to delete; its checkpoints are in {self._folder()}")

    def _folder(self) -> Path:
        output = self._config.output_directory()
        if not storage.is_local(output):
            raise UsageError(
                f"output: {output} is not on this machine, where `--target local` keeps its checkpoints; name a folder "
                f"(--set output=FOLDER){self._elsewhere()}"
            )
        return Path(self._place.locate(output)) / self._config.name

    def _elsewhere(self) -> str:
        """Advice for a user who has forgotten to say where the run trains."""
        sections = {"tpu-vm": self._config.tpu_vm, "xpk": self._config.xpk}
        named = [f"--target {target}" for target, section in sections.items() if section is not None]
        return f", or give {' or '.join(named)}" if named else ""

    def _events(self, folder: Path) -> EventFolder:
        return EventFolder(folder / "tensorboard" / self._config.name)

    def _checked(self) -> CheckedJob:
        self._folder()
        gpu = self._section.accelerator == "gpu"
        extra: dict[str, Value] = {
            "hardware": self._section.accelerator,
            "skip_jax_distributed_system": True,
            # Progress and the table of losses are made of these, step by step.
            "enable_tensorboard": True,
            "log_period": 1,
        }
        if "jax_cache_dir" not in self._config.parameters:
            extra["jax_cache_dir"] = environment.compiled_folder()
        if gpu and "attention" not in self._config.parameters:
            # The kernel that MaxText would choose by itself masks no packed sequences there.
            extra["attention"] = "dot_product"
        checked = checked_job(self._config, self._place, _gpus() if gpu else 1, extra)
        if self._section.python is None:
            self._check_reporting(checked.settings)
        job = checked.job
        platform = {"JAX_PLATFORMS": "cuda" if gpu else "cpu", "HF_HUB_OFFLINE": "1"}
        return dataclasses.replace(checked, job=dataclasses.replace(job, environment={**job.environment, **platform}))

    def _check_reporting(self, settings: Mapping[str, Any]) -> None:
        """Refuses parameters that MaxText would ignore without a word, as the package for them is missing."""
        problems = [
            Problem(
                ("parameters", key),
                f"reports to Google Cloud, for which the trainer's environment has no {package}: it takes seconds to "
                "import at each start; name the Python of an environment that has it as `local.python`",
            )
            for key, package in _REPORTING.items()
            if settings[key]
        ]
        if problems:
            raise self._config.refusal(problems)

    def _script(self, checked: CheckedJob, folder: Path) -> str:
        """The steps of `start`, as a shell script."""
        job = checked.job
        trainer = trainer_python(self._config, self._section.accelerator)
        unset = (word for name in left_out(os.environ) for word in ("-u", name))
        words = ("env", *unset, str(trainer.python), *arguments(job, str(folder / "job")))
        train = Command(words, f"trains; its log goes to {_log(folder)}", job.environment)
        return shell_script.script(
            [
                *(shell_script.command_lines(command) for command in (() if trainer.is_ready else trainer.commands())),
                shell_script.command_lines(Command(("mkdir", "-p", str(folder / "job")), "the job's files")),
                *(shell_script.file_lines(str(folder / "job"), file) for file in job.files),
                *([] if checked.order is None else checked.order.script_lines(str(folder / "job"))),
                f"{shell_script.command_lines(train)} >>{shlex.quote(str(_log(folder)))} 2>&1",
            ]
        )

    def _train(self, command: list[str], job: TrainingJob, folder: Path, lock: int, quiet: bool) -> None:
        steps = job.parameters.get("steps")
        events = self._events(folder)
        before = events.read().starts
        begun = _log(folder).stat().st_size if _log(folder).exists() else 0
        with follow_steps(job.name, steps if isinstance(steps, int) else None, quiet=quiet) as show:

            def watch() -> None:
                history = events.read()
                if history.steps and history.steps[-1].start >= before:
                    show(history)

            status = run_trainer(
                command,
                folder=folder / "job",
                environment=trainer_environment(os.environ) | dict(job.environment),
                log=_log(folder),
                lock=lock,
                watch=watch,
            )
        ending = ending_of(_log(folder), offset=begun)
        if status:
            raise crash(job.name, status, ending, _log(folder))
        saved = checkpoint_steps(str(folder))
        # A start that has done no step stands where its checkpoint does.
        done = [step.number for step in events.read().steps if step.start >= before] or saved
        last = max([*done, *(() if ending.last_step is None else (ending.last_step,))], default=None)
        if error := early_end(job.name, job.parameters, last, saved, ending, _log(folder)):
            raise error

    def _report(self, history: History, folder: Path) -> None:
        if not history.steps:
            return
        print_losses(Console(), history)
        plot = str(folder / "losses.png")
        plot_losses(history, self._config.name, plot)
        rate = history.tokens_per_second()
        pace = f"{rate:,.0f} tokens a second; " if rate else ""
        _LOGGER.info("%s: %splot in %s; checkpoints in %s", self._config.name, pace, plot, folder / "checkpoints")


def _log(folder: Path) -> Path:
    return folder / "trainer.log"


def _lock(folder: Path) -> Path:
    return folder / "trainer.lock"


def _write_files(job: TrainingJob, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in job.files:
        file.write(folder)


def _gpus() -> int:
    """How many NVIDIA GPUs this machine has."""
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-L"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise UsageError("local.accelerator: nvidia-smi finds no GPU here; write cpu") from error
    count = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    if not count:
        raise UsageError("local.accelerator: nvidia-smi finds no GPU here; write cpu")
    return count
