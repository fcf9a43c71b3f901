"""Which rows of a source are wanted: filters on columns, and values that are to be left out.

Filters have the form of pyarrow's (`pyarrow.parquet.read_table(filters=…)`), pandas' and datasets': predicates
`[column, op, value]` that must all hold, or several lists of them, one of which must. They are pyarrow's expressions,
so nulls, NaNs and types are treated as it does: a comparison with null holds for no row, `not in` for nulls as well.
The same expression says by a row group's statistics whether it may hold for any of its rows.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.acero as acero
import pyarrow.compute as pc
import pyarrow.dataset as ds

from transforms.errors import BroetchenError, UsageError, listed, one_line
from transforms.parquet.comparison import compared
from transforms.parquet.exclusion import Exclusion, can_be_listed, is_listed
from transforms.predicates import Predicate, alternatives, parse_filters
from transforms.quantities import shown

# On floats these hold for NaN, of which statistics say nothing.
_HOLD_FOR_NAN = ("!=", "not in")


@dataclasses.dataclass(frozen=True)
class RowFilter:
    """Which rows of a source are wanted.

    Attributes:
        filters: predicates as JSON, `[[[column, op, value], …], …]`: one of the lists must hold, and all in it; or "",
            and all rows pass. A column is named `a.b` where it is the field `b` of `a`.
        exclude: values of a column whose rows are left out.
    """

    filters: str = ""
    exclude: Exclusion | None = None

    @classmethod
    def of(cls, filters: Sequence[Sequence[Predicate]], exclude: Exclusion | None = None) -> RowFilter | None:
        """A filter, or None where it would let all rows pass."""
        written = json.dumps([[list(one) for one in every] for every in filters], ensure_ascii=False) if filters else ""
        return cls(written, exclude) if written or exclude is not None else None

    @classmethod
    def of_dataset(cls, dataset: Mapping[str, Any], opened: Callable[[str], str]) -> RowFilter | None:
        """The filter of a built dataset, by the part of the config that its manifest has of it.

        Args:
            opened: the path by which to open a path of a manifest.

        Raises:
            ValueError: it is no filter.
        """
        filters, given = dataset.get("filters"), dataset.get("exclude")
        try:
            predicates = alternatives(parse_filters(filters)) if filters is not None else []
        except UsageError as error:
            raise ValueError(f"filters: {error}") from error
        exclude = None
        if given is not None:
            try:
                exclude = Exclusion(str(given["column"]), opened(str(given["values"])), str(given["sha256"]))
            except (KeyError, TypeError) as error:
                raise ValueError(f"exclude: {error!r} is missing") from error
        return cls.of(predicates, exclude)

    @property
    def identity(self) -> str:
        """The conditions that decide which rows pass, as JSON: not where the excluded values lie."""
        exclude = self.exclude and {"column": self.exclude.column, "sha256": self.exclude.sha256}
        return json.dumps({"filters": self.alternatives, "exclude": exclude}, sort_keys=True, ensure_ascii=False)

    @functools.cached_property
    def alternatives(self) -> list[list[Predicate]]:
        """The lists of predicates, one of which must hold."""
        return [[(column, op, value) for column, op, value in every] for every in json.loads(self.filters or "[]")]

    @property
    def columns(self) -> list[str]:
        """The columns that it looks at, each once."""
        named = [column for every in self.alternatives for column, _, _ in every]
        return list(dict.fromkeys([*named, *([self.exclude.column] if self.exclude else [])]))


class FileFilter:
    """A filter on the rows of one file.

    Args:
        rows: which rows are wanted.
        path: of the file, for errors.
        schema: of the file.

    Attributes:
        paths: the columns that it looks at, as parquet names them.

    Raises:
        BroetchenError: the file lacks a column, or holds values in it that cannot be compared with those of the filter.
    """

    def __init__(self, rows: RowFilter, path: str, schema: pa.Schema) -> None:
        self._path, self._schema = path, schema
        self._places = {column: self._place(column) for column in rows.columns}
        self.paths: Sequence[str] = [".".join(place) for place in self._places.values()]
        self._looked_at = list(dict.fromkeys(place[0] for place in self._places.values()))
        alternatives = rows.alternatives
        for predicate in (predicate for every in alternatives for predicate in every):
            self._check(predicate)
        self._expression = _any_of(_all_of(map(self._expressed, every)) for every in alternatives)
        self._provable = _any_of(
            _all_of(self._expressed(predicate) for predicate in every if not self._may_hold_for_nan(predicate))
            for every in alternatives
        )
        self._exclude = rows.exclude
        if rows.exclude is not None and not can_be_listed(self._kind(rows.exclude.column)):
            kind = self._kind(rows.exclude.column)
            raise BroetchenError(
                f"{path}: column {shown(rows.exclude.column)} is {kind}, and `exclude` wants text or whole numbers; "
                "name another column"
            )

    def _place(self, column: str) -> tuple[str, ...]:
        """Where a column is: its name, or the names of the fields that lead to it."""
        names = self._schema.names
        if names.count(column) == 1:
            return (column,)
        place = tuple(column.split("."))
        if column not in names and names.count(place[0]) == 1 and self._has(place):
            return place
        held = listed(names, 20) or "no columns"
        state = (
            f"has {names.count(column)} columns {shown(column)}" if column in names else f"no column {shown(column)}"
        )
        raise BroetchenError(
            f"{self._path}: {state}, by which its rows are to be filtered; the file has {held}: name one of them, or a "
            "field as column.field"
        )

    def _has(self, place: Sequence[str]) -> bool:
        kind = self._schema.field(place[0]).type
        for name in place[1:]:
            if not pa.types.is_struct(kind) or kind.get_field_index(name) < 0:
                return False
            kind = kind.field(name).type
        return True

    def _kind(self, column: str) -> pa.DataType:
        first, *others = self._places[column]
        kind = self._schema.field(first).type
        for name in others:
            kind = kind.field(name).type
        return kind.value_type if pa.types.is_dictionary(kind) else kind

    def _may_hold_for_nan(self, predicate: Predicate) -> bool:
        column, op, _ = predicate
        return op in _HOLD_FOR_NAN and pa.types.is_floating(self._kind(column))

    def _expressed(self, predicate: Predicate) -> pc.Expression:
        column, op, value = predicate
        return compared(pc.field(*self._places[column]), self._kind(column), op, value)

    def _check(self, predicate: Predicate) -> None:
        """Tries a predicate on no rows, to find values that cannot be compared before any row is read."""
        column, op, value = predicate
        try:
            self._evaluated(self._expressed(predicate), self._schema.empty_table())
        except (pa.ArrowException, OverflowError, TypeError) as error:
            raise BroetchenError(
                f"{self._path}: column {shown(column)} is {self._kind(column)}, which cannot be compared as "
                f"`{op} {shown(value)}` ({one_line(error)}); write a value of its type in `filters`"
            ) from error

    def kept(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        """Says which rows are wanted: [rows], without nulls.

        Raises:
            BroetchenError: the values to leave out cannot be read.
        """
        kept = pa.repeat(True, len(batch))
        if self._expression is not None:
            try:
                kept = pc.fill_null(self._evaluated(self._expression, batch), False)
            except pa.ArrowException as error:
                raise BroetchenError(f"{self._path}: its rows cannot be filtered: {one_line(error)}") from error
        if self._exclude is not None:
            first, *others = self._places[self._exclude.column]
            column = batch.column(batch.schema.get_field_index(first))
            if others:
                column = pc.struct_field(column, others)
            kept = pc.and_(kept, pc.invert(is_listed(column, self._exclude)))
        return kept

    def _evaluated(self, expression: pc.Expression, rows: pa.RecordBatch | pa.Table) -> pa.BooleanArray:
        table = pa.table({name: rows.column(rows.schema.get_field_index(name)) for name in self._looked_at})
        source = acero.Declaration("table_source", acero.TableSourceNodeOptions(table))
        project = acero.Declaration("project", acero.ProjectNodeOptions([expression], ["kept"]))
        return acero.Declaration.from_sequence([source, project]).to_table(use_threads=False)["kept"].combine_chunks()

    def ruled_out(self, footer: bytes) -> set[int]:
        """The row groups of the file of which their statistics show that no row is wanted.

        Args:
            footer: the file, of which only the magic number and the footer need be there.
        """
        if self._provable is None:
            return set()
        fragment = ds.ParquetFileFormat().make_fragment(pa.BufferReader(footer))
        schema = pa.schema([self._schema.field(name) for name in self._looked_at])
        try:
            kept = {group.id for group in fragment.subset(filter=self._provable, schema=schema).row_groups}
        except pa.ArrowException:  # of statistics from which pyarrow cannot tell: all are read
            return set()
        return {group.id for group in fragment.row_groups} - kept


def _any_of(expressions: Iterable[pc.Expression]) -> pc.Expression | None:
    found = list(expressions)
    return functools.reduce(operator.or_, found) if found else None


def _all_of(expressions: Iterable[pc.Expression]) -> pc.Expression:
    return functools.reduce(operator.and_, expressions, pc.scalar(True))
