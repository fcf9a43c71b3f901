"""A config as plain data: YAML with the line of each key, so that an error can say where it is.

The keys that a config has to hold are known in `transforms.config.section`.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Callable, Container, Iterable
from typing import Any

import yaml

from transforms.errors import UsageError
from transforms.quantities import shown

MERGE_TAG = "tag:yaml.org,2002:merge"
"""The tag of the key `<<`."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with only those plain scalars that a config needs."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 (PyYAML's own way to say it)


# No octal (010), and no more digits than a quantity can have.
_INT = re.compile(r"[-+]?(?:0|[1-9](?:_?[0-9]){0,29})\Z")

# The pattern of a tag's plain scalars, and the characters that they may start with.
_PLAIN = {
    "tag:yaml.org,2002:null": (re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""]),
    "tag:yaml.org,2002:bool": (re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), ["t", "T", "f", "F"]),
    "tag:yaml.org,2002:int": (_INT, list("-+0123456789")),
    MERGE_TAG: (re.compile(r"<<\Z"), ["<"]),
}
# Not in YAML 1.1, which wants a point in it: the exponent alone, as in `6e-06`.
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]{1,3})?\Z")
_FLOATS = {"tag:yaml.org,2002:float": (_FLOAT, list("-+.0123456789"))}


class _FloatLoader(_Loader):
    """The same, and floats."""


for _loader, _plain in ((_Loader, _PLAIN), (_FloatLoader, _FLOATS)):
    for _tag, (_pattern, _first) in _plain.items():
        _loader.add_implicit_resolver(_tag, _pattern, _first)


def _to_int(text: str) -> int | str:
    # A tag, `!!int 1e3`, may not fit the text; the schema then refuses the text.
    return int(text) if _INT.match(text) else text


def _to_float(text: str) -> float | str:
    return float(text) if _FLOAT.match(text) else text


_SCALARS: dict[str, Callable[[str], Any]] = {
    "tag:yaml.org,2002:str": str,
    "tag:yaml.org,2002:null": lambda text: None,
    "tag:yaml.org,2002:bool": lambda text: text.lower() == "true",
    "tag:yaml.org,2002:int": _to_int,
    "tag:yaml.org,2002:float": _to_float,
}
_TAGS: dict[type[yaml.Node], Container[str]] = {
    yaml.MappingNode: {"tag:yaml.org,2002:map"},
    yaml.SequenceNode: {"tag:yaml.org,2002:seq"},
    yaml.ScalarNode: _SCALARS,
}


def compose(text: str, *, floats: bool) -> yaml.Node | None:
    """The nodes of a document; None where it is empty.

    Raises:
        yaml.YAMLError: it is no YAML.
        RecursionError: it is nested too deep.
    """
    node: yaml.Node | None = yaml.compose(text, Loader=_FloatLoader if floats else _Loader)
    return node


def is_plain_data(node: yaml.Node, *, floats: bool) -> bool:
    """Whether a node has a tag that a config takes; of the nodes in it nothing is said."""
    return node.tag in _TAGS[type(node)] and (floats or node.tag not in _FLOATS)


def scalar_value(node: yaml.Node) -> Any:
    """The value of a scalar node; its text where the tag is unknown or does not fit the text."""
    return _SCALARS.get(node.tag, str)(node.value)


def plain_value(text: str, *, floats: bool) -> Any:
    """The value of a text that stands in a document without quotes.

    >>> plain_value("2_000", floats=False), plain_value("6e-06", floats=False), plain_value("6e-06", floats=True)
    (2000, '6e-06', 6e-06)
    """
    plain = _PLAIN | _FLOATS if floats else _PLAIN
    tags = (tag for tag, (pattern, _) in plain.items() if pattern.match(text))
    return _SCALARS.get(next(tags, ""), str)(text)


Loc = tuple[str | int, ...]

MAX_CONFIG_BYTES = 2**20
"""A config file beyond this is refused unread: a mix of a hundred datasets takes some 20 KiB."""

MAX_REPEATED_NODES = 1000
"""How many YAML nodes aliases (`*name`) may repeat in all, which stops the "billion laughs" kind of document."""

