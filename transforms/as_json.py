"""Dataclasses as JSON, and back; `transforms.coders` has Beam carry them so."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pydantic

_ADAPTERS: dict[type[Any], pydantic.TypeAdapter[Any]] = {}


def _adapter(cls: type[Any]) -> pydantic.TypeAdapter[Any]:
    if cls not in _ADAPTERS:
        _ADAPTERS[cls] = pydantic.TypeAdapter(cls)
    return _ADAPTERS[cls]


def to_json(value: Any, *, sort_keys: bool = True) -> str:
    """`value`, a dataclass, as one line of JSON with sorted keys, or with mappings in their own order."""
    return json.dumps(dataclasses.asdict(value), sort_keys=sort_keys, separators=(",", ":"), ensure_ascii=False)


def from_json[T](cls: type[T], data: str | bytes) -> T:
    """The dataclass that `to_json` wrote.

    Raises:
        ValueError: `data` is not JSON, or not of the form of `cls`.
    """
    value: T = _adapter(cls).validate_json(data)
    return value
