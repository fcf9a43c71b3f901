"""Which rows of a dataset's source are wanted, as a mix config writes it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema

from transforms.config.section import Section, Text, mended
from transforms.errors import UsageError
from transforms.predicates import OPERATORS, parse_filters
from transforms.quantities import shown

_VALUE = {"type": ["string", "number", "boolean"]}
_PREDICATE = {
    "type": "array",
    "prefixItems": [
        {"type": "string"},
        {"enum": list(OPERATORS)},
        {"anyOf": [_VALUE, {"type": "array", "items": _VALUE, "minItems": 1}]},
    ],
    "minItems": 3,
    "maxItems": 3,
}
_PREDICATES = {"type": "array", "items": _PREDICATE, "minItems": 1}

Filters = Annotated[
    Any,
    PlainValidator(mended(parse_filters)),
    WithJsonSchema({"anyOf": [_PREDICATES, {"type": "array", "items": _PREDICATES, "minItems": 1}]}),
]


def _check_values(value: str) -> str:
    if not value.endswith((".parquet", ".txt")):
        raise UsageError(
            f"{shown(value)} is no list of values; name a .parquet file with a column of them, or a .txt with one in "
            "each line"
        )
    return value


class ExcludeConfig(Section):
    """Rows that are left out by a list of values, such as a take-down."""

    column: Text = Field(
        description="The column that the values stand in: of text or whole numbers, or such a field as `column.field`.",
        examples=["id"],
    )
    values: Annotated[Text, AfterValidator(mended(_check_values))] = Field(
        description="The file of the values, on any filesystem that Beam knows: parquet with a column of the same name "
        "or with one column, or a `.txt` with a value in each line. The manifest has its SHA-256.",
        examples=["takedown.parquet"],
    )
