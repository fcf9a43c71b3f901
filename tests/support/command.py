"""Runs `broetchen` as its users do: the installed command, in a process of its own."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from tests.support.forks import ForkServer

COMMAND = Path(sys.executable).with_name("broetchen")
_TIMEOUT_S = 120


def run_command(
    *arguments: str | Path,
    module: str | None = None,
    largest_file: int | None = None,
    timeout: float = _TIMEOUT_S,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs the command, or `python -m module`, to its end. Its output is captured and it sees no terminal.

    The command is mostly a fork of a process that has imported everything in the same environment.

    Args:
        arguments: of the command.
        module: to run instead of the command.
        largest_file: bytes beyond which a file cannot be written, like a disk that is full.
        timeout: seconds after which it is killed, and the test fails.
        environment: its environment variables; by default this process's.
    """
    if module is None and largest_file is None and sys.platform == "linux":
        return _run_forked([str(argument) for argument in arguments], timeout, environment or os.environ)
    limit = ["prlimit", f"--fsize={largest_file}"] if largest_file is not None else []
    return subprocess.run(
        [*limit, *_command_line(arguments, module)],
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        env=environment,
    )


def without_hint(errors: str) -> str:
    """Standard error without its last line, where that names the next command."""
    return re.sub(r"(?m)^Next: .*\n\Z", "", errors)


# Variables that no module reads while it is imported, so that a fork can be given them.
_READ_LATE = frozenset(
    {
        "BROETCHEN_CACHE",
        "CLOUD_STORAGE_EMULATOR_ENDPOINT",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_CLOUD_PROJECT",
        "HF_TOKEN",
        "STORAGE_EMULATOR_HOST",
    }
)


class _Forks:
    """A server, and the environment that it was started in; another environment mostly takes another server."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._environment: dict[str, str] = {}
        self._stack = contextlib.ExitStack()
        self._server: ForkServer | None = None
        atexit.register(self._stack.close)

    def server(self, environment: Mapping[str, str]) -> ForkServer:
        wanted = {
            name: value for name, value in environment.items() if name not in {"PYTEST_CURRENT_TEST", *_READ_LATE}
        }
        if self._server is None or wanted != self._environment:
            self._server = None  # Nobody is to use it again, not even where a test's timeout comes now.
            self._stack.close()
            self._server, self._environment = self._stack.enter_context(ForkServer(wanted)), wanted
        return self._server


_forks = _Forks()


def _run_forked(
    arguments: Sequence[str], timeout: float, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder, "output"), Path(folder, "errors")
        with _forks.lock:
            late = {name: value for name, value in environment.items() if name in _READ_LATE}
            server = _forks.server(environment)
            code = server.start(arguments, errors=errors, output=output, environment=late).wait(timeout)
        return subprocess.CompletedProcess(arguments, code, output.read_text(), errors.read_text())


@contextlib.contextmanager
def started_command(
    *arguments: str | Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Starts the command in a session of its own, and at the end kills all of its processes that still run."""
    with subprocess.Popen(
        _command_line(arguments, None),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=environment,
    ) as process:
        try:
            yield process
        finally:
            kill_session(process)


def workers_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The worker processes of a started build: forks of it, which have its command line, or those that Beam starts."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        driver = psutil.Process(process.pid)
        command = driver.cmdline()
        for child in driver.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                theirs = child.cmdline()
                if theirs == command or (theirs[1:2] == ["-m"] and "sdk_worker_main" in theirs[2]):
                    found.append(child)
    return found


def kill_session(process: subprocess.Popen[bytes]) -> None:
    """Kills a started command and all processes that it has started, at once."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _command_line(arguments: tuple[str | Path, ...], module: str | None) -> list[str]:
    start = [sys.executable, "-m", module] if module else [str(COMMAND)]
    return [*start, *map(str, arguments)]


def run_on_terminal(*arguments: str | Path, columns: int, interrupt_at: str | None = None) -> tuple[int, str]:
    """Runs the command on a terminal of its own, and presses Ctrl-C once its output matches a regular expression.

    Returns:
        the exit code, and everything that it showed, without the control sequences.
    """
    code, shown = shown_on_terminal(*arguments, columns=columns, interrupt_at=interrupt_at)
    return code, _plain(shown)


def shown_on_terminal(*arguments: str | Path, columns: int, interrupt_at: str | None = None) -> tuple[int, str]:
    """As `run_on_terminal`, with the control sequences."""
    # The size that pytest sets for its own workers would win over the terminal's.
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, columns))
    shown = b""
    with (
        subprocess.Popen(
            _command_line(arguments, None),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=_own_terminal,
            env={**environment, "TERM": "xterm-256color"},
        ) as process,
        _killed_when_given_up(process),
    ):
        os.close(theirs)
        deadline = time.monotonic() + 2 * _TIMEOUT_S
        with contextlib.suppress(OSError):  # how Linux says that nobody has the other end any more
            while part := os.read(ours, 1 << 16):
                shown += part
                if time.monotonic() > deadline:
                    raise AssertionError(
                        f"it hangs; was Ctrl-C pressed: {interrupt_at is None}; {_plain(_text(shown))[-2000:]}"
                    )
                if interrupt_at and re.search(interrupt_at, _plain(_text(shown))):
                    os.write(ours, b"\x03")
                    interrupt_at = None
        os.close(ours)
        return process.wait(_TIMEOUT_S), _text(shown)


@contextlib.contextmanager
def _killed_when_given_up(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Kills a started command where the block fails, as by a test's timeout; else `Popen` would wait for its end."""
    try:
        yield
    except BaseException:
        kill_session(process)
        raise


def _own_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    # Tests that a shell runs in the background inherit that Ctrl-C is ignored.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _text(shown: bytes) -> str:
    return shown.decode(errors="replace")


def _plain(shown: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r", "\n")
