"""Runs `broetchen` quickly: from a process that has imported everything already, and forks for each command.

A fork does what the installed command does, in a session of its own, and can be killed like any process. It saves the
seconds that imports take, which most of a command's time in tests would be.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pkgutil
import select
import signal
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn, Self

import beam_pipelines
from beam_pipelines import cli

_TIMEOUT_S = 120
_ROOT = Path(__file__).parents[2]


class Forked:
    """A command that was started; like a `subprocess.Popen`, as far as it goes."""

    def __init__(self, server: subprocess.Popen[bytes], pid: int) -> None:
        self._server, self.pid = server, pid
        self.returncode: int | None = None

    def poll(self, timeout: float = 0) -> int | None:
        """The exit code, negative for a signal; None while it runs, after `timeout` seconds at most."""
        assert self._server.stdout is not None
        if self.returncode is None and select.select([self._server.stdout], [], [], timeout)[0]:
            self.returncode = int(_read_line(self._server.stdout.fileno()))
        return self.returncode

    def wait(self, timeout: float = _TIMEOUT_S) -> int:
        """The exit code.

        Raises:
            TimeoutError: it has not ended after so many seconds, and was killed.
        """
        code = self.poll(timeout)
        if code is None:
            self.kill()
            raise TimeoutError("the command hangs")
        return code

    def kill(self) -> None:
        """Kills it and all that it has started, and waits for its end."""
        if self.poll() is None:
            # It leads a session only once it has come to that.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self.wait()


class ForkServer:
    """Starts one command at a time, and kills it where the next one comes before it has ended. A context manager.

    Args:
        environment: in which everything is imported, and commands run; by default this process's.
    """

    _last: Forked | None = None

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = os.environ if environment is None else environment

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from tests.support.forks import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            cwd=_ROOT,
            env=dict(self._environment),
        )
        return self

    def start(
        self,
        arguments: Sequence[str],
        *,
        errors: Path,
        output: Path = Path(os.devnull),
        environment: Mapping[str, str] | None = None,
        armed_by: str | None = None,
    ) -> Forked:
        """Starts ``broetchen ARGUMENTS`` in the current folder.

        Args:
            arguments: of the command.
            errors, output: the files that its standard error and standard output are written to.
            environment: more variables.
            armed_by: a module that is imported before the command runs.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {
            "arguments": list(arguments),
            "errors": str(errors),
            "output": str(output),
            "environment": dict(environment or {}),
            "armed_by": armed_by,
            "folder": os.getcwd(),
        }
        try:
            if self._last is not None:
                self._last.kill()
            self._process.stdin.write(f"{json.dumps(order)}\n".encode())
            pid = _read_line(self._process.stdout.fileno())
            assert pid, "the process that was to fork could not; its standard error says why"
        except BaseException:
            # As by a test's timeout: the next order would take the answer to this one for its own.
            self._last = None
            self.__exit__()
            self.__enter__()
            raise
        self._last = Forked(self._process, int(pid))
        return self._last

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def serve() -> None:
    """Forks as it is told: reads orders from standard input, and prints process ids and exit codes."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command does before it imports anything
    for module in pkgutil.walk_packages(beam_pipelines.__path__, "beam_pipelines."):
        importlib.import_module(module.name)
    # A fork has only the thread that forks; jemalloc, which Arrow brings, provides for it (pthread_atfork(3)).
    threads = sorted(path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm"))
    if [name for name in threads if name != "jemalloc_bg_thd"] != [Path("/proc/self/comm").read_text().strip()]:
        sys.exit(f"threads run after the imports ({', '.join(threads)}), and a fork would have one of them only")
    while order := _read_line(0):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python also counts the allocator's threads.
            pid = os.fork()
        if pid == 0:
            _be_command(**json.loads(order))
        os.write(1, f"{pid}\n".encode())
        ended = os.pidfd_open(pid)
        orphaned = ended not in select.select([0, ended], [], [])[0]
        if orphaned:  # There are no orders while a command runs: their giver is gone.
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        os.close(ended)
        if orphaned:
            break
        os.write(1, f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _read_line(descriptor: int) -> bytes:
    """The next line, and no byte more: a buffer would hide its bytes from `select`, and be shared by a fork."""
    line = b""
    while not line.endswith(b"\n") and (part := os.read(descriptor, 1)):
        line += part
    return line


def _be_command(
    arguments: Sequence[str],
    errors: str,
    output: str,
    environment: Mapping[str, str],
    armed_by: str | None,
    folder: str,
) -> NoReturn:
    os.setsid()
    os.chdir(folder)
    written = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for descriptor, path, how in ((0, os.devnull, os.O_RDONLY), (1, output, written), (2, errors, written)):
        os.dup2(os.open(path, how, 0o666), descriptor)
    os.environ.update(environment)
    if armed_by is not None:
        importlib.import_module(armed_by)
    sys.argv = ["broetchen", *arguments]
    cli.main()
    sys.exit()
