"""`--target local` with the real MaxText: runs are seen, protected, stopped, interrupted and killed."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from launch.local.log import History
from launch.local.process import owner_of
from launch.maxtext.checkpoints import checkpoint_steps
from tests.support.command import COMMAND, run_command, run_on_terminal
from tests.support.local_training import build_data, config_file, data, history, trainer, trainers

pytestmark = pytest.mark.slow

__all__ = ["data", "trainer"]

# Longer than any test waits. In file order, as a shuffle depends on how many records there are, and ids are to train
# as texts do; see docs/training-local.md.
ENDLESS: dict[str, Any] = {
    "steps": 1_000_000,
    "num_epoch": 1_000_000,
    "checkpoint_period": 5,
    "max_num_checkpoints_to_keep": 2,
    "enable_data_shuffling": False,
}
COMPARED = 3


@contextmanager
def started(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command, running; at the end its trainer is stopped too, which is in a session of its own."""
    with subprocess.Popen(
        [COMMAND, "train", path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            yield process
        except BaseException:
            # Also one whose command was killed: it trains without an end, beside all later tests.
            run_command("train", path, "stop")
            raise
        finally:
            if process.poll() is None:
                process.terminate()


def wait_for_steps(output: Path, process: subprocess.Popen[bytes], count: int) -> None:
    while len(history(output).steps) < count:
        assert process.poll() is None, (process.stdout.read() if process.stdout else b"").decode()
        time.sleep(0.2)


@dataclass(frozen=True)
class Stopped:
    """A run on ids whose command was told to `stop` while it was running.

    Attributes:
        output: where it is.
        history: of its log by then.
        status: the output of `status` while it was running.
        second: the outcome of a second start.
        stop: the output of `stop`.
        code, shown: how the command that was running ended, and all that it printed.
    """

    output: Path
    history: History
    status: str
    second: subprocess.CompletedProcess[str]
    stop: str
    code: int
    shown: str


@pytest.fixture(scope="module")
def stopped(data: Path, trainer: Path, tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    output = tmp_path_factory.mktemp("stopped")
    path = config_file(data, output, **ENDLESS)
    with started(path) as process:
        # The trainer imports and compiles meanwhile.
        while owner_of(output / "run" / "trainer.lock") is None:
            assert process.poll() is None, (process.stdout.read() if process.stdout else b"").decode()
            time.sleep(0.1)
        second = run_command("train", path)
        wait_for_steps(output, process, 7)
        status = run_command("train", path, "status").stdout
        stop = run_command("train", path, "stop").stdout
        shown, _ = process.communicate()
    return Stopped(output, history(output), status, second, stop, process.returncode, shown.decode())


def test_a_running_run_is_seen_protected_and_stopped(stopped):
    assert "run: running, process " in stopped.status
    assert "last step " in stopped.status
    assert stopped.second.returncode == 2
    assert "run is running already; `stop` it first" in stopped.second.stderr
    assert "run: stopped" in stopped.stop
    assert stopped.code == 1
    assert "the trainer was stopped by SIGTERM" in stopped.shown
    assert trainers(stopped.output) == []
    assert checkpoint_steps(str(stopped.output / "run"))[-1] >= 5
    assert "run: it is not running" in run_command("train", stopped.output / "run.yaml", "stop").stdout


@dataclass(frozen=True)
class Interrupted:
    """A run on texts, read by a worker, that Ctrl-C has ended.

    Attributes:
        output: where it is.
        history: of its log.
        code, shown: how the command ended, and all that it showed.
    """

    output: Path
    history: History
    code: int
    shown: str


@pytest.fixture(scope="module")
def interrupted(data: Path, trainer: Path, tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    build_data(data, "text")
    output = tmp_path_factory.mktemp("interrupted")
    path = config_file(data, output, "text", **ENDLESS, grain_worker_count=1)
    try:
        # More steps than are compared.
        enough = rf"step ([{COMPARED}-9]|\d\d+) of 1000000, loss "
        code, shown = run_on_terminal("train", path, columns=160, interrupt_at=enough)
        assert trainers(output) == []
    finally:
        run_command("train", path, "stop")  # of a trainer that outlives its command, beside all later tests
    return Interrupted(output, history(output), code, shown)


def test_ctrl_c_ends_the_trainer(interrupted):
    assert interrupted.code == 130, interrupted.shown
    assert interrupted.history.steps


def test_ids_and_text_of_the_same_documents_train_alike(stopped, interrupted):
    ids, texts = (
        {step.number: step.loss for step in run.history.steps if step.number < COMPARED}
        for run in (stopped, interrupted)
    )
    assert list(ids) == list(range(COMPARED))
    assert ids == pytest.approx(texts, rel=5e-4)


def living(group):
    """The processes of a group that have not ended; of those that have, nobody may have taken notice yet."""
    found = []
    for process in psutil.process_iter(["pid", "status"]):
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def test_a_run_survives_kill_and_can_be_stopped(interrupted):
    """It goes on from where Ctrl-C has ended it."""
    output, path, steps = interrupted.output, interrupted.output / "run.yaml", len(interrupted.history.steps)
    # Killed without a chance to do anything, the command leaves a trainer that goes on; it can be seen and stopped.
    with started(path) as process:
        wait_for_steps(output, process, steps + 7)
        process.kill()
        process.wait()
        assert len(trainers(output)) >= 1
        running = re.search(r"run: running, process (\d+)", run_command("train", path, "status").stdout)
        assert running
        assert len(living(group=int(running[1]))) >= 2  # the trainer and its worker
        assert "run: stopped" in run_command("train", path, "stop").stdout
    assert trainers(output) == []
    assert living(group=int(running[1])) == []  # nor any worker of its own
    # The first start has steps of its own still: those up to its last checkpoint.
    assert {step.start for step in history(output).steps} == {0, 1}
