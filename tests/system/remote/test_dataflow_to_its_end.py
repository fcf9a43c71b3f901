"""Builds on a Dataflow that the tests play, whose workers have the staged files and nothing else."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.command import run_command
from tests.support.packages import ROOT
from tests.support.services.dataflow_service import IMAGE, DataflowService, dataflow, mix_in_bucket, served, serving
from tests.support.services.fault_proxy import fault_proxy
from tests.system.remote.test_remote_jobs import INTERRUPTED, STOPPED, has_its_job, lock_of, started, wait_for
from transforms.files import storage

__all__ = ["dataflow"]

pytestmark = pytest.mark.slow


@dataclasses.dataclass(frozen=True)
class Cloud:
    """A service that has built a mix of the package that was staged for it; its next jobs find that in their image.

    Attributes:
        said: the words of the command while the job ran, and all of them.
        expected: the files of a build on this machine, by name.
    """

    service: DataflowService
    config: str
    output: str
    said: tuple[str, str]
    expected: dict[str, bytes]

    def files(self, output: str) -> dict[str, bytes]:
        return {name: storage.read_bytes(f"{output}/english/{name}") for name in self.expected}

    def launch(self, kind: str, body: dict[str, Any], **query: str) -> requests.Response:
        """Starts a job from a template, as gcloud asks for it."""
        address = f"{self.service.endpoint}/v1b3/projects/broetchen-tests/locations/europe-west4/{kind}:launch"
        return requests.post(address, params=query, json=body, timeout=300)

    def wait_for(self, job: str) -> None:
        wait_for(lambda: self.service.jobs[job]["currentState"] != "JOB_STATE_RUNNING", 300)
        assert self.service.jobs[job]["currentState"] == "JOB_STATE_DONE", self.service.messages[job]


@pytest.fixture(scope="module")
def cloud(gcs_bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder, prefix = tmp_path_factory.mktemp("cloud"), f"{gcs_bucket}/{uuid.uuid4().hex}"
    config, output = mix_in_bucket(prefix, 20_000), f"{prefix}/out"
    here = run_command("build", config, "--output", folder / "out", timeout=300)
    assert here.returncode == 0, here.stderr
    expected = {path.name: path.read_bytes() for path in (folder / "out" / "english").iterdir() if path.is_file()}
    with serving() as service:
        service.runs = service.holds = True
        with started(folder, "build", config, "--output", output, *service.options(image=False)) as command:
            command.says(r"english: .* published", 400)
            meanwhile = command.said()
            service.end()
            assert command.ends() == 0, command.said()
            said = (meanwhile, command.said())
        service.holds = False
        yield Cloud(service, config, output, said, expected)


def test_a_job_that_has_only_its_staged_package_writes_the_bytes_of_a_local_build(cloud: Cloud) -> None:
    assert {Path(name).suffix for name in cloud.expected} == {".json", ".arecord"}
    assert cloud.files(cloud.output) == cloud.expected
    environment = cloud.service.environment
    assert environment is not None
    assert any(re.fullmatch(r"broetchen-.*\.whl", name) for name in environment.staged)
    (modules,) = cloud.service.modules.values()
    assert modules == [str(environment.packages / "transforms")]
    assert not (environment.packages / "hypothesis").exists(), "what only tests need is no requirement"
    assert lock_of(cloud.output) is None


def test_states_messages_and_counters_are_shown_while_the_job_runs(cloud: Cloud) -> None:
    meanwhile, said = cloud.said
    (job,) = cloud.service.jobs
    assert "JOB_STATE_DONE" not in meanwhile
    assert f"Job {job} is in state JOB_STATE_RUNNING" in meanwhile
    assert "JOB_MESSAGE_BASIC: Starting 2 workers in europe-west4-a..." in meanwhile
    counters = {name: value for (_, name), value in cloud.service.counters[job].items()}
    assert counters["tokens"] >= 20_000
    assert re.search(
        rf"^english: 20\.0K tokens, published; counted: \S+ tokens of {counters['documents']} documents, .* read$",
        meanwhile,
        re.MULTILINE,
    ), meanwhile
    assert f"Job {job} is in state JOB_STATE_DONE" in said
    assert "\x1b" not in said


def test_an_interrupt_ends_the_workers(cloud: Cloud, gcs_prefix: str, tmp_path: Path) -> None:
    output = f"{gcs_prefix}/out"
    with started(tmp_path, "build", cloud.config, "--output", output, *cloud.service.options()) as command:
        wait_for(lambda: has_its_job(output))
        (job,) = cloud.service.active()
        wait_for(lambda: cloud.service.works(job["id"]))
        command.process.send_signal(signal.SIGINT)
        assert command.ends() == INTERRUPTED, command.said()
    assert command.said().splitlines()[-1] == STOPPED
    wait_for(lambda: not cloud.service.works(job["id"]), 20)
    assert not storage.exists(f"{output}/english/manifest.json")
    assert lock_of(output) is None


def test_a_classic_template_builds_the_same_from_a_bucket_that_fails_now_and_then(
    cloud: Cloud, gcs_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, template = f"{gcs_prefix}/out", f"{gcs_prefix}/template.json"
    options = [*cloud.service.options(), f"--template_location={template}"]
    staged = run_command("build", cloud.config, "--output", output, *options, timeout=300)
    assert staged.returncode == 0, staged.stderr
    assert template in staged.stdout.replace("\n", "")
    with fault_proxy(os.environ["STORAGE_EMULATOR_HOST"], seed=1) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.address)
        answer = cloud.launch("templates", {"jobName": "from-template"}, gcsPath=template)
        cloud.wait_for(answer.json()["job"]["id"])
        # Where an object is downloaded, the store said by the proxy's address.
        assert cloud.files(output) == cloud.expected
    assert proxy.faults


def test_a_flex_template_builds_the_same(cloud: Cloud, gcs_prefix: str) -> None:
    """The launcher runs in the image, which has no checkout either."""
    # As `gcloud dataflow flex-template build` puts it there.
    metadata = json.loads((ROOT / "beam_pipelines" / "serve" / "flex_template.json").read_text())
    template, output = f"{gcs_prefix}/broetchen.json", f"{gcs_prefix}/out"
    storage.write_bytes(
        template, json.dumps({"image": IMAGE, "metadata": metadata, "sdkInfo": {"language": "PYTHON"}}).encode()
    )
    parameters = {"config": cloud.config, "output": output, "sdk_container_image": IMAGE}
    launch = {
        "jobName": "from-flex-template",
        "containerSpecGcsPath": template,
        "parameters": parameters,
        "environment": {"tempLocation": f"{gcs_prefix}/temp"},
    }
    for wrong in ({"config": "mix.yaml"}, {"engine": "fast"}, {"tokens": "7"}):
        refused = cloud.launch("flexTemplates", {"launchParameter": {**launch, "parameters": {**parameters, **wrong}}})
        assert refused.status_code == 400
        assert next(iter(wrong)) in refused.json()["error"]["message"]
    answer = cloud.launch("flexTemplates", {"launchParameter": launch}).json()["job"]
    assert "id" in answer, answer
    assert answer["name"] == "from-flex-template"
    cloud.wait_for(answer["id"])
    assert cloud.files(output) == cloud.expected


# A service that does not do as it should, with jobs that are held, or run in this process.


def test_a_service_that_is_gone_for_a_while(dataflow: DataflowService, gcs_prefix: str, tmp_path: Path) -> None:
    config, output = mix_in_bucket(gcs_prefix), f"{gcs_prefix}/out"
    port = int(dataflow.endpoint.rpartition(":")[2])
    with started(tmp_path, "build", config, "--output", output, *dataflow.options()) as command:
        command.says("is in state JOB_STATE_RUNNING")
        dataflow.stop()
        command.says(r"the service does not answer as it should \(.*\); it is asked again in \d+ s")
        (job,) = dataflow.active()
        with served(dataflow, port):
            dataflow.run(job)
            assert command.ends() == 0, command.said()
    assert storage.exists(f"{output}/english/manifest.json")
    assert lock_of(output) is None


def test_a_service_that_is_gone_for_good(dataflow: DataflowService, gcs_prefix: str, tmp_path: Path) -> None:
    config, output = mix_in_bucket(gcs_prefix), f"{gcs_prefix}/out"
    with started(tmp_path, "build", config, "--output", output, *dataflow.options()) as command:
        command.says("is in state JOB_STATE_RUNNING")
        dataflow.stop()
        command.process.send_signal(signal.SIGINT)
        asked = time.monotonic()
        assert command.ends() == 1, command.said()
    assert time.monotonic() - asked < 60
    (job,) = dataflow.jobs
    assert "Traceback" not in command.said()
    last = command.said().splitlines()[-1]
    assert "may go on (Dataflow does not say whether it has ended (" in last
    assert last.endswith(f"gcloud dataflow jobs cancel --project=broetchen-tests --region=europe-west4 {job}")
    assert has_its_job(output)


def test_too_many_questions_are_no_end(dataflow: DataflowService, gcs_prefix: str, tmp_path: Path) -> None:
    """Beam's client gives up at the first HTTP 429."""
    config, output = mix_in_bucket(gcs_prefix), f"{gcs_prefix}/out"
    with started(tmp_path, "build", config, "--output", output, *dataflow.options()) as command:
        command.says("is in state JOB_STATE_RUNNING")
        dataflow.refuses = 429
        command.says("the connection to the DataflowRunner job .* is lost")
        dataflow.refuses = None
        (job,) = dataflow.active()
        dataflow.run(job)
        assert command.ends() == 0, command.said()
    assert lock_of(output) is None


