"""Starts builds quickly: from a process that has imported everything already, and forks for each of them.

A forked build runs the command line as the installed command does, in a session of its own, and can be killed like any
process. It saves the seconds that imports take, which a campaign of hundreds of kills would mostly consist of.
`tokenizers` has to encode, since gigatoken does not survive a fork.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_TIMEOUT_S = 120


class Forked:
    """A build that was started; like a `subprocess.Popen`, as far as it goes."""

    def __init__(self, server: subprocess.Popen[bytes], pid: int) -> None:
        self._server, self.pid = server, pid
        self.returncode: int | None = None

    def poll(self, timeout: float = 0) -> int | None:
        """The exit code, negative for a signal; None while it runs, after `timeout` seconds at most."""
        assert self._server.stdout is not None
        if self.returncode is None and select.select([self._server.stdout], [], [], timeout)[0]:
            self.returncode = int(_read_line(self._server.stdout.fileno()))
        return self.returncode

    def wait(self) -> int:
        """The exit code.

        Raises:
            TimeoutError: it has not ended after two minutes, and was killed.
        """
        code = self.poll(_TIMEOUT_S)
        if code is None:
            self.kill()
            raise TimeoutError("the build hangs")
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
    """Starts one build at a time, and kills it where the next one comes before it has ended. A context manager."""

    _last: Forked | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "tests.campaign.forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
        return self

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], errors: Path) -> Forked:
        """Starts ``broetchen ARGUMENTS`` with these environment variables on top, and its standard error in a file."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"arguments": list(arguments), "environment": dict(environment), "errors": str(errors)}
        if self._last is not None:
            self._last.kill()
        self._process.stdin.write(f"{json.dumps(order)}\n".encode())
        self._last = Forked(self._process, int(_read_line(self._process.stdout.fileno())))
        return self._last

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.stdin.close()  # type: ignore[union-attr]
        self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]


def _serve() -> None:
    import beam_pipelines.build_mix
    import beam_pipelines.build_table
    import beam_pipelines.cli
    import beam_pipelines.mix_config  # noqa: F401

    # A fork has only the thread that forks; jemalloc, which Arrow brings, provides for it (pthread_atfork(3)).
    threads = sorted(path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm"))
    if [name for name in threads if name != "jemalloc_bg_thd"] != [Path("/proc/self/comm").read_text().strip()]:
        sys.exit(f"threads run after the imports ({', '.join(threads)}), and a fork would have one of them only")
    while order := _read_line(0):
        pid = os.fork()
        if pid == 0:
            _run(**json.loads(order))
        os.write(1, f"{pid}\n".encode())
        ended = os.pidfd_open(pid)
        orphaned = ended not in select.select([0, ended], [], [])[0]
        if orphaned:  # There are no orders while a build runs: whoever gave them is gone.
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        os.close(ended)
        if orphaned:
            break
        os.write(1, f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _read_line(descriptor: int) -> bytes:
    """The next line, and no byte more: a buffer would hide from `select` what it holds, and be shared by a fork."""
    line = b""
    while not line.endswith(b"\n") and (part := os.read(descriptor, 1)):
        line += part
    return line


def _run(arguments: Sequence[str], environment: Mapping[str, str], errors: str) -> None:
    os.setsid()
    nowhere, shown = os.open(os.devnull, os.O_RDWR), os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for descriptor, target in ((nowhere, 0), (nowhere, 1), (shown, 2)):
        os.dup2(descriptor, target)
    os.environ.update(environment)
    import tests.campaign.in_build.sitecustomize  # noqa: F401 (arms what is to befall this process)
    from beam_pipelines import cli

    sys.argv = ["broetchen", *arguments]
    code = 1
    try:
        cli.main()
    except SystemExit as ending:
        code = int(ending.code or 0)
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()
