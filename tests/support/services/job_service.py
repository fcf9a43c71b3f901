"""Beam's own portable job service, and workers that outlive the command that started a job, each in its process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest


@pytest.fixture
def job_service(tmp_path: Path) -> Iterator[str]:
    """The address of a job service."""
    module = "apache_beam.runners.portability.local_job_service_main"
    with served([sys.executable, "-m", module, "-p"], tmp_path / "service.log") as address:
        yield address


@contextlib.contextmanager
def worker_pool(log: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """The address of a worker pool (``--environment_type=EXTERNAL``), whose workers have these variables."""
    module = "apache_beam.runners.worker.worker_pool_main"
    with served([sys.executable, "-m", module, "--service_port"], log, environment) as address:
        yield address


@contextlib.contextmanager
def served(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None, before_port: str = ""
) -> Iterator[str]:
    """The address of a service in a process of its own, once it listens there.

    Args:
        command: its last argument is the option that takes the port.
        log: for what it says.
        environment: more variables.
        before_port: the value of that option before the port.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        log.open("w") as file,
        subprocess.Popen(
            [*command, f"{before_port}{port}"],
            stdout=file,
            stderr=file,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **(environment or {})},
            start_new_session=True,
        ) as process,
    ):
        try:
            for _ in range(600):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield f"127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGKILL)
