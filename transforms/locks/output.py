"""Keeps two builds from working on one output: the second is refused, and told the owner.

On a local filesystem the lock is `flock(2)` on a file, which the kernel lets go when its process ends, however it ends.
On a network filesystem it holds as far as that carries `flock` from one machine to another: NFS does since Linux 2.6.12
unless mounted with `nolock` or `local_lock`, gcsfuse does not. On `gs://` it is an object that is renewed
(`transforms.locks.gcs`). Other filesystems have none.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Iterator

from transforms.coders import to_json
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.files.errors import reason_and_advice
from transforms.files.own_file import NO_LOCKS, is_at, open_own, try_lock
from transforms.locks.gcs import Timing, hold_object, read_object
from transforms.locks.held import (
    CannotTellError,
    HeldLock,
    JobGoesOnError,
    LockHeldError,
    knows_job_to_go_on,
    not_asked,
)
from transforms.locks.interruption import interruptible
from transforms.locks.job import RemoteJob
from transforms.locks.owner import LockOwner, read_owner, this_process

LOCK_FILE = ".broetchen.lock"

_LOGGER = logging.getLogger(__name__)
_THEIRS = "wait until their build there is done, or ask them to delete it, or choose another --output"


@contextlib.contextmanager
def hold_output(
    output: str,
    timing: Timing | None = None,
    *,
    job: RemoteJob | None = None,
    goes_on: Callable[[LockOwner], bool] = not_asked,
) -> Iterator[HeldLock]:
    """Holds the lock of `output` during the block, if its filesystem has locks, and leaves nothing of it behind.

    An output in which nothing can be written is not locked.

    Args:
        output: a folder, local or ``gs://…``; a local one is made where there is none.
        timing: of locks on ``gs://``.
        job: the one that this process is about to have a service run.
        goes_on: asks the service whether the job that a lock names has not ended; raises `CannotTellError`, where the
            service does not say so.

    Raises:
        JobGoesOnError: the lock is that of a job that has not ended.
        BroetchenError: another process has it, or has taken it over during the block.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as output, hold_output(output):
    ...     os.listdir(output)
    ['.broetchen.lock']
    """
    path = storage.join(output, LOCK_FILE)
    owner = this_process(job)
    with _told(output, path):
        if storage.is_local(output):
            with _hold_file(output, path, owner, goes_on) as held:
                yield held
        elif storage.scheme(output) == "gs":
            # The other build writes the same bytes under the same names, so nothing is spoilt; but what this one went
            # on to write would be left behind.
            with (
                interruptible(_lost(output)) as on_lost,
                hold_object(path, owner, timing or Timing(), on_lost, goes_on) as held,
            ):
                yield held
        else:
            yield HeldLock()


@contextlib.contextmanager
def _told(output: str, path: str) -> Iterator[None]:
    """Raises an error that describes the holder, as far as it is known."""
    try:
        yield
    except CannotTellError as error:
        raise BroetchenError(
            f"{output}: {error.job} may still be at work there, and {error}; look whether it has ended, and if so "
            f"delete {path} and run this again"
        ) from error
    except LockHeldError as error:
        if error.owner and error.job_goes_on:
            raise JobGoesOnError(output, error.owner) from error
        raise BroetchenError(
            f"{output}: another build is at work there ({error.owner or 'it does not say which process'}); wait until "
            "it is done or stop it, or choose another --output"
        ) from error


def check_free(output: str, goes_on: Callable[[LockOwner], bool] = not_asked) -> None:
    """Checks that nobody holds the lock of `output`, and leaves all as it is.

    On `gs://` a lock that was left behind on another machine counts as held: one look does not tell the two apart.

    Args:
        output: a folder, local or ``gs://…``; other filesystems have no locks.
        goes_on: as for `hold_output`.

    Raises:
        JobGoesOnError: the lock is that of a job that has not ended.
        BroetchenError: another process has it.
    """
    path = storage.join(output, LOCK_FILE)
    with _told(output, path):
        if storage.is_local(output):
            _check_file_is_free(path, goes_on)
        elif storage.scheme(output) == "gs" and storage.exists(path):
            owner = read_owner(storage.read_bytes(path))
            _check_job_has_ended(owner, goes_on)
            if owner and not owner.job and owner.runs() is not False:
                raise LockHeldError(owner)


def _check_file_is_free(path: str, goes_on: Callable[[LockOwner], bool]) -> None:
    try:
        descriptor = open_own(path, make=False, advice=_THEIRS)
    except OSError:
        return  # There is none, or the build says why it cannot write there.
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        _check_job_has_ended(_owner_in(descriptor), goes_on)
    except BlockingIOError as error:
        owner = _owner_in(descriptor)
        raise LockHeldError(owner, job_goes_on=knows_job_to_go_on(owner, goes_on)) from error
    finally:
        os.close(descriptor)


def check_token(output: str, token: str) -> None:
    """Checks that nobody has taken the lock of `output` over, by one read of it.

    Args:
        output: a folder, local or ``gs://…``; other filesystems have no locks.
        token: of `HeldLock.token`.

    Raises:
        BroetchenError: somebody has, or it cannot be read.
    """
    if not storage.is_local(output) and storage.scheme(output) != "gs":
        return
    path = storage.join(output, LOCK_FILE)
    owner = _owner_at(path)
    if owner is None or owner.token != token:
        raise BroetchenError(
            f"{output}: another build has taken over there, or somebody has deleted {path}; what this one has built is "
            "left to it: wait for the other build, or stop it and run this again"
        )


@contextlib.contextmanager
def _hold_file(folder: str, path: str, owner: LockOwner, goes_on: Callable[[LockOwner], bool]) -> Iterator[HeldLock]:
    descriptor = _take_file(folder, path, goes_on)
    if descriptor is None:
        yield HeldLock()
        return

    def write(owner: LockOwner) -> None:
        # In this order, as a process that is killed in between must not leave a lock that names no job.
        content = to_json(owner).encode()
        os.pwrite(descriptor, content, 0)
        os.ftruncate(descriptor, len(content))

    def rewrite(owner: LockOwner) -> None:
        try:
            write(owner)
        except OSError as error:  # Its service also knows the job by the name that the lock has had before.
            _LOGGER.warning("%s: not written (%s)", path, error)

    held = HeldLock()
    try:
        # On a disk that is full the lock holds as well, and only does not say whose it is.
        try:
            write(owner)
            held = HeldLock(owner, rewrite)
        except OSError:
            os.ftruncate(descriptor, 0)
        yield held
    finally:
        # Before it is let go of: afterwards it may be another's.
        with contextlib.suppress(OSError):
            if not held.kept and is_at(descriptor, path):
                os.unlink(path)
        os.close(descriptor)


def _take_file(folder: str, path: str, goes_on: Callable[[LockOwner], bool]) -> int | None:
    """The descriptor of the locked file; None where nothing can be written, or the filesystem has no locks."""
    while True:
        try:
            os.makedirs(folder, exist_ok=True)
            descriptor = open_own(path, advice=_THEIRS)
        except (OSError, BroetchenError) as error:
            if not os.access(folder, os.W_OK | os.X_OK) or not os.path.isdir(folder):
                return None  # The build says so better, and a finished output needs no lock.
            if isinstance(error, BroetchenError):
                raise
            reason, advice = reason_and_advice(error)
            raise BroetchenError(f"{path}: cannot be written ({reason}); {advice}") from error
        try:
            if not try_lock(descriptor):
                owner = _owner_in(descriptor)
                raise LockHeldError(owner, job_goes_on=knows_job_to_go_on(owner, goes_on))
            if is_at(descriptor, path):
                _check_job_has_ended(_owner_in(descriptor), goes_on)
                return descriptor
            os.close(descriptor)  # Its holder has deleted it meanwhile; the next one is another file.
        except (LockHeldError, CannotTellError):
            os.close(descriptor)
            raise
        except OSError as error:
            os.close(descriptor)
            if error.errno not in NO_LOCKS:
                raise
            with contextlib.suppress(OSError):
                os.unlink(path)
            _LOGGER.warning("%s: its filesystem has no locks; make sure that only one build writes there", folder)
            return None


def _owner_at(path: str) -> LockOwner | None:
    if not storage.is_local(path):
        content = read_object(path)
        return read_owner(content) if content else None
    return read_owner(storage.read_bytes(path)) if storage.exists(path) else None


def _owner_in(descriptor: int) -> LockOwner | None:
    return read_owner(os.pread(descriptor, os.fstat(descriptor).st_size, 0))


def _check_job_has_ended(owner: LockOwner | None, goes_on: Callable[[LockOwner], bool]) -> None:
    """A process lets go of its lock as it dies, and the job that it has started goes on."""
    if owner and owner.job and goes_on(owner):
        raise LockHeldError(owner, job_goes_on=True)


def _lost(output: str) -> BroetchenError:
    return BroetchenError(
        f"{output}: another build has taken it over, since this one had not answered for too long, as when its machine "
        "was asleep; wait for the other build, or stop it and run this again"
    )
