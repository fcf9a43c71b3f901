"""`--target local`: trains on this machine, in the trainer's own environment.

A run is a process group of its own, with its log in a file: it lives on where this process is killed, and `status`,
`logs` and `stop` find it by the lock that it holds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console

from launch import python_environment, shell_script
from launch.export import checkpoint_steps, chosen_step, export_checkpoint
from launch.job import Command, TrainingJob, Value
from launch.local_config import LocalConfig
from launch.loss_report import plot_losses, print_losses
from launch.maxtext_command import arguments, job_of, trainer_environment
from launch.python_environment import last_lines
from launch.training_config import TrainingConfig
from launch.training_log import EventFolder, History
from launch.training_progress import follow_steps
from transforms import files
from transforms.errors import BroetchenError, UsageError

_LOGGER = logging.getLogger(__name__)

_POLL_S = 0.5
# A step may have to end first, and MaxText's workers after it.
_STOP_S = 30
_SHOWN_LINES = 25


@dataclasses.dataclass(frozen=True)
class LocalPlace:
    """This machine's disk."""

    def locate(self, uri: str) -> str:
        """The absolute path of `uri`.

        Raises:
            UsageError: it is no local path.
        """
        if not files.is_local(uri):
            raise UsageError(
                f"{uri} is not on this machine, where the trainer reads; copy it here (gcloud storage cp --recursive), "
                "or mount its bucket with gcsfuse, and name the folder"
            )
        return os.path.abspath(os.path.expanduser(uri))


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

    def start(self, *, dry_run: bool = False, yes: bool = False) -> None:
        """Trains until the run ends; a run that was started before goes on from its last checkpoint.

        Raises:
            UsageError: the config does not fit, or the run is running.
            BroetchenError: the trainer cannot be installed, or has failed.
        """
        folder = self._folder()
        job = self._job()
        if dry_run:
            print(self._script(job, folder), end="")
            return
        steps = job.parameters.get("steps")
        done = max(checkpoint_steps(str(folder)), default=-1)
        if isinstance(steps, int) and done >= steps - 1:
            _LOGGER.info("%s: all %d steps are done; a larger `parameters.steps` goes on", job.name, steps)
            self._report(self._events(folder).read(), folder)
            return
        python = self._python()
        with _held(folder / "trainer.lock", job.name) as lock:
            _write_files(job, folder / "job")
            if done >= 0:
                _LOGGER.info("%s: goes on from the checkpoint of step %d", job.name, done)
            self._train([str(python), *arguments(job, str(folder / "job"))], job, folder, lock)
        self._report(self._events(folder).read(), folder)

    def status(self) -> None:
        """Prints whether the run is running, its last step, and its checkpoints."""
        folder = self._folder()
        owner = _owner(folder / "trainer.lock")
        print(f"run          {self._config.name}: {f'running, process {owner}' if owner else 'not running'}")
        history = self._events(folder).read()
        if history.steps:
            last = history.steps[-1]
            rate = history.tokens_per_second()
            pace = f", {rate:,.0f} tokens a second" if rate else ""
            print(f"last step    {last.number}: loss {last.loss:.3f}{pace}")
        steps = checkpoint_steps(str(folder))
        print(f"checkpoints  {', '.join(map(str, steps)) or 'none'}")

    def logs(self, *, follow: bool = False) -> None:
        """Prints the trainer's log, of all its starts.

        Raises:
            BroetchenError: there is none.
        """
        folder = self._folder()
        try:
            file = (folder / "trainer.log").open("rb")
        except FileNotFoundError as error:
            raise BroetchenError(f"{folder / 'trainer.log'} is not there; the run was never started") from error
        with file:
            while True:
                running = follow and _owner(folder / "trainer.lock") is not None
                while block := file.read(1 << 16):
                    print(block.decode("utf-8", "replace"), end="", flush=True)
                if not running:
                    return
                time.sleep(_POLL_S)

    def stop(self) -> None:
        """Stops the run. It goes on from its last checkpoint when it is started again.

        Raises:
            BroetchenError: it does not end.
        """
        lock = self._folder() / "trainer.lock"
        owner = _owner(lock)
        if owner is None:
            print(f"{self._config.name}: it is not running")
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(owner, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_S
        while _owner(lock) == owner:
            if time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(owner, signal.SIGKILL)
                deadline = float("inf")
            time.sleep(_POLL_S)
        # Workers of a trainer that ended without tidying up.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(owner, signal.SIGKILL)
        print(f"{self._config.name}: stopped")

    def delete(self, *, yes: bool = False) -> None:
        """There are no machines to delete; says where the run's files are."""
        print(f"{self._config.name}: there are no machines to delete; its checkpoints are in {self._folder()}")

    def export(self, *, step: int | None = None) -> None:
        """Converts a checkpoint to Hugging Face format on the processor, wherever the run was trained."""
        chosen = chosen_step(self._config, step)
        where = export_checkpoint(self._config, chosen, self.trainer_python("cpu"))
        print(f"{self._config.name}: exported to {where}")

    def trainer_python(self, accelerator: str) -> Path:
        """The interpreter of an environment with MaxText: the config's, or one that is made now."""
        if self._section.python is None:
            return python_environment.trainer(accelerator).ensure()
        python = Path(self._place.locate(self._config.resolve(self._section.python)))
        if not os.access(python, os.X_OK) or python.is_dir():
            raise UsageError(
                f"local.python: {python} is no program; name the interpreter of an environment with MaxText"
            )
        return python

    def _folder(self) -> Path:
        output = self._config.output_directory()
        if not files.is_local(output):
            raise UsageError(
                f"output: {output} is not on this machine, where `--target local` keeps its checkpoints; name a folder "
                "(--set output=FOLDER)"
            )
        return Path(self._place.locate(output)) / self._config.name

    def _events(self, folder: Path) -> EventFolder:
        return EventFolder(folder / "tensorboard" / self._config.name)

    def _python(self) -> Path:
        return self.trainer_python(self._section.accelerator)

    def _job(self) -> TrainingJob:
        gpu = self._section.accelerator == "gpu"
        extra: dict[str, Value] = {
            "hardware": self._section.accelerator,
            "skip_jax_distributed_system": True,
            # Progress and the table of losses are made of these, step by step.
            "enable_tensorboard": True,
            "log_period": 1,
        }
        if "jax_cache_dir" not in self._config.parameters:
            extra["jax_cache_dir"] = python_environment.compiled_folder()
        if gpu and "attention" not in self._config.parameters:
            # What MaxText would choose by itself masks no packed sequences there.
            extra["attention"] = "dot_product"
        job = job_of(self._config, self._place, _gpus() if gpu else 1, extra)
        platform = {"JAX_PLATFORMS": "cuda" if gpu else "cpu", "HF_HUB_OFFLINE": "1"}
        return dataclasses.replace(job, environment={**job.environment, **platform})

    def _script(self, job: TrainingJob, folder: Path) -> str:
        """What `start` does, as a shell script."""
        environment = python_environment.trainer(self._section.accelerator)
        own = self._section.python is None
        python = environment.python if own else Path(self._config.resolve(str(self._section.python)))
        log = str(folder / "trainer.log")
        train = Command(
            (str(python), *arguments(job, str(folder / "job"))), f"trains; its log goes to {log}", job.environment
        )
        return shell_script.script(
            [
                *(shell_script.command_lines(command) for command in (environment.commands() if own else ())),
                shell_script.command_lines(Command(("mkdir", "-p", str(folder / "job")), "the job's files")),
                *(shell_script.file_lines(str(folder / "job"), file) for file in job.files),
                shell_script.command_lines(train),
            ]
        )

    def _train(self, command: list[str], job: TrainingJob, folder: Path, lock: int) -> None:
        log = folder / "trainer.log"
        # Of Python's variables, those of our environment would mislead the trainer's.
        environment = {
            name: value for name, value in trainer_environment(os.environ).items() if not name.startswith("PYTHON")
        } | dict(job.environment)
        steps = job.parameters.get("steps")
        events = self._events(folder)
        before = events.read().starts
        progress = follow_steps(job.name, steps if isinstance(steps, int) else None)
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=folder / "job",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(lock,),
            )
            _note_owner(lock, process.pid)
            try:
                with _interrupted_by_signals(), progress as show:
                    ended = False
                    while not ended:
                        ended = _ended(process)
                        history = events.read()
                        if history.steps and history.steps[-1].start >= before:
                            show(history)
            except BaseException:
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_STOP_S)
                raise
            finally:
                # Workers that a trainer left behind; after the leader's end the group has no other members.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode:
            how = (
                f"was stopped by {signal.Signals(-process.returncode).name}"
                if process.returncode < 0
                else f"ended with status {process.returncode}"
            )
            raise BroetchenError(
                f"{job.name}: the trainer {how}; the whole log is in {log}, and its end is\n"
                f"{last_lines(log, _SHOWN_LINES)}"
            )

    def _report(self, history: History, folder: Path) -> None:
        if not history.steps:
            return
        print_losses(Console(), history)
        plot = str(folder / "losses.png")
        plot_losses(history, self._config.name, plot)
        rate = history.tokens_per_second()
        pace = f"{rate:,.0f} tokens a second; " if rate else ""
        _LOGGER.info("%s: %splot in %s; checkpoints in %s", self._config.name, pace, plot, folder / "checkpoints")


def _write_files(job: TrainingJob, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in job.files:
        (folder / file.name).write_text(file.content, encoding="utf-8")


def _ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_POLL_S)
    except subprocess.TimeoutExpired:
        return False
    return True


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


@contextlib.contextmanager
def _held(path: Path, name: str) -> Iterator[int]:
    """Holds the run's lock, of which the trainer gets a copy: it is free when both have ended."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not _taken(lock):
            raise UsageError(f"{name} is running already; `stop` it first, or give this run another name")
        yield lock
    finally:
        os.close(lock)


def _taken(lock: int) -> bool:
    """Takes the lock. `_owner` may hold it for a moment, to see whether it is free."""
    for _ in range(10):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_POLL_S / 10)
        else:
            return True
    return False


def _note_owner(lock: int, pid: int) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(pid).encode(), 0)


def _owner(path: Path) -> int | None:
    """The trainer's process, and process group, while it runs."""
    try:
        with path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or 0) or None
            return None
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end what is inside as Ctrl-C does, so that the trainer does not live on by itself."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
