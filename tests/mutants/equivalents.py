"""The mutants that no test could tell from their module, each with the reason: a file for each module in `equivalent/`.

An entry, in `equivalent/transforms.budget.text_cut.yaml`:

    - function: find_cut
      before: "while high - low > 1:"
      after: "while high - low >= 1:"
      why: ...
"""

from __future__ import annotations

import functools
from pathlib import Path

import pydantic
import yaml

from tests.mutants.changes import Mutant

_FOLDER = Path(__file__).with_name("equivalent")


class Equivalent(pydantic.BaseModel):
    """A mutant as `Mutant` names it, and why it does the same."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    function: str
    before: str
    after: str
    why: str


@functools.cache
def equivalents(module: str) -> list[Equivalent]:
    """The known equivalent mutants of a module.

    Raises:
        pydantic.ValidationError: its file has another form.
    """
    path = _FOLDER / f"{module.removesuffix('.py').replace('/', '.')}.yaml"
    found = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else []
    return pydantic.TypeAdapter(list[Equivalent]).validate_python(found)


def find(mutant: Mutant) -> Equivalent | None:
    """The entry of a mutant, if it has one."""
    wanted = mutant.function, mutant.before, mutant.after
    return next((one for one in equivalents(mutant.module) if (one.function, one.before, one.after) == wanted), None)
