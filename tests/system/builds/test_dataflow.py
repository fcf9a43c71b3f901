"""The recipe's job, made and staged for Dataflow for real, in an emulated bucket; Dataflow itself is not asked."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import subprocess
import sys
import sysconfig
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from beam_pipelines.config.mix import load_config
from beam_pipelines.jobs.build import BuildSummary, build
from beam_pipelines.runners.dataflow import LOCK, dataflow_defaults, packages, pinned_packages, with_dataflow_defaults
from tests.support.command import run_command
from tests.support.corpora import SAMPLES
from tests.support.packages import ROOT
from tests.support.services.dataflow_service import mix_in_bucket
from transforms.errors import UsageError
from transforms.files import storage
from transforms.files.listing import list_files

WHEEL = "broetchen-0.1.0-py3-none-any.whl"
RECIPE = SAMPLES.parent / "mix_configs" / "30-50-5-5-10" / "mix.yaml"
RUNNER = ["--runner=DataflowRunner", "--project=broetchen-tests", "--region=europe-west4"]

# Runs where there is nothing of ours but what was staged: unpickles every step, and says what has come along.
LOAD_STEPS = """
import gc, json, pathlib, sys
staged, steps = sys.argv[1:]
sys.path.insert(0, staged)
from apache_beam.internal import pickler
pickler.set_library("cloudpickle")
loaded = [pickler.loads(path.read_bytes()) for path in sorted(pathlib.Path(steps).iterdir())]
from transforms.recipe.plan import DatasetPlan
from transforms.recipe.spec import DatasetSpec
from transforms.parquet.footer import SourceFile
ours = [module.__file__ for name, module in sys.modules.items()
        if name.partition(".")[0] in ("transforms", "beam_pipelines", "launch")]
alive = gc.get_objects()
print(json.dumps({
    "steps": len(loaded),
    "elsewhere": [path for path in ours if path and not path.startswith(staged)],
    "modules": len(ours),
    "plans": sum(isinstance(thing, (DatasetPlan, SourceFile)) for thing in alive),
    "specs": sorted({thing.name for thing in alive if isinstance(thing, DatasetSpec)}),
}))
"""


@dataclasses.dataclass(frozen=True)
class Staged:
    """A staged job: its description, its graph, and the folder of files for its workers."""

    output: str
    summary: BuildSummary
    description: bytes
    graph: beam_runner_api_pb2.Pipeline
    files: dict[str, bytes]

    def steps(self) -> list[bytes]:
        """Pickled DoFns of the graph."""
        payloads = []
        for transform in self.graph.components.transforms.values():
            if transform.spec.urn == common_urns.primitives.PAR_DO.urn:
                par_do = beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload)
                payloads.append(par_do.do_fn.payload)
        return payloads


@pytest.fixture(scope="module")
def staged(gcs_bucket: str) -> Staged:
    output, template = f"{gcs_bucket}/dataflow/out", f"{gcs_bucket}/dataflow/template.json"
    config = load_config(RECIPE, overrides={"tokenizer.path": str(SAMPLES / "tokenizer.json")})
    summary = build(config, output, beam_arguments=[*RUNNER, f"--template_location={template}"], quiet=True)
    found = [path for path, _ in list_files(f"{output}/.dataflow/staging")]
    contents = {path.rpartition("/")[2]: storage.read_bytes(path) for path in found}
    graph = beam_runner_api_pb2.Pipeline.FromString(contents["pipeline.pb"])
    return Staged(output, summary, storage.read_bytes(template), graph, contents)


@pytest.mark.slow
def test_the_job_is_staged_and_nothing_is_built(staged: Staged) -> None:
    assert staged.summary.template is not None
    assert staged.summary.template.endswith("/dataflow/template.json")
    assert not staged.summary.manifests
    assert not list_files(staged.output, "*/manifest.json")
    assert set(staged.files) == {
        "pipeline.pb", WHEEL, "extra_packages.txt", "requirements.txt", "submission_environment_dependencies.txt",
    }  # fmt: skip


def test_workers_install_what_the_lock_file_names_by_hash(staged: Staged) -> None:
    """They install nothing else: it has all packages that the project's wheel asks for, and building it needs none."""
    assert staged.files["requirements.txt"] == LOCK.read_bytes()
    lines = staged.files["requirements.txt"].decode().replace("\\\n", " ").splitlines()
    locked: dict[str, str] = {}
    for line in lines:
        if line and not line.lstrip().startswith("#"):
            requirement = Requirement(line.partition("--hash=")[0])
            assert "--hash=sha256:" in line
            (pin,) = requirement.specifier
            assert pin.operator == "=="
            if requirement.marker is None or requirement.marker.evaluate():
                locked[canonicalize_name(requirement.name)] = pin.version
    assert staged.files["extra_packages.txt"].decode().split() == [WHEEL]
    with zipfile.ZipFile(io.BytesIO(staged.files[WHEEL])) as wheel:
        (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        wanted = [Requirement(text) for text in message_from_bytes(wheel.read(metadata)).get_all("Requires-Dist", [])]
    assert len(wanted) > 20
    for requirement in wanted:
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), requirement


