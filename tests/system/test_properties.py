"""How properties are tried: on more examples by `make test-slow`, and such that a failure can be had again."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.documents import ROOT

PROPERTIES = """
from hypothesis import given, strategies

from tests.support.examples import at_most

tried = {"usual": 0, "costly": 0}

@given(strategies.binary(min_size=32, max_size=32))
def test_usual(_):
    tried["usual"] += 1

@at_most(4)
@given(strategies.binary(min_size=32, max_size=32))
def test_costly(_):
    tried["costly"] += 1

def test_told():
    print("tried", tried["usual"], tried["costly"])

@given(strategies.integers())
def test_wrong(number):
    assert number < 1000
"""


@pytest.mark.slow  # it starts pytest
def test_more_examples_are_tried_and_what_reproduces_a_failure_is_printed(tmp_path: Path) -> None:
    shown = subprocess.run(["make", "-n", "test-slow"], cwd=ROOT, capture_output=True, text=True, timeout=60).stdout
    assert '-m "slow or hypothesis" --hypothesis-profile=thorough' in shown
    (tmp_path / "test_properties.py").write_text(PROPERTIES)
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)]
    command += ["-p", "tests.conftest", "-p", "no:cacheprovider", "--hypothesis-profile=thorough", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "1 failed, 3 passed" in done.stdout, done.stdout + done.stderr
    assert "tried 250 8" in done.stdout
    assert re.search(r"@reproduce_failure\('[\d.]+', b'.+'\)", done.stdout)


def test_the_usual_profile_prints_what_reproduces_a_failure() -> None:
    usual = settings.get_profile("broetchen")
    assert (usual.max_examples, usual.print_blob, usual.deadline) == (100, True, None)
