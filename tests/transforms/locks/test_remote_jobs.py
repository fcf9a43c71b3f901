"""A lock that names a job which a service runs: its starter may be gone, and the job goes on."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from transforms.coders import to_json
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.locks.gcs import Timing
from transforms.locks.held import CannotTellError, JobGoesOnError
from transforms.locks.job import RemoteJob
from transforms.locks.output import LOCK_FILE, check_token, hold_output
from transforms.locks.owner import LockOwner, read_owner, this_process

JOB = RemoteJob("DataflowRunner", "", "p", "r", name="broetchen-1", job="2026-1", build="b")
NO_WAIT, PATIENT = Timing(renew_s=0.02, stale_s=0.2, look_s=0.02), Timing(renew_s=0.02, stale_s=600, look_s=0.02)

GoesOn = Callable[[LockOwner], bool]


@pytest.fixture(params=["folder", "bucket"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "folder" else request.getfixturevalue("gcs_prefix")


def path_of(output: str) -> str:
    return storage.join(output, LOCK_FILE)


def dead(job: RemoteJob = JOB) -> LockOwner:
    """A process of this machine that runs no more."""
    return dataclasses.replace(this_process(job), started="1")


def leave(output: str, owner: LockOwner) -> bytes:
    """Leaves the lock of a process that was killed; returns its content."""
    content = to_json(owner).encode()
    storage.write_bytes(path_of(output), content)
    return content


def answers(answer: bool, asked: list[LockOwner]) -> GoesOn:
    def goes_on(owner: LockOwner) -> bool:
        asked.append(owner)
        return answer

    return goes_on


def test_a_lock_names_the_job_and_then_what_its_service_calls_it(output: str) -> None:
    with hold_output(output, job=dataclasses.replace(JOB, job="")) as held:
        owner = read_owner(storage.read_bytes(path_of(output)))
        assert owner is not None
        assert owner.job == dataclasses.replace(JOB, job="")
        held.note(JOB)
        named = read_owner(storage.read_bytes(path_of(output)))
        assert named == dataclasses.replace(owner, job=JOB)
        assert held.token == owner.token
        check_token(output, owner.token)
    assert not storage.exists(path_of(output))


def test_a_shorter_name_leaves_nothing_of_a_longer_one(output: str) -> None:
    with hold_output(output, job=dataclasses.replace(JOB, job="x" * 100)) as held:
        held.note(JOB)
        owner = read_owner(storage.read_bytes(path_of(output)))
        assert owner is not None
        assert owner.job == JOB


@pytest.mark.parametrize("in_the_end", ["an error", "none"])
def test_a_lock_that_is_kept_outlives_its_holder(output: str, in_the_end: str) -> None:
    def work() -> None:
        with hold_output(output, job=JOB) as held:
            held.kept = True
            if in_the_end == "an error":
                raise ValueError("of the block")

    if in_the_end == "an error":
        with pytest.raises(ValueError, match="of the block"):
            work()
    else:
        work()
    owner = read_owner(storage.read_bytes(path_of(output)))
    assert owner is not None
    assert owner.job == JOB
    assert not any(thread.name == "lock" for thread in threading.enumerate())


def test_the_lock_of_a_job_that_goes_on_is_not_taken_over(output: str) -> None:
    left, asked = leave(output, dead()), list[LockOwner]()
    with pytest.raises(JobGoesOnError) as error, hold_output(output, NO_WAIT, goes_on=answers(True, asked)):
        pytest.fail("two build there")
    assert error.value.job == JOB
    assert str(error.value).startswith(
        f"{output}: the DataflowRunner job broetchen-1 (id 2026-1) of project p in r is at work there, which process "
    )
    assert storage.read_bytes(path_of(output)) == left
    assert {owner.job for owner in asked} == {JOB}


def test_the_lock_of_a_job_that_has_ended_is_taken_over(output: str) -> None:
    leave(output, dead())
    asked: list[LockOwner] = []
    with hold_output(output, NO_WAIT, goes_on=answers(False, asked)) as held:
        owner = read_owner(storage.read_bytes(path_of(output)))
        assert owner is not None
        assert (owner.job, owner.token) == (None, held.token)
    assert asked
    assert not storage.exists(path_of(output))


@pytest.mark.parametrize("job", [JOB, dataclasses.replace(JOB, job="")], ids=["known", "not known yet"])
def test_where_the_service_cannot_be_asked_the_lock_stays(output: str, job: RemoteJob) -> None:
    left = leave(output, dead(job))

    def goes_on(owner: LockOwner) -> bool:
        raise CannotTellError(job, "it is raining")

    with pytest.raises(BroetchenError) as error, hold_output(output, NO_WAIT, goes_on=goes_on):
        pytest.fail("held")
    assert str(error.value) == (
        f"{output}: {job} may still be at work there, and it is raining; look whether it has ended, and if so delete "
        f"{path_of(output)} and run this again"
    )
    assert storage.read_bytes(path_of(output)) == left


def test_who_has_no_service_to_ask_leaves_the_lock_alone(output: str) -> None:
    left = leave(output, dead())
    with pytest.raises(BroetchenError, match="and its service was not asked; look"), hold_output(output, NO_WAIT):
        pytest.fail("held")
    assert storage.read_bytes(path_of(output)) == left


def test_a_process_that_runs_holds_its_lock_whatever_became_of_its_job(output: str) -> None:
    with (
        hold_output(output, PATIENT, job=JOB),
        pytest.raises(BroetchenError, match="another build is at work there"),
        hold_output(output, PATIENT, goes_on=answers(False, [])),
    ):
        pytest.fail("two hold it")


def test_whoever_has_started_a_job_that_goes_on_is_not_waited_for(gcs_prefix: str) -> None:
    """The machine is another, and may be asleep: 90 seconds of silence would tell nothing."""
    leave(gcs_prefix, dataclasses.replace(this_process(JOB), system="another boot"))
    with pytest.raises(JobGoesOnError), hold_output(gcs_prefix, PATIENT, goes_on=answers(True, [])):
        pytest.fail("two build there")


def test_a_job_that_begins_while_one_waits_for_its_driver_is_seen(gcs_prefix: str) -> None:
    """The driver was silent for long enough, and has started its job just before it died."""
    leave(gcs_prefix, dataclasses.replace(this_process(dataclasses.replace(JOB, job="")), system="another boot"))
    with pytest.raises(JobGoesOnError), hold_output(gcs_prefix, NO_WAIT, goes_on=answers(True, [])):
        pytest.fail("two build there")


def test_a_name_in_a_lock_prints_on_one_line() -> None:
    assert str(RemoteJob("PortableRunner", "h:1\n\x1b[2J", name="a\nb")) == "the PortableRunner job a b at h:1 ?[2J"


def test_a_token_is_found_while_the_lock_is_written_over(output: str) -> None:
    """On `gs://` a reader has opened one version, which is gone when it reads."""
    with hold_output(output, job=JOB) as held:
        token = held.token
        assert token
        done = threading.Event()

        def write() -> None:
            while not done.is_set():
                held.note(JOB)
                time.sleep(0.05)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            for _ in range(20):
                check_token(output, token)
        finally:
            done.set()
            thread.join()
