"""How many examples a property is tried on."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

#: of the profile that `make test` runs by; `make test-slow` runs by one with more
_USUAL = 100


def at_most(examples: int, **others: Any) -> settings:
    """For a property that takes long to try: so many examples in `make test`, and in proportion more elsewhere."""
    return settings(max_examples=max(1, examples * settings.default.max_examples // _USUAL), **others)
