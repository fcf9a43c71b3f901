"""Jobs that services run: their fate, and that of the lock of their output, when their driver stops."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from beam_pipelines.jobs.build import build, demo_config
from tests.support.command import COMMAND, run_command
from tests.support.corpora import SAMPLES
from tests.support.services.dataflow_service import DataflowService, dataflow, mix_in_bucket
from tests.support.services.job_service import job_service, worker_pool
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.locks.output import LOCK_FILE
from transforms.locks.owner import LockOwner, read_owner

__all__ = ["dataflow", "job_service"]

DEMO = SAMPLES.parent / "mix_configs" / "demo.yaml"
IN_BUILD = SAMPLES.parent / "tests" / "campaign" / "in_build"
STOPPED = "broetchen: stopped; run the same command again to go on"
INTERRUPTED = 130


def wait_for(what: Callable[[], object], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it has not come to that"
        time.sleep(0.05)


class Started:
    """A command at work, and its output so far."""

    def __init__(self, process: subprocess.Popen[bytes], errors: Path) -> None:
        self.process, self._errors = process, errors

    def said(self) -> str:
        return self._errors.read_text()

    def says(self, pattern: str, seconds: float = 300) -> None:
        wait_for(lambda: re.search(pattern, self.said()) or self.process.poll() is not None, seconds)
        assert re.search(pattern, self.said()), self.said()

    def ends(self) -> int:
        return self.process.wait(180)


@contextlib.contextmanager
def started(folder: Path, *arguments: object) -> Iterator[Started]:
    """The command in a process that a signal can be sent to; it is killed at the end."""
    path = folder / f"said-{time.monotonic_ns()}"
    with (
        path.open("w") as errors,
        subprocess.Popen(
            [str(COMMAND), *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            # Tests that a shell runs in the background inherit that Ctrl-C is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process,
    ):
        try:
            yield Started(process, path)
        finally:
            process.kill()


def lock_of(output: str | Path) -> LockOwner | None:
    path = storage.join(str(output), LOCK_FILE)
    try:
        return read_owner(storage.read_bytes(path))
    except BroetchenError:  # It is not there, or being written over.
        return None


def has_its_job(output: str | Path) -> bool:
    owner = lock_of(output)
    return owner is not None and owner.job is not None and bool(owner.job.job)


# On Dataflow: an HTTP server of the tests, and an emulated bucket.


class OnDataflow:
    """A build of one small dataset with everything in a bucket, as a command."""

    def __init__(self, prefix: str, service: DataflowService) -> None:
        self.output, self._prefix, self.service = f"{prefix}/out", prefix, service
        self.local = ("build", mix_in_bucket(prefix), "--output", self.output)
        self.command = (*self.local, *service.options())
        self.of_another_config = (*self.command, "--set", "datasets.english.tokens=2000")


@pytest.fixture
def on_dataflow(gcs_prefix: str, dataflow: DataflowService) -> OnDataflow:
    return OnDataflow(gcs_prefix, dataflow)


def job_in(said: str) -> str:
    (job,) = set(re.findall(r"DataflowRunner job broetchen-[0-9a-f]{20} \(id [^)]+\)", said.replace("\n", " ")))
    return job


@pytest.mark.slow
def test_a_build_on_dataflow_is_as_one_here(on_dataflow: OnDataflow, tmp_path: Path) -> None:
    on_dataflow.service.runs = True
    done = run_command(*on_dataflow.command)
    assert done.returncode == 0, done.stderr
    (job,) = on_dataflow.service.jobs.values()
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", job["name"]), "not a name that Dataflow takes"
    assert lock_of(on_dataflow.output) is None
    here = run_command(*on_dataflow.local[:3], tmp_path / "out")
    assert here.returncode == 0, here.stderr
    files = [path for path in (tmp_path / "out" / "english").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".arecord"}
    for path in files:
        assert storage.read_bytes(f"{on_dataflow.output}/english/{path.name}") == path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_cancels_the_job_on_dataflow(
    on_dataflow: OnDataflow, tmp_path: Path, number: signal.Signals
) -> None:
    with started(tmp_path, *on_dataflow.command) as first:
        wait_for(lambda: has_its_job(on_dataflow.output))
        owner = lock_of(on_dataflow.output)
        first.process.send_signal(number)
        assert first.ends() == INTERRUPTED, first.said()
    (job,) = on_dataflow.service.jobs.values()
    assert job["currentState"] == "JOB_STATE_CANCELLED"
    assert owner is not None
    assert owner.job is not None
    assert (owner.job.name, owner.job.job) == (job["name"], job["id"])
    assert (owner.job.project, owner.job.region) == ("broetchen-tests", "europe-west4")
    assert lock_of(on_dataflow.output) is None
    assert f"cancelling the {job_in(first.said())}" in first.said()
    assert first.said().splitlines()[-1] == STOPPED


@pytest.mark.slow
def test_a_job_that_cannot_be_cancelled_keeps_its_lock_and_is_followed(on_dataflow: OnDataflow, tmp_path: Path) -> None:
    """Its service takes the request, and the job runs on."""
    service, command = on_dataflow.service, on_dataflow.command
    service.cancels = False
    with started(tmp_path, *command) as first:
        wait_for(lambda: has_its_job(on_dataflow.output))
        first.process.send_signal(signal.SIGINT)
        first.says("cancelling the DataflowRunner job")
        first.process.send_signal(signal.SIGINT)
        assert first.ends() == 1, first.said()
    last = first.said().splitlines()[-1]
    assert last.startswith(f"broetchen: the {job_in(last)} of project broetchen-tests in europe-west4")
    assert "may go on (its end was not waited for); the same command follows it, and nothing else is built" in last
    assert STOPPED not in first.said()
    assert has_its_job(on_dataflow.output)

    refused = run_command(*on_dataflow.of_another_config)
    assert refused.returncode == 1
    assert f"{on_dataflow.output}: the {job_in(last)}" in refused.stderr
    assert "is at work there" in refused.stderr
    with started(tmp_path, *command) as second:
        second.says("builds the same there already: it is followed, and no other is started")
        (job,) = service.active()
        service.run(job)
        assert second.ends() == 0, second.said()
    assert len(service.jobs) == 1
    assert storage.exists(f"{on_dataflow.output}/english/manifest.json")
    assert lock_of(on_dataflow.output) is None


@pytest.mark.slow
def test_the_reason_why_a_job_failed_is_told_to_whoever_follows_it(on_dataflow: OnDataflow, tmp_path: Path) -> None:
    service = on_dataflow.service
    with started(tmp_path, *on_dataflow.command) as first:
        wait_for(lambda: has_its_job(on_dataflow.output))
        first.process.kill()
        first.ends()
    (job,) = service.jobs
    service.say(job, "Starting 2 workers in europe-west4-a...")
    with started(tmp_path, *on_dataflow.command) as second:
        second.says("builds the same there already: it is followed")
        service.end("JOB_STATE_FAILED", "Traceback (most recent call last):\nValueError: boom", "Workflow failed.")
        assert second.ends() == 1, second.said()
    assert second.said().splitlines()[-1].startswith("broetchen: the Dataflow job failed: ValueError: boom; its page")


@pytest.mark.slow
def test_the_job_of_a_dead_driver_keeps_its_lock_until_it_has_ended(on_dataflow: OnDataflow, tmp_path: Path) -> None:
    service = on_dataflow.service
    with started(tmp_path, *on_dataflow.command) as first:
        wait_for(lambda: has_its_job(on_dataflow.output))
        first.process.kill()
        first.ends()
    refused = run_command(*on_dataflow.local, "--set", "datasets.english.tokens=2000", *service.options()[1:])
    assert refused.returncode == 1, "a build on this machine takes the output of a job that goes on"
    assert "is at work there" in refused.stderr

    service.refuses = 403
    refused = run_command(*on_dataflow.of_another_config)
    lock = storage.join(on_dataflow.output, LOCK_FILE)
    assert refused.returncode == 1
    assert "may still be at work there, and Dataflow does not say whether it has ended (HTTP 403" in refused.stderr
    assert f"look whether it has ended, and if so delete {lock} and run this again" in refused.stderr
    assert len(service.jobs) == 1
    service.refuses = None

    service.end("JOB_STATE_FAILED")
    service.runs = True
    done = run_command(*on_dataflow.of_another_config)
    assert done.returncode == 0, done.stderr
    assert len(service.jobs) == 2
    assert lock_of(on_dataflow.output) is None


@pytest.mark.slow
def test_where_the_lock_is_lost_dataflow_itself_has_one_job_of_an_output(
    on_dataflow: OnDataflow, tmp_path: Path
) -> None:
    with started(tmp_path, *on_dataflow.command) as first:
        wait_for(lambda: has_its_job(on_dataflow.output))
        first.process.kill()
        first.ends()
    storage.delete([storage.join(on_dataflow.output, LOCK_FILE)])
    refused = run_command(*on_dataflow.command)
    assert refused.returncode == 1
    assert "has not ended, and Dataflow runs one job of a name at a time" in refused.stderr
    assert len(on_dataflow.service.jobs) == 1
    assert lock_of(on_dataflow.output) is None, "a lock that names no job of its own is given back"


@pytest.mark.slow
def test_jobs_that_only_read_are_cancelled_too(on_dataflow: OnDataflow, gcs_prefix: str, tmp_path: Path) -> None:
    options = [*on_dataflow.service.options(), f"--temp_location={gcs_prefix}/temp"]
    with started(tmp_path, "count", f"{gcs_prefix}/mix.yaml", *options) as counting:
        assert on_dataflow.service.created.wait(120)
        counting.says("is in state JOB_STATE_RUNNING")
        counting.process.send_signal(signal.SIGINT)
        assert counting.ends() == INTERRUPTED, counting.said()
    assert not on_dataflow.service.active()


# On Beam's own job service, with workers that outlive the command that started the job.


class Gate:
    """Holds the workers where they are about to write the first of their files, until it is opened."""

    def __init__(self, folder: Path) -> None:
        self.output, self._path = folder / "out", folder / "gate"
        self._path.touch()
        wait = {"pattern": r"/\.broetchen/", "gate": str(self._path)}
        self.environment = {
            "CAMPAIGN_OUTPUT": str(self.output),
            "CAMPAIGN_WAIT": json.dumps(wait),
            "PYTHONPATH": os.pathsep.join([str(IN_BUILD), str(SAMPLES.parent)]),
        }

    def open(self) -> None:
        self._path.unlink()


class OnJobService:
    def __init__(self, endpoint: str, workers: str, gate: Gate) -> None:
        self.gate, self.output = gate, gate.output
        self.local = ("build", DEMO, "--output", gate.output, "--dataset", "fineweb_english")
        self.command = (
            *self.local,
            "--runner=PortableRunner",
            f"--job_endpoint={endpoint}",
            "--environment_type=EXTERNAL",
            f"--environment_config={workers}",
        )

    def manifest(self) -> bytes:
        return (self.output / "fineweb_english" / "manifest.json").read_bytes()


@pytest.fixture
def on_job_service(job_service: str, tmp_path: Path) -> Iterator[OnJobService]:
    gate = Gate(tmp_path)
    with worker_pool(tmp_path / "pool.log", gate.environment) as workers:
        yield OnJobService(job_service, workers, gate)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The manifest of the demo's dataset."""
    folder = tmp_path_factory.mktemp("expected")
    build(demo_config(), str(folder), datasets=["fineweb_english"], quiet=True)
    return (folder / "fineweb_english" / "manifest.json").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_cancels_the_job_of_a_job_service(
    on_job_service: OnJobService, tmp_path: Path, number: signal.Signals
) -> None:
    with started(tmp_path, *on_job_service.command) as first:
        wait_for(lambda: has_its_job(on_job_service.output))
        first.process.send_signal(number)
        assert first.ends() == INTERRUPTED, first.said()
    assert "cancelling the PortableRunner job broetchen-" in first.said()
    assert first.said().splitlines()[-1] == STOPPED
    assert lock_of(on_job_service.output) is None


