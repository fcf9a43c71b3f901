"""The package in an environment of its own: the declared packages are enough, and the demo runs anywhere."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.packages import ROOT, build_package

pytestmark = pytest.mark.slow

#: what an installation has no need of, and the tests' own environment has
ONLY_OURS = ("pytest", "hypothesis", "mypy", "datatrove")


def run(*command: str | Path, cwd: Path, environment: Mapping[str, str]) -> str:
    ended = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"
    return ended.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment that has the run lock's packages, and the wheel."""
    folder = tmp_path_factory.mktemp("install")
    wheel = build_package(folder).wheel
    uv = [sys.executable, "-m", "uv"]
    here = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    environment = folder / "environment"
    python = environment / "bin" / "python"
    run(*uv, "venv", "--quiet", "--python", sys.executable, environment, cwd=folder, environment=here)
    lock = ROOT / "requirements.lock"
    run(*uv, "pip", "sync", "--quiet", "--python", python, "--require-hashes", lock, cwd=folder, environment=here)
    run(*uv, "pip", "install", "--quiet", "--python", python, "--no-deps", wheel, cwd=folder, environment=here)
    return environment / "bin"


@pytest.fixture
def elsewhere() -> dict[str, str]:
    """Environment variables without anything that could lead to the project's folder."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def test_what_is_installed_fits_together(installed: Path, tmp_path: Path, elsewhere: dict[str, str]) -> None:
    run(
        sys.executable,
        "-m",
        "uv",
        "pip",
        "check",
        "--python",
        installed / "python",
        cwd=tmp_path,
        environment=elsewhere,
    )
    for name in ONLY_OURS:
        assert importlib.util.find_spec(name)
        code = f"import importlib.util; print(importlib.util.find_spec({name!r}))"
        assert run(installed / "python", "-c", code, cwd=tmp_path, environment=elsewhere) == "None\n"


def test_the_demo_runs(installed: Path, tmp_path: Path, elsewhere: dict[str, str]) -> None:
    shown = run(installed / "broetchen", "demo", "--quiet", cwd=tmp_path, environment=elsewhere)
    assert "fineweb2_german" in shown
    manifests = sorted((tmp_path / "demo-output").glob("*/manifest.json"))
    budgets = [json.loads(path.read_text())["splits"] for path in manifests]
    assert len(budgets) == 5
    assert sum(split["tokens"] for splits in budgets for split in splits.values()) == 410_000
    code = "import beam_pipelines; print(beam_pipelines.__file__)"
    where = Path(run(installed / "python", "-c", code, cwd=tmp_path, environment=elsewhere).strip())
    assert where.is_relative_to(installed.parent)


def test_every_command_has_help(installed: Path, tmp_path: Path, elsewhere: dict[str, str]) -> None:
    """So each module that the command line needs is in the package, and each has its dependencies."""
    code = (
        "import pkgutil, importlib, beam_pipelines, transforms, launch\n"
        "for package in (beam_pipelines, transforms, launch):\n"
        "    for module in pkgutil.iter_modules(package.__path__, package.__name__ + '.'):\n"
        "        if not module.ispkg:\n"
        "            importlib.import_module(module.name)\n"
    )
    run(installed / "python", "-c", code, cwd=tmp_path, environment=elsewhere)
    assert "--output" in run(installed / "broetchen", "build", "--help", cwd=tmp_path, environment=elsewhere)
