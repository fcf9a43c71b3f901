"""No process of a local run listens where another user could connect, by any options."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import pytest

from beam_pipelines.runners.local_runner import SOCKETS
from tests.support.command import COMMAND, run_on_terminal
from tests.support.corpora import SAMPLES, TOKENIZER
from tests.support.killed_builds import tree

CONFIG = SAMPLES.parent / "mix_configs" / "demo.yaml"
PROCESSES = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
THREADS = ("--direct_running_mode=multi_threading", "--direct_num_workers=2")
_TIMEOUT_S = 240
# The sockets are open as long as a pipeline runs; looking without a pause takes one of two processors.
_PAUSE_S = 0.05


@dataclasses.dataclass
class Listening:
    """The sockets of a program and of all processes that it has started.

    Attributes:
        ports: addresses at which a process listened by TCP.
        sockets: paths of Unix sockets, with the modes of their folders and of the folders above them.
        processes: the most at a time.
        looks: the number of looks.
    """

    ports: set[tuple[str, int]] = dataclasses.field(default_factory=set)
    sockets: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    processes: int = 0
    looks: int = 0

    def look(self, pid: int) -> None:
        """Looks once."""
        self.looks += 1
        processes = _tree(pid)
        self.processes = max(self.processes, len(processes))
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess, FileNotFoundError):
                for connection in process.net_connections("all"):
                    if connection.status == psutil.CONN_LISTEN:
                        self.ports.add((connection.laddr.ip, connection.laddr.port))
                    elif isinstance(connection.laddr, str) and connection.laddr:
                        folder = Path(connection.laddr).parent
                        modes = [stat.S_IMODE(place.stat().st_mode) for place in (folder, folder.parent)]
                        self.sockets[connection.laddr] = (modes[0], modes[1])


def _tree(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def watch(
    command: Sequence[str | Path], environment: Mapping[str, str] | None = None
) -> tuple[subprocess.CompletedProcess[str], Listening]:
    """Runs a command to its end, and looks many times a second."""
    found = Listening()
    with started(command, environment) as process:
        deadline = time.monotonic() + _TIMEOUT_S
        while process.poll() is None:
            assert time.monotonic() < deadline, "it hangs"
            found.look(process.pid)
            time.sleep(_PAUSE_S)
        output, errors = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors), found


@contextlib.contextmanager
def started(
    command: Sequence[str | Path], environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Starts a command, whose output is small; at the end it is killed where it still runs."""
    with subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    ) as process:
        try:
            yield process
        finally:
            for left in reversed(_tree(process.pid)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    left.kill()


def python(script: str) -> list[str]:
    """The command that runs a script."""
    return [sys.executable, "-c", script]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for temporary files whose path is short enough for sockets in it."""
    folder = Path(tempfile.mkdtemp(prefix="b", dir="/tmp")).resolve()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's mix, built in one process."""
    output = tmp_path_factory.mktemp("alone")
    subprocess.run(command("build", CONFIG, "--output", output, "--direct_num_workers=1"), check=True)
    return output


def command(*arguments: str | Path) -> list[str | Path]:
    return [COMMAND, *arguments]


def temporary(place: Path) -> Mapping[str, str]:
    return {"TMPDIR": str(place), "XDG_RUNTIME_DIR": ""}


def assert_private(seen: Listening, place: Path) -> None:
    """Nothing but the sockets of one folder, which nobody else could look into, and which is gone."""
    assert seen.looks > 10
    assert seen.ports == set()
    assert {Path(path).name for path in seen.sockets} == set(SOCKETS)
    (folder,) = {Path(path).parent for path in seen.sockets}
    assert folder.is_relative_to(place)
    assert set(seen.sockets.values()) == {(0o700, 0o700)}
    assert max(len(path) for path in seen.sockets) <= 107
    assert list(place.iterdir()) == []


_LISTENS = """
import apache_beam as beam, threading, time
from apache_beam.options.pipeline_options import PipelineOptions
options = PipelineOptions(["--runner=FnApiRunner", "--direct_running_mode=multi_threading", "--direct_num_workers=2"])
with beam.Pipeline(options=options) as pipeline:
    pipeline | beam.Create([1.0]) | beam.Map(time.sleep)
"""


@pytest.mark.slow
def test_the_ports_of_beams_own_servers_would_be_seen() -> None:
    done, seen = watch(python(_LISTENS))
    assert done.returncode == 0, done.stderr
    assert len(seen.ports) == 4
    assert {address for address, _ in seen.ports} == {"::"}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [PROCESSES, THREADS], ids=["processes", "threads"])
