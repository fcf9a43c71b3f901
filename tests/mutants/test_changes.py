"""Which changes are tried."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.changes import mutants_of


def changes(folder: Path, source: str) -> set[tuple[int, str, str]]:
    (folder / "module.py").write_text(source)
    return {(mutant.line, mutant.before, mutant.after) for mutant in mutants_of(folder, "module.py")}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("return n < 5", {"return None", "return n <= 5", "return n < 6"}),
        ("f(n)", {"pass", "f(None)"}),
        ("f(n, key=n)", {"pass", "f(None, key=n)", "f(n, key=None)", "f(n, )"}),
        ("n += 2", {"pass", "n = 2", "n -= 2", "n += 3"}),
        ('f("left")', {"pass", "f(None)", 'f("right")'}),
        ("return max(n)", {"return None", "return max(None)", "return min(n)"}),
        ("a = n[1:]", {"a = None", "a = n[2:]", "a = n[:]"}),
        ("a = [i for i in n if i]", {"a = None", "a = [i for i in n]"}),
        ("del n[0]", {"pass", "del n[1]"}),
    ],
)
def test_what_is_made_of_a_line(tmp_path: Path, line: str, expected: set[str]) -> None:
    found = changes(tmp_path, f"def f(n):\n    {line}\n")
    assert {(number, before) for number, before, _ in found} == {(2, line)}
    assert {after for _, _, after in found} == expected


@pytest.mark.parametrize(
    "line",
    [
        'raise ValueError(f"{n + 1}: too many", n < 1)',
        '"""Says what it does: n < 1."""',
        "a: dict[int, None]",
        "import os",
        'Order = Literal["a", "b"]',
        '_LOGGER.warning("%s: slow", n + 1)',
    ],
)
def test_what_is_only_said_stays(tmp_path: Path, line: str) -> None:
    assert not changes(tmp_path, f"def f(n):\n    {line}\n") - {(2, line, "pass"), (2, line, "Order = None")}


def test_conditions_are_decided_and_handlers_lose_an_exception(tmp_path: Path) -> None:
    source = "def f(n):\n    try:\n        if n:\n            return\n    except (KeyError, ValueError):\n        f()\n"
    found = {after for _, _, after in changes(tmp_path, source)}
    assert found == {"if True:", "if False:", "pass", "except (ValueError,):", "except (KeyError,):"}


def test_a_mutant_says_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("class A:\n    def f(self):\n        self.g(\n            1,\n        )\n")
    said = [str(mutant) for mutant in mutants_of(tmp_path, "module.py")]
    assert "module.py:4 A.f: 1,  →  2," in said
    assert "module.py:3 A.f: self.g( 1, )  →  pass" in said
