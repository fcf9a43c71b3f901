"""The tables of keys in docs/ and the JSON Schemas of the configs: `python -m beam_pipelines.reference [FILE …]`.

A table stands between the lines `<!-- schema: NAME -->` and `<!-- end -->`, where NAME is a section of the mix config
or of the training config. With FILE, only these are written; without, all documents of docs/ and both schemas.
"""

from __future__ import annotations

import json
import re
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from beam_pipelines.config import filters, mix, sections, sources, values
from launch.config import tpu, training
from transforms.config.section import Name, Section, Text
from transforms.errors import UsageError
from transforms.quantities import format_size

_SECTIONS: dict[str, type[Section]] = {
    section.__name__: section
    for section in (
        mix.MixConfig,
        sections.TokenizerConfig,
        sections.RecordsConfig,
        sections.ShardsConfig,
        sections.DatasetConfig,
        filters.ExcludeConfig,
        sources.HubDataset,
        training.TrainingConfig,
        training.DataConfig,
        training.PhaseConfig,
        training.LocalConfig,
        tpu.TpuVmConfig,
        tpu.XpkConfig,
    )
}
# The words of the documents for the types of the schemas; they are explained above the tables.
_WORDS: list[tuple[Any, str]] = [
    (Name, "name"),
    (str, "text"),
    (bool, "switch"),
    (values.Count, "count"),
    (values.Budget, "count ≥ 1"),
    (values.TargetSize, "size ≥ 1 byte"),
    (values.Share, "share > 0 %"),
    (values.License, "name of a license"),
    (values.Languages, "language, or list of them"),
    (values.Repeats, "number, 1 to 100"),
    (sources.Sources, "path, hub dataset, or list of them"),
    (filters.Filters, "list of predicates, or list of such lists"),
    (training.Outputs, "path, or list of them"),
    (training.Shares, "mapping of names to shares, or list of these"),
    (tuple[Text, ...], "list of names"),
    (tuple[training.PhaseConfig, ...], "list of mappings"),
    (training.Until, "share > 0 %"),
    (tpu.AcceleratorName, "slice"),
    (tpu.Zone, "zone"),
    (tpu.Project, "project id"),
    (tpu.ResourceName, "lower-case name"),
    (tpu.Network, "network"),
    (tpu.ServiceAccount, "service account"),
    (tpu.Duration, "duration"),
    (tpu.PricePerHour, "US dollars ≥ 0"),
    (tpu.CacheSize, "size ≥ 1 MiB, or 0"),
    (tpu.CacheFolder, "absolute path"),
    (tpu.Image, "image"),
    (tpu.GcsfusePackage, "version and sum"),
]
SCHEMAS: dict[str, type[Section]] = {
    "mix_configs/mix.schema.json": mix.MixConfig,
    "launch/configs/training.schema.json": training.TrainingConfig,
}
"""The JSON Schemas by their files, which the first line of a config may name for an editor."""

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SIZES = (values.TargetSize, tpu.CacheSize)
_MARKED = re.compile(r"(?<=<!-- schema: )(\w+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)
# A document, which the reader of another one has beside it.
_DOCUMENT = re.compile(r"docs/([\w-]+\.md)")
_POWERS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def with_tables(document: str) -> str:
    """A document with its tables made again from the schema.

    Raises:
        UsageError: it asks for a section that no schema has.
    """
    return _MARKED.sub(lambda match: match[1] + match[2] + table(_section(match[1])), document)


def _section(name: str) -> type[Section]:
    if name not in _SECTIONS:
        raise UsageError(f"there is no section {name} in the schema; it has {', '.join(_SECTIONS)}")
    return _SECTIONS[name]


def table(section: type[Section]) -> str:
    """The keys of a section as a Markdown table."""
    rows = ["| key | type | default | meaning | example |", "| --- | --- | --- | --- | --- |"]
    hints = typing.get_type_hints(section, include_extras=True)
    schema = section.model_json_schema()["properties"]
    for key, field in section.model_fields.items():
        hint = _without_none(hints[key])
        meaning = _DOCUMENT.sub(r"[\1](\1)", (field.description or "").removesuffix("."))
        cells = (f"`{key}`", _words(hint, schema[key]), _default(hint, field), meaning, _examples(field))
        rows.append(f"| {' | '.join(cell.replace('|', r'\|') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def json_schema(section: type[Section]) -> str:
    """The JSON Schema (2020-12) of a config, as editors take it for YAML.

    It takes all that the config's own checks take. Quantities, such as 2B, are text to it, and rules between keys are
    it does not know.
    """
    schema = {"$schema": _DIALECT} | _untitled(section.model_json_schema())
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _untitled(schema: Any) -> Any:
    """A schema without the titles that pydantic makes of names: an editor shows the descriptions."""
    if isinstance(schema, list):
        return [_untitled(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _untitled(its) for name, its in part.items()} if key in ("properties", "$defs") else _untitled(part)
        for key, part in schema.items()
        if not (key == "title" and isinstance(part, str))
    }


def _words(hint: Any, schema: Mapping[str, Any]) -> str:
    for known, words in _WORDS:
        if hint == known:
            return words
    if typing.get_origin(hint) is typing.Annotated:
        return _words(typing.get_args(hint)[0], schema)
    if typing.get_origin(hint) is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in typing.get_args(hint))
    if hint is int:
        return f"whole number, {_limit(schema['minimum'])} to {_limit(schema['maximum'])}"
    if typing.get_origin(hint) is dict or (isinstance(hint, type) and issubclass(hint, Section)):
        return "mapping"
    raise TypeError(f"{hint} has no words in the document; add some to _WORDS")


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def _limit(bound: int) -> str:
    """A limit as it is best read: powers of two less one as such.

    >>> _limit(100), _limit(2**31 - 1)
    ('100', '2³¹ − 1')
    """
    power = (bound + 1).bit_length() - 1
    return f"2{str(power).translate(_POWERS)} − 1" if power > 16 and bound == 2**power - 1 else str(bound)


def _default(hint: Any, field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is None or value == ():
        return "–"
    if isinstance(value, Section):
        return "as below"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{format_size(value).replace(' ', '')}`" if hint in _SIZES else f"`{value}`"


def _examples(field: FieldInfo) -> str:
    return ", ".join(f"`{example}`" for example in field.examples or ()) or "–"


def main() -> None:
    """Rewrites the tables of the documents that are named, or of all in docs/, and the schemas."""
    named = [Path(path) for path in sys.argv[1:]]
    for path in named or [*sorted(Path("docs").glob("*.md")), *map(Path, SCHEMAS)]:
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        schema = SCHEMAS.get(path.as_posix())
        if (rewritten := with_tables(old) if schema is None else json_schema(schema)) != old:
            path.write_text(rewritten, encoding="utf-8")


if __name__ == "__main__":
    main()
