"""A Dataflow of our own: an HTTP server on loopback that answers Beam's client by REST (v1b3).

It does only the things that a build depends on: one job of a name at a time, states, messages, counters, cancellation,
templates. A job is held as running until a test says how it ends, or it is run to its end: in this process, or by
workers that have its staged files and nothing else (`tests.support.dataflow.workers`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import http.server
import itertools
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.parse
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from tests.support.corpora import SAMPLES
from tests.support.dataflow.workers import (
    PACKAGES,
    Counters,
    InstallError,
    WorkerEnvironment,
    WorkerJob,
    install,
    staged_files,
)
from tests.support.packages import ROOT
from transforms.files import storage

_PLACE = r"/v1b3/projects/([^/]+)/locations/([^/]+)/"
_JOBS = re.compile(_PLACE + r"jobs(?:/([^/]+?))?(?:/(messages|metrics))?")
_LAUNCH = re.compile(_PLACE + r"(templates|flexTemplates):launch")
_ENDED = ("JOB_STATE_DONE", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_DRAINED")
# google.dataflow.v1beta3.JobState, as the client sends it.
_CANCELLED = (5, "JOB_STATE_CANCELLED")
# Of an answer; Dataflow's are longer. A client that reads only the first misses the rest.
_PAGE = 2
# The program that the launcher of a flex template runs in the image of the Dockerfile.
_PROGRAM = PurePosixPath(
    re.findall(r"^ENV FLEX_TEMPLATE_PYTHON_PY_FILE=(.+)$", (ROOT / "Dockerfile").read_text(), re.M)[0]
)
IMAGE = "europe-docker.pkg.dev/p/r/broetchen"
"""The worker image that jobs of the tests name; `DataflowService.environment` holds its packages."""


@dataclasses.dataclass
class DataflowService:
    """The service as a test controls and watches it.

    Attributes:
        endpoint: its address.
        jobs: all that were ever created, by id, as the service describes them.
        messages: of each job, as (text, importance without "JOB_MESSAGE_IMPORTANCE_").
        counters: of each job.
        modules: of each job that workers ran, the folders of the project's modules.
        runs: whether a job is run to its end here; else it is held until `end`.
        environment: of workers that run jobs with an image; None: they run in this process. Jobs without an image
            always get workers with their staged packages, and leave their environment here.
        holds: whether a job that is done stays in the state of running until `end`.
        cancels: whether a job ends that is to be cancelled; else the request is answered, and it runs on.
        refuses: the HTTP status with which requests about one job are answered, if any.
        spoils: the HTTP statuses with which the next requests for a job are answered, after they were done.
        next_id: the id of the next job, if not one of Dataflow's form.
        created: a job was.
        server: that answers, while it does.
        folder: for environments and jobs.
    """

    endpoint: str = ""
    jobs: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    messages: dict[str, list[dict[str, str]]] = dataclasses.field(default_factory=lambda: defaultdict(list))
    counters: dict[str, Counters] = dataclasses.field(default_factory=lambda: defaultdict(dict))
    modules: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    runs: bool = False
    environment: WorkerEnvironment | None = None
    holds: bool = False
    cancels: bool = True
    refuses: int | None = None
    spoils: list[int] = dataclasses.field(default_factory=list)
    next_id: str | None = None
    created: threading.Event = dataclasses.field(default_factory=threading.Event)
    server: http.server.HTTPServer | None = None
    folder: Path = dataclasses.field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="dataflow-")))
    _graphs: dict[str, str] = dataclasses.field(default_factory=dict)
    _workers: dict[str, WorkerJob] = dataclasses.field(default_factory=dict)
    _threads: list[threading.Thread] = dataclasses.field(default_factory=list)
    _clock: Iterator[int] = dataclasses.field(default_factory=itertools.count)

    def options(self, *, image: bool = True) -> list[str]:
        """Beam's options for a job there; without an image its packages are staged."""
        return [
            "--runner=DataflowRunner",
            "--project=broetchen-tests",
            "--region=europe-west4",
            f"--dataflow_endpoint={self.endpoint}",
            *([f"--sdk_container_image={IMAGE}"] if image else []),
        ]

    def active(self) -> list[dict[str, Any]]:
        """The jobs that have not ended."""
        return [job for job in self.jobs.values() if job["currentState"] not in _ENDED]

    def end(self, state: str = "JOB_STATE_DONE", *reasons: str) -> None:
        """Ends all jobs that have not, with messages that say why."""
        for job in self.active():
            for reason in reasons:
                self.say(job["id"], reason, "ERROR")
            job["currentState"] = state

    def say(self, job: str, text: str, importance: str = "BASIC") -> None:
        """Adds a message to a job's."""
        time = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(seconds=next(self._clock))
        self.messages[job].append(
            {
                "id": str(len(self.messages[job])),
                "time": time.isoformat().replace("+00:00", "Z"),
                "messageText": text,
                "messageImportance": f"JOB_MESSAGE_{importance}",
            }
        )

    def metrics(self, job: str) -> dict[str, Any]:
        """A job's counters as the service gives them: the committed values, and those so far."""
        found = []
        for (namespace, name), value in self.counters[job].items():
            for tentative in ({"tentative": "true"}, {}):
                context = {"namespace": namespace, "step": "s7", **tentative}
                found.append({"name": {"origin": "user", "name": name, "context": context}, "scalar": value})
        # Of which there are hundreds in a real job.
        own = {"origin": "dataflow/v1b3", "name": "TotalVcpuTime", "context": {}}
        return {"metricTime": "2026-01-01T00:00:00Z", "metrics": [{"name": own, "scalar": 12}, *found]}

    def create(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Creates a job; where one of its name runs already, the answer is that one, as from Dataflow."""
        for job in self.active():
            if job["name"] == asked["name"]:
                return job
        job = {key: asked[key] for key in ("name", "clientRequestId") if key in asked}
        identifier, self.next_id = self.next_id or f"2026-01-01_00_00_00-{len(self.jobs) + 1}", None
        job |= {"id": identifier, "currentState": "JOB_STATE_RUNNING"}
        self.jobs[job["id"]] = job
        self._graphs[job["id"]] = asked["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"]
        self.created.set()
        if self.runs:
            thread = threading.Thread(target=self.run, args=(job,), daemon=True)
            self._threads.append(thread)
            thread.start()
        return job

    def run(self, job: dict[str, Any]) -> None:
        """Runs a job to its end."""
        graph = storage.read_bytes(self._graphs[job["id"]])
        pipeline = beam_runner_api_pb2.Pipeline.FromString(graph)
        staged = PACKAGES in staged_files(pipeline)
        if not staged and self.environment is None:
            return self._run_here(job, pipeline)
        self.say(job["id"], "Worker configuration: n2-standard-4 in europe-west4-a.")
        folder = self.folder / str(list(self.jobs).index(job["id"]))
        try:
            if staged:
                self.environment = install(pipeline, folder / "installed")
            assert self.environment is not None
            self.say(job["id"], "Starting 2 workers in europe-west4-a...")
            work = WorkerJob(
                self.environment, graph, folder / "job", lambda told: self.counters[job["id"]].update(told)
            )
            self._workers[job["id"]] = work
            failed = work.wait()
            self.modules[job["id"]] = work.modules
        except InstallError as error:
            failed = str(error)
        except BaseException:
            job["currentState"] = "JOB_STATE_FAILED"
            raise
        if job["currentState"] != "JOB_STATE_RUNNING":
            return None
        if failed:
            self.say(job["id"], failed, "ERROR")
            self.say(job["id"], "Workflow failed. Causes: S05:Build/Tokenize failed., The job failed because a work "
                     "item has failed 4 times. The work item was attempted on these workers: w-1", "ERROR")  # fmt: skip
            job["currentState"] = "JOB_STATE_FAILED"
        elif not self.holds:
            job["currentState"] = "JOB_STATE_DONE"
        return None

    def _run_here(self, job: dict[str, Any], pipeline: beam_runner_api_pb2.Pipeline) -> None:
        for environment in pipeline.components.environments.values():
            environment.urn, environment.payload = python_urns.EMBEDDED_PYTHON, b""
        try:
            FnApiRunner().run_via_runner_api(pipeline, PipelineOptions([])).wait_until_finish()
            job["currentState"] = "JOB_STATE_DONE"
        except Exception:
            job["currentState"] = "JOB_STATE_FAILED"
            raise

    def cancel(self, job: dict[str, Any]) -> None:
        """Ends a job and its workers."""
        job["currentState"] = "JOB_STATE_CANCELLED"
        if work := self._workers.get(job["id"]):
            work.kill()

    def works(self, job: str) -> bool:
        """Whether workers are at a job."""
        return (work := self._workers.get(job)) is not None and work.is_alive()

    def stop(self) -> None:
        """Goes away; `served` brings it back."""
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def close(self) -> None:
        """Ends all jobs and workers."""
        for job in self.active():
            self.cancel(job)
        for thread in self._threads:
            thread.join(60)
        shutil.rmtree(self.folder, ignore_errors=True)

    def launch(self, kind: str, query: Mapping[str, str], asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Starts a job from a template, as `gcloud dataflow jobs run` and `flex-template run` ask for it."""
        if kind == "templates":
            return 200, {
                "job": self.create(json.loads(storage.read_bytes(query["gcsPath"])) | {"name": asked["jobName"]})
            }
        launch = asked["launchParameter"]
        template = json.loads(storage.read_bytes(launch["containerSpecGcsPath"]))
        if wrong := _wrong_parameters(template["metadata"]["parameters"], launch["parameters"]):
            return 400, {"error": {"code": 400, "message": wrong, "status": "INVALID_ARGUMENT"}}
        assert self.environment is not None, "nothing is in the image"
        described = f"{launch['environment']['tempLocation']}/template_launches/{launch['jobName']}/job_object"
        options = {
            **launch["parameters"],
            "runner": "DataflowRunner",
            "project": "broetchen-tests",
            "region": "europe-west4",
            "job_name": launch["jobName"],
            "temp_location": launch["environment"]["tempLocation"],
            "template_location": described,
        }
        program = self.environment.packages / _PROGRAM.relative_to("/opt/broetchen")
        with self.environment.run(
            program,
            *(f"--{name}={value}" for name, value in options.items()),
            scratch=self.folder / launch["jobName"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as launcher:
            said = launcher.communicate()[0].decode()
        if launcher.returncode:
            return 200, {"job": {"currentState": "JOB_STATE_FAILED", "name": launch["jobName"], "said": said}}
        return 200, {"job": self.create(json.loads(storage.read_bytes(described)))}


def _wrong_parameters(known: list[dict[str, Any]], given: Mapping[str, str]) -> str:
    """The refusal of parameters of a flex template; "" where the service takes them."""
    names = {parameter["name"] for parameter in known}
    if unknown := sorted(given.keys() - names):
        return f"The template parameters are invalid. Unrecognized parameter: {unknown[0]}"
    for parameter in known:
        value = given.get(parameter["name"])
        if value is None and not parameter.get("isOptional"):
            return f"The template parameters are invalid. Missing required parameter: {parameter['name']}"
        if value is not None and not all(re.search(pattern, value) for pattern in parameter.get("regexes", [])):
            return f"The template parameters are invalid. Parameter {parameter['name']} does not match"
    return ""


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

    def _refuse(self, status: int, message: str) -> None:
        self._answer(status, {"error": {"code": status, "message": message}})

    def _handle(self) -> None:
        if self._service.server is None:  # on a connection that was there before it went
            self.close_connection = True
            return None
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}") if length else {}
        service = self._service
        if launch := _LAUNCH.fullmatch(url.path):
            return self._answer(*service.launch(launch[3], query, body))
        found = _JOBS.fullmatch(url.path)
        identifier = urllib.parse.unquote(found[3]) if found and found[3] else None
        if not found or (identifier and identifier not in service.jobs):
            return self._refuse(404, "no such job")
        if identifier and service.refuses:
            return self._refuse(service.refuses, "refused")
        if identifier is None and self.command == "POST":
            job = service.create(body)
            return self._refuse(service.spoils.pop(0), "try again") if service.spoils else self._answer(200, job)
        if identifier is None:
            return self._answer(200, _page("jobs", service.active(), query))
        if found[4] == "messages":
            return self._answer(200, _page("jobMessages", _since(service.messages[identifier], query), query))
        if found[4] == "metrics":
            return self._answer(200, service.metrics(identifier))
        job = service.jobs[identifier]
        if self.command == "PUT" and body.get("requestedState") in _CANCELLED and service.cancels:
            service.cancel(job)
        return self._answer(200, job)

    do_GET = do_POST = do_PUT = _handle


def _page(key: str, items: list[Any], query: Mapping[str, str]) -> dict[str, Any]:
    first = int(query.get("pageToken") or 0)
    more = {"nextPageToken": str(first + _PAGE)} if first + _PAGE < len(items) else {}
    return {key: items[first : first + _PAGE], **more}


def _since(messages: list[dict[str, str]], query: Mapping[str, str]) -> list[dict[str, str]]:
    start = query.get("startTime")
    return [one for one in messages if not start or _moment(one["time"]) >= _moment(start)]


def _moment(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # as of clients that were killed
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextlib.contextmanager
def served(service: DataflowService, port: int = 0) -> Iterator[None]:
    """Has a service answer during the block, at a port that may be that of an earlier one which has gone."""
    with _Server(("127.0.0.1", port), functools.partial(_Handler, service)) as server:
        service.endpoint, service.server = f"http://localhost:{server.server_address[1]}", server
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            service.stop()
            thread.join()


@contextlib.contextmanager
def serving() -> Iterator[DataflowService]:
    """A Dataflow that runs during the block."""
    service = DataflowService()
    try:
        with served(service):
            yield service
    finally:
        service.close()


@pytest.fixture
def dataflow() -> Iterator[DataflowService]:
    """A Dataflow that runs as long as the test."""
    with serving() as service:
        yield service


def mix_in_bucket(prefix: str, tokens: int = 1000) -> str:
    """A mix of one dataset below ``gs://…``, with its source and its tokenizer; returns the config's path."""
    source = next(SAMPLES.glob("corpora/fineweb_english/*.parquet"))
    for path in (source, SAMPLES / "tokenizer.json"):
        storage.upload(str(path), f"{prefix}/{path.name}")
    content = {
        "name": "remote",
        "tokenizer": {"path": "tokenizer.json"},
        "datasets": {"english": {"tokens": tokens, "source": source.name}},
    }
    storage.write_bytes(f"{prefix}/mix.yaml", yaml.safe_dump(content).encode())
    return f"{prefix}/mix.yaml"
