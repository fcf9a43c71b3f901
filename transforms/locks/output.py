"""Keeps two builds from working on one output: the second is refused, and told who has it.

On a local filesystem the lock is `flock(2)` on a file, which the kernel lets go when its process ends, however it ends.
On a network filesystem it holds as far as that carries `flock` from one machine to another: NFS does since Linux 2.6.12
unless mounted with `nolock` or `local_lock`, gcsfuse does not. On `gs://` it is an object that is renewed
(`transforms.locks.gcs`). Other filesystems have none.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
from collections.abc import Iterator

from apache_beam.io.filesystems import FileSystems

from transforms.coders import to_json
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.files.errors import explain
from transforms.locks.gcs import LockHeldError, Timing, hold_object
from transforms.locks.interruption import interruptible
from transforms.locks.owner import LockOwner, read_owner, this_process

LOCK_FILE = ".broetchen.lock"

_LOGGER = logging.getLogger(__name__)
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP})


@contextlib.contextmanager
def hold_output(output: str, timing: Timing | None = None) -> Iterator[None]:
    """Holds the lock of `output` during the block, if its filesystem has locks, and leaves nothing of it behind.

    An output in which nothing can be written is not locked.

    Args:
        output: a folder, local or ``gs://…``; a local one is made where there is none.
        timing: of locks on ``gs://``.

    Raises:
        BroetchenError: another process has it, or has taken it over during the block.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as output, hold_output(output):
    ...     os.listdir(output)
    ['.broetchen.lock']
    """
    path = storage.join(output, LOCK_FILE)
    try:
        if storage.is_local(output):
            with _hold_file(output, path, this_process()):
                yield
        elif FileSystems.get_scheme(output) == "gs":
            # The other build writes the same bytes under the same names, so nothing is spoilt; but what this one went
            # on to write would be left behind.
            with (
                interruptible(_lost(output)) as on_lost,
                hold_object(path, this_process(), timing or Timing(), on_lost),
            ):
                yield
        else:
            yield
    except LockHeldError as error:
        raise BroetchenError(
            f"{output}: another build is at work there ({error.owner or 'it does not say which process'}); wait until "
            "it is done or stop it, or choose another --output"
        ) from error


@contextlib.contextmanager
def _hold_file(folder: str, path: str, owner: LockOwner) -> Iterator[None]:
    descriptor = _take_file(folder, path)
    if descriptor is None:
        yield
        return
    try:
        # On a disk that is full the lock holds as well, and only does not say whose it is.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, to_json(owner).encode(), 0)
        yield
    finally:
        # Before it is let go of: afterwards it may be another's.
        with contextlib.suppress(OSError):
            os.unlink(path)
        os.close(descriptor)


def _take_file(folder: str, path: str) -> int | None:
    """The descriptor of the locked file; None where nothing can be written, or the filesystem has no locks."""
    while True:
        try:
            os.makedirs(folder, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            if not os.access(folder, os.W_OK | os.X_OK) or not os.path.isdir(folder):
                return None  # What is to be built says so better, and what is finished needs no lock.
            reason, advice = explain(error)
            raise BroetchenError(f"{path}: cannot be written ({reason}); {advice}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                return descriptor
            os.close(descriptor)  # Its holder has deleted it meanwhile; the next one is another file.
        except BlockingIOError as error:
            owner = read_owner(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
            os.close(descriptor)
            raise LockHeldError(owner) from error
        except OSError as error:
            os.close(descriptor)
            if error.errno not in _NO_LOCKS:
                raise
            with contextlib.suppress(OSError):
                os.unlink(path)
            _LOGGER.warning("%s: its filesystem has no locks; see that only one build writes there", folder)
            return None


def _is_at(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _lost(output: str) -> BroetchenError:
    return BroetchenError(
        f"{output}: another build has taken it over, since this one had not answered for too long, as when its machine "
        "was asleep; see that the other ends, and run this again if it does not"
    )
