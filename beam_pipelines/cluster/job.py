"""One job of the job service: its process, its states, and its messages."""

from __future__ import annotations

import base64
import json
import logging
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from apache_beam.portability.api import beam_job_api_pb2, beam_runner_api_pb2, endpoints_pb2, metrics_pb2
from apache_beam.runners.portability.abstract_job_service import AbstractBeamJob
from google.protobuf import json_format  # type: ignore[import-untyped]

from beam_pipelines.cluster import driver
from beam_pipelines.cluster.addresses import host_of
from beam_pipelines.cluster.driver import in_text
from beam_pipelines.cluster.family import start_module
from beam_pipelines.cluster.hosts import end_job
from beam_pipelines.console import terminal
from transforms.errors import BroetchenError

_LOGGER = logging.getLogger(__name__)
_State = beam_job_api_pb2.JobState
_Message = beam_job_api_pb2.JobMessage
# The messages of a job stay in memory, for weeks if need be; beyond so many, only errors are kept.
_MOST_MESSAGES = 10_000
_IMPORTANCE = (
    (logging.ERROR, _Message.JOB_MESSAGE_ERROR),
    (logging.WARNING, _Message.JOB_MESSAGE_WARNING),
    (logging.INFO, _Message.JOB_MESSAGE_BASIC),
)


class ClusterJob(AbstractBeamJob):
    """A job.

    Args:
        job: its id.
        name: as its pipeline has it.
        graph: the pipeline.
        options: of the pipeline, a `Struct`.
        address: of the job service, `HOST:PORT`.
        hosts: the addresses of the workers.
    """

    def __init__(
        self,
        job: str,
        name: str,
        graph: beam_runner_api_pb2.Pipeline,
        options: Any,
        address: str,
        hosts: Sequence[str],
    ) -> None:
        super().__init__(job, name, graph, options)
        self._address, self._hosts = address, hosts
        self._process: subprocess.Popen[bytes] | None = None
        self._told: list[Any] = [*self._state_history]
        self._changed = threading.Condition()
        self._error = ""
        self._done = False
        self.metrics: list[metrics_pb2.MonitoringInfo] = []

    def prepare(self) -> None:
        """Does nothing: nothing is staged."""

    def artifact_staging_endpoint(self) -> endpoints_pb2.ApiServiceDescriptor:
        """Where commands offer the files of their pipeline: the job service, which takes none."""
        return endpoints_pb2.ApiServiceDescriptor(url=self._address)

    def set_state(self, new_state: int) -> Any:
        """Takes note of a state, and tells of it."""
        with self._changed:
            changed = super().set_state(new_state)
            if changed is not None:
                self._told.append((new_state, changed))
                self._changed.notify_all()
        return changed

    def run(self) -> None:
        """Starts it, if that was not done already."""
        with self._changed:
            if self.state != _State.STOPPED:
                return
            self.set_state(_State.STARTING)
        threading.Thread(target=self._run, name=self._job_id, daemon=True).start()

    def cancel(self) -> None:
        """Ends it and its workers, whatever they are doing; it is cancelled once they have ended."""
        with self._changed:
            if self.is_terminal_state(self.state):
                return
            begun = self.state != _State.STOPPED
            self.set_state(_State.CANCELLING if begun else _State.CANCELLED)
            if self._process is not None:
                self._process.kill()

    def wait(self, seconds: float) -> None:
        """Returns once it has ended, or the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self.is_terminal_state(self.state), seconds)

    def get_state_stream(self) -> Iterator[Any]:
        """Its states so far, and those to come, until it has ended."""
        return (told for told in self.get_message_stream() if isinstance(told, tuple))

    def get_message_stream(self) -> Iterator[Any]:
        """Its states and messages so far, and those to come, until it has ended."""
        at = 0
        while True:
            with self._changed:
                while not (told := self._told[at:]):
                    self._changed.wait()
            at += len(told)
            for each in told:
                yield each
                if isinstance(each, tuple) and self.is_terminal_state(each[0]):
                    return

    def _run(self) -> None:
        code = -1
        try:
            code = self._drive()
        except Exception as error:
            _LOGGER.exception("job %s", self._job_id)
            self._error = self._error or str(error)
        # Where it says that it has ended, nobody may be at work for it any more.
        end_job(self._hosts, self._job_id)
        with self._changed:
            if self.state == _State.CANCELLING:
                end = _State.CANCELLED
            elif self._done:
                end = _State.DONE
            else:
                end = _State.FAILED
                self._tell(logging.ERROR, self._error or in_text(_process_died(code)))
            self.set_state(end)
        _LOGGER.info("job %s: %s", self._job_id, _State.Enum.Name(end))

    def _drive(self) -> int:
        """The exit code of its process, once it has ended."""
        graph = self._pipeline_proto.SerializeToString()
        order = {
            "job": self._job_id,
            "host": host_of(self._address),
            "hosts": list(self._hosts),
            "options": json_format.MessageToJson(self._pipeline_options, indent=None),
            "bytes": len(graph),
        }
        with self._changed:
            if self.state != _State.STARTING:
                return 0
            process = self._process = start_module(driver.__name__, stdout=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin, process.stdout:
            try:
                process.stdin.write(json.dumps(order).encode() + b"\n" + graph)
                process.stdin.flush()
                with self._changed:
                    if self.state == _State.STARTING:
                        self.set_state(_State.RUNNING)
                for line in process.stdout:
                    self._heard(*json.loads(line))
            except BrokenPipeError:
                pass  # It has ended, and its exit code tells.
        return process.wait()

    def _heard(self, kind: str, content: Any) -> None:
        if kind == "log":
            level, text = content
            _LOGGER.log(level, "%s", text)
            self._tell(level, f"{terminal.NEWS_OF_JOB}{text}")
        elif kind == "error":
            self._error = content
            _LOGGER.error("job %s: %s", self._job_id, content)
        elif kind == "metrics":
            self.metrics = [metrics_pb2.MonitoringInfo.FromString(base64.b64decode(info)) for info in content]
        elif kind == "done":
            self._done = True

    def _tell(self, level: int, text: str) -> None:
        with self._changed:
            if len(self._told) > _MOST_MESSAGES and level < logging.ERROR:
                return
            self._told.append(
                _Message(
                    message_id=str(len(self._told)),
                    time=time.strftime("%Y-%m-%d %H:%M:%S."),
                    importance=next(
                        (mark for least, mark in _IMPORTANCE if level >= least), _Message.JOB_MESSAGE_DEBUG
                    ),
                    message_text=text,
                )
            )
            self._changed.notify_all()


def _process_died(code: int) -> BroetchenError:
    return BroetchenError(
        f"the process of the job at its job service ended with {code}; if it was for lack of memory there, give it "
        "more. Run the same command again to go on: finished shards are not redone"
    )
