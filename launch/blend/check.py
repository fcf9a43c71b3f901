"""Lets MaxText say, before a run, whether it will follow an order: its own functions, in a process of their own."""

from __future__ import annotations

import os
import posixpath
import subprocess
import sys
from pathlib import Path

from launch.blend.plan import MANIFEST, Blend, BlendPlan
from launch.blend.write import order_folder, write_blend
from transforms.errors import BroetchenError, one_line
from transforms.files import storage
from transforms.files.scratch import temporary_folder

PROGRAM = Path(__file__).with_name("programs") / "check_order.py"
"""Runs here, and on the machines that train, before the trainer."""

_TIMEOUT_SECONDS = 3600

# Only variables that a Python process needs.
_KEPT = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "VIRTUAL_ENV")


def check_blend(blend: Blend, folder: str) -> str:
    """Checks a written order, and answers with the findings.

    An order for other machines is checked without its shards, by a copy of the order's files; the machines that train
    check it with them.

    Raises:
        BroetchenError: MaxText would not follow it.
    """
    if storage.is_local(folder) and all(
        storage.is_local(one.folder) and one.located == os.path.abspath(one.folder)
        for split in blend.plan.splits.values()
        for one in split.datasets
    ):
        return _run([folder, blend.digest])
    if storage.is_local(folder):
        return _run(["--without-shards", folder, blend.digest])
    with temporary_folder("order") as scratch:
        for name in (MANIFEST, *(one.file for one in blend.files)):
            local = Path(scratch, name)
            local.parent.mkdir(parents=True, exist_ok=True)
            with storage.local_copy(posixpath.join(folder, name), scratch) as copy:
                os.replace(copy, local) if copy != str(local) else None
        return _run(["--without-shards", scratch, blend.digest])


def write_order(plan: BlendPlan, run: str) -> str:
    """Writes the order of a run into a folder below the run's, unless it is there, and checks it.

    Returns:
        The findings of the check.

    Raises:
        BroetchenError: see `write_blend` and `check_blend`.
    """
    folder = order_folder(run, plan.digest())
    return check_blend(write_blend(plan, folder), folder)


def _run(arguments: list[str]) -> str:
    environment = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith("PYTHON")}
    try:
        ended = subprocess.run(
            [sys.executable, "-P", str(PROGRAM), *arguments],
            env=environment | {"JAX_PLATFORMS": "cpu"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BroetchenError(f"MaxText did not check the order in {_TIMEOUT_SECONDS} s; try again") from error
    last = one_line((ended.stdout if not ended.returncode else ended.stderr).strip().rpartition("\n")[2])
    if ended.returncode:
        raise BroetchenError(
            last.removeprefix("broetchen: ") or f"MaxText's check of the order ended with {ended.returncode}"
        )
    return last.removeprefix("broetchen: ")
