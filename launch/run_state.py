"""How a run and its machines are, as `train CONFIG status` tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class RunState:
    """The facts about a run.

    Attributes:
        facts: by name, in the types of JSON; `run` is its name, and `running` whether it is at work, None where that is
            not known.
        lines: the same for people.
    """

    facts: Mapping[str, object]
    lines: tuple[str, ...]

    def tell(self) -> None:
        """Prints the lines."""
        for line in self.lines:
            print(line)
