"""Dataflow: Beam's options where the command line does not give them (docs/dataflow.md), and packages."""

from __future__ import annotations

import contextlib
import posixpath
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, SetupOptions, WorkerOptions

from beam_pipelines.runners.options import runner_name
from transforms.errors import BroetchenError, UsageError, one_line
from transforms.files import storage
from transforms.files.errors import explain_file_errors
from transforms.recipe.spec import DatasetSpec

_FIXED = (
    # Four processors with 4 GiB each. Dataflow starts one Python process for each of them.
    (("--machine_type", "--worker_machine_type"), "--machine_type=n2-standard-4"),
    # The worker's packages, and the shard that each process stages on its disk before it uploads it.
    (("--disk_size_gb",), "--disk_size_gb=50"),
    # A process encodes one shard at a time: more threads would share its processor, and each hold an encoder and a
    # shard. Writing and fetching ahead have threads of their own.
    (("--number_of_worker_harness_threads",), "--number_of_worker_harness_threads=1"),
    # All that the steps need is in modules that the workers have; the submitting process's state is not theirs.
    (("--save_main_session", "--no_save_main_session"), "--no_save_main_session"),
)


def with_dataflow_defaults(arguments: Sequence[str], output: str | None = None) -> list[str]:
    """Beam's options as given, and where they name DataflowRunner, `dataflow_defaults` before them.

    Raises:
        UsageError: as `dataflow_defaults`.
    """
    if runner_name(arguments) != "DataflowRunner":
        return list(arguments)
    return [*dataflow_defaults(arguments, output), *arguments]


def check_reachable(specs: Iterable[DatasetSpec]) -> None:
    """Checks that Dataflow's workers can read the sources, lists of values to exclude, and outputs to grow from.

    Raises:
        UsageError: one is on this machine's own disk.
    """
    for spec in specs:
        exclude = spec.rows.exclude if spec.rows else None
        read = [("source", source) for source in spec.sources]
        read += [("exclude.values", exclude.path)] if exclude else []
        for key, path in read:
            if not storage.is_local(path):
                continue
            raise UsageError(
                f"datasets.{spec.name}.{key}: {path} is on this machine, where Dataflow's workers cannot read it; "
                "copy it to a bucket (gs://…), or take it from the hub (hf://…)"
            )
        if spec.grow is not None and storage.is_local(spec.grow):
            raise UsageError(
                f"--grow {spec.grow}: is on this machine, where Dataflow's workers cannot read it; copy it to a bucket"
            )


# A build renames shards in a bucket, which is a copy and a deletion, and lists its unfinished work.
_PERMISSIONS = ("storage.objects.create", "storage.objects.delete", "storage.objects.get", "storage.objects.list")


def check_buckets(options: PipelineOptions) -> None:
    """Checks the buckets of a job's own files, to which Beam would try to write for ten minutes, without a word.

    Raises:
        BroetchenError: one is not there, or this account may not write there.
    """
    google = options.view_as(GoogleCloudOptions)
    for name in ("temp_location", "staging_location"):
        if (path := getattr(google, name) or "").startswith("gs://"):
            check_bucket(path, f"--{name} {path}")


def check_bucket(path: str, shown: str | None = None) -> None:
    """Checks that this account may write below a folder of a bucket.

    Args:
        path: of the folder, ``gs://…``.
        shown: the beginning of the message; by default the path.

    Raises:
        BroetchenError: it may not, or there is no such bucket.
    """
    from apache_beam.io.gcp.gcsio import GcsIO, parse_gcs_path

    with explain_file_errors(shown or path, "written"):
        bucket, _ = parse_gcs_path(posixpath.join(path, "x"))
        given = GcsIO().client.bucket(bucket).test_iam_permissions(list(_PERMISSIONS))
    missing = [permission for permission in _PERMISSIONS if permission not in given]
    if missing:
        raise BroetchenError(
            f"{shown or path}: this account may not write there: it lacks {', '.join(missing)}; give it the role "
            "roles/storage.objectAdmin of the bucket"
        )


