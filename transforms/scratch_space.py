"""Local disk space: where a shard is put together before it is published, and whether it fits there."""

from __future__ import annotations

import os
import shutil
import tempfile

from transforms import files
from transforms.errors import BroetchenError
from transforms.quantities import format_size


def scratch_folder(path: str, scratch_dir: str | None = None) -> str:
    """The local folder in which the file `path` is built: its own, or for a remote one `scratch_dir`.

    Without a `scratch_dir` that is the system's folder for temporary files, which `TMPDIR` names.
    """
    if files.is_local(path):
        return files.split(path)[0] or "."
    return scratch_dir or tempfile.gettempdir()


def check_space(path: str, needed: int) -> None:
    """Checks that a file of about `needed` bytes can be built for `path`.

    Raises:
        BroetchenError: there is less space than that.
    """
    folder = scratch_folder(path)
    existing = os.path.abspath(folder)
    while not os.path.exists(existing):
        existing = os.path.dirname(existing)
    free = shutil.disk_usage(existing).free
    if free < needed:
        elsewhere = "choose another --output" if files.is_local(path) else "set TMPDIR to a folder with more"
        raise BroetchenError(
            f"{path}: it takes about {format_size(needed)} on the disk of {folder}, which has {format_size(free)} "
            f"free; free some space, {elsewhere}, or make shards.target_size smaller"
        )
