"""Worker processes without start-up time: forks of the command itself, made before it has threads.

Beam's local runner starts each worker process as a fresh Python, which imports Beam and the pipeline again, for
seconds, and only once the job has been planned. A fork has imported everything already. It waits on a pipe until Beam
asks for a worker, and then runs the same harness (`apache_beam/runners/worker/sdk_worker_main.py`).

A process with threads cannot be forked safely: the fork has only one of them, and the locks of all. Where there are
any, or the system is not Linux, each worker is a fresh Python (`beam_pipelines/runners/fresh.py`).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
from apache_beam.runners.worker import sdk_worker_main

from beam_pipelines.console import terminal
from beam_pipelines.console.own_stderr import drop_stderr
from beam_pipelines.runners.fresh import FreshWorker
from beam_pipelines.runners.local import local_parallelism
from beam_pipelines.runners.local_runner import (
    RUNNING_MODE,
    SOCKETS,
    UNKNOWN_BEAM,
    LocalRunner,
    Worker,
    WorkerOrder,
    WorkerThread,
    knows_beam,
)
from beam_pipelines.runners.sockets import NoWorkersError, socket_folder

_LOGGER = logging.getLogger(__name__)

# Threads of the memory allocator in Arrow, which provides for forks itself (pthread_atfork(3)).
_HARMLESS_THREADS = ("jemalloc_bg_thd",)
_M_ARENA_MAX = -8  # malloc.h


class _Fork:
    """A process that waits until it is told to be a worker, and ends where nobody is left to tell it."""

    def __init__(self, before: Sequence[_Fork], prepare: Callable[[], None]) -> None:
        context = multiprocessing.get_context("fork")
        theirs, self._orders = context.Pipe(duplex=False)
        inherited = [self._orders, *(fork._orders for fork in before)]
        self._process = context.Process(target=_be_worker, args=(theirs, inherited, prepare), daemon=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python also counts the allocator's threads.
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
        self._folders = contextlib.ExitStack()

    def pipeline(self, options: PipelineOptions) -> beam.Pipeline:
        """A pipeline with `options`; where they ask for local workers, these are those, as far as they go.

        No process of a local run listens for others: where workers would have no private way to this process, or Beam
        is a version that may open another one, this process does the work alone, without gRPC, and says so.
        """
        workers, direct = local_parallelism(options), options.view_as(DirectOptions)
        if workers == 0:
            return beam.Pipeline(options=options)
        try:
            if not knows_beam():
                raise NoWorkersError(UNKNOWN_BEAM)
            start = WorkerThread if direct.direct_running_mode == "multi_threading" else self._start(workers)
            folder = self._folders.enter_context(socket_folder(SOCKETS))
        except NoWorkersError as error:
            _LOGGER.warning("this run takes one process: %s", error)
            direct.direct_running_mode, direct.direct_num_workers = "in_memory", 1
            return beam.Pipeline(options=options)
        direct.direct_running_mode = RUNNING_MODE
        return beam.Pipeline(LocalRunner(folder, start), options)

    def _start(self, workers: int) -> Callable[[WorkerOrder], Worker]:
        if workers <= len(self._forks):
            return self._start_fork
        if not sys.executable:
            raise NoWorkersError("this program does not know where its Python is")
        return FreshWorker

    def _start_fork(self, order: WorkerOrder) -> Worker:
        fork = self._forks.pop()
        fork.be_worker(order.variables())
        return fork

    def __enter__(self) -> WaitingWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        self._folders.close()
        while self._forks:
            self._forks.pop().dismiss()


def waiting_workers(count: int, prepare: Callable[[], None] = lambda: None) -> WaitingWorkers:
    """Forks this process `count` times. Call it before there are threads, locks or open files to inherit.

    Use it as a context manager: the forks end with it.

    Args:
        count: of workers; one or none needs no fork.
        prepare: called in each fork at once, while this process goes on.
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
        # Beam prints errors, which come back as exceptions: a script's standard error is its own.
        drop_stderr()
    prepare()
    try:
        environment = json.loads(orders.recv_bytes())
    except EOFError:
        return
    # Its log goes to the driver, which prints it; a handler here would print each line twice.
    logging.getLogger().handlers.clear()
    os.environ.update(environment)
    sdk_worker_main.main([])


def _share_arenas() -> None:
    """Lets the worker's threads share two heaps: with one each, memory that a thread has freed serves no other.

    Two workers then hold a tenth less. Other C libraries than glibc (mallopt(3)) have no such setting.
    """
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)
