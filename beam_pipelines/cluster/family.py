"""Processes that a cluster's service and workers start: a fresh Python each, which ends with the process that made it.

The made one reads from its standard input, and ends once that does: the system closes it however its maker has ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import BinaryIO

from transforms.files.scratch import remove_run_folders


def start_module(module: str, variables: Mapping[str, str] | None = None, **streams: int) -> subprocess.Popen[bytes]:
    """A Python of this one's environment that runs a module; its standard input is to be held open.

    Args:
        module: by its name.
        variables: further variables of its environment.
        streams: `stdout` or `stderr`, as for `subprocess.Popen`.
    """
    # `-P`: Python would otherwise look for modules in the current folder before all others.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folder or os.getcwd() for folder in sys.path)}
        | dict(variables or {}),
        stdin=subprocess.PIPE,
        # Ctrl-C on a terminal is for the one that made it, which ends it.
        start_new_session=True,
        **streams,  # type: ignore[call-overload]
    )


def end_with(source: BinaryIO) -> None:
    """Ends this process once `source` has ended, whatever it is doing."""

    def wait() -> None:
        while source.read(1 << 16):
            pass
        end_now(1)

    threading.Thread(target=wait, name="end_with", daemon=True).start()


def end_now(code: int) -> None:
    """Ends this process without waiting for its threads."""
    remove_run_folders()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def until_stopped(stop: Callable[[], None]) -> None:
    """Waits for Ctrl-C or SIGTERM, and then stops."""
    stopped = threading.Event()
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        stopped.wait()
    finally:
        stop()
        for number, handler in before.items():
            signal.signal(number, handler)
