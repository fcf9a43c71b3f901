"""A lock in Google Cloud Storage: an object that only one process can make, and that it renews while it runs.

The object is made under the precondition that there is none (`ifGenerationMatch=0`), and each renewal, takeover and
deletion names the generation and metageneration that it means, so the store decides between any two
(https://cloud.google.com/storage/docs/request-preconditions). A renewal is a change of metadata, which leaves no older
versions behind. No clock is compared with another machine's: a lock counts as left behind once it has not changed for
`stale_s` of one's own monotonic clock, or at once where its process was on this machine and runs no more.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from transforms.coders import to_json
from transforms.errors import BroetchenError
from transforms.files.errors import explain_file_errors, reason_and_advice
from transforms.files.gcs_objects import gcs_bucket
from transforms.locks.held import HeldLock, LockHeldError, knows_job_to_go_on, not_asked
from transforms.locks.owner import LockOwner, read_owner

_LOGGER = logging.getLogger(__name__)
_MIME_TYPE = "application/json"


@dataclasses.dataclass(frozen=True)
class Timing:
    """The seconds between renewals of a lock, of the silence after which it is left behind, and between looks."""

    renew_s: float = 15.0
    stale_s: float = 90.0
    look_s: float = 1.0


@contextlib.contextmanager
def hold_object(
    path: str,
    owner: LockOwner,
    timing: Timing,
    on_lost: Callable[[], None],
    goes_on: Callable[[LockOwner], bool] = not_asked,
) -> Iterator[HeldLock]:
    """Holds the lock `path`, ``gs://…``, during the block, and deletes it at the end.

    Where the account may not write there, the block runs without a lock: it could not do any harm.

    Args:
        path: of the object.
        owner: this process.
        timing: the same for all that use the lock.
        on_lost: called in another thread, once, if another process has taken the lock over: this one had been
            silent for `stale_s`, as when its machine was asleep.
        goes_on: asks the service whether the job that a lock names has not ended.

    Raises:
        LockHeldError: another process holds it, or a job that has not ended.
        CannotTellError: from `goes_on`.
        BroetchenError: the store cannot be reached.
    """
    from google.api_core.exceptions import Forbidden, GoogleAPIError, Unauthorized
    from google.auth.exceptions import GoogleAuthError

    try:
        lock = _Object(path, owner, timing, goes_on)
        lock.take()
    except (Forbidden, Unauthorized):
        yield HeldLock()
        return
    except (GoogleAPIError, GoogleAuthError, OSError) as error:
        reason, advice = reason_and_advice(error)
        raise BroetchenError(f"{path}: cannot be written ({reason}); {advice}") from error
    done = threading.Event()

    def renew() -> None:
        while not done.wait(timing.renew_s):
            try:
                kept = lock.renew()
            except Exception as error:  # whatever it is, the next renewal may succeed, and the store knows the truth
                _LOGGER.debug("%s: not renewed: %s", path, error)
                continue
            if not kept:
                on_lost()
                return

    def write(owner: LockOwner) -> None:
        try:
            kept = lock.rewrite(owner)
        except Exception as error:  # Its service also knows the job by the name that the lock has had before.
            _LOGGER.warning("%s: not written (%s)", path, error)
        else:
            if not kept:
                on_lost()

    held = HeldLock(owner, write)
    thread = threading.Thread(target=renew, name="lock", daemon=True)
    thread.start()
    try:
        yield held
    finally:
        done.set()
        thread.join()
        if not held.kept:
            lock.give_back()


def read_object(path: str) -> bytes | None:
    """The lock `path` as it is at this moment; None where there is none.

    By one request, which names no version: between two, its holder may write it over.

    Raises:
        BroetchenError: the store cannot be reached.
    """
    from google.api_core.exceptions import NotFound

    with explain_file_errors(path, "read"):
        try:
            content: bytes = _blob(path).download_as_bytes()
        except NotFound:
            return None
        return content


def _blob(path: str) -> Any:
    bucket, name = gcs_bucket(path)
    return bucket.blob(name)


class _Object:
    """The lock's object, as this process knows it."""

    def __init__(
        self, path: str, owner: LockOwner, timing: Timing, goes_on: Callable[[LockOwner], bool] = not_asked
    ) -> None:
        blob = _blob(path)
        self._bucket, self._name = blob.bucket, blob.name
        self._owner, self._timing, self._goes_on = owner, timing, goes_on
        self._asked = {"timeout": timing.stale_s / 3}
        self._mine: Any = None
        self._renewals = 0
        self._one_at_a_time = threading.Lock()

    def take(self) -> None:
        if self._write(0, None):
            return
        seen, since = None, time.monotonic()
        while True:
            blob = self._bucket.get_blob(self._name)
            if blob is None:
                if self._write(0, None):
                    return
                continue
            holder = self._holder(blob)
            if holder is not None and holder.token == self._owner.token:
                self._mine = blob  # This process made it, and the answer was lost.
                return
            runs = holder.runs() if holder else None
            version = (blob.generation, blob.metageneration)
            if runs or (seen and version != seen):
                raise LockHeldError(holder, job_goes_on=knows_job_to_go_on(holder, self._goes_on))
            if seen is None:
                # If the job goes on, there is no need to wait for the process that started it.
                if knows_job_to_go_on(holder, self._goes_on):
                    raise LockHeldError(holder, job_goes_on=True)
                seen = version
                if runs is None:
                    _LOGGER.info(
                        "waiting up to %.0f s to see whether %s still builds there",
                        self._timing.stale_s,
                        holder or "another process",
                    )
            if runs is False or time.monotonic() - since > self._timing.stale_s:
                if holder and holder.job and self._goes_on(holder):
                    raise LockHeldError(holder, job_goes_on=True)
                if self._write(*version):
                    return
                # Somebody was quicker; the next look tells who.
                seen, since = None, time.monotonic()
                continue
            time.sleep(self._timing.look_s)

    def _holder(self, blob: Any) -> LockOwner | None:
        from google.api_core.exceptions import NotFound

        try:
            # By an object of its own, as a download overwrites the version that is known.
            content = self._bucket.blob(self._name, generation=blob.generation).download_as_bytes(**self._asked)
            return read_owner(content)
        except NotFound:
            return None

    def _write(self, generation: int, metageneration: int | None) -> bool:
        """Writes the object in place of that version, generation 0 being none; False where another is there."""
        from google.api_core.exceptions import PreconditionFailed

        blob = self._bucket.blob(self._name)
        try:
            blob.upload_from_string(
                to_json(self._owner),
                _MIME_TYPE,
                if_generation_match=generation,
                if_metageneration_match=metageneration,
                **self._asked,
            )
        except PreconditionFailed:
            return False
        self._mine = blob
        return True

    def renew(self) -> bool:
        """Changes the object; False where it is another process's by now."""
        with self._one_at_a_time:
            return self._renew()

    def rewrite(self, owner: LockOwner) -> bool:
        """Writes another owner of the same token into it; False where it is another process's by now."""
        with self._one_at_a_time:
            self._owner = owner
            # A renewal first, which tells the version, even if the answer to the last one was lost.
            return self._renew() and self._write(self._mine.generation, self._mine.metageneration)

    def _renew(self) -> bool:
        from google.api_core.exceptions import NotFound, PreconditionFailed

        self._renewals += 1
        self._mine.metadata = {"renewals": str(self._renewals)}
        try:
            self._mine.patch(
                if_generation_match=self._mine.generation,
                if_metageneration_match=self._mine.metageneration,
                **self._asked,
            )
        except NotFound:
            return False
        except PreconditionFailed:
            # This very request may have been done before its answer was lost: then the generation is still ours.
            blob = self._bucket.get_blob(self._name)
            if blob is None or blob.generation != self._mine.generation:
                return False
            self._mine = blob
        return True

    def give_back(self) -> None:
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError

        # Gone, or another's; and where the store is out of reach, the lock is left behind and will be taken over.
        with contextlib.suppress(GoogleAPIError, GoogleAuthError, OSError):
            self._mine.delete(if_generation_match=self._mine.generation, **self._asked)
