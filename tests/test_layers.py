"""The house: rooms hold one subject and a dozen modules at most, and arrows between them run one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.documents import ROOT

PACKAGES = ("beam_pipelines", "benchmarks", "broetchen", "launch", "transforms")
MOST_MODULES = 12
#: folders that hold no code of ours to import
NO_ROOMS = {"in_build", "vm", "configs", "models", "requirements"}


def rooms(*packages: str) -> list[Path]:
    found = [folder for package in packages for folder in (ROOT / package, *(ROOT / package).rglob("*"))]
    return [folder for folder in found if folder.is_dir() and not {".cache", "__pycache__"} & set(folder.parts)]


def modules(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.py") if path.name != "__init__.py")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    program = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    return subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=120)


def test_arrows_run_one_way() -> None:
    """The contracts in pyproject.toml hold, and name every room."""
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "content"),
    [
        ("transforms/files/upwards.py", "from transforms.dataset import manifest\n"),
        ("transforms/new_room.py", ""),
        ("broetchen/new_room.py", ""),
        ("launch/maxtext/upwards.py", "import launch.local.target\n"),
    ],
    ids=["an arrow up", "a room without a layer", "a module without a layer", "an arrow up by the other form"],
)
def test_an_arrow_that_runs_the_other_way_is_found(tmp_path: Path, module: str, content: str) -> None:
    for package in PACKAGES:
        for folder in rooms(package):
            (tmp_path / folder.relative_to(ROOT)).mkdir()
            for path in folder.glob("*.py"):
                (tmp_path / path.relative_to(ROOT)).write_bytes(path.read_bytes())
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    (tmp_path / module).write_text(content)
    done = lint(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "broken" in done.stdout


@pytest.mark.parametrize(
    "room", rooms(*PACKAGES, "tests"), ids=lambda room: room.relative_to(ROOT).as_posix().replace(".", "_")
)
def test_a_room_holds_a_dozen_modules_at_most(room: Path) -> None:
    assert len(modules(room)) <= MOST_MODULES, modules(room)


@pytest.mark.parametrize(
    "room", [room for room in rooms(*PACKAGES) if room.name not in NO_ROOMS], ids=lambda room: room.name
)
def test_a_room_says_its_subject_and_runs_nothing(room: Path) -> None:
    """Packages' `__init__`s hold a docstring; the two faces name what can be imported from them, and import it late."""
    tree = ast.parse((room / "__init__.py").read_text(encoding="utf-8"))
    assert (ast.get_docstring(tree) or "").strip()
    if room.relative_to(ROOT).as_posix() not in ("broetchen", "transforms", "beam_pipelines"):
        assert len(tree.body) == 1


def test_each_tested_room_has_its_tests_in_a_room_of_its_name() -> None:
    ours = {folder.relative_to(ROOT).as_posix() for folder in rooms(*PACKAGES)}
    tested = {folder.relative_to(ROOT / "tests").as_posix() for folder in rooms("tests")} - {"."}
    assert {room for room in tested if room.split("/")[0] in PACKAGES} <= ours