ODD = "2026-01-01;touch x\x1b[31m"


def test_what_a_service_says_does_not_reach_the_terminal_as_it_is(
    dataflow: DataflowService, gcs_prefix: str, tmp_path: Path
) -> None:
    """An id that is none of Dataflow's, and messages that would steer a terminal; its first answer is lost as well."""
    dataflow.next_id, dataflow.spoils, dataflow.cancels = ODD, [503], False
    config, output = mix_in_bucket(gcs_prefix), f"{gcs_prefix}/out"
    with started(tmp_path, "build", config, "--output", output, *dataflow.options()) as command:
        wait_for(lambda: has_its_job(output))
        dataflow.say(ODD, "\x1b]0;title\x07 \u202egnirts\rbroetchen: done\nbroetchen: all is well", "WARNING")
        command.says("title")
        command.process.send_signal(signal.SIGINT)
        command.says("cancelling the DataflowRunner job")
        command.process.send_signal(signal.SIGINT)
        assert command.ends() == 1, command.said()
    said = command.said()
    assert list(dataflow.jobs) == [ODD], "a job whose answer was lost is not made again"
    assert not set("\x1b\x07\u202e\r") & set(said)
    assert re.search(r"JOB_MESSAGE_WARNING: \S+title\S* .* broetchen: done broetchen: all is well$", said, re.MULTILINE)
    assert re.search(r"it is asked again in \d+ s", said)
    last = said.splitlines()[-1]
    assert last.startswith("broetchen: the DataflowRunner job broetchen-")
    assert "--region=europe-west4 '2026-01-01;touch x" in last
