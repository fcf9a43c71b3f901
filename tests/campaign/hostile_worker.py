"""Runs cases in a process of their own, so that a crash, a hang or a swollen process is a finding and not the end."""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import os
import random
import resource
import shutil
import tempfile
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.campaign.hostile_case import CaseKind, Outcome, forget_peak

_MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Result:
    """A case that has been run, with how much memory it took beyond what the process held before."""

    kind: str
    seed: str
    outcome: Outcome
    grown_bytes: int


class Worker:
    """A process that runs one case after another, and is replaced when it dies or hangs. A context manager."""

    def __init__(self, kinds: Sequence[CaseKind]) -> None:
        self._kinds = list(kinds)
        self._context = multiprocessing.get_context("spawn")
        self._process: multiprocessing.process.BaseProcess | None = None

    def run(self, number: int, seed: str) -> Result:
        """Runs a case of the kind `number`; whatever happens to the process, there is a result."""
        kind = self._kinds[number]
        if self._process is None:
            self._start()
        assert self._process is not None
        try:
            self._pipe.send((number, seed))
            if not self._pipe.poll(kind.timeout_s):
                self._stop()
                return Result(kind.name, seed, Outcome("wrong", f"hangs: no end after {kind.timeout_s} s"), 0)
            outcome, grown = self._pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self._process.join()
            code = self._process.exitcode
            said = Path(self._log.name).read_text(errors="replace").strip()[-500:]
            self._stop()
            return Result(kind.name, seed, Outcome("wrong", f"the process died of {code}: {said}"), 0)
        if grown > kind.memory_mib * _MIB and outcome.ending != "wrong":
            outcome = Outcome("wrong", f"took {grown / _MIB:,.0f} MiB, more than {kind.memory_mib:,}: {outcome}")
        if kind.heavy:
            self._stop()  # Its memory would hide the growth of the next.
        return Result(kind.name, seed, outcome, grown)

    def _start(self) -> None:
        self._pipe, theirs = self._context.Pipe()
        self._log = tempfile.NamedTemporaryFile(prefix="hostile-log-")  # noqa: SIM115
        self._process = self._context.Process(target=_serve, args=(theirs, self._log.name, self._kinds), daemon=True)
        self._process.start()
        theirs.close()

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._log.close()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()


def _serve(pipe: Connection, log: str, kinds: Sequence[CaseKind]) -> None:
    # Beam writes tracebacks of what a build catches; and what native code says when it dies is to be kept.
    logging.disable(logging.CRITICAL)
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    # Writes no core of hundreds of megabytes where native code dies.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            number, seed = pipe.recv()
        except EOFError:
            return
        pipe.send(run_case(kinds[number], seed))


def run_case(kind: CaseKind, seed: str) -> tuple[Outcome, int]:
    """Runs a case in this process: how it ended, and by how many bytes the process grew at its peak."""
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    forget_peak()
    before = _memory("VmRSS")
    try:
        outcome = kind.attempt(random.Random(f"{kind.name} {seed}"), folder)
    except Exception:
        outcome = Outcome("wrong", "".join(traceback.format_exc().splitlines(keepends=True)[-12:]))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return outcome, max(outcome.grown_bytes, _memory("VmHWM") - before)


def _memory(key: str) -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024
