"""Reusable Beam transforms; nothing here knows of a job. What is named below is imported when it is used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transforms.arrayrecord.sink import WriteToArrayRecord as WriteToArrayRecord
    from transforms.budget.token_budget import TokenBudget as TokenBudget
    from transforms.building.datasets import BuildDatasets as BuildDatasets
    from transforms.encoding.tokenize import Tokenize as Tokenize
    from transforms.parquet.read import ReadParquet as ReadParquet

_HOMES = {
    "BuildDatasets": "building.datasets",
    "ReadParquet": "parquet.read",
    "TokenBudget": "budget.token_budget",
    "Tokenize": "encoding.tokenize",
    "WriteToArrayRecord": "arrayrecord.sink",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
