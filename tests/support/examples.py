"""How many examples a property is tried on."""

from __future__ import annotations

from typing import Any

from hypothesis import settings


def at_most(examples: int, **others: Any) -> settings:
    """Settings of a property that takes long: so many examples in `make test`, twice as many in `make test-slow`."""
    usual, loaded = settings.get_profile("broetchen"), settings()
    return settings(max_examples=examples * (2 if loaded.max_examples > usual.max_examples else 1), **others)