@pytest.mark.slow
def test_a_job_that_has_lost_its_lock_publishes_nothing(on_job_service: OnJobService, tmp_path: Path) -> None:
    """Beam's own service says that the job is cancelled, and lets it go on."""
    with started(tmp_path, *on_job_service.command) as first:
        wait_for(lambda: has_its_job(on_job_service.output))
        first.process.send_signal(signal.SIGINT)
        assert first.ends() == INTERRUPTED, first.said()
    on_job_service.gate.open()
    lost = f"{on_job_service.output}: another build has taken over there, or somebody has deleted"
    wait_for(lambda: lost in (tmp_path / "service.log").read_text())
    published = [path for path in (on_job_service.output / "fineweb_english").glob("*") if path.name[0] != "."]
    assert published == []


@pytest.mark.slow
def test_the_job_of_a_dead_driver_is_followed(on_job_service: OnJobService, tmp_path: Path, expected: bytes) -> None:
    """The kernel has let go of its lock, which says nevertheless that the job goes on."""
    with started(tmp_path, *on_job_service.command) as first:
        wait_for(lambda: has_its_job(on_job_service.output))
        first.process.kill()
        first.ends()
    for command in (on_job_service.command, on_job_service.local):
        refused = run_command(*command, "--set", "total_tokens=60_000")
        assert refused.returncode == 1, refused.stderr
        assert f"{on_job_service.output}: the PortableRunner job broetchen-" in refused.stderr
    with started(tmp_path, *on_job_service.command) as second:
        second.says("builds the same there already: it is followed")
        on_job_service.gate.open()
        assert second.ends() == 0, second.said()
    assert on_job_service.manifest() == expected
    assert lock_of(on_job_service.output) is None


