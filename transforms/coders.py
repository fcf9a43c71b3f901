"""A Beam coder that carries dataclasses as JSON.

Without it Beam would pickle them. JSON is deterministic, readable in a debugger, and the same in the manifest and the
sidecar files as it is on the wire.
"""

from __future__ import annotations

from typing import Any

import apache_beam as beam

from transforms.as_json import from_json as from_json
from transforms.as_json import to_json as to_json


class JsonCoder(beam.coders.Coder):
    """Encodes one dataclass type by `to_json`."""

    def __init__(self, cls: type[Any]) -> None:
        self._cls = cls

    def encode(self, value: Any) -> bytes:
        return to_json(value).encode()

    def decode(self, encoded: bytes) -> Any:
        return from_json(self._cls, encoded)

    @classmethod
    def from_type_hint(cls, typehint: type[Any], unused_registry: Any) -> Any:
        return cls(typehint)

    def is_deterministic(self) -> bool:
        return True

    def to_type_hint(self) -> type[Any]:
        return self._cls

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._cls is other._cls

    def __hash__(self) -> int:
        return hash((type(self), self._cls))


class OrderedJsonCoder(JsonCoder):
    """A `JsonCoder` that keeps the order of mappings, for a type in which that order says something.

    Values that differ in it alone are equal, and encoded differently: none can be a key.
    """

    def encode(self, value: Any) -> bytes:
        return to_json(value, sort_keys=False).encode()

    def is_deterministic(self) -> bool:
        return False


def register_json_coder[T](cls: type[T]) -> type[T]:
    """Makes `JsonCoder(cls)` the coder of `cls` in every pipeline. Use it as a decorator above `@dataclass`."""
    beam.coders.registry.register_coder(cls, JsonCoder)
    return cls


def register_ordered_json_coder[T](cls: type[T]) -> type[T]:
    """As `register_json_coder`, with `OrderedJsonCoder(cls)`."""
    beam.coders.registry.register_coder(cls, OrderedJsonCoder)
    return cls
