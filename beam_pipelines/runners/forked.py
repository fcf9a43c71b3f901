"""Worker processes that are there at once: forks of the command itself, made before it has threads.

Beam's local engine starts each worker process as a fresh Python, which imports Beam and the pipeline anew, for seconds,
and only once the job has been planned. A fork has imported everything already. It waits on a pipe until Beam asks for a
worker, and then runs the same harness that Beam would start (`apache_beam/runners/worker/sdk_worker_main.py`).

A process with threads cannot be forked safely: the fork has only one of them, and the locks of all. Where there are
any, or the system is not Linux, Beam starts its workers in its own way.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import logging
import multiprocessing
import os
import shlex
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.portability.api import endpoints_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.fn_api_runner.worker_handlers import GrpcWorkerHandler, WorkerHandler
from apache_beam.runners.worker import sdk_worker_main
from apache_beam.transforms.environments import Environment, SubprocessSDKEnvironment
from google.protobuf import text_format  # type: ignore[import-untyped]

from beam_pipelines.console import terminal
from beam_pipelines.runners.local import worker_processes

_URN = "broetchen:env:forked_worker:v1"
# What Beam itself starts, for a shell; a script's standard error is its own.
_SILENT_WORKER = f"{shlex.quote(sys.executable)} -m apache_beam.runners.worker.sdk_worker_main 2>{os.devnull}"
# Threads of the memory allocator in Arrow, which provides for forks itself (pthread_atfork(3)).
_HARMLESS_THREADS = ("jemalloc_bg_thd",)
# A worker whose work is done, or whose driver failed, ends by itself within milliseconds, unless native code keeps it.
_ENDED_S = 10.0
_M_ARENA_MAX = -8  # malloc.h

_waiting: dict[bytes, WaitingWorkers] = {}
_keys = map(str, itertools.count())


class _Fork:
    """A process that waits until it is told to be a worker, and ends where nobody is left to tell it."""

    def __init__(self, before: Sequence[_Fork], prepare: Callable[[], None]) -> None:
        context = multiprocessing.get_context("fork")
        theirs, self._orders = context.Pipe(duplex=False)
        inherited = [self._orders, *(fork._orders for fork in before)]
        self._process = context.Process(target=_be_worker, args=(theirs, inherited, prepare), daemon=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python counts the allocator's threads, too.
            self._process.start()
        theirs.close()
        self._killed = False

    def be_worker(self, environment: Mapping[str, str]) -> None:
        """Starts the harness, with the environment variables that Beam gives to it."""
        with self._orders, contextlib.suppress(BrokenPipeError):  # it is dead, and `wait` tells
            self._orders.send_bytes(json.dumps(environment).encode())

    def wait(self) -> None:
        """Until it has ended.

        Raises:
            RuntimeError: it failed, or somebody else killed it.
        """
        self._process.join()
        if self._process.exitcode and not self._killed:
            raise RuntimeError(f"a worker process ended with {self._process.exitcode}")

    def kill(self) -> None:
        """Ends it, whatever it is doing."""
        self._killed = True
        self._process.kill()

    def dismiss(self) -> None:
        """Ends it, which never was a worker."""
        self.kill()
        self._process.join()
        self._orders.close()


class WaitingWorkers:
    """Forks that wait for the pipeline of a job; none where this process could not be forked."""

    def __init__(self, forks: list[_Fork]) -> None:
        self._forks = forks
        self._key = next(_keys).encode()

    def pipeline(self, options: PipelineOptions) -> beam.Pipeline:
        """A pipeline with `options`, run in these processes if it asks for local ones and there are as many."""
        wanted = worker_processes(options)
        if not wanted or (wanted > len(self._forks) and terminal.is_command()):
            return beam.Pipeline(options=options)
        # Beam's own name for it would let the runner start processes of its own.
        options.view_as(DirectOptions).direct_running_mode = "forked"
        if wanted <= len(self._forks):
            return beam.Pipeline(FnApiRunner(_ForkedEnvironment.from_command_string(self._key.decode())), options)
        return beam.Pipeline(FnApiRunner(SubprocessSDKEnvironment.from_command_string(_SILENT_WORKER)), options)

    def take(self) -> _Fork:
        """One that is to be started, and is not ours any more."""
        return self._forks.pop()

    def __enter__(self) -> WaitingWorkers:
        _waiting[self._key] = self
        return self

    def __exit__(self, *_: object) -> None:
        del _waiting[self._key]
        while self._forks:
            self._forks.pop().dismiss()


def waiting_workers(count: int, prepare: Callable[[], None] = lambda: None) -> WaitingWorkers:
    """Forks this process `count` times. Call it before there are threads, locks or open files to inherit.

    Use it as a context manager: the forks end with it.

    Args:
        count: of workers; one or none needs no fork.
        prepare: what each fork does at once, while this process goes on.
    """
    forks: list[_Fork] = []
    if count > 0 and _can_fork():
        for _ in range(count):
            forks.append(_Fork(forks, prepare))
    return WaitingWorkers(forks)


def _can_fork() -> bool:
    if sys.platform != "linux" or multiprocessing.current_process().daemon:
        return False  # Python lets no daemonic process, such as those of a pool, have children of this kind.
    own = Path("/proc/self/comm").read_text()
    names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    return sorted(name for name in names if name.strip() not in _HARMLESS_THREADS) == [own]


def _be_worker(orders: Connection, inherited: Sequence[Connection], prepare: Callable[[], None]) -> None:
    for connection in inherited:
        connection.close()
    _share_arenas()
    if not terminal.is_command():
        _drop_stderr()
    prepare()
    try:
        environment = json.loads(orders.recv_bytes())
    except EOFError:
        return
    # What it has to say it says to its driver, who says it.
    logging.getLogger().handlers.clear()
    os.environ.update(environment)
    sdk_worker_main.main([])


def _drop_stderr() -> None:
    """Leaves out what Beam prints of errors, which come back as exceptions: a script's standard error is its own."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _share_arenas() -> None:
    """Lets the worker's threads share two heaps: with one each, what a thread has freed serves no other.

    Two workers then hold a tenth less. Other C libraries than glibc (mallopt(3)) have no such setting.
    """
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


