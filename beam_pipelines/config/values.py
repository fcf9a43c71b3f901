"""The values of a mix config as types of its schema: budgets, shares, sizes, compressions and names of datasets."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, PlainValidator, WithJsonSchema

from transforms.arrayrecord.options import parse_compression
from transforms.budget.repeats import MOST_REPEATS
from transforms.config.section import check_name, mended
from transforms.errors import UsageError
from transforms.quantities import format_percent, parse_count, parse_percent, parse_size, shown

_TAKEN = {"manifest.json": "the output's manifest", "readme.md": "the output's card", "mix.yaml": "the output's mix"}
_LICENSE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,99}")
_LANGUAGE = re.compile(r"[a-z]{2,3}|code|multilingual")


def parse_budget(value: Any) -> int:
    """A number of tokens, of which there must be some.

    Raises:
        UsageError: it is none, or 0.
    """
    count = parse_count(value)
    if count == 0:
        raise UsageError(f"{shown(value)} is a budget of 0 tokens; give at least 1, or leave the dataset out")
    return count


def parse_share(value: Any) -> Fraction:
    """A part of all tokens, above 0.

    Raises:
        UsageError: it is none, or 0.
    """
    share = parse_percent(value)
    if share == 0:
        raise UsageError(f"{shown(value)} is a budget of 0 tokens; give more than 0%, or leave the dataset out")
    return share


def _parse_target_size(value: Any) -> int:
    size = parse_size(value)
    if size == 0:
        raise UsageError(f"{shown(value)} is no size for a shard; 512MiB is a good one")
    return size


def parse_repeats(value: Any) -> float:
    """How often a dataset may be read: 1 to 100, with at most four decimals.

    Raises:
        UsageError: it is no such number.
    """
    text = value if isinstance(value, str) else str(value) if type(value) in (int, float) else ""
    if not _REPEATS.fullmatch(text) or not 1 <= float(text) <= MOST_REPEATS:
        raise UsageError(
            f"{shown(value)} is not how often a dataset may be read; write a number from 1 to {MOST_REPEATS}, such as "
            "4, or 2.5"
        )
    return float(text)


def _check_dataset_name(value: str) -> str:
    if value.lower() in _TAKEN:
        raise UsageError(f"{shown(value)} is the name of {_TAKEN[value.lower()]}; give the dataset another name")
    return check_name(value)


def _check_license(value: str) -> str:
    if not _LICENSE.fullmatch(value):
        raise UsageError(
            f"{shown(value)} is no license's name; write it in letters, digits, '.', '+' and '-', such as odc-by, or "
            "other"
        )
    return value


def _parse_languages(value: Any) -> tuple[str, ...]:
    codes = [value] if isinstance(value, str) else value
    if not isinstance(codes, list | tuple) or not codes:
        raise UsageError(f"{shown(value)} is no language; write a code such as de, or several as [de, en]")
    for code in codes:
        if not isinstance(code, str) or not _LANGUAGE.fullmatch(code):
            raise UsageError(
                f"{shown(code)} is no code of a language by ISO 639; write two or three small letters, such as de"
            )
    return tuple(dict.fromkeys(codes))


def _check_compression(value: Any) -> str:
    parse_compression(value)
    return str(value)


# Short enough for a float to be written with the same digits.
_REPEATS = re.compile(r"[0-9]{1,3}(\.[0-9]{1,4})?")

_QUANTITY: dict[str, Any] = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]}

DatasetName = Annotated[str, AfterValidator(mended(_check_dataset_name))]
Count = Annotated[int, BeforeValidator(mended(parse_count)), WithJsonSchema(_QUANTITY)]
Budget = Annotated[int, BeforeValidator(mended(parse_budget)), WithJsonSchema(_QUANTITY)]
TargetSize = Annotated[int, BeforeValidator(mended(_parse_target_size)), WithJsonSchema(_QUANTITY)]
Share = Annotated[
    Fraction,
    PlainValidator(mended(parse_share)),
    PlainSerializer(format_percent, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9_]+(\.[0-9_]+)?\s*%$"}),
]
Repeats = Annotated[
    float,
    PlainValidator(mended(parse_repeats)),
    # A whole number is written as one.
    PlainSerializer(lambda repeats: int(repeats) if repeats.is_integer() else repeats, return_type=int | float),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 1, "maximum": MOST_REPEATS}, {"type": "string"}]}),
]
Compression = Annotated[
    str,
    PlainValidator(mended(_check_compression)),
    WithJsonSchema({"type": "string", "pattern": r"^(zstd|brotli)(:-?[0-9]+)?$|^(snappy|none)$"}),
]
License = Annotated[
    str, AfterValidator(mended(_check_license)), WithJsonSchema({"type": "string", "pattern": f"^{_LICENSE.pattern}$"})
]
Languages = Annotated[
    tuple[str, ...],
    BeforeValidator(mended(_parse_languages)),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]