_MAX_DEPTH = 20
_MAX_MESSAGE_LINES = 100
_MAX_SHOWN_KEY = 120
_AFTER_ALL_LINES = MAX_CONFIG_BYTES + 1


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong at `loc` of the config; `what` says it in a sentence, with the value and the fix."""

    loc: Loc
    what: str


@dataclasses.dataclass(frozen=True, slots=True)
class ConfigKind:
    """The sort of config that a file is meant to be, for the errors.

    Attributes:
        name: of the sort.
        example: a config of it.
        floats: whether plain text like `6e-06` is a float.
        keys: of the whole file, which no other sort has.
        others: the keys by which another sort is known, and what to say of it.
    """

    name: str
    example: str
    floats: bool = False
    keys: frozenset[str] = frozenset()
    others: tuple[tuple[frozenset[str], str], ...] = ()

    def mistake(self, data: Any) -> str | None:
        """The message for a document of another sort; None where it is not known to be one."""
        if not isinstance(data, dict) or self.keys & data.keys():
            return None
        return next((what for keys, what in self.others if keys & data.keys()), None)


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a config has come from; configs of the same content are equal, wherever that was."""

    document: ConfigDocument | None = dataclasses.field(default=None, compare=False)


class ConfigDocument:
    """A config file as plain data, with the line of each key, and the problems found so far."""

    def __init__(self, name: str, kind: ConfigKind, given_as: str = "--set") -> None:
        """An empty document.

        Args:
            name: of the file, as errors show it.
            kind: its name in errors.
            given_as: the name of an override in errors.
        """
        self.name = name
        self.kind = kind
        self._given_as = given_as
        self.data: Any = None
        self.problems: list[Problem] = []
        self._lines: dict[Loc, int] = {}
        self._overridden: dict[Loc, str] = {}
        self._seen: set[int] = set()
        self._repeated = 0

    def parse(self, content: bytes) -> None:
        """Reads the file's content.

        Raises:
            UsageError: it is too large, is no YAML, or has more aliases or nesting than a config can need.
        """
        if len(content) > MAX_CONFIG_BYTES:
            raise UsageError(
                f"{self.name}: is larger than 1 MiB; a {self.kind.name} is a short YAML file, check the path"
            )
        try:
            node = compose(content.decode("utf-8-sig"), floats=self.kind.floats)
        except UnicodeDecodeError as error:
            problem = f"is not UTF-8 text (byte {error.start}); check the path, or save it as UTF-8"
            raise UsageError(f"{self.name}: {problem}") from error
        except RecursionError as error:
            raise UsageError(f"{self.name}: is nested too deep for a {self.kind.name}; check the path") from error
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            where = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
            tab = error.problem is not None and "'\\t'" in error.problem
            advice = "indent by blanks, not by a tab" if tab else "check the quotes, colons and indents"
            problem = f"is not valid YAML: {error.problem}; {advice}"
            raise UsageError(f"{self.name}{where}: {problem}") from error
        except yaml.reader.ReaderError as error:
            problem = f"is not valid YAML: character {error.position} is not printable; check the path, or remove it"
            raise UsageError(f"{self.name}: {problem}") from error
        if node is None:
            raise UsageError(f"{self.name}: is empty; start from {self.kind.example}")
        self.data = self._build(node, ())

    def override(self, key: str, value: Any) -> None:
        """Puts `value` at the dotted `key`, or notes why it cannot be there."""
        loc = self._split(key)
        self._overridden[loc] = key
        parent = self.data
        for part in loc[:-1]:
            if not isinstance(parent, dict):
                break
            if parent is self.data.get("datasets") and part not in parent:
                near = difflib.get_close_matches(str(part), parent, n=1)
                advice = f"did you mean {near[0]}?" if near else "name one that it has"
                self._report(loc, f"is of a dataset that the config does not have; {advice}")
                return
            if parent.get(part) is None:
                parent[part] = {}
            parent = parent[part]
        if isinstance(parent, dict):
            parent[loc[-1]] = self._typed(value, loc) if isinstance(value, str) else value
        else:
            self._report(loc, "lies below a key that is not a mapping; check the key")

    def message(self, problems: Iterable[Problem]) -> str:
        """The problems, a line each, in the order of the file."""
        lines = list(dict.fromkeys(line for _, line in sorted(map(self._described, problems))))
        rest = len(lines) - _MAX_MESSAGE_LINES
        if rest > 0:
            lines[_MAX_MESSAGE_LINES:] = [f"{self.name}: and {rest} more errors; is this a {self.kind.name} at all?"]
        return "\n".join(lines)

    def _described(self, problem: Problem) -> tuple[int, str]:
        loc = problem.loc[:-1] if problem.loc[-1:] == ("[key]",) else problem.loc
        longest_first = (loc[:length] for length in range(len(loc), 0, -1))
        place = next((part for part in longest_first if part in self._overridden or part in self._lines), ())
        if not self._lines:
            return 0, f"{self.name}: {_dotted(loc)}: {problem.what}"
        if place in self._overridden:
            key = _printable(self._overridden[place])
            return _AFTER_ALL_LINES, f"{self.name} ({self._given_as} {key}): {_dotted(loc)}: {problem.what}"
        return self._lines[place], f"{self.name}:{self._lines[place]}: {_dotted(loc)}: {problem.what}"

    @staticmethod
    def _split(key: str) -> Loc:
        first, *rest = key.split(".")
        # The name of a dataset may have dots of its own; a field of a dataset has none.
        return (first, ".".join(rest[:-1]), rest[-1]) if first == "datasets" and len(rest) > 1 else (first, *rest)

    def _typed(self, text: str, loc: Loc) -> Any:
        """`text` as the value of a key in the file. Only quotes and brackets start YAML: `*.parquet` is no alias."""
        if text[:1] in ("[", "{", '"', "'"):
            part = ConfigDocument(f"{self.name} ({self._given_as} {_printable(self._overridden[loc])})", self.kind)
            part.parse(text.encode())
            self.problems += (Problem((*loc, *problem.loc), problem.what) for problem in part.problems)
            return part.data
        return plain_value(text, floats=self.kind.floats)

    def _build(self, node: yaml.Node, loc: Loc) -> Any:
        if len(loc) > _MAX_DEPTH:
            problem = f"is nested too deep for a {self.kind.name}, or refers to itself; write it out"
            raise UsageError(f"{self.name}:{_line(node)}: {problem}")
        self._repeated += id(node) in self._seen
        self._seen.add(id(node))
        if self._repeated > MAX_REPEATED_NODES:
            problem = f"aliases repeat more than {MAX_REPEATED_NODES} values up to here; write them out"
            raise UsageError(f"{self.name}:{_line(node)}: {problem}")
        self._lines.setdefault(loc, _line(node))
        if not is_plain_data(node, floats=self.kind.floats):
            self._report(loc, f"has the YAML tag {shown(node.tag)}, which a config does not take; remove it")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, loc)
        if isinstance(node, yaml.SequenceNode):
            return [self._build(item, (*loc, index)) for index, item in enumerate(node.value)]
        return scalar_value(node)

    def _mapping(self, node: yaml.MappingNode, loc: Loc) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._report(loc, f"has a key on line {_line(key_node)} that is a list or a mapping; write a name")
            elif key_node.tag == MERGE_TAG:
                merged = self._merge(value_node, (*loc, "<<")) | merged
            else:
                # A key is always text: a dataset may be called 2024 or null.
                key = key_node.value
                if key in own:
                    first, second = self._lines[(*loc, key)], _line(key_node)
                    self._report((*loc, key), f"is there twice, on lines {first} and {second}; remove one")
                self._lines[(*loc, key)] = _line(key_node)
                own[key] = self._build(value_node, (*loc, key))
        return merged | own

    def _merge(self, node: yaml.Node, loc: Loc) -> dict[str, Any]:
        """The keys of a merge, `<<: *base` or `<<: [*first, *second]`, where the first that has a key gives it."""
        bases = self._build(node, loc)
        merged: dict[str, Any] = {}
        for base in bases if isinstance(bases, list) else [bases]:
            if isinstance(base, dict):
                merged = base | merged
            else:
                self._report(loc, f"{shown(base)} is not a mapping; merge one with <<: *name")
        return merged

    def _report(self, loc: Loc, what: str) -> None:
        self.problems.append(Problem(loc, what))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _dotted(loc: Loc) -> str:
    """A key's path: `datasets.german.source[1]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{_printable(part)}" for part in loc)
    return text.removeprefix(".") or "(the whole file)"


def _printable(key: str) -> str:
    short = key if len(key) <= _MAX_SHOWN_KEY else f"{key[:_MAX_SHOWN_KEY]}…"
    return short if short.isprintable() and short else json.dumps(short)
