"""Beam's own portable job service, and workers that do not end with whoever has started a job, each in its process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest


@pytest.fixture
def job_service(tmp_path: Path) -> Iterator[str]:
    """The address of a job service."""
    with _served("apache_beam.runners.portability.local_job_service_main", "-p", tmp_path / "service.log") as address:
        yield address


@contextlib.contextmanager
def worker_pool(log: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """The address of a worker pool (``--environment_type=EXTERNAL``), whose workers have these variables."""
    with _served("apache_beam.runners.worker.worker_pool_main", "--service_port", log, environment) as address:
        yield address


@contextlib.contextmanager
def _served(module: str, option: str, log: Path, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        log.open("w") as file,
        subprocess.Popen(
            [sys.executable, "-m", module, option, str(port)],
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
