"""A lock in a bucket: its owner keeps it, or is told that it is lost, and nobody takes or deletes another's."""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from apache_beam.io.filesystems import FileSystems
from google.auth.exceptions import RefreshError

from tests.support.services.fault_proxy import fault_proxy
from tests.support.services.gcs_requests import Requests, answer, gcs_requests
from transforms.coders import to_json
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.locks.gcs import Timing, hold_object
from transforms.locks.held import LockHeldError
from transforms.locks.owner import LockOwner, this_process

__all__ = ["gcs_requests"]

TIMING = Timing(renew_s=60, stale_s=3, look_s=1)
BUSY = Timing(renew_s=0.005, stale_s=30, look_s=1)
QUICK, PATIENT = Timing(renew_s=0.02, stale_s=0.2, look_s=0.02), Timing(renew_s=0.02, stale_s=30, look_s=0.02)


def elsewhere() -> LockOwner:
    """A process of which this machine cannot tell whether it runs."""
    return dataclasses.replace(this_process(), host="another-host", system="another boot")


def dead() -> LockOwner:
    """A process of this machine that runs no more: its number is another's by now."""
    return dataclasses.replace(this_process(), started="1")


def content(owner: LockOwner) -> bytes:
    return to_json(owner).encode()


@pytest.fixture
def lock(gcs_prefix: str) -> str:
    return f"{gcs_prefix}/.broetchen.lock"


@pytest.fixture
def not_lost() -> Iterator[Callable[[], None]]:
    lost: list[bool] = []
    yield lambda: lost.append(True)
    assert not lost


class Others:
    """Another process that reads and changes the lock."""

    def __init__(self, path: str, sent: Requests) -> None:
        bucket, _, self._name = path.removeprefix("gs://").partition("/")
        filesystem: Any = FileSystems.get_filesystem(path)
        self._bucket = filesystem._gcsIO().client.bucket(bucket)
        self._sent = sent

    def write(self, data: bytes) -> None:
        with self._sent.of_others():
            self._bucket.blob(self._name).upload_from_string(data)

    def renew(self) -> None:
        with self._sent.of_others():
            blob = self._bucket.blob(self._name)
            blob.metadata = {"renewals": "another"}
            blob.patch()

    def delete(self) -> None:
        with self._sent.of_others():
            self._bucket.blob(self._name).delete()

    def found(self) -> Any:
        """The store's description of the object; None where there is none."""
        with self._sent.of_others():
            return self._bucket.get_blob(self._name)

    def content(self) -> bytes:
        with self._sent.of_others():
            data: bytes = self._bucket.blob(self._name).download_as_bytes()
            return data


@pytest.fixture
def others(lock: str, gcs_requests: Requests) -> Others:
    return Others(lock, gcs_requests)


