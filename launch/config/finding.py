"""What is found about a run: which key of its config it hangs on, and what is to be said."""

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