@pytest.mark.slow
def test_a_job_outlives_the_connection_to_its_service(
    on_job_service: OnJobService, tmp_path: Path, expected: bytes
) -> None:
    """As after weeks, or, without the option's default, after five minutes."""
    with started(tmp_path, *on_job_service.command, "--job_server_timeout=5") as first:
        first.says("the connection to the PortableRunner job broetchen-.* is lost")
        on_job_service.gate.open()
        assert first.ends() == 0, first.said()
    assert on_job_service.manifest() == expected
    assert lock_of(on_job_service.output) is None


@pytest.mark.slow
def test_a_service_that_has_gone_does_not_say_that_the_job_has_ended(job_service: str, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    with worker_pool(tmp_path / "pool.log", gate.environment) as workers:
        build = OnJobService("127.0.0.1:1", workers, gate)
        owner = {
            "runner": "PortableRunner",
            "endpoint": job_service,
            "name": "broetchen-x",
            "job": "of-another-service",
        }
        lock = {"token": "t", "host": "h", "process": 1, "since": "", "system": "", "started": "", "job": owner}
        build.output.mkdir()
        (build.output / LOCK_FILE).write_text(json.dumps(lock))
        refused = run_command(*build.local)
    assert refused.returncode == 1
    assert "may still be at work there, and its service does not say whether it has ended" in refused.stderr
    assert f"delete {build.output / LOCK_FILE} and run this again" in refused.stderr


@pytest.mark.slow
def test_an_endpoint_at_which_nobody_answers_is_an_error_after_ten_seconds(tmp_path: Path) -> None:
    started_at = time.monotonic()
    refused = run_command(
        "build", DEMO, "--output", tmp_path / "out", "--runner=PortableRunner", "--job_endpoint=127.0.0.1:9"
    )
    assert 9 < time.monotonic() - started_at < 30
    assert refused.returncode == 1, refused.stderr
    (line,) = refused.stderr.splitlines()
    assert line == (
        "broetchen: --job_endpoint 127.0.0.1:9: no job service answers there within 10 s; check that it runs, and "
        "that address and port are right"
    )
