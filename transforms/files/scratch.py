"""Scratch files in one folder per run that nobody else can look into, and that a later run sweeps when its own is dead.

`run_folder` makes the folder when it is first asked for, with mode 0700, in the system's folder for temporary files
(`TMPDIR`), and holds it by `flock(2)`: the kernel lets go of it when the process and all of its forks have ended,
however they ended. A process that makes such a folder first deletes those of the same user on this machine that nobody
holds. Forks share the folder of the process that they come from; a process that was started afresh has one of its own.

For a file or socket with a name of its own, take `run_folder()` and join a name to it that no fork takes as well; for a
folder that goes with a block, `temporary_folder`. Both take a `base` where the system's folder does not fit, as when a
Unix socket's path would be too long below it.

Where the filesystem has no locks, a folder that was left behind stays.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator

from transforms.errors import BroetchenError
from transforms.files.own_file import is_at, try_lock


@dataclasses.dataclass(frozen=True)
class _Folder:
    path: str
    #: of the folder; its lock says that somebody is at work there
    descriptor: int
    maker: int

    def is_there(self) -> bool:
        """Whether it is still the folder that was made: not deleted, nor replaced by a link or another's."""
        return is_at(self.descriptor, self.path) and _is_private(self.descriptor)

    def remove(self) -> None:
        if os.getpid() == self.maker and self.is_there():
            shutil.rmtree(self.path, ignore_errors=True)


_folders: dict[str, _Folder] = {}


def run_folder(base: str | None = None) -> str:
    """This run's own folder, 0700; it is gone when the process that made it has ended.

    Args:
        base: where it lies; by default the system's folder for temporary files.

    Raises:
        BroetchenError: it cannot be made.

    >>> oct(os.stat(run_folder()).st_mode & 0o777)
    '0o700'
    >>> run_folder() == run_folder()
    True
    """
    base = os.path.abspath(base or tempfile.gettempdir())
    folder = _folders.get(base)
    if folder is None or not folder.is_there():
        with _explain_scratch_errors(base):
            sweep(base)
            # Where two threads come at once, each works in a folder of its own.
            folder = _folders[base] = _make(base)
        atexit.register(folder.remove)
    return folder.path


def remove_run_folders() -> None:
    """Deletes this process's folders at once, for one that is about to end by `os._exit`."""
    for folder in _folders.values():
        folder.remove()


@contextlib.contextmanager
def temporary_folder(purpose: str, base: str | None = None) -> Iterator[str]:
    """A folder in the run's, which is deleted at the end of the block; `purpose` is part of its name.

    Raises:
        BroetchenError: it cannot be made.
    """
    parent = run_folder(base)
    with _explain_scratch_errors(parent):
        folder = tempfile.TemporaryDirectory(prefix=f"{purpose}-", dir=parent, ignore_cleanup_errors=True)
    with folder:
        yield folder.name


def sweep(base: str) -> list[str]:
    """Deletes the folders that dead runs of this user on this machine have left in `base`, and names them.

    A folder that somebody holds, another user's, and a name that is no folder, as a link, stay.
    """
    with contextlib.suppress(OSError), os.scandir(base) as entries:
        found = sorted(entry.path for entry in entries if entry.name.startswith(_prefix()))
        return [path for path in found if _is_swept(path)]
    return []


def _is_swept(path: str) -> bool:
    descriptor = _open(path)
    if descriptor is None:
        return False
    try:
        if _is_private(descriptor) and try_lock(descriptor) and is_at(descriptor, path):
            shutil.rmtree(path)  # Follows no links.
            return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


@contextlib.contextmanager
def _explain_scratch_errors(base: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BroetchenError(
            f"{base}: no folder for temporary files can be made there ({error.strerror or error}); set TMPDIR to a "
            "folder with free space that you may write"
        ) from error


def _prefix() -> str:
    """The beginning of the names of this user's folders here: others may use the disk, and their locks be unseen."""
    machine = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
    return f"broetchen-{os.geteuid()}-{machine}-"


def _make(base: str) -> _Folder:
    while True:
        path = tempfile.mkdtemp(prefix=_prefix(), dir=base)
        descriptor = _open(path)
        if descriptor is None:
            continue  # Another run has found it before it was held.
        try:
            held = try_lock(descriptor)
        except OSError:
            held = True  # By no lock, as there are none: nobody sweeps it.
        if held and is_at(descriptor, path):
            if not _is_private(descriptor):
                os.close(descriptor)
                raise BroetchenError(
                    f"{path}: others may read it, as its filesystem keeps no permissions; set TMPDIR to a folder on "
                    "one that does"
                )
            return _Folder(path, descriptor, os.getpid())
        os.close(descriptor)


def _open(path: str) -> int | None:
    """A folder's descriptor; None where there is no folder of this name, which a link to one is not."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None


def _is_private(descriptor: int) -> bool:
    status = os.fstat(descriptor)
    # Above them, the bit that a folder has from one whose group goes down to all that is in it.
    return status.st_uid == os.geteuid() and status.st_mode & 0o777 == 0o700