def test_a_build_with_workers_has_no_ports(alone: Path, tmp_path: Path, place: Path, workers: tuple[str, ...]) -> None:
    output = tmp_path / "out"
    done, seen = watch(command("build", CONFIG, "--output", output, *workers), temporary(place))
    assert done.returncode == 0, done.stderr
    assert "one process" not in done.stderr
    assert_private(seen, place)
    assert seen.processes == (3 if workers == PROCESSES else 1)
    assert tree(output) == tree(alone) != {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["vocab", CONFIG, "--output", "out", "--set", "total_tokens=300_000"],
        ["verify", "{alone}"],
        ["count", CONFIG],
        ["eval-tokenizer", f"sample={TOKENIZER}", "--data", CONFIG],
    ],
    ids=lambda arguments: arguments[0],
)
def test_no_other_command_has_ports(
    alone: Path, tmp_path: Path, place: Path, arguments: list[str | Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [str(argument).format(alone=alone) for argument in arguments]
    done, seen = watch(command(*given, *PROCESSES), temporary(place))
    assert done.returncode == 0, done.stderr
    assert_private(seen, place)
    assert seen.processes == 3


_PROGRAM = """
import threading
import broetchen
done = threading.Event()
threading.Thread(target=done.wait).start()  # so that this process cannot be forked
broetchen.{call}
done.set()
"""


@pytest.mark.slow
@pytest.mark.parametrize("call", ["build({config!r}, {output!r}", "verify({alone!r}", "count({alone!r}"])
def test_a_program_with_threads_has_worker_processes_and_no_ports(
    alone: Path, tmp_path: Path, place: Path, call: str
) -> None:
    output = tmp_path / "out"
    call = call.format(config=str(CONFIG), output=str(output), alone=str(alone))
    done, seen = watch(python(_PROGRAM.format(call=f"{call}, beam_options={PROCESSES!r})")), temporary(place))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert_private(seen, place)
    assert seen.processes == 3
    if call.startswith("build"):
        assert tree(output) == tree(alone)


_NO_PLACE = """
import logging, os, sys
logging.basicConfig(format="%(message)s", level=logging.WARNING)
from beam_pipelines.runners import sockets
sockets.LONGEST_PATH = 10
import broetchen
broetchen.build({config!r}, {output!r}, beam_options={options!r})
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [PROCESSES, THREADS], ids=["processes", "threads"])
def test_where_sockets_have_no_place_one_process_does_the_work_and_says_so(
    alone: Path, tmp_path: Path, place: Path, workers: tuple[str, ...]
) -> None:
    output = tmp_path / "out"
    script = _NO_PLACE.format(options=workers, config=str(CONFIG), output=str(output))
    done, seen = watch(python(script), temporary(place))
    assert done.returncode == 0, done.stderr
    (said,) = [line for line in done.stderr.splitlines() if "this run takes one process" in line]
    assert f"{place}: paths of sockets there are longer than 10 bytes" in said
    assert (seen.ports, seen.sockets) == (set(), {})
    assert list(place.iterdir()) == []
    assert tree(output) == tree(alone)


@pytest.mark.slow
def test_the_command_says_it_on_standard_error(tmp_path: Path) -> None:
    """Others may exchange the files in any of these folders."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    script = f"""
import pathlib, sys
from beam_pipelines import cli
from beam_pipelines.runners import sockets
sockets._bases = lambda: [pathlib.Path({str(shared)!r})]
cli.main(["build", {str(CONFIG)!r}, "--output", {str(tmp_path / "out")!r}, *{PROCESSES!r}])
"""
    done, seen = watch(python(script))
    assert done.returncode == 0, done.stderr
    assert f"others may rename what lies in {shared}" in done.stderr
    assert (seen.ports, seen.sockets) == (set(), {})


def _wait_for_sockets(process: subprocess.Popen[str], place: Path, beside: Path | None = None) -> Path:
    """The folder that a run has, once its sockets are there; another than `beside`."""
    while not (found := {path.parents[1] for path in place.glob("*/*/control")} - {beside}):
        assert process.poll() is None
        time.sleep(0.01)
    return found.pop()


@pytest.mark.slow
def test_a_killed_run_leaves_a_folder_that_a_later_one_sweeps(tmp_path: Path, place: Path) -> None:
    build = command("build", CONFIG, "--output", tmp_path / "out", *PROCESSES)
    with started(build, temporary(place)) as process:
        left = _wait_for_sockets(process, place)
        while not list((tmp_path / "out").glob("*/.broetchen/*/*")):
            assert process.poll() is None
            time.sleep(0.01)
        workers = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not psutil.wait_procs(workers, timeout=60)[1]
    # Beam leaves an empty one of its own.
    assert list(place.glob("broetchen-*")) == [left]
    again = command("build", CONFIG, "--output", tmp_path / "out", *PROCESSES, "--engine=tokenizers")
    with started(again, temporary(place)) as process:
        held = _wait_for_sockets(process, place, beside=left)
        assert not left.exists()
        # A run that begins meanwhile does this.
        sweep = python("from transforms.files import scratch; scratch.run_folder()")
        subprocess.run(sweep, env={**os.environ, **temporary(place)}, check=True)
        assert process.poll() is None
        assert held.exists()
        assert process.wait(120) == 0
    assert list(place.glob("broetchen-*")) == []


@pytest.mark.slow
def test_ctrl_c_leaves_no_folder(tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in temporary(place).items():
        monkeypatch.setenv(name, value)
    build = ("build", CONFIG, "--output", tmp_path / "out", *PROCESSES)
    code, shown = run_on_terminal(*build, "--engine=tokenizers", columns=100, interrupt_at="shards")
    assert code == 130, shown
    assert list(place.iterdir()) == []


@pytest.mark.slow
def test_a_build_that_fails_leaves_no_folder(tmp_path: Path, place: Path) -> None:
    wrong = command("build", CONFIG, "--set", "total_tokens=1B", *PROCESSES)
    done, seen = watch([*wrong, "--output", tmp_path / "out"], temporary(place))
    assert done.returncode == 1, done.stderr
    assert "exhausted" in done.stderr
    assert seen.ports == set()
    assert list(place.iterdir()) == []