def dataflow_defaults(arguments: Sequence[str], output: str | None) -> list[str]:
    """Options to put before `arguments`, which name DataflowRunner: those that are not among them.

    * ``--temp_location``, ``--staging_location``: folders below ``output/.dataflow``; the second one below the first
      one if only that is given.
    * ``--machine_type``, ``--disk_size_gb``, ``--number_of_worker_harness_threads``, ``--no_save_main_session``.

    Experiments are left to Beam, which asks for the runner and for a process per processor by itself; what workers
    install is `pinned_packages`'.

    Args:
        arguments: Beam's options as given; any of them is the last word.
        output: the folder of all datasets, or None where the job only reads.

    Raises:
        UsageError: the output is not in a bucket, there is neither an output nor a ``--temp_location``, or the project
            is not here to be sent to the workers.
    """
    given = {argument.partition("=")[0] for argument in arguments if argument.startswith("--")}
    if output is None and "--temp_location" not in given:
        raise UsageError(
            "--runner DataflowRunner: the job needs a folder of a bucket for its own files; add "
            "--temp_location gs://BUCKET/FOLDER"
        )
    if output is not None and not output.startswith("gs://"):
        raise UsageError(f"--output {output}: Dataflow's workers cannot write there; give a folder of a bucket, gs://…")
    options = [option for names, option in _FIXED if not given.intersection(names)]
    own = posixpath.join(output or "", ".dataflow")
    if "--temp_location" not in given:
        options.append(f"--temp_location={own}/temp")
    if "--staging_location" not in given:
        root = PipelineOptions(list(arguments)).view_as(GoogleCloudOptions).temp_location or own
        options.append(f"--staging_location={posixpath.join(root, 'staging')}")
    if not given.intersection(("--setup_file", "--sdk_container_image")):
        check_source_folder()
    return options


# --- What workers install ---------------------------------------------------------------------------------------------

# Beam's `--setup_file` alone would let each worker take the newest packages that fit, and setuptools to build ours. A
# wheel is made here, once, and needs nothing built there; pip takes no package whose hash is not in the staged
# requirements, which list all that the wheel asks for.

_ROOT = Path(__file__).resolve().parents[2]
LOCK = _ROOT / "requirements.lock"
"""All packages of a worker beside the project, by version and hash."""

_BESIDE_PACKAGES = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
# Beam would else fetch each package here, by a call of pip for each of its lines.
_NO_CACHE = "skip"


@contextlib.contextmanager
def pinned_packages(options: PipelineOptions) -> Iterator[None]:
    """Has workers install the project's wheel and the packages of `LOCK`, while the block submits the job.

    An image or a setup file that the options name brings all that workers need; requirements that they name take the
    place of `LOCK`.

    Raises:
        UsageError: see `check_source_folder`.
        BroetchenError: the wheel cannot be made.
    """
    setup = options.view_as(SetupOptions)
    if options.view_as(WorkerOptions).sdk_container_image or setup.setup_file:
        yield
        return
    check_source_folder()
    with tempfile.TemporaryDirectory(prefix="broetchen-package-") as folder:
        setup.extra_packages = [*(setup.extra_packages or ()), _make_wheel(folder)]
        if not setup.requirements_file:
            setup.requirements_file = str(LOCK)
            setup.requirements_cache = _NO_CACHE
        yield


def check_source_folder() -> None:
    """Checks that the project's own source is here, of which the workers' package is made.

    Raises:
        UsageError: it runs from an installed package.
    """
    if not (LOCK.is_file() and (_ROOT / "setup.py").is_file()):
        raise UsageError(
            "Dataflow's workers need this project, and it is not run from its source folder here: "
            "give --sdk_container_image (docs/dataflow.md), or --setup_file with the path of its setup.py"
        )


def packages() -> list[str]:
    """The folders of the project that its wheel holds, as pyproject.toml names them."""
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())
    return [pattern.removesuffix("*") for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]]


def _make_wheel(folder: str) -> str:
    # From a copy: setuptools writes beside its sources, where another job may be at it, and takes along all files
    # there.
    tree = Path(folder, "tree")
    tree.mkdir()
    for name in _BESIDE_PACKAGES:
        shutil.copy(_ROOT / name, tree)
    for name in packages():
        shutil.copytree(_ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, str(tree)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    wheels = sorted(Path(folder).glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = one_line("\n".join((done.stdout + done.stderr).splitlines()[-3:]))
        raise BroetchenError(f"{_ROOT}: the workers' package cannot be made ({said}); check that this folder is whole")
    return str(wheels[0])
