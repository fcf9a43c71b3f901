"""The command, on a copy of the project: mutants that tests catch, survivors, and known equivalents."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.documents import ROOT

MODULE, TESTS = "transforms/budget/finds.py", "tests/transforms/budget/test_finds.py"
CODE = '''"""Finds."""


def find(text: str) -> int:
    """The place of the first x, or -1."""
    for place in range(len(text) + 0):
        if text[place] == "x":
            return place
    return -1
'''
WEAK = f"""from {MODULE.removesuffix(".py").replace("/", ".")} import find


def test_it_runs():
    find("x")
    find("a")
"""
STRONG = """

def test_it_finds():
    assert [find("xa"), find("ab"), find("axx"), find("aax"), find("")] == [0, -1, 1, 2, -1]
"""
SAME = """
- function: find
  before: "for place in range(len(text) + 0):"
  after: "for place in range(len(text) - 0):"
  why: adding nothing is taking nothing away
"""


def mutants(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.mutants", MODULE, *arguments]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=500)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("beam_pipelines", "launch", "transforms", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", ".cache"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for path in (tmp_path / "tests/transforms/budget").glob("test_*.py"):
        path.unlink()
    shutil.rmtree(tmp_path / "tests/mutants/equivalent")
    (tmp_path / MODULE).write_text(CODE)
    return tmp_path


@pytest.mark.slow
def test_survivors_are_told_and_fail_the_command_until_a_test_or_a_reason_is_there(project: Path) -> None:
    (project / TESTS).write_text(WEAK)
    done = mutants(project)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{MODULE}:9 find: return -1  →  return +1" in done.stdout

    (project / TESTS).write_text(WEAK + STRONG)
    done = mutants(project, "--again")
    told = [line for line in done.stdout.splitlines() if line.startswith(MODULE)]
    assert told == [f"{MODULE}:6 find: for place in range(len(text) + 0):  →  for place in range(len(text) - 0):"], (
        done.stdout + done.stderr
    )

    (project / "tests/mutants/equivalent").mkdir()
    entries = project / f"tests/mutants/equivalent/{MODULE.removesuffix('.py').replace('/', '.')}.yaml"
    entries.write_text(SAME)
    done = mutants(project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(rf"\| `{MODULE}` \| 2 \| (\d+) \| 1 \| \d+ \| 0 \| 100\.0% \|", done.stdout)
    assert "no longer survives" not in done.stderr

    entries.write_text(SAME + SAME.replace("- 0", "* 0"))
    assert "no longer survives" in mutants(project).stderr
