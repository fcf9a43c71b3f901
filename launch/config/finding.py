"""A finding about a run: the key of its config that it depends on, and a message."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something about a parameter of MaxText, or another key of the config.

    Where it is not `fatal`, the run goes well, but perhaps not as meant.
    """

    key: str
    what: str
    fatal: bool = True
