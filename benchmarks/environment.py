"""DataTrove's environment, apart from ours: the two want different versions of the same libraries."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).with_name("requirements-datatrove.lock")


def datatrove_python(environment: Path) -> Path:
    """The Python of DataTrove's environment, which is made from the lock file if it is not there or is an older one's.

    Raises:
        RuntimeError: pip could not install the lock file.
    """
    python = environment / "bin" / "python"
    stamp = environment / "lock.sha256"
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    shutil.rmtree(environment, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    (environment / ".gitignore").write_text("*\n")
    install = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--only-binary", ":all:"]
    done = subprocess.run([*install, "--require-hashes", "--no-deps", "-r", str(LOCK)])
    if done.returncode != 0:
        raise RuntimeError(f"could not install {LOCK.name} into {environment}; pip says why above")
    stamp.write_text(wanted)  # last, so that an interrupted installation is done again
    return python
