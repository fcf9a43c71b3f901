"""Jobs that a service runs: their names, and their fate when the process that has started them is stopped.

Such a job goes on without its driver. So an interrupt cancels it and waits for its end; and where it may go on, for
whatever reason, the lock of its output stays, which names it (`transforms.locks`).
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import logging
import shlex
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, PortableOptions, StandardOptions

from beam_pipelines.runners.failures import find_error, was_interrupted
from beam_pipelines.runners.options import RUNNERS_WITH_MORE_OPTIONS, runner_name
from beam_pipelines.runners.remote.services import (
    DATAFLOW,
    ENDED,
    IN_THIS_PROCESS,
    Service,
    dataflow_of,
    job_endpoint,
    service_of,
)
from beam_pipelines.runners.service_errors import of_dataflow_job, place_of
from transforms.errors import BroetchenError
from transforms.locks.held import CannotTellError, HeldLock
from transforms.locks.job import RemoteJob

_LOGGER = logging.getLogger(__name__)

# Beam gives up the connection to a job that still runs after this time, by default after five minutes
# (https://github.com/apache/beam/issues/35867).
_CONNECTED_S = 8 * 7 * 86400
_POLL_S = 2.0
_CANCELLED_S = 600.0
_UNANSWERED_S = 600.0
# A job service is one process on one machine: if it has not answered by then, it hardly will.
_SERVICE_UNANSWERED_S = 20.0
_LOST_S, _LOOK_S = 15.0, 5.0


def remote_defaults(arguments: Sequence[str], output: str | None) -> list[str]:
    """Beam's options for a job that a service runs, where `arguments` do not have them; none for a local job.

    * ``--job_name``: of a job on Dataflow it is the same for every build of `output`, as Dataflow runs only one job of
      a name at a time. Job services do not look at names, and theirs tells this job from the others.
    * ``--job_server_timeout``: weeks.

    Args:
        arguments: Beam's options as given.
        output: the folder that the job writes to; None where it only reads.
    """
    runner = remote_runner(arguments)
    if runner is None:
        return []
    given = {argument.partition("=")[0].replace("-", "_") for argument in arguments}
    options = []
    if "__job_name" not in given:
        parts = ["broetchen", hashlib.sha256(output.encode()).hexdigest()[:20] if output else "job"]
        if runner != DATAFLOW or not output:
            parts.append(uuid.uuid4().hex[:12])
        options.append(f"--job_name={'-'.join(parts)}")
    if runner != DATAFLOW and "__job_server_timeout" not in given:
        options.append(f"--job_server_timeout={_CONNECTED_S}")
    return options


def remote_runner(arguments: Sequence[str]) -> str | None:
    """The runner by its full name, if it hands the job to a service; None where this process runs it."""
    runner = runner_name(arguments)
    if runner == DATAFLOW:
        return runner
    if runner not in RUNNERS_WITH_MORE_OPTIONS:
        return None
    return None if job_endpoint(arguments) == IN_THIS_PROCESS else runner


def describe_job(runner: str, options: PipelineOptions, build: str) -> RemoteJob:
    """The job that is about to be submitted.

    Args:
        runner: by its full name.
        options: of the job, with our defaults.
        build: a SHA-256 that two builds share if they build the same.
    """
    google = options.view_as(GoogleCloudOptions)
    name = google.job_name or ""
    if runner == DATAFLOW:
        return RemoteJob(
            runner, google.dataflow_endpoint, google.project or "", google.region or "", name=name, build=build
        )
    return RemoteJob(runner, options.view_as(PortableOptions).job_endpoint or "", name=name, build=build)


def run_remote(
    pipeline: beam.Pipeline,
    job: RemoteJob,
    lock: HeldLock,
    arguments: Sequence[str],
    found: Callable[[RemoteJob], None] = lambda _: None,
) -> None:
    """Submits a job and waits for its end. SIGTERM counts as Ctrl-C does.

    Args:
        pipeline: its options name the runner.
        job: of `describe_job`.
        lock: of the output; it stays where the job is not known to have ended.
        arguments: Beam's options as given.
        found: called with the job once its id is known.

    Raises:
        KeyboardInterrupt: the user stopped it; the job has ended.
        BroetchenError: the job goes on.
        Exception: it failed, and has ended.
    """
    with _terminated_as_interrupted():
        run = _Run(job, lock, arguments, found)
        failure: BaseException | None = None
        try:
            run.run(pipeline)
        except BaseException as error:
            failure = error
        # Beyond the handler, as a message about the job is no error in the course of another.
        if was_interrupted(failure):
            run.cancel()
            raise KeyboardInterrupt from failure
        if failure is not None:
            raise failure


def follow(job: RemoteJob, arguments: Sequence[str]) -> None:
    """Waits for the end of a job that another process has started.

    Raises:
        BroetchenError: it did not succeed, or its service does not answer: Dataflow for ten minutes, another for some
            20 seconds.
        KeyboardInterrupt: the user stopped it; the job goes on.
    """
    _LOGGER.warning("%s builds the same there already: it is followed, and no other is started", job)
    try:
        _Run(job, HeldLock(), arguments).follow()
    except KeyboardInterrupt:
        _LOGGER.warning("%s goes on", job)
        raise


class _Run:
    """One job, from before it is submitted to its end."""

    def __init__(
        self,
        job: RemoteJob,
        lock: HeldLock,
        arguments: Sequence[str],
        found: Callable[[RemoteJob], None] = lambda _: None,
    ) -> None:
        self.job, self._lock, self._arguments, self._tell = job, lock, arguments, found
        self._before: set[str] = set()
        self._result: Any = None

    def run(self, pipeline: beam.Pipeline) -> None:
        """Submits it and waits for its end.

        Raises:
            BroetchenError: it goes on, or did not succeed.
            Exception: it failed, and has ended.
        """
        try:
            result = self._submit(pipeline)
            if not pipeline.options.view_as(StandardOptions).no_wait_until_finish:
                self._end(result.wait_until_finish() if self.job.runner == DATAFLOW else self._wait(result))
                return
        except Exception as error:
            if was_interrupted(error) or self.has_ended() or not self.job.job:
                raise
            _LOGGER.warning("the connection to %s is lost (%s); it is looked for", self.job, type(error).__name__)
            self.follow()
        else:
            raise self._goes_on("--no_wait_until_finish was given")

    def _wait(self, result: Any) -> str:
        """The state in which the job of a job service ends.

        Beam's connection to it asks for no signs of life: where the machine has gone without a word, it lasts for ever.

        Raises:
            ConnectionError: nobody answers.
            Exception: the job failed.
        """
        waited: concurrent.futures.Future[str] = concurrent.futures.Future()

        def wait() -> None:
            try:
                waited.set_result(result.wait_until_finish())
            except BaseException as error:
                waited.set_exception(error)

        threading.Thread(target=wait, name="wait_until_finish", daemon=True).start()
        answered = time.monotonic()
        while True:
            if concurrent.futures.wait([waited], _LOOK_S).done:
                return waited.result()
            try:
                self._service().state(self.job.job)
                answered = time.monotonic()
            except CannotTellError as error:
                if time.monotonic() - answered > _LOST_S:
                    raise ConnectionError(str(error)) from error

    def _submit(self, pipeline: beam.Pipeline) -> Any:
        """Beam's result, once the service has the job."""
        # By now Beam has looked for the region, where none was given.
        region = pipeline.options.view_as(GoogleCloudOptions).region or "" if self.job.runner == DATAFLOW else ""
        self.job = dataclasses.replace(self.job, region=region)
        self._lock.note(self.job)
        with contextlib.suppress(CannotTellError):
            self._before = set(self._service().unfinished(self.job.name))
        if self.job.runner == DATAFLOW and self._before:
            raise self._is_there()
        self._lock.kept = True
        self._result = pipeline.run()
        job = self._result.job_id() if self.job.runner == DATAFLOW else self._result._job_id
        self._found(job)
        return self._result

    def _found(self, job: str) -> None:
        self.job = dataclasses.replace(self.job, job=job)
        self._lock.note(self.job)
        self._tell(self.job)

    def _is_there(self) -> BroetchenError:
        job = dataclasses.replace(self.job, job=min(self._before))
        return BroetchenError(
            f"{job} has not ended, and Dataflow runs one job of a name at a time; wait until it is done, or cancel it "
            "and run this again"
        )

    def _service(self) -> Service:
        try:
            return service_of(self.job, self._arguments)
        except CannotTellError:
            if self._result is None:
                raise
            return _OfResult(self.job, self._result)

    def has_ended(self) -> bool:
        """Whether the job has ended, or was never there; False where its service does not say so."""
        try:
            if self._lock.kept and not self.job.job:
                self._look()
            ended = not self.job.job or self._service().state(self.job.job) in ENDED
        except CannotTellError:
            return False
        if ended:
            self._lock.kept = False
        return ended

    def _look(self) -> None:
        """Looks whether the job has begun, of which no answer has come; it may take a moment to show."""
        for wait_s in (*[_POLL_S] * 2, 0):
            begun = set(self._service().unfinished(self.job.name)) - self._before
            if begun:
                return self._found(begun.pop())
            time.sleep(wait_s)

    def cancel(self) -> None:
        """Cancels it and waits until it has ended.

        Raises:
            BroetchenError: it may go on.
        """
        try:
            reason = self._cancel()
        except KeyboardInterrupt:
            reason = "its end was not waited for"
        except CannotTellError as error:
            reason = str(error)
        if reason:
            raise self._goes_on(reason)

    def _cancel(self) -> str:
        """Why it may go on; empty where it has ended."""
        if self.has_ended():
            return ""
        if not self.job.job:
            return "its service does not say whether it has begun"
        _LOGGER.warning("cancelling %s, which may take minutes; Ctrl-C leaves it running", self.job)
        self._service().cancel(self.job.job)
        deadline = time.monotonic() + _CANCELLED_S
        while not self.has_ended():
            if time.monotonic() > deadline:
                return f"it has not ended {_CANCELLED_S / 60:.0f} minutes after it was to be cancelled"
            time.sleep(_POLL_S)
        return ""

    def follow(self) -> None:
        """Waits for its end, without Beam.

        Raises:
            BroetchenError: it did not succeed, or its service does not answer.
        """
        answered = time.monotonic()
        unanswered = _UNANSWERED_S if self.job.runner == DATAFLOW else _SERVICE_UNANSWERED_S
        while True:
            try:
                state = self._service().state(self.job.job)
                if state in ENDED:
                    break
                answered = time.monotonic()
            except CannotTellError as error:
                if not self.job.job or time.monotonic() - answered > unanswered:
                    raise self._goes_on(str(error)) from error
            time.sleep(_POLL_S)
        self._end(state)

    def _end(self, state: str) -> None:
        """Takes note of the state in which it has ended.

        Raises:
            BroetchenError: it did not succeed.
        """
        self._lock.kept = False
        if state == "DONE":
            return
        if self.job.runner != DATAFLOW:
            raise BroetchenError(f"{self.job} has ended: {state}; look into its log, and run this again")
        said = ""
        if state == "FAILED":
            with contextlib.suppress(CannotTellError):
                said = dataflow_of(self.job, self._arguments).last_error(self.job.job)
        raise find_error(said, place_of(DATAFLOW)) or of_dataflow_job(state, said.strip())

    def _goes_on(self, reason: str) -> BroetchenError:
        """The error that says so."""
        job = self.job
        stop = "cancel it in its service"
        if job.runner == DATAFLOW and job.job:
            words = ["gcloud", "dataflow", "jobs", "cancel", f"--project={job.project}", f"--region={job.region}"]
            stop = shlex.join([*words, job.job])
        then = "; the same command follows it, and nothing else is built at its output until it has ended"
        return BroetchenError(f"{job} may go on ({reason}){then if self._lock.token else ''}. To stop it: {stop}")


class _OfResult:
    """The service of a job that only Beam's result knows how to reach, as it has started one for itself."""

    def __init__(self, job: RemoteJob, result: Any) -> None:
        self._job, self._result = job, result

    def state(self, _: str) -> str:
        with self._asked():
            return str(self._result.state)

    def cancel(self, _: str) -> None:
        with self._asked():
            self._result.cancel()

    def unfinished(self, _: str) -> list[str]:
        return [self._job.job]

    @contextlib.contextmanager
    def _asked(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise CannotTellError(self._job, f"its service does not answer ({type(error).__name__})") from error


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Has SIGTERM raise KeyboardInterrupt during the block, where it would end the process at once."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
