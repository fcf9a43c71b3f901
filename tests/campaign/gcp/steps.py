"""The steps of the check, each of which runs `broetchen` as a user would and tells its outcome."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from beam_pipelines.runners.remote.run import remote_defaults
from beam_pipelines.runners.remote.services import DATAFLOW, service_of
from launch.config.accelerators import parse_accelerator
from transforms.errors import BroetchenError, one_line
from transforms.files import storage
from transforms.files.listing import list_files
from transforms.locks.job import RemoteJob

ROOT = Path(__file__).resolve().parents[3]
DEMO = ROOT / "mix_configs" / "demo.yaml"
TPU_STEPS = 20

_INTERRUPTED = 130
_RUNS = "is in state JOB_STATE_RUNNING"
_COMMAND_S = 3600.0
# A job on Dataflow that is cancelled may take ten minutes to end.
_ENDS_S = 900.0
_POLL_S = 1.0
_NOTE_CHARACTERS = 300


@dataclasses.dataclass(frozen=True)
class Setting:
    """Where the check runs.

    Attributes:
        accelerator: the slice on which 20 steps are trained; None where the training is a dry run alone.
        zone: of the slice.
        options: more of Beam's options, for the jobs on Dataflow.
        shards_wait_s: how long a job that runs may take until its first shard lies there and Ctrl-C is pressed.
    """

    project: str
    bucket: str
    region: str
    zone: str
    accelerator: str | None = None
    options: tuple[str, ...] = ()
    shards_wait_s: float = 900.0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of a step; `passed` is None where it was not tried."""

    step: str
    passed: bool | None
    seconds: float
    note: str


class Failed(Exception):
    """A step has failed."""


