"""A folder for Unix sockets that nobody else on this machine can reach, or the reason why there is none.

A user who can look into the folder of a socket can connect to it, on Linux also by the socket's own mode. So the folder
is one of `transforms.files.scratch`, 0700, and the folders above it are none that others could exchange.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from transforms.errors import BroetchenError
from transforms.files.scratch import temporary_folder

# unix(7): 108 bytes with the one that ends it; macOS has 104.
LONGEST_PATH = 107 if sys.platform == "linux" else 103


class NoWorkersError(Exception):
    """Workers would have no way to this process that is theirs alone; the message says why."""


@contextlib.contextmanager
def socket_folder(names: Sequence[str]) -> Iterator[Path]:
    """A new folder, 0700, in which sockets of these names can be bound; it is gone after the block.

    It lies in the system's folder for temporary files (`TMPDIR`), or else, where paths would be too long or others
    could exchange it, in the user's runtime folder (`XDG_RUNTIME_DIR`) or in that which every Unix has.

    Raises:
        NoWorkersError: there is no such place.

    >>> with socket_folder(["control"]) as folder:
    ...     oct(folder.stat().st_mode & 0o777)
    '0o700'
    """
    with contextlib.ExitStack() as stack:
        yield _first_folder(max(names, key=len), stack)


def _first_folder(name: str, stack: contextlib.ExitStack) -> Path:
    reasons = []
    for base in _bases():
        try:
            _check_base(base)
            with contextlib.ExitStack() as attempt:
                folder = Path(attempt.enter_context(temporary_folder("sockets", str(base))))
                _check_socket(folder / name)
                stack.push(attempt.pop_all())
                return folder
        except (OSError, NoWorkersError, BroetchenError) as error:
            reasons.append(f"{base}: {error}")
    raise NoWorkersError(f"there is no place for the sockets of workers ({'; '.join(reasons)})")


def _bases() -> list[Path]:
    """Resolved, and each once: links in them may be changed later."""
    given = [os.environ.get("XDG_RUNTIME_DIR"), "/tmp"]
    with contextlib.suppress(FileNotFoundError):  # in none of the places that it knows can be written
        given.insert(0, tempfile.gettempdir())
    return list(dict.fromkeys(Path(base).resolve() for base in given if base))


def _check_base(base: Path) -> None:
    """Raises an error where another user than root could put a folder of their own in the place of one below `base`."""
    for folder in (base, *base.parents):
        status = folder.stat()
        if status.st_uid not in (0, os.geteuid()):
            raise NoWorkersError(f"{folder} is another user's")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX:
            raise NoWorkersError(f"others may rename what lies in {folder}")


def _check_socket(path: Path) -> None:
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise NoWorkersError(f"paths of sockets there are longer than {LONGEST_PATH} bytes")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.bind(os.fsencode(path))
    path.unlink()
