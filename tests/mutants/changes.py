"""The changes that are tried on a module: those of mutmut, and some that it does not make.

mutmut (https://mutmut.readthedocs.io) knows what to make of an expression: other operators, numbers, arguments. It does
not leave a statement out, nor decide a condition, and on these the order of a build's steps hangs. Text for people
(messages, logs, docstrings) and for type checkers is left as it is.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import libcst as cst
from libcst import matchers as m
from mutmut.mutation.mutators import mutation_operators, operator_arg_removal, operator_string

_SWAPPED = {"min": "max", "max": "min", "any": "all", "all": "any"}
_SIDES = {'"left"': '"right"', '"right"': '"left"'}

# Messages, logs, labels of Beam's steps, and types.
_LEFT_ALONE = (
    m.Annotation()
    | m.Decorator()
    | m.Import()
    | m.ImportFrom()
    | m.Raise()
    | m.FormattedString()
    | m.TypeAlias()
    | m.Call(func=m.Attribute(value=m.Name("_LOGGER")))
    | m.Call(func=m.Attribute(attr=m.Name("with_output_types")))
    | m.Call(func=m.Name(value=m.MatchIfTrue(lambda name: name.endswith(("Error", "Warning")))))
    | m.Subscript(value=m.Name("Literal"))
    | m.Arg(keyword=m.Name("strict"))
)
_LABEL = m.BinaryOperation(left=m.SimpleString(), operator=m.RightShift())
_DOCSTRING = m.SimpleStatementLine(body=[m.Expr(value=m.SimpleString() | m.ConcatenatedString())])


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One change of a module.

    Attributes:
        module: path of the module from the root of the project.
        line: the number of the first line that differs, from 1.
        function: the class and function that it is in, or "" at the top.
        before, after: the lines that differ, without the spaces around them; `after` is "" where they are left out.
        source: of the whole module with the change.
    """

    module: str
    line: int
    function: str
    before: str
    after: str
    source: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line} {self.function}: {self.before}  →  {self.after}"


def mutants_of(root: Path, module: str) -> list[Mutant]:
    """All mutants of a module that differ from it, and from each other, by more than their spelling."""
    original = (root / module).read_text(encoding="utf-8")
    tree = cst.parse_module(original)
    collector = _Collector()
    tree.visit(collector)
    seen, found = {_meaning(original)}, []
    for node, new, function in collector.changes:
        source = cst.ensure_type(tree.deep_replace(node, new), cst.Module).code
        try:
            meaning = _meaning(source)
        except SyntaxError:
            continue
        if meaning not in seen:
            seen.add(meaning)
            line, before, after = _difference(original, source)
            found.append(Mutant(module, line, function, before, after, source))
    return sorted(found, key=lambda mutant: mutant.line)


def _meaning(source: str) -> str:
    return ast.dump(ast.parse(source))


def _difference(old: str, new: str) -> tuple[int, str, str]:
    before, after = old.splitlines(), new.splitlines()
    for kind, start, stop, new_start, new_stop in difflib.SequenceMatcher(None, before, after, False).get_opcodes():
        if kind != "equal":
            texts = (" ".join(map(str.strip, lines)) for lines in (before[start:stop], after[new_start:new_stop]))
            return start + 1, *texts  # type: ignore[return-value]
    raise AssertionError("a mutant that is spelled like its module")


class _Collector(cst.CSTVisitor):
    """Gathers (node, its replacement, the function that it is in)."""

    def __init__(self) -> None:
        super().__init__()
        self.changes: list[tuple[cst.CSTNode, cst.CSTNode, str]] = []
        self._names: list[str] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if m.matches(node, _LEFT_ALONE) or m.matches(node, _DOCSTRING):
            return False
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self._names.append(node.name.value)
        for new in _changes(node):
            self.changes.append((node, new, ".".join(self._names)))
        if m.matches(node, _LABEL):
            cst.ensure_type(node, cst.BinaryOperation).right.visit(self)
            return False
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if isinstance(original_node, cst.FunctionDef | cst.ClassDef):
            self._names.pop()


def _changes(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    if not m.matches(node, _LABEL):
        for kind, change in mutation_operators:
            if isinstance(node, kind) and change not in (operator_string, operator_arg_removal):
                yield from change(node)
    for kind, change in _MORE:
        if isinstance(node, kind):
            yield from change(node)


def _string(node: cst.SimpleString) -> Iterable[cst.CSTNode]:
    """Another string, where it is no sentence."""
    if node.value in _SIDES:
        yield node.with_changes(value=_SIDES[node.value])
    elif " " not in str(node.evaluated_value):
        yield from list(operator_string(node))[:1]


def _condition(node: cst.If) -> Iterable[cst.CSTNode]:
    for decided in ("True", "False"):
        yield node.with_changes(test=cst.Name(decided))


def _loop(node: cst.While) -> Iterable[cst.CSTNode]:
    yield node.with_changes(test=cst.Name("False"))


def _filter(node: cst.CompFor) -> Iterable[cst.CSTNode]:
    for place in range(len(node.ifs)):
        yield node.with_changes(ifs=[*node.ifs[:place], *node.ifs[place + 1 :]])


def _statement(node: cst.SimpleStatementLine) -> Iterable[cst.CSTNode]:
    """Nothing in place of a call, a yield, an addition, and of a bare `return`."""
    statement = node.body[0]
    bare = isinstance(statement, cst.Return) and statement.value is None
    if bare or isinstance(statement, cst.Expr | cst.AugAssign | cst.Del):
        yield node.with_changes(body=[cst.Pass()])


def _returned(node: cst.Return) -> Iterable[cst.CSTNode]:
    if node.value is not None and not m.matches(node.value, m.Name("None")):
        yield node.with_changes(value=cst.Name("None"), whitespace_after_return=cst.SimpleWhitespace(" "))


def _handled(node: cst.ExceptHandler) -> Iterable[cst.CSTNode]:
    """The handler without one of several exceptions."""
    if isinstance(node.type, cst.Tuple):
        elements = [element.with_changes(comma=cst.Comma()) for element in node.type.elements]
        for place in range(len(elements)):
            kept = [*elements[:place], *elements[place + 1 :]]
            yield node.with_changes(type=node.type.with_changes(elements=kept))


def _slice(node: cst.Slice) -> Iterable[cst.CSTNode]:
    """The slice without one of its ends."""
    for end in ("lower", "upper"):
        if getattr(node, end) is not None:
            yield node.with_changes(**{end: None})


def _call(node: cst.Call) -> Iterable[cst.CSTNode]:
    """The call with `None` for an argument, or without it, if no other moves up in its place; and `max` for `min`."""
    for changed in operator_arg_removal(node):
        gone = len(changed.args) < len(node.args)
        pairs = zip(node.args, [*changed.args, None], strict=False)
        argument = next((old for old, new in pairs if old is not new), node.args[-1])
        if not m.matches(argument, _LEFT_ALONE) and (not gone or argument.keyword or argument is node.args[-1]):
            yield changed
    if isinstance(node.func, cst.Name) and node.func.value in _SWAPPED:
        yield node.with_changes(func=cst.Name(_SWAPPED[node.func.value]))


_MORE: Sequence[tuple[type[cst.CSTNode], Callable[[Any], Iterable[cst.CSTNode]]]] = (
    (cst.SimpleString, _string),
    (cst.If, _condition),
    (cst.While, _loop),
    (cst.CompFor, _filter),
    (cst.SimpleStatementLine, _statement),
    (cst.Return, _returned),
    (cst.ExceptHandler, _handled),
    (cst.Slice, _slice),
    (cst.Call, _call),
)
