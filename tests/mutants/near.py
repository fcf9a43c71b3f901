"""Finds the tests near a module, and those of them that run a line of it."""

from __future__ import annotations

import ast
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.mutants.trials import Reach, Trial, run
from tests.support.documents import ROOT

_ROOM_TIMEOUT_S = 900


class NearTests:
    """The tests of a module's room that are not slow, and its examples; those that run any line of it.

    Args:
        tests: seconds and lines by test.
    """

    def __init__(self, module: str, tests: Mapping[str, tuple[float, frozenset[int]]]) -> None:
        self._tests = {name: seconds for name, (seconds, lines) in tests.items() if lines}
        self._lines = {name: lines for name, (_, lines) in tests.items()}
        self._statements = _statements((ROOT / module).read_text(encoding="utf-8"))

    def all(self) -> list[str]:
        """The tests that run any line, the quick ones first."""
        return sorted(self._tests, key=lambda name: self._tests[name])

    def of(self, line: int) -> list[str]:
        """The tests that run the statement that holds a line; all of them for a statement that an import runs."""
        first, last = self._statements[line]
        if first == 0:
            return self.all()
        return [name for name in self.all() if any(first <= reached <= last for reached in self._lines[name])]

    def seconds(self, tests: Sequence[str]) -> float:
        """The seconds that some tests take together."""
        return sum(self._tests[name] for name in tests)


def find_near(modules: Sequence[str]) -> dict[str, NearTests]:
    """The near tests of modules of one room.

    Raises:
        RuntimeError: they fail as it is.
    """
    rooms = {str(Path("tests", module).parent) for module in modules}
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder, "reach.json")
        tests = [*(room for room in sorted(rooms) if (ROOT / room).is_dir()), *modules]
        trial = Trial("", ["-m", "not slow", *tests], _ROOM_TIMEOUT_S, plugin=Reach(modules, found))
        ((_, ended),) = run([trial], 1)
        if ended.how != "passed":
            raise RuntimeError(f"the tests of {', '.join(sorted(rooms))} fail as it is:\n{ended.output}")
        reached = json.loads(found.read_text())
    return {
        module: NearTests(
            module,
            {
                name: (test["seconds"], frozenset(line for path, line in test["lines"] if path == module))
                for name, test in reached.items()
            },
        )
        for module in modules
    }


def _statements(source: str) -> dict[int, tuple[int, int]]:
    """The innermost statement's lines by line, of a compound one those of its head; (0, 0) where an import runs it."""
    lines = dict.fromkeys(range(1, source.count("\n") + 2), (0, 0))

    def visit(node: ast.AST, inside: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt | ast.ExceptHandler) and inside:
                body = [part for part in ast.iter_child_nodes(child) if isinstance(part, ast.stmt)]
                last = min(part.lineno for part in body) - 1 if body else child.end_lineno or child.lineno
                last = max(last, child.lineno)
                for line in range(child.lineno, last + 1):
                    lines[line] = (child.lineno, last)
            visit(child, inside or isinstance(child, ast.FunctionDef))

    visit(ast.parse(source), False)
    return lines
