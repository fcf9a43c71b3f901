"""Prism, a runner that is not of Python: the same bytes, and the fate of a job whose parts are lost.

Its workers are those of `broetchen cluster worker`, by the protocol of which Flink and Spark make use as well.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from beam_pipelines.cluster import worker
from beam_pipelines.jobs.build import build, demo_config
from tests.support.command import run_command
from tests.support.services.job_service import served
from tests.support.services.prism import PROGRAM, prism, why_none
from tests.system.remote.test_remote_jobs import (
    DEMO,
    INTERRUPTED,
    STOPPED,
    Gate,
    OnJobService,
    lock_of,
    started,
    wait_for,
)

_REASON = why_none()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(_REASON), reason=_REASON)]
_SOON_S, _LONGEST_S = 60.0, 300.0


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files that a build in this process writes."""
    folder = tmp_path_factory.mktemp("expected")
    build(demo_config(), str(folder), datasets=["fineweb_english"], quiet=True)
    return files(folder)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextlib.contextmanager
def workers_at(log: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """The address of a `broetchen cluster worker`, whose workers have these variables."""
    command = [sys.executable, "-m", "beam_pipelines", "cluster", "worker", "--processes=1", "--address"]
    with served(command, log, environment, before_port="127.0.0.1:") as address:
        yield address


class OnPrism(OnJobService):
    """A build on Prism whose worker waits at a gate.

    Args:
        endpoint: of Prism.
        workers: of the pool.
        gate: at which they wait.
        operations: the file in which they note each of their next ones.
    """

    def __init__(self, endpoint: str, workers: str, gate: Gate, operations: Path) -> None:
        super().__init__(endpoint, workers, gate)
        self._operations, self.port = operations, endpoint.partition(":")[2]

    def worker(self) -> psutil.Process:
        """Its worker, once it has come to the gate."""
        wait_for(lambda: self._operations.exists() and "/.broetchen/" in self._operations.read_text(), _LONGEST_S)
        (found,) = self.workers()
        return found

    def runs_in(self, process: psutil.Process) -> bool:
        """Whether this process is the Prism that the build is on."""
        command = process.info["cmdline"] or []
        return command[:1] == [str(PROGRAM)] and command[-1] == self.port

    def workers(self) -> list[psutil.Process]:
        """The workers that run."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                ours = process.environ().get("CAMPAIGN_OUTPUT") == str(self.output)
                if ours and worker.__name__ in process.cmdline():
                    found.append(process)
        return found


@pytest.fixture
def on_prism(tmp_path: Path) -> Iterator[OnPrism]:
    gate, operations = Gate(tmp_path), tmp_path / "operations"
    variables = {**gate.environment, "CAMPAIGN_OPERATIONS": str(operations)}
    with prism(tmp_path / "prism.log") as service, workers_at(tmp_path / "pool.log", variables) as workers:
        yield OnPrism(service, workers, gate, operations)


def goes_on(on_prism: OnPrism, expected: Mapping[str, bytes]) -> None:
    """The same command again ends well, with the bytes of a build here."""
    on_prism.gate.open()
    again = run_command(*on_prism.command)
    assert again.returncode == 0, again.stderr
    assert files(on_prism.output) == expected
    wait_for(lambda: not on_prism.workers())


def test_the_runner_that_starts_prism_by_itself(tmp_path: Path, expected: Mapping[str, bytes]) -> None:
    options = ("--dataset", "fineweb_english", "--runner=PrismRunner", f"--prism_location={PROGRAM}")
    done = run_command("build", DEMO, "--output", tmp_path / "out", *options)
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "out") == expected


def test_a_killed_worker(on_prism: OnPrism, tmp_path: Path, expected: Mapping[str, bytes]) -> None:
    with started(tmp_path, *on_prism.command) as first:
        on_prism.worker().kill()
        since = time.monotonic()
        assert first.ends() == 1, first.said()
        assert time.monotonic() - since < _SOON_S
    last = first.said().splitlines()[-1]
    # Prism's reason is that the worker is disconnected, or the end of a stack of its own.
    assert "ended as FAILED: " in last
    assert last.endswith("Then run the same command again to go on: finished shards are not redone")
    assert "Traceback" not in first.said()
    goes_on(on_prism, expected)


def test_ctrl_c_ends_the_worker(on_prism: OnPrism, tmp_path: Path, expected: Mapping[str, bytes]) -> None:
    with started(tmp_path, *on_prism.command) as first:
        # It has the options of the pipeline, which a pool is not told.
        assert "beam:option:job_name:v1" in on_prism.worker().environ()["PIPELINE_OPTIONS"]
        first.process.send_signal(signal.SIGINT)
        assert first.ends() == INTERRUPTED, first.said()
        wait_for(lambda: not on_prism.workers(), _SOON_S)
    assert first.said().splitlines()[-1] == STOPPED
    assert lock_of(on_prism.output) is None
    goes_on(on_prism, expected)


def test_a_prism_that_is_killed(on_prism: OnPrism, tmp_path: Path) -> None:
    """Nobody can say then whether its job goes on, so that the lock stays."""
    with started(tmp_path, *on_prism.command) as first:
        on_prism.worker()
        (program,) = [each for each in psutil.process_iter(["cmdline"]) if on_prism.runs_in(each)]
        program.kill()
        since = time.monotonic()
        assert first.ends() == 1, first.said()
        assert time.monotonic() - since < _SOON_S
    assert "may go on (its service does not say whether it has ended (" in first.said()
    assert "Traceback" not in first.said()
    assert lock_of(on_prism.output) is not None
    wait_for(lambda: not on_prism.workers(), _SOON_S)
