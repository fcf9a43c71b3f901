"""A lock as its holder has it: its token, the job that it names, and whether it outlives the holder.

And a lock as another finds it: held by a process that runs, by a job that goes on, or by nobody knows what.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from transforms.errors import BroetchenError
from transforms.locks.job import RemoteJob
from transforms.locks.owner import LockOwner


class HeldLock:
    """A lock that this process holds, or the lack of one where there are none.

    Args:
        owner: as the lock names it; None where there is no lock, or it could not be written.
        write: puts another owner into it.
    """

    def __init__(self, owner: LockOwner | None = None, write: Callable[[LockOwner], None] = lambda _: None) -> None:
        self._owner, self._write = owner, write
        self.kept = False

    @property
    def token(self) -> str | None:
        """The content of the lock as long as nobody has taken it over; None where there is nothing to look at."""
        return self._owner.token if self._owner else None

    def note(self, job: RemoteJob) -> None:
        """Writes into the lock the service's name of the job, or as much as is known of it by now."""
        if self._owner:
            self._owner = dataclasses.replace(self._owner, job=job)
            self._write(self._owner)

    def keep(self) -> None:
        """Leaves the lock behind: its job goes on."""
        self.kept = True


class LockHeldError(Exception):
    """Somebody holds the lock.

    Attributes:
        owner: None where the lock does not say which.
        job_goes_on: whether its service says that its job has not ended.
    """

    def __init__(self, owner: LockOwner | None, *, job_goes_on: bool = False) -> None:
        self.owner, self.job_goes_on = owner, job_goes_on


class CannotTellError(Exception):
    """Whether the job of a lock has ended cannot be found out; the text says why, as a clause."""

    def __init__(self, job: RemoteJob, reason: str) -> None:
        super().__init__(reason)
        self.job = job


class JobGoesOnError(BroetchenError):
    """The lock of an output names a job that its service has not ended; `job` is that job."""

    def __init__(self, output: str, owner: LockOwner) -> None:
        self.job = owner.job or RemoteJob("")
        super().__init__(
            f"{output}: {self.job} is at work there, which {owner} has started; wait until it is done, or cancel it "
            "and run this again, or choose another --output"
        )


def not_asked(owner: LockOwner) -> bool:
    """Stands for a service that nobody asks.

    Raises:
        CannotTellError: always, where the owner has a job.
    """
    if owner.job:
        raise CannotTellError(owner.job, "its service was not asked")
    return False


def knows_job_to_go_on(owner: LockOwner | None, goes_on: Callable[[LockOwner], bool]) -> bool:
    """Whether the service of a lock's job, if it has one, says that the job has not ended; False where it cannot."""
    try:
        return bool(owner and owner.job and owner.job.job and goes_on(owner))
    except CannotTellError:
        return False
