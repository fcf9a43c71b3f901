"""A Dataflow of our own: an HTTP server on loopback that answers Beam's client by REST.

It keeps to what a build hangs on: one job of a name at a time, states, cancellation. A job is held as running until a
test says how it ends, or it is run to its end here, by Beam's local engine from the graph that was staged for it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import http.server
import json
import re
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from tests.support.corpora import SAMPLES
from transforms.files import storage

_PATH = re.compile(r"/v1b3/projects/([^/]+)/locations/([^/]+)/jobs(?:/([^/]+))?(/messages)?")
_ENDED = ("JOB_STATE_DONE", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED")
# google.dataflow.v1beta3.JobState, as the client sends it.
_CANCELLED = (5, "JOB_STATE_CANCELLED")


@dataclasses.dataclass
class DataflowService:
    """What a test does to the service, and sees of it.

    Attributes:
        endpoint: its address.
        jobs: all that were ever created, by id, as the service describes them.
        runs: whether a job is run to its end here; else it is held until `end`.
        cancels: whether a job ends that is to be cancelled; else the request is answered, and it runs on.
        refuses: the HTTP status with which requests about one job are answered, if any.
    """

    endpoint: str = ""
    jobs: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    runs: bool = False
    cancels: bool = True
    refuses: int | None = None
    created: threading.Event = dataclasses.field(default_factory=threading.Event)
    _graphs: dict[str, str] = dataclasses.field(default_factory=dict)

    def options(self) -> list[str]:
        """Beam's options for a job there."""
        return [
            "--runner=DataflowRunner",
            "--project=broetchen-tests",
            "--region=europe-west4",
            f"--dataflow_endpoint={self.endpoint}",
            # Nothing is installed anywhere, and so need not be packed.
            "--sdk_container_image=europe-docker.pkg.dev/p/r/broetchen",
        ]

    def active(self) -> list[dict[str, Any]]:
        """The jobs that have not ended."""
        return [job for job in self.jobs.values() if job["currentState"] not in _ENDED]

    def end(self, state: str = "JOB_STATE_DONE") -> None:
        """Ends all jobs that have not."""
        for job in self.active():
            job["currentState"] = state

    def create(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Creates a job; where one of its name runs already, the answer is that one, as from Dataflow."""
        for job in self.active():
            if job["name"] == asked["name"]:
                return job
        job = {key: asked[key] for key in ("name", "clientRequestId")}
        job |= {"id": f"2026-01-01_00_00_00-{len(self.jobs) + 1}", "currentState": "JOB_STATE_RUNNING"}
        self.jobs[job["id"]] = job
        self._graphs[job["id"]] = asked["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"]
        self.created.set()
        if self.runs:
            threading.Thread(target=self.run, args=(job,), daemon=True).start()
        return job

    def run(self, job: dict[str, Any]) -> None:
        """Runs a job to its end."""
        pipeline = beam_runner_api_pb2.Pipeline.FromString(storage.read_bytes(self._graphs[job["id"]]))
        for environment in pipeline.components.environments.values():
            environment.urn, environment.payload = python_urns.EMBEDDED_PYTHON, b""
        try:
            FnApiRunner().run_via_runner_api(pipeline, PipelineOptions([])).wait_until_finish()
            job["currentState"] = "JOB_STATE_DONE"
        except Exception:
            job["currentState"] = "JOB_STATE_FAILED"
            raise


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, service: DataflowService, *arguments: Any) -> None:
        self._service = service
        super().__init__(*arguments)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _handle(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}") if length else {}
        found = _PATH.fullmatch(url.path)
        identifier = urllib.parse.unquote(found[3]) if found and found[3] else None
        if not found or (identifier and identifier not in self._service.jobs):
            return self._answer(404, {"error": {"code": 404, "message": "no such job", "status": "NOT_FOUND"}})
        if found[4]:
            return self._answer(200, {})
        if identifier and self._service.refuses:
            status = self._service.refuses
            return self._answer(status, {"error": {"code": status, "message": "refused"}})
        if identifier is None and self.command == "POST":
            return self._answer(200, self._service.create(body))
        if identifier is None:
            return self._answer(200, {"jobs": self._service.active()})
        job = self._service.jobs[identifier]
        if self.command == "PUT" and body.get("requestedState") in _CANCELLED and self._service.cancels:
            job["currentState"] = "JOB_STATE_CANCELLED"
        return self._answer(200, job)

    do_GET = do_POST = do_PUT = _handle


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # as of clients that were killed
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextlib.contextmanager
def _serving() -> Iterator[DataflowService]:
    service = DataflowService()
    with _Server(("127.0.0.1", 0), functools.partial(_Handler, service)) as server:
        service.endpoint = f"http://localhost:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield service
        server.shutdown()
        thread.join()


@pytest.fixture
def dataflow() -> Iterator[DataflowService]:
    """A Dataflow that runs as long as the test."""
    with _serving() as service:
        yield service


def mix_in_bucket(prefix: str) -> str:
    """A mix of one dataset below ``gs://…``, with its source and its tokenizer; returns the config's path."""
    source = next(SAMPLES.glob("corpora/fineweb_english/*.parquet"))
    for path in (source, SAMPLES / "tokenizer.json"):
        storage.upload(str(path), f"{prefix}/{path.name}")
    content = {
        "name": "remote",
        "tokenizer": {"path": "tokenizer.json"},
        "datasets": {"english": {"tokens": 1000, "source": source.name}},
    }
    storage.write_bytes(f"{prefix}/mix.yaml", yaml.safe_dump(content).encode())
    return f"{prefix}/mix.yaml"