class Check:
    """The check, in a folder of the bucket that nobody else uses: it has a random name, and is deleted at the end.

    Args:
        folder: of this machine, for what a build here makes.
        tell: is given a line when something begins.
    """

    def __init__(self, setting: Setting, folder: Path, tell: Callable[[str], None]) -> None:
        self._setting, self._folder, self._tell = setting, folder, tell
        self.mark = uuid.uuid4().hex[:12]
        self.place = f"gs://{setting.bucket}/broetchen-gcp-check-{self.mark}"
        self.outcomes: list[Outcome] = []
        self._output = f"{self.place}/mix"
        self._run_name = f"broetchen-check-{self.mark}"
        self._has_slice = False

    @property
    def passed(self) -> bool:
        return all(outcome.passed for outcome in self.outcomes)

    def run(self) -> None:
        """Takes all steps; those that need one that failed are not tried. Cleans up, whatever happens."""
        try:
            built = self._step("the demo's sources and config, copied to the bucket", self._copy_sources)
            here = self._step("the demo mix, built on this machine", self._build_here, needs=built)
            self._step("a job on Dataflow, ended by Ctrl-C", self._interrupt, needs=here)
            done = self._step("the same command again, to the end", self._build, needs=here)
            self._step("the files of the build here, hash for hash", self._compare, needs=done)
            self._step("read back by broetchen verify", self._verify, needs=done)
            planned = self._step("a training on a TPU, as a dry run", self._dry_run, needs=done)
            if self._setting.accelerator is not None:
                name = f"{TPU_STEPS} steps on a {self._setting.accelerator}"
                self._step(name, self._train, needs=planned)
        finally:
            # The dearest goes first, and a failure keeps no other from being tried.
            if self._has_slice:
                self._step("the TPU, deleted", self._delete_slice)
            self._step("jobs of this check that still run, cancelled", self._cancel_jobs)
            self._step("the folder in the bucket, deleted", self._delete_folder)

    def _step(self, name: str, work: Callable[[], str], *, needs: bool = True) -> bool:
        if not needs:
            self.outcomes.append(Outcome(name, None, 0.0, "not tried, as a step before it failed"))
            return False
        self._tell(f"{name} …")
        started, passed = time.monotonic(), False
        note = "interrupted"
        try:
            note, passed = work(), True
        except (Failed, BroetchenError) as error:
            note = str(error)
        except Exception as error:  # of a client of Google's: the next steps clean up nevertheless
            note = f"{type(error).__name__}: {error}"
        finally:
            note = self._without_names(note)
            self.outcomes.append(Outcome(name, passed, time.monotonic() - started, note))
            self._tell(f"  {'ok' if passed else 'FAILED'}: {note}")
        return passed

    def _without_names(self, text: str) -> str:
        """A note that can be sent to others: without the names of the project and the bucket."""
        for name, shown in ((self._setting.bucket, "BUCKET"), (self._setting.project, "PROJECT")):
            text = text.replace(name, shown)
        text = one_line(text)
        return text if len(text) <= _NOTE_CHARACTERS else f"…{text[-_NOTE_CHARACTERS:]}"

    # --- The mix -----------------------------------------------------------------------------------------------------

    def _copy_sources(self) -> str:
        config: dict[str, Any] = yaml.safe_load(DEMO.read_text(encoding="utf-8"))
        files = {config["tokenizer"]["path"]: "tokenizer.json"}
        config["tokenizer"]["path"] = "tokenizer.json"
        for name, dataset in config["datasets"].items():
            pattern = Path(dataset["source"])
            found = sorted((DEMO.parent / pattern.parent).glob(pattern.name))
            files |= {str(path): f"sources/{name}/{path.name}" for path in found}
            dataset["source"] = f"sources/{name}/*.parquet"
        for path, name in files.items():
            storage.upload(str(DEMO.parent / path), f"{self.place}/{name}")
        storage.write_bytes(self._config, yaml.safe_dump(config, sort_keys=False).encode())
        return f"{len(files)} files"

    @property
    def _config(self) -> str:
        return f"{self.place}/mix.yaml"

    @property
    def _on_dataflow(self) -> list[str]:
        setting = self._setting
        return [f"--runner={DATAFLOW}", f"--project={setting.project}", f"--region={setting.region}", *setting.options]

    def _build_here(self) -> str:
        self._succeed("build", self._config, "--output", str(self._folder / "mix"))
        return "the bytes that are expected"

    def _interrupt(self) -> str:
        command = ["build", self._config, "--output", self._output, *self._on_dataflow]
        with _Command(command, self._folder) as build:
            build.wait_for(lambda: _RUNS in build.said(), _COMMAND_S)
            deadline = time.monotonic() + self._setting.shards_wait_s
            build.wait_for(lambda: self._shards() > 0 or time.monotonic() > deadline, _COMMAND_S)
            shards = self._shards()
            build.interrupt()
            code = build.end(_ENDS_S)
            if code != _INTERRUPTED:
                raise Failed(f"it ended with {code} in place of {_INTERRUPTED}: {build.last_line()}")
        if running := self._running():
            raise Failed(f"{len(running)} job still runs after Ctrl-C")
        if storage.exists(f"{self._output}/.broetchen.lock"):
            raise Failed("the lock of the output is still there after Ctrl-C")
        return f"cancelled; {shards} finished shards lie there"

    def _build(self) -> str:
        before = self._shards()
        self._succeed("build", self._config, "--output", self._output, *self._on_dataflow)
        return f"it began with {before} finished shards"

    def _shards(self) -> int:
        """How many provisional shards are finished."""
        folders = [f"{self._output}/{name}/.broetchen" for name in yaml.safe_load(DEMO.read_text())["datasets"]]
        return sum(len(list_files(folder, "*/shard-*.json")) for folder in folders)

    def _compare(self) -> str:
        expected = {
            path.relative_to(self._folder / "mix").as_posix(): path.read_bytes()
            for path in (self._folder / "mix").rglob("*")
            if path.is_file() and not path.name.startswith(".")
        }
        different = [name for name, content in expected.items() if not self._is_there(name, content)]
        if different:
            raise Failed(f"{len(different)} of {len(expected)} files are others, the first {sorted(different)[0]}")
        return f"{len(expected)} files, manifests among them"

    def _is_there(self, name: str, content: bytes) -> bool:
        path = f"{self._output}/{name}"
        return storage.exists(path) and _digest(storage.read_bytes(path)) == _digest(content)

    def _verify(self) -> str:
        self._succeed("verify", self._output)
        return "sound"

    # --- A training --------------------------------------------------------------------------------------------------

    def _training(self) -> str:
        setting = self._setting
        content = {
            "name": self._run_name,
            "data": {"outputs": self._output},
            "model": "nano-german-slm",
            "output": f"{self.place}/training",
            "parameters": {
                "steps": TPU_STEPS,
                "per_device_batch_size": 1,
                "max_target_length": 2048,
                "checkpoint_period": TPU_STEPS,
            },
            "tpu_vm": {
                "accelerator": parse_accelerator(setting.accelerator or "v6e-1").name,
                "zone": setting.zone,
                "project": setting.project,
                "give_up_after": "30m",
                "max_restarts": 0,
            },
        }
        path = self._folder / "training.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return str(path)

    def _dry_run(self) -> str:
        self._succeed("train", self._training(), "--target", "tpu-vm", "--dry-run")
        return "config, data and parameters are accepted"

    def _train(self) -> str:
        config = self._training()
        self._has_slice = True
        self._succeed("train", config, "--target", "tpu-vm", "--yes")
        self._succeed("train", config, "logs", "--target", "tpu-vm", "--follow")
        if not list_files(f"{self.place}/training"):
            raise Failed("the training has written nothing")
        return "it ended by itself, and has written to the bucket"

    # --- The end -----------------------------------------------------------------------------------------------------

    def _delete_slice(self) -> str:
        self._succeed("train", self._training(), "delete", "--target", "tpu-vm", "--yes")
        return "gone"

    def _job(self) -> RemoteJob:
        (name,) = (option for option in remote_defaults(self._on_dataflow, self._output) if "--job_name=" in option)
        return RemoteJob(
            DATAFLOW,
            _option("dataflow_endpoint", self._setting.options) or "https://dataflow.googleapis.com",
            self._setting.project,
            self._setting.region,
            name=name.partition("=")[2],
        )

    def _running(self) -> list[str]:
        job = self._job()
        return service_of(job, self._on_dataflow).unfinished(job.name)

    def _cancel_jobs(self) -> str:
        service, running = service_of(self._job(), self._on_dataflow), self._running()
        for job in running:
            service.cancel(job)
        deadline = time.monotonic() + _ENDS_S
        while self._running():
            if time.monotonic() > deadline:
                raise Failed(f"these still run: {', '.join(running)}; cancel them in the console")
            time.sleep(_POLL_S)
        return f"{len(running)} were left" if running else "none was left"

    def _delete_folder(self) -> str:
        storage.delete_tree(self.place)
        return "gone; with soft delete the bucket keeps its few megabytes for some days"

    def _succeed(self, *arguments: str) -> None:
        """Runs the command to its end.

        Raises:
            Failed: it did not succeed.
        """
        with _Command(arguments, self._folder) as command:
            code = command.end(_COMMAND_S)
            if code:
                raise Failed(f"broetchen {arguments[0]} ended with {code}: {command.last_line()}")