class Clock:
    """A clock on which time passes only in a sleep; `meanwhile` has the acts during each, in turn."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.meanwhile: dict[int, Callable[[], None]] = {}

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert len(self.slept) < 100, "it waits for ever"
        self.now += seconds
        self.slept.append(seconds)
        self.meanwhile.get(len(self.slept), lambda: None)()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("transforms.locks.gcs.time", clock)
    return clock


def refused_by(lock: str, timing: Timing = TIMING) -> LockOwner | None:
    """The owner of the lock, as another process that wants it is told."""
    with pytest.raises(LockHeldError) as error, hold_object(lock, this_process(), timing, lambda: None):
        pytest.fail("two hold it")
    assert str(error.value) == str(error.value.owner)
    return error.value.owner


def renewing() -> threading.Thread:
    """The thread that renews the lock."""
    (found,) = [thread for thread in threading.enumerate() if thread.name == "lock"]
    return found


# Taking it.


def test_a_lock_that_is_free_is_taken_by_one_request(
    lock: str, gcs_requests: Requests, others: Others, clock: Clock, not_lost: Callable[[], None]
) -> None:
    owner = this_process()
    with hold_object(lock, owner, TIMING, not_lost):
        assert others.content() == content(owner)
        assert others.found().content_type == "application/json"
        assert gcs_requests.kinds(lock) == ["write"]
    assert others.found() is None
    assert gcs_requests.kinds(lock) == ["write", "delete"]
    assert clock.slept == []


@pytest.mark.usefixtures("clock")
def test_a_lock_that_is_given_back_as_one_asks_for_it_is_taken(
    lock: str, gcs_requests: Requests, others: Others, not_lost: Callable[[], None]
) -> None:
    owner = this_process()
    others.write(content(elsewhere()))
    gcs_requests.before("look", others.delete)
    with hold_object(lock, owner, TIMING, not_lost):
        assert others.content() == content(owner)
        assert gcs_requests.kinds(lock) == ["write", "look", "write"]


def test_a_lock_that_somebody_else_gets_first_is_theirs(
    lock: str, gcs_requests: Requests, others: Others, clock: Clock
) -> None:
    others.write(content(elsewhere()))
    quicker = this_process()
    gcs_requests.before("look", others.delete)
    gcs_requests.before("write", lambda: None)
    gcs_requests.before("write", lambda: others.write(content(quicker)))
    assert refused_by(lock) == quicker
    assert others.content() == content(quicker)
    assert clock.slept == []


def test_the_lock_of_a_process_that_runs_here_is_its_at_once(
    lock: str, gcs_requests: Requests, others: Others, clock: Clock
) -> None:
    holder = this_process()
    others.write(content(holder))
    before = others.found()
    assert refused_by(lock) == holder
    assert clock.slept == []
    assert gcs_requests.kinds(lock) == ["write", "look", "read"]
    assert (others.found().generation, others.found().metageneration) == (before.generation, before.metageneration)
    # Its owner is read from the very version that was looked at.
    assert gcs_requests.of(lock)[-1].asked["generation"] == str(before.generation)


def test_the_lock_of_a_process_that_died_here_is_taken_over_at_once(
    lock: str,
    gcs_requests: Requests,
    others: Others,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    not_lost: Callable[[], None],
) -> None:
    caplog.set_level("INFO", "transforms.locks.gcs")
    owner = this_process()
    others.write(content(dead()))
    with hold_object(lock, owner, TIMING, not_lost):
        assert others.content() == content(owner)
        assert gcs_requests.kinds(lock) == ["write", "look", "read", "write"]
    assert others.found() is None
    assert clock.slept == []
    assert caplog.messages == []


@pytest.mark.parametrize("holder", [elsewhere(), None])
def test_a_lock_that_nobody_renews_is_taken_over_after_a_while(
    holder: LockOwner | None,
    lock: str,
    others: Others,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    not_lost: Callable[[], None],
) -> None:
    caplog.set_level("INFO", "transforms.locks.gcs")
    owner = this_process()
    others.write(content(holder) if holder else b"half of")
    with hold_object(lock, owner, TIMING, not_lost):
        assert others.content() == content(owner)
    assert clock.slept == [1, 1, 1, 1]  # It has to be silent for more than three seconds.
    who = f"process {os.getpid()} on another-host, since {holder.since}" if holder else "another process"
    expected = f"waiting up to 3 s to see whether {who} still builds there"
    assert caplog.record_tuples == [("transforms.locks.gcs", logging.INFO, expected)]


@pytest.mark.parametrize("how", ["renewed", "made again"])
def test_a_lock_that_changes_while_one_waits_is_held(lock: str, others: Others, clock: Clock, how: str) -> None:
    holder = elsewhere()
    others.write(content(holder))
    clock.meanwhile = {3: others.renew if how == "renewed" else lambda: others.write(content(holder))}
    assert refused_by(lock) == holder
    assert clock.slept == [1, 1, 1]
    assert others.content() == content(holder)


def test_a_lock_that_its_holder_gives_back_while_one_waits_is_taken(
    lock: str, others: Others, clock: Clock, not_lost: Callable[[], None]
) -> None:
    others.write(content(elsewhere()))
    clock.meanwhile = {2: others.delete}
    with hold_object(lock, this_process(), TIMING, not_lost):
        pass
    assert clock.slept == [1, 1]


def test_a_lock_that_is_given_back_before_its_owner_is_read_is_taken(
    lock: str, gcs_requests: Requests, others: Others, clock: Clock, not_lost: Callable[[], None]
) -> None:
    others.write(content(elsewhere()))
    gcs_requests.before("read", others.delete)
    with hold_object(lock, this_process(), TIMING, not_lost):
        pass
    assert clock.slept == [1]


@pytest.mark.parametrize("how", ["renewed", "taken over"])
def test_of_a_holder_that_moves_at_the_last_moment_the_lock_is_not_taken(
    lock: str,
    gcs_requests: Requests,
    others: Others,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    not_lost: Callable[[], None],
    how: str,
) -> None:
    """One more look tells who it is, and from then it has to be silent as long again."""
    caplog.set_level("INFO", "transforms.locks.gcs")
    owner, holder, quicker = this_process(), elsewhere(), elsewhere()
    others.write(content(holder))
    gcs_requests.before("write", lambda: None)
    gcs_requests.before("write", others.renew if how == "renewed" else lambda: others.write(content(quicker)))
    seen: list[bytes] = []
    clock.meanwhile = {5: lambda: seen.append(others.content())}
    with hold_object(lock, owner, TIMING, not_lost):
        assert others.content() == content(owner)
    assert seen == [content(holder if how == "renewed" else quicker)]
    assert clock.slept == [1] * 8
    assert len(caplog.messages) == 2


def test_a_lock_that_this_process_made_without_hearing_of_it_is_its_own(
    lock: str, gcs_requests: Requests, others: Others, clock: Clock, not_lost: Callable[[], None]
) -> None:
    owner = this_process()
    others.write(content(owner))
    with hold_object(lock, owner, BUSY, not_lost):
        gcs_requests.wait(lock, 2, what="patch")
    assert others.found() is None
    assert clock.slept == []
    assert gcs_requests.kinds(lock)[:4] == ["write", "look", "read", "patch"]


def test_of_several_that_take_over_one_wins(lock: str, not_lost: Callable[[], None]) -> None:
    storage.write_bytes(lock, content(elsewhere()))
    all_have_tried = threading.Barrier(4, timeout=60)

    def take(_: int) -> str:
        try:
            with hold_object(lock, this_process(), QUICK, not_lost):
                all_have_tried.wait()
                return "held"
        except LockHeldError:
            all_have_tried.wait()
            return "refused"

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(take, range(4))) == ["held", "refused", "refused", "refused"]
    assert not storage.exists(lock)


@pytest.mark.parametrize("status", [401, 403])
def test_who_may_not_write_there_does_no_harm_and_needs_no_lock(
    lock: str, gcs_requests: Requests, not_lost: Callable[[], None], status: int
) -> None:
    gcs_requests.before("write", lambda: answer(status))
    with hold_object(lock, this_process(), BUSY, not_lost):
        assert not any(thread.name == "lock" for thread in threading.enumerate())
    assert gcs_requests.kinds(lock) == ["write"]


def no_network() -> None:
    raise OSError("Could not find a suitable TLS CA certificate bundle")


def no_credentials() -> None:
    raise RefreshError("Reauthentication is needed")


def no_such_bucket() -> requests.Response:
    return answer(404)


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (no_such_bucket, "HTTP 404 Not Found); check the path, and that the bucket exists"),
        (no_network, "Could not find a suitable TLS CA certificate bundle); try it again"),
        (
            no_credentials,
            "Reauthentication is needed); sign in to the object store (for gs://: "
            "gcloud auth application-default login)",
        ),
    ],
)
def test_a_store_that_cannot_be_reached_is_an_error(
    lock: str, gcs_requests: Requests, not_lost: Callable[[], None], act: Callable[[], Any], reason: str
) -> None:
    gcs_requests.before("write", act)
    with pytest.raises(BroetchenError) as error, hold_object(lock, this_process(), TIMING, not_lost):
        pytest.fail("held")
    assert str(error.value) == f"{lock}: cannot be written ({reason}"


# Keeping it.


def test_it_is_renewed_until_the_end(
    lock: str, gcs_requests: Requests, others: Others, not_lost: Callable[[], None]
) -> None:
    with hold_object(lock, this_process(), BUSY, not_lost):
        thread, made = renewing(), others.found().generation
        gcs_requests.wait(lock, 3, what="patch")
        assert thread.daemon, "a process that ends does not wait for it"
        assert others.found().generation == made, "a renewal leaves no older versions behind"
    assert not thread.is_alive()
    patches = [one for one in gcs_requests.of(lock) if one.what == "patch"]
    assert [one.changes for one in patches[:3]] == [{"metadata": {"renewals": str(count)}} for count in (1, 2, 3)]
    assert {one.asked["ifGenerationMatch"] for one in patches} == {str(made)}
    versions = [int(one.asked["ifMetagenerationMatch"]) for one in patches]
    assert versions == list(range(versions[0], versions[0] + len(patches)))


def test_no_answer_is_waited_for_until_the_lock_is_stale(
    lock: str, gcs_requests: Requests, others: Others, not_lost: Callable[[], None]
) -> None:
    others.write(content(dead()))
    with hold_object(lock, this_process(), BUSY, not_lost):
        gcs_requests.wait(lock, 1, what="patch")
    waits = {one.what: one.timeout for one in gcs_requests.of(lock) if one.what != "look"}
    assert waits == dict.fromkeys(["write", "read", "patch", "delete"], 10.0)


def test_by_default_five_renewals_may_fail_before_it_is_stale(
    lock: str, gcs_requests: Requests, not_lost: Callable[[], None]
) -> None:
    timing = Timing()
    assert timing == Timing(renew_s=15, stale_s=90, look_s=1)
    with hold_object(lock, this_process(), timing, not_lost):
        assert [one.timeout for one in gcs_requests.of(lock)] == [30]


def test_a_renewal_that_fails_is_no_loss(
    lock: str,
    gcs_requests: Requests,
    others: Others,
    caplog: pytest.LogCaptureFixture,
    not_lost: Callable[[], None],
) -> None:
    caplog.set_level("DEBUG", "transforms.locks.gcs")
    gcs_requests.before("patch", no_credentials)
    with hold_object(lock, this_process(), BUSY, not_lost):
        gcs_requests.wait(lock, 2, what="patch")
    assert caplog.record_tuples == [
        ("transforms.locks.gcs", logging.DEBUG, f"{lock}: not renewed: Reauthentication is needed")
    ]
    assert others.found() is None


def test_a_renewal_whose_answer_was_lost_is_one(
    lock: str, gcs_requests: Requests, others: Others, not_lost: Callable[[], None]
) -> None:
    """The client asks again, and is refused, since the store has done it already."""
    gcs_requests.before("patch", others.renew)
    with hold_object(lock, this_process(), BUSY, not_lost):
        gcs_requests.wait(lock, 2, what="patch")
    done = [(one.what, one.status) for one in gcs_requests.of(lock)][:4]
    assert done == [("write", 200), ("patch", 412), ("look", 200), ("patch", 200)]
    assert others.found() is None


def deleted(others: Others, sent: Requests) -> list[tuple[str, int]]:
    def delete() -> requests.Response:
        others.delete()
        return answer(404)

    sent.before("patch", delete)
    return [("patch", 404)]


def replaced(others: Others, sent: Requests) -> list[tuple[str, int]]:
    sent.before("patch", lambda: others.write(b"another's"))
    return [("patch", 412), ("look", 200)]


def renewed_and_deleted(others: Others, sent: Requests) -> list[tuple[str, int]]:
    sent.before("patch", others.renew)
    sent.before("look", others.delete)
    return [("patch", 412), ("look", 404)]


@pytest.mark.parametrize("happens", [deleted, replaced, renewed_and_deleted])
def test_who_has_lost_it_is_told_once(
    lock: str,
    gcs_requests: Requests,
    others: Others,
    happens: Callable[[Others, Requests], list[tuple[str, int]]],
) -> None:
    told: list[str] = []
    expected = happens(others, gcs_requests)
    with hold_object(lock, this_process(), BUSY, lambda: told.append(threading.current_thread().name)):
        renewing().join(10)
        assert told == ["lock"]
        assert [(one.what, one.status) for one in gcs_requests.of(lock)] == [("write", 200), *expected]
        assert not any(thread.name == "lock" for thread in threading.enumerate()), "it goes on to ask"
    if happens is replaced:
        assert others.content() == b"another's"
        assert others.found().metadata is None
    else:
        assert others.found() is None


@pytest.mark.slow
def test_it_is_held_through_faults(lock: str, monkeypatch: pytest.MonkeyPatch, not_lost: Callable[[], None]) -> None:
    with fault_proxy(os.environ["STORAGE_EMULATOR_HOST"], seed=3, rate=0.3) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.address)
        for _ in range(2):
            with hold_object(lock, this_process(), PATIENT, not_lost):
                seen = proxy.requests
                while proxy.requests < seen + 8:
                    threading.Event().wait(0.01)
        assert proxy.faults
    monkeypatch.undo()
    assert not storage.exists(lock)


# Giving it back.


def test_a_renewal_ends_before_the_lock_is_given_back(
    lock: str, gcs_requests: Requests, monkeypatch: pytest.MonkeyPatch, not_lost: Callable[[], None]
) -> None:
    begun, may_go_on, join = threading.Event(), threading.Event(), threading.Thread.join

    def begin() -> None:
        begun.set()
        may_go_on.wait(10)

    def joined(thread: threading.Thread, timeout: float | None = None) -> None:
        may_go_on.set()
        join(thread, timeout)

    gcs_requests.before("patch", begin)
    monkeypatch.setattr(threading.Thread, "join", joined)
    with hold_object(lock, this_process(), BUSY, not_lost):
        assert begun.wait(10)
    assert gcs_requests.kinds(lock)[:2] == ["write", "patch"]
    assert gcs_requests.kinds(lock)[-1] == "delete"


def test_anothers_lock_is_not_deleted(lock: str, others: Others, not_lost: Callable[[], None]) -> None:
    with hold_object(lock, this_process(), TIMING, not_lost):
        others.write(b"another's")
    assert others.content() == b"another's"


@pytest.mark.parametrize("act", [no_such_bucket, no_network, no_credentials])
def test_a_lock_that_cannot_be_given_back_is_left_behind(
    lock: str, gcs_requests: Requests, others: Others, not_lost: Callable[[], None], act: Callable[[], Any]
) -> None:
    """The work is done, and the next build takes the lock over."""
    owner = this_process()
    gcs_requests.before("delete", act)
    with hold_object(lock, owner, TIMING, not_lost):
        pass
    assert others.content() == content(owner)