def test_requirements_that_are_given_take_the_place_of_ours(tmp_path: Path) -> None:
    theirs = tmp_path / "requirements.txt"
    theirs.write_text("numpy\n")
    for given, expected in (
        ([f"--requirements_file={theirs}"], str(theirs)),
        ([f"--setup_file={ROOT / 'setup.py'}"], None),
        (["--sdk_container_image=europe-docker.pkg.dev/p/r/broetchen@sha256:0"], None),
    ):
        options = PipelineOptions([*RUNNER, *given]).view_as(SetupOptions)
        with pinned_packages(options):
            assert options.requirements_file == expected
            assert [Path(path).name for path in options.extra_packages or ()] == ([WHEEL] if expected else [])
            assert options.requirements_cache is None


def test_the_job_is_small_and_has_our_defaults(staged: Staged) -> None:
    job = json.loads(staged.description)
    assert len(staged.description) < 100_000
    # The description refers to this file. Its size does not depend on the sources.
    assert len(staged.files["pipeline.pb"]) < 150_000
    (pool,) = job["environment"]["workerPools"]
    assert pool["diskSizeGb"] == 50
    assert pool["machineType"] == "n2-standard-4"
    options = job["environment"]["sdkPipelineOptions"]["options"]
    assert options["number_of_worker_harness_threads"] == 1
    assert options["temp_location"].startswith(f"{staged.output}/.dataflow/temp")


def test_specs_travel_as_json(staged: Staged) -> None:
    parts = staged.graph.components
    (given,) = (step for step in parts.transforms.values() if step.unique_name == "Datasets")
    (output,) = given.outputs.values()
    assert b"JsonCoder" in parts.coders[parts.pcollections[output].coder_id].spec.payload


@pytest.mark.slow
def test_steps_load_where_only_the_staged_package_is(staged: Staged, tmp_path: Path) -> None:
    package, steps, elsewhere = (tmp_path / name for name in ("package", "steps", "elsewhere"))
    for folder in (package, steps, elsewhere):
        folder.mkdir()
    with zipfile.ZipFile(io.BytesIO(staged.files[WHEEL])) as wheel:
        wheel.extractall(package)
    for number, payload in enumerate(staged.steps()):
        (steps / f"{number:03d}").write_bytes(payload)
    # -S keeps out the project's editable installation, which is what would hide a missing module.
    script = f"import sys; sys.path.append({sysconfig.get_paths()['purelib']!r})\n{LOAD_STEPS}"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, str(package), str(steps)],
        cwd=elsewhere,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["steps"] == len(staged.steps()) > 20
    assert told["elsewhere"] == []
    assert told["modules"] > 10
    assert told["plans"] == 0
    assert told["specs"] == sorted(load_config(RECIPE).datasets)