class _Command:
    """`broetchen` in a session of its own, so that a Ctrl-C at the terminal is this program's, which passes it on.

    Where the block fails, the command is interrupted once and waited for: it cancels the job that it has started.
    """

    def __init__(self, arguments: Sequence[str], folder: Path) -> None:
        self._arguments, self._log = list(arguments), folder / f"said-{uuid.uuid4().hex}"
        self._interrupted = False

    def __enter__(self) -> _Command:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "beam_pipelines", *self._arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # One that a shell runs in the background inherits that Ctrl-C is ignored.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )
        return self

    def __exit__(self, *_: object) -> None:
        try:
            # A second Ctrl-C would have it leave the job alone.
            if self._process.poll() is None and not self._interrupted:
                self.interrupt()
                self._process.wait(_ENDS_S)
        except subprocess.TimeoutExpired:
            ...  # The job, if it still runs, is looked for at the end of the check.
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()

    def said(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def last_line(self) -> str:
        lines = [line.strip() for line in self.said().splitlines() if line.strip()]
        return lines[-1] if lines else "it said nothing"

    def interrupt(self) -> None:
        self._interrupted = True
        self._process.send_signal(signal.SIGINT)

    def wait_for(self, what: Callable[[], bool], seconds: float) -> None:
        """Waits until something is so.

        Raises:
            Failed: the command has ended, or the time has.
        """
        deadline = time.monotonic() + seconds
        while not what():
            if self._process.poll() is not None:
                raise Failed(f"it ended with {self._process.returncode} before that: {self.last_line()}")
            if time.monotonic() > deadline:
                raise Failed(f"it has not come to that in {seconds / 60:.0f} minutes: {self.last_line()}")
            time.sleep(_POLL_S)

    def end(self, seconds: float) -> int:
        """The exit code, once it has ended.

        Raises:
            Failed: the time has ended before.
        """
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"it has not ended in {seconds / 60:.0f} minutes: {self.last_line()}") from error


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _option(name: str, options: Sequence[str]) -> str | None:
    found = [match[1] for option in options if (match := re.fullmatch(rf"--{name}=(.+)", option))]
    return found[-1] if found else None
