"""Worker processes that are a fresh Python each, for programs that cannot be forked."""

from __future__ import annotations

import os
import subprocess
import sys

from apache_beam.runners.worker import sdk_worker_main

from beam_pipelines.console import terminal
from beam_pipelines.runners.local_runner import WorkerOrder


class FreshWorker:
    """Beam's harness in a process of its own, with this one's environment, and its modules from the same folders."""

    def __init__(self, order: WorkerOrder) -> None:
        # `-P`: Python would otherwise look for modules in the current folder before all others.
        command = [sys.executable, "-P", "-m", sdk_worker_main.__name__]
        folders = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
        self._process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": folders, **order.variables()},
            stdin=subprocess.DEVNULL,
            # A script's standard error is its own; the errors that Beam would print there come back as exceptions.
            stderr=None if terminal.is_command() else subprocess.DEVNULL,
        )
        self._killed = False

    def wait(self) -> None:
        """Returns once it has ended.

        Raises:
            RuntimeError: it failed, or somebody else killed it.
        """
        if self._process.wait() and not self._killed:
            raise RuntimeError(f"a worker process ended with {self._process.returncode}")

    def kill(self) -> None:
        """Ends it, whatever it is doing."""
        self._killed = True
        self._process.kill()
