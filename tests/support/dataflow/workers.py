"""Workers of the tests' Dataflow: an environment of a job's staged files and nothing else, and processes in it.

A worker's container installs the staged requirements and then the staged packages, before it works. Here the
requirements are linked from this environment, where they are installed already, and only those that the staged file
names by the version that it names; the packages are installed. Neither this checkout nor packages that only tests need
are there.
"""

from __future__ import annotations

import base64
import csv
import dataclasses
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from apache_beam.metrics import monitoring_infos
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2, metrics_pb2
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from transforms.files import storage

_PROGRAM = Path(__file__).with_name("worker_program.py")
_SITE_PACKAGES = Path(sysconfig.get_paths()["purelib"])
_UV = Path(sys.executable).with_name("uv")
# They name the bucket and its credentials, and no path to a module.
_VARIABLES = (
    "CLOUD_STORAGE_EMULATOR_ENDPOINT",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_CLOUD_PROJECT",
    "PATH",
    "STORAGE_EMULATOR_HOST",
)
PACKAGES = "extra_packages.txt"
"""The staged file that names the staged packages; only a job without an image has it."""

Counters = dict[tuple[str, str], int]
"""Values of counters, by namespace and name."""


class InstallError(Exception):
    """A staged package cannot be installed."""


@dataclasses.dataclass(frozen=True)
class WorkerEnvironment:
    """A Python with the packages that a job has staged.

    Attributes:
        folder: of the virtual environment.
        staged: the names of the staged files that it was made of.
    """

    folder: Path
    staged: frozenset[str]

    @property
    def python(self) -> Path:
        """The interpreter."""
        return self.folder / "bin" / "python"

    @property
    def packages(self) -> Path:
        """The folder that its modules are in, and the only one beside the standard library's."""
        return self.folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"

    def run(self, *arguments: str | os.PathLike[str], scratch: Path, **options: Any) -> subprocess.Popen[bytes]:
        """Starts its Python, which sees no module but its own, in a session of its own and an empty home."""
        home = scratch / "home"
        home.mkdir(parents=True, exist_ok=True)
        variables = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
        return subprocess.Popen(
            [self.python, "-I", *arguments],
            cwd=home,
            env={**variables, "HOME": str(home), "TMPDIR": str(home)},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            **options,
        )


def install(graph: beam_runner_api_pb2.Pipeline, folder: Path) -> WorkerEnvironment:
    """Makes the environment of a job's workers of the files that its graph names.

    Raises:
        InstallError: a package cannot be had.
    """
    staged = folder / "staged"
    staged.mkdir(parents=True)
    for name, url in staged_files(graph).items():
        (staged / name).write_bytes(storage.read_bytes(url))
    subprocess.run([_UV, "venv", "--quiet", "--offline", "--python", sys.executable, folder / "env"], check=True)
    made = WorkerEnvironment(folder / "env", frozenset(path.name for path in staged.iterdir()))
    _link(_required((staged / "requirements.txt").read_text()), made.packages)
    wheels = [staged / name for name in (staged / PACKAGES).read_text().split()]
    _uv(made, "install", "--offline", "--no-deps", "--no-index", *map(str, wheels))
    _uv(made, "check")
    return made


def staged_files(graph: beam_runner_api_pb2.Pipeline) -> dict[str, str]:
    """The files that a job has staged for its workers: the name of each, and its address."""
    found = {}
    for environment in graph.components.environments.values():
        for artifact in environment.dependencies:
            assert artifact.type_urn == common_urns.artifact_types.URL.urn
            where = beam_runner_api_pb2.ArtifactUrlPayload.FromString(artifact.type_payload)
            role = beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(artifact.role_payload)
            found[role.staged_name] = where.url
    return found


def _required(text: str) -> Iterable[Requirement]:
    for line in text.replace("\\\n", " ").splitlines():
        if line and not line.lstrip().startswith("#"):
            requirement = Requirement(line.partition("--hash=")[0])
            if requirement.marker is None or requirement.marker.evaluate():
                yield requirement


def _link(requirements: Iterable[Requirement], packages: Path) -> None:
    """Links packages of this environment; folders that several share, such as `google`, file by file."""
    owners: defaultdict[str, set[str]] = defaultdict(set)
    files: list[tuple[str, str]] = []
    for requirement in requirements:
        found = importlib.metadata.distribution(canonicalize_name(requirement.name))
        if not requirement.specifier.contains(found.version):
            raise InstallError(f"pip failed to install {requirement}: here is {found.version}")
        for path, *_ in csv.reader((found.read_text("RECORD") or "").splitlines()):
            top, _, rest = path.partition("/")
            if top not in ("..", "__pycache__"):
                owners[top].add(requirement.name)
                files.append((top, rest))
    for top, names in owners.items():
        if top.endswith(".dist-info"):  # in which installers look for no links
            shutil.copytree(_SITE_PACKAGES / top, packages / top)
        elif len(names) == 1:
            (packages / top).symlink_to(_SITE_PACKAGES / top)
    for top, rest in files:
        if len(owners[top]) > 1:
            link = packages / top / rest
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(_SITE_PACKAGES / top / rest)


def _uv(made: WorkerEnvironment, command: str, *arguments: str) -> None:
    done = subprocess.run(
        [_UV, "pip", command, "--quiet", "--python", made.python, *arguments], capture_output=True, text=True
    )
    if done.returncode:
        raise InstallError(f"pip failed to {command}: {done.stderr}")


class WorkerJob:
    """A job at work in an environment.

    Args:
        told: called with the job's counters as they grow.
    """

    def __init__(
        self, environment: WorkerEnvironment, graph: bytes, folder: Path, told: Callable[[Counters], None]
    ) -> None:
        folder.mkdir(parents=True)
        (folder / "pipeline.pb").write_bytes(graph)
        self._folder, self._told = folder, told
        (sockets := folder / "s").mkdir(mode=0o700)
        with (folder / "stderr").open("wb") as errors:
            self._process = environment.run(
                _PROGRAM, folder / "pipeline.pb", sockets, scratch=folder, stdout=subprocess.PIPE, stderr=errors
            )
        self.modules: list[str] = []

    def wait(self) -> str:
        """Waits for its end; returns the traceback that it failed with, "" where it is done."""
        ended = f"the workers died: {(self._folder / 'stderr').read_text()[-2000:]}"
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                kind, content = json.loads(line)
                match kind:
                    case "counters":
                        self._told(_counters(content))
                    case "modules":
                        self.modules = content
                    case "failed":
                        ended = content
                    case "done":
                        ended = ""
        self._process.wait()
        shutil.rmtree(self._folder / "home", ignore_errors=True)
        return ended

    def is_alive(self) -> bool:
        """Whether it works."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Ends all of its processes, whatever they are doing."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)


def _counters(infos: list[str]) -> Counters:
    found: Counters = defaultdict(int)
    for encoded in infos:
        info = metrics_pb2.MonitoringInfo.FromString(base64.b64decode(encoded))
        if monitoring_infos.is_user_monitoring_info(info) and monitoring_infos.is_counter(info):
            name = (info.labels["NAMESPACE"], info.labels["NAME"])
            found[name] += monitoring_infos.extract_counter_value(info)
    return found
