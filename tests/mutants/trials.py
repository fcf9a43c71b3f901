"""Runs tests against a changed module, each time in a fork of a process that has imported all that is not ours.

Beam and its company take seconds to import, and a test of a few lines milliseconds: with an interpreter for each mutant
next to all time would go into imports. Our own modules are imported by the fork, the changed one from memory.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import types
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.support.documents import ROOT

_PACKAGES = ("beam_pipelines", "launch", "transforms")
_OURS = (*_PACKAGES, "broetchen", "tests")
_MEMORY_BYTES = 24 << 30
_PYTEST = (
    "-q",
    "-x",
    "--no-header",
    "--tb=short",
    "--assert=plain",
    "-p",
    "no:cacheprovider",
    "--hypothesis-profile=mutants",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """A run of some tests: with `source` in place of the text of `module`, if it is given."""

    module: str
    tests: Sequence[str]
    timeout_s: float
    source: str | None = None
    plugin: Any = None


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a trial ended: "passed", "failed" or "hangs"; `output` is that of pytest."""

    how: str
    output: str


def preload(rooms: Iterable[str]) -> None:
    """Imports the modules that are not ours, and that ours and the tests of `rooms` import.

    Ours are not: some leave something behind, as a filesystem does that Beam then knows for good.
    """
    sources = [ROOT / "tests/conftest.py", *(ROOT / "tests/support").rglob("*.py")]
    sources += [path for room in rooms for path in (ROOT / room).glob("test_*.py")]
    sources += [
        path for package in _PACKAGES for path in (ROOT / package).rglob("*.py") if "programs" not in path.parts
    ]
    for path in sources:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                if name.split(".")[0] not in _OURS:
                    importlib.import_module(name)
    gc.freeze()  # A fork that looks through all this would copy it.


def run(trials: Iterable[Trial], jobs: int) -> Iterator[tuple[Trial, Ended]]:
    """Runs trials, `jobs` at a time, and yields each when it has ended."""
    waiting, running = iter(trials), dict[int, _Running]()
    try:
        while True:
            while len(running) < jobs and (trial := next(waiting, None)) is not None:
                started = _Running(trial)
                running[started.ended] = started
            if not running:
                return
            until = min(one.deadline for one in running.values())
            ready, _, _ = select.select(list(running), [], [], max(0.0, until - time.monotonic()))
            late = [fd for fd, one in running.items() if fd not in ready and one.deadline <= time.monotonic()]
            for descriptor in (*ready, *late):
                one = running.pop(descriptor)
                yield one.trial, one.end(hangs=descriptor in late)
    finally:
        for one in running.values():
            one.end(hangs=True)


class _Running:
    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self._folder = tempfile.mkdtemp(prefix="broetchen-mutant-")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of the threads of Arrow's allocator, which mind forks
            self._pid = os.fork()
        if self._pid == 0:
            _be_pytest(trial, self._folder)
        self.ended = os.pidfd_open(self._pid)
        self.deadline = time.monotonic() + trial.timeout_s

    def end(self, *, hangs: bool) -> Ended:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)  # itself, or processes that it has left running
        if hangs:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        _, status = os.waitpid(self._pid, 0)
        os.close(self.ended)
        output = Path(self._folder, "output").read_text(errors="replace") if not hangs else ""
        shutil.rmtree(self._folder, ignore_errors=True)
        code = os.waitstatus_to_exitcode(status)
        return Ended("hangs" if hangs else "passed" if code == pytest.ExitCode.OK else "failed", output)


def _be_pytest(trial: Trial, folder: str) -> NoReturn:
    code = 70
    try:
        os.setsid()
        written = os.open(f"{folder}/output", os.O_WRONLY | os.O_CREAT, 0o600)
        for descriptor in (1, 2):
            os.dup2(written, descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        os.chdir(ROOT)
        if trial.source is not None:
            sys.meta_path.insert(0, _Finder(trial.module, trial.source))
        plugins = [trial.plugin] if trial.plugin else []
        code = pytest.main([*_PYTEST, f"--basetemp={folder}/tests", *trial.tests], plugins)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds one module, changed."""

    def __init__(self, module: str, source: str) -> None:
        self._name, self._path, self._source = module.removesuffix(".py").replace("/", "."), ROOT / module, source

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        loader = _Loader(fullname, str(self._path), self._source)
        return importlib.util.spec_from_file_location(fullname, self._path, loader=loader)


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, fullname: str, path: str, source: str) -> None:
        super().__init__(fullname, path)
        self._source = source

    def get_code(self, fullname: str) -> types.CodeType:
        return compile(self._source, self.path, "exec", dont_inherit=True)


class Reach:
    """A plugin of pytest that writes to `path` which lines of some modules each test runs, and how long it takes.

    Lines that fixtures of a module or session run count for each test that asks for them.
    """

    def __init__(self, modules: Sequence[str], path: Path) -> None:
        self._modules = {str(ROOT / module): module for module in modules}
        self._path = path
        self._open: list[set[tuple[str, int]]] = []
        self._fixtures: dict[int, set[tuple[str, int]]] = {}
        self._tests: dict[str, Any] = {}

    def pytest_sessionstart(self) -> None:
        monitoring = sys.monitoring
        monitoring.use_tool_id(monitoring.COVERAGE_ID, "mutants")
        monitoring.register_callback(monitoring.COVERAGE_ID, monitoring.events.LINE, self._line)
        monitoring.set_events(monitoring.COVERAGE_ID, monitoring.events.LINE)

    def _line(self, code: types.CodeType, line: int) -> Any:
        if self._open and (module := self._modules.get(code.co_filename)) is not None:
            self._open[-1].add((module, line))
        return sys.monitoring.DISABLE

    @contextlib.contextmanager
    def _recorded(self) -> Iterator[set[tuple[str, int]]]:
        lines: set[tuple[str, int]] = set()
        self._open.append(lines)
        sys.monitoring.restart_events()
        try:
            yield lines
        finally:
            self._open.pop()
            sys.monitoring.restart_events()

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any]) -> Iterator[None]:
        with self._recorded() as lines:
            done = yield
        self._fixtures[id(fixturedef)] = lines
        return done

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        started = time.monotonic()
        with self._recorded() as lines:
            done = yield
        fixtures = getattr(item, "_fixtureinfo", None)
        for definitions in fixtures.name2fixturedefs.values() if fixtures else ():
            for definition in definitions:
                lines |= self._fixtures.get(id(definition), set())
        self._tests[item.nodeid] = {"seconds": time.monotonic() - started, "lines": sorted(lines)}
        return done

    def pytest_sessionfinish(self) -> None:
        self._path.write_text(json.dumps(self._tests))