@Environment.register_urn(_URN, bytes)
class _ForkedEnvironment(SubprocessSDKEnvironment):
    """Names the `WaitingWorkers` where Beam's own class has the command line of a worker."""

    def to_runner_api_parameter(self, context: Any) -> tuple[str, bytes]:
        return _URN, self.command_string.encode()


@WorkerHandler.register_environment(_URN, bytes)
class _ForkedWorkerHandler(GrpcWorkerHandler):
    """Like Beam's `SubprocessSdkWorkerHandler`, for a process that is there already."""

    def __init__(self, payload: bytes, state: Any, provision_info: Any, grpc_server: Any) -> None:
        super().__init__(state, provision_info, grpc_server)
        self._fork = _waiting[payload].take()
        # A worker's death is told by an error in the thread of this name; see `failures`.
        self._ended = threading.Thread(name="run_worker", target=self._fork.wait, daemon=True)

    def start_worker(self) -> None:
        self._fork.be_worker(
            {
                "CONTROL_API_SERVICE_DESCRIPTOR": _descriptor(self.control_api_service_descriptor()),
                "LOGGING_API_SERVICE_DESCRIPTOR": _descriptor(self.logging_api_service_descriptor()),
                "PIPELINE_OPTIONS": "{}",
                "WORKER_ID": self.worker_id,
            }
        )
        self._ended.start()

    def stop_worker(self) -> None:
        self._ended.join(_ENDED_S)
        if self._ended.is_alive():
            self._fork.kill()
            self._ended.join()


def _descriptor(service: endpoints_pb2.ApiServiceDescriptor) -> str:
    text: str = text_format.MessageToString(service)
    return text
