"""Worker processes that are forks of the command, and the other way where it cannot be forked."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import apache_beam as beam
import psutil
import pytest
from apache_beam.options.pipeline_options import DirectOptions
from apache_beam.runners.portability.fn_api_runner import worker_handlers

from beam_pipelines.console import terminal
from beam_pipelines.runners.forked import WaitingWorkers, waiting_workers
from beam_pipelines.runners.fresh import FreshWorker
from beam_pipelines.runners.local_runner import UNKNOWN_BEAM, LocalRunner
from beam_pipelines.runners.options import pipeline_options
from tests.support.command import run_command, run_on_terminal, started_command, workers_of
from tests.support.corpora import SAMPLES
from tests.support.killed_builds import tree

CONFIG = SAMPLES.parent / "mix_configs" / "demo.yaml"
TWO = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")


def wait_for_workers(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    while len(workers := workers_of(process)) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    return workers


@pytest.mark.slow
def test_workers_are_forks_of_the_command_and_end_with_it(tmp_path: Path) -> None:
    with started_command("build", CONFIG, "--output", tmp_path / "out", *TWO) as process:
        workers = wait_for_workers(process)
        assert [worker.cmdline() for worker in workers] == [psutil.Process(process.pid).cmdline()] * 2
        assert process.wait(120) == 0
        assert not psutil.wait_procs(workers, timeout=10)[1]
    alone = run_command("build", CONFIG, "--output", tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    assert tree(tmp_path / "out") == tree(tmp_path / "alone") != {}


@pytest.mark.slow
def test_the_module_form_forks_its_workers_too(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "beam_pipelines", "build", str(CONFIG)]
    with subprocess.Popen([*command, "--output", str(tmp_path / "out"), *TWO], stderr=subprocess.DEVNULL) as process:
        workers = wait_for_workers(process)
        assert [worker.cmdline() for worker in workers] == [psutil.Process(process.pid).cmdline()] * 2
        process.kill()


@pytest.mark.slow
def test_forks_that_wait_end_when_their_driver_is_killed(tmp_path: Path) -> None:
    with started_command("build", CONFIG, "--output", tmp_path / "out", *TWO) as process:
        workers = wait_for_workers(process)
        process.kill()
        process.wait()
        assert not psutil.wait_procs(workers, timeout=60)[1]


@pytest.mark.slow
def test_ctrl_c_ends_the_workers_too(tmp_path: Path) -> None:
    output = tmp_path / "out"
    code, shown = run_on_terminal(
        "build", CONFIG, "--output", output, *TWO, "--engine=tokenizers", columns=100, interrupt_at="shards"
    )
    assert code == 130, shown
    left = [process for process in psutil.process_iter(["cmdline"]) if str(output) in (process.info["cmdline"] or ())]
    assert not psutil.wait_procs(left, timeout=10)[1]


def test_a_program_that_does_not_know_its_python_does_the_work_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "")
    options = pipeline_options(TWO)
    with WaitingWorkers([]) as workers:
        assert not isinstance(workers.pipeline(options).runner, LocalRunner)
    assert options.view_as(DirectOptions).direct_running_mode == "in_memory"
    assert "this run takes one process: this program does not know where its Python is" in caplog.messages


@pytest.mark.parametrize("mode", ["multi_processing", "multi_threading"])
def test_one_process_does_the_work_under_a_beam_that_is_not_known(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    """Its run has no server at all."""

    def no_server(*_: object) -> None:
        pytest.fail("it asks for a server")

    manager = worker_handlers.WorkerHandlerManager
    of_beam = manager.get_worker_handlers

    def without_server(self: Any, environment_id: str | None, num_workers: int) -> Any:
        return of_beam(self, environment_id, num_workers)

    monkeypatch.setattr(manager, "get_worker_handlers", without_server)
    monkeypatch.setattr(worker_handlers.GrpcServer, "__init__", no_server)
    options = pipeline_options([f"--direct_running_mode={mode}", "--direct_num_workers=2"])
    with WaitingWorkers([]) as workers, workers.pipeline(options) as pipeline:
        _ = pipeline | beam.Create([1, 2]) | beam.CombineGlobally(sum)
    direct = options.view_as(DirectOptions)
    assert (direct.direct_running_mode, direct.direct_num_workers) == ("in_memory", 1)
    assert f"this run takes one process: {UNKNOWN_BEAM}" in caplog.messages


def test_a_process_with_threads_is_not_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "_is_command", True)
    done = threading.Event()
    other = threading.Thread(target=done.wait)
    other.start()
    before = psutil.Process().children()
    try:
        with waiting_workers(2) as workers:
            options = pipeline_options(TWO)
            assert psutil.Process().children() == before
            runner = workers.pipeline(options).runner
            assert isinstance(runner, LocalRunner)
            assert runner._listening.start is FreshWorker
    finally:
        done.set()
        other.join()


_FORKS = """
import os
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as the command does before it imports anything
from beam_pipelines.console import terminal
terminal._is_command = True
from beam_pipelines.runners.forked import waiting_workers
from beam_pipelines.runners.fresh import FreshWorker
from beam_pipelines.runners.options import pipeline_options
import psutil
from apache_beam.options.pipeline_options import DirectOptions
from apache_beam.runners.portability.fn_api_runner import worker_handlers

with waiting_workers(2) as workers:
    forks = psutil.Process().children()
    assert len(forks) == 2, forks
    options = pipeline_options(["--direct_running_mode=multi_processing", "--direct_num_workers=3"])
    # wants more than there are
    assert workers.pipeline(options).runner._listening.start is FreshWorker
    options = pipeline_options([])
    workers.pipeline(options)  # is for this process alone
    assert options.view_as(DirectOptions).direct_running_mode == "in_memory"
assert not any(fork.is_running() for fork in forks), forks
"""


@pytest.mark.slow
def test_forks_that_are_not_needed_end_with_the_block() -> None:
    subprocess.run([sys.executable, "-c", _FORKS], check=True, timeout=120)
