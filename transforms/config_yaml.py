"""The YAML of configs: which of its plain scalars are no text, and what they mean.

YAML 1.1 would make a number of `1:30`, a date of `2025-01-01`, `false` of a token called `no`, and a rounded double of
`1.1e9`. Here these are text, and the quantities' own parser reads them exactly. Only where a kind of config asks for
floats is plain text like `6e-06` one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container
from typing import Any

import yaml

MERGE_TAG = "tag:yaml.org,2002:merge"
"""Of the key `<<`."""


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
    # A tag, `!!int 1e3`, may claim what the text is not; the schema then refuses the text.
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
    """The value of a scalar node; its text where the tag is unknown or claims what the text is not."""
    return _SCALARS.get(node.tag, str)(node.value)


def plain_value(text: str, *, floats: bool) -> Any:
    """The value of a text that stands in a document without quotes.

    >>> plain_value("2_000", floats=False), plain_value("6e-06", floats=False), plain_value("6e-06", floats=True)
    (2000, '6e-06', 6e-06)
    """
    plain = _PLAIN | _FLOATS if floats else _PLAIN
    tags = (tag for tag, (pattern, _) in plain.items() if pattern.match(text))
    return _SCALARS.get(next(tags, ""), str)(text)