def test_given_options_are_the_last_word() -> None:
    given = [
        *RUNNER,
        "--worker_machine_type=c3-highcpu-22",
        "--disk_size_gb",
        "9",
        "--number_of_worker_harness_threads=3",
        "--save_main_session",
        "--sdk_container_image=europe-docker.pkg.dev/p/r/broetchen",
        "--temp_location",
        "gs://b/t",
    ]
    assert dataflow_defaults(given, "gs://b/out") == ["--staging_location=gs://b/t/staging"]


def test_an_output_on_this_machine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gs://"):
        dataflow_defaults(RUNNER, str(tmp_path))


def test_what_beam_finds_missing_is_an_error_of_usage(gcs_prefix: str) -> None:
    config = load_config(RECIPE, overrides={"tokenizer.path": str(SAMPLES / "tokenizer.json")})
    with pytest.raises(UsageError, match="Missing required option: project"):
        build(config, f"{gcs_prefix}/out", beam_arguments=["--runner=DataflowRunner"], quiet=True)


@pytest.fixture
def remote_config(gcs_prefix: str) -> str:
    """A mix of one dataset, with its source and its tokenizer in the bucket."""
    return mix_in_bucket(gcs_prefix)


@pytest.mark.slow
def test_the_command_says_where_the_template_is(remote_config: str, gcs_prefix: str) -> None:
    template = f"{gcs_prefix}/template.json"
    arguments = [*RUNNER, f"--template_location={template}"]
    done = run_command("build", remote_config, "--output", f"{gcs_prefix}/out", "--quiet", *arguments)
    assert done.returncode == 0, done.stderr
    assert template in done.stdout.replace("\n", "")
    assert storage.exists(template)


def test_sources_on_this_machine_are_refused(gcs_prefix: str) -> None:
    config = SAMPLES.parent / "mix_configs" / "demo.yaml"
    done = run_command("build", config, "--output", f"{gcs_prefix}/out", *RUNNER)
    assert done.returncode == 2
    assert "is on this machine, where Dataflow's workers cannot read it" in done.stderr


def test_jobs_that_only_read_have_the_same_defaults(gcs_prefix: str) -> None:
    with pytest.raises(UsageError, match="--temp_location gs://BUCKET/FOLDER"):
        with_dataflow_defaults(RUNNER)
    temp = f"--temp_location={gcs_prefix}/temp"
    assert f"--staging_location={gcs_prefix}/temp/staging" in with_dataflow_defaults([*RUNNER, temp])
    assert with_dataflow_defaults(["--runner=DirectRunner"]) == ["--runner=DirectRunner"]


def test_the_image_holds_what_the_wheel_does() -> None:
    assert re.findall(r"^COPY (\S+) \./\1$", (ROOT / "Dockerfile").read_text(), re.M) == packages()


@pytest.mark.slow
def test_a_flex_template_starts_what_its_image_names(remote_config: str, gcs_prefix: str) -> None:
    root = SAMPLES.parent
    (script,) = re.findall(
        r"^ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/opt/broetchen/(.+)$", (root / "Dockerfile").read_text(), re.M
    )
    metadata = json.loads((root / "beam_pipelines" / "serve" / "flex_template.json").read_text())
    values = {
        "config": remote_config,
        "output": f"{gcs_prefix}/out",
        "sdk_container_image": "europe-docker.pkg.dev/p/r/broetchen",
        "dataset": "english",
        "engine": "auto",
        "set": "datasets.english.tokens=2000",
    }
    # As the launcher does: each parameter as an option, and then what the service wants to know.
    assert list(values) == [parameter["name"] for parameter in metadata["parameters"]]
    for parameter in metadata["parameters"]:
        assert all(re.search(pattern, values[parameter["name"]]) for pattern in parameter.get("regexes", []))
    template = f"{gcs_prefix}/launched.json"
    arguments = [f"--{name}={value}" for name, value in values.items()]
    arguments += [*RUNNER, "--job_name=launched", f"--template_location={template}"]
    done = subprocess.run([sys.executable, root / script, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (pool,) = json.loads(storage.read_bytes(template))["environment"]["workerPools"]
    assert pool["workerHarnessContainerImage"] == values["sdk_container_image"]
