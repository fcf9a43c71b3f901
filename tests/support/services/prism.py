"""Prism, Beam's runner in Go, as a job service; `make prism` compiles it once for each version of Beam.

It is a program of Go, which no package of ours brings. With Go and its module proxy it takes some five minutes of
processor time, once; so tests take the one that is there, and never compile it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import apache_beam

from tests.support.services.job_service import served

_MODULE = "github.com/apache/beam/sdks/v2/go/cmd/prism"
PROGRAM = Path.home() / ".cache" / "broetchen-tests" / f"prism-{apache_beam.__version__}" / "prism"
"""Where it is kept."""


def why_none() -> str:
    """Why there is none here; empty where there is one."""
    return "" if os.access(PROGRAM, os.X_OK) else "there is no Prism here; make prism compiles it where Go is"


@contextlib.contextmanager
def prism(log: Path) -> Iterator[str]:
    """The address of a Prism, which ends with the block. It listens on all addresses, as it can do nothing else."""
    with served([str(PROGRAM), "-serve_http=false", "-job_port"], log) as address:
        yield address


def main() -> int:
    """Compiles it, unless it is there."""
    if not why_none():
        print(f"{PROGRAM} is there already")
        return 0
    if shutil.which("go") is None:
        print("Prism is compiled by Go, which is not installed here", file=sys.stderr)
        return 1
    PROGRAM.parent.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(
        ["go", "install", f"{_MODULE}@v{apache_beam.__version__}"], env={**os.environ, "GOBIN": str(PROGRAM.parent)}
    )
    return made.returncode


if __name__ == "__main__":
    sys.exit(main())
