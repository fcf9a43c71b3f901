"""The columns of a dataset whose files have other ones: one schema for all of them, and rows in it.

Differing types are widened where no value changes by it: null to any type, integers and floats to larger ones, columns
and fields that a file lacks to null. Types that few readers know become those that they are stored as: text in views to
text, JSON to its text, maps to lists of keys and values. Columns that cannot be united are refused by the name of their
file.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from transforms.errors import BroetchenError, listed, one_line

_ADVICE = "build the files as separate datasets, or rewrite one"


def encode_schema(schema: pa.Schema) -> str:
    """A schema as text, for a plan."""
    return base64.b64encode(schema.serialize()).decode()


def decode_schema(text: str) -> pa.Schema:
    """A schema from the text that `encode_schema` has made of it."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


def choose_columns(
    schemas: Sequence[tuple[str, pa.Schema]], names: Sequence[str], text_column: str
) -> list[tuple[str, pa.Schema]]:
    """The wanted columns in the schemas of files, in the order of each.

    Args:
        schemas: (path, schema) of each file; at least one.
        names: of the columns.
        text_column: the first file's columns are told without it where one of `names` is in no file.

    Raises:
        BroetchenError: a column is in none of the files.

    >>> [(path, kept.names) for path, kept in choose_columns([("a", pa.schema({"id": pa.int8()}))], ["id"], "text")]
    [('a', ['id'])]
    """
    known = {name for _, schema in schemas for name in schema.names}
    if missing := [name for name in names if name not in known]:
        path, schema = schemas[0]
        others = listed(name for name in schema.names if name != text_column) or "no others"
        raise BroetchenError(
            f"{path}: has no column {missing[0]!r}, and no other file of the source has it; beside the text there are "
            f"{others}"
        )
    return [
        (path, pa.schema([schema.field(index) for index, name in enumerate(schema.names) if name in names]))
        for path, schema in schemas
    ]


def unite_schemas(schemas: Iterable[tuple[str, pa.Schema]], text_column: str) -> pa.Schema:
    """One schema for files that are read in this order: the columns of the first, then those that others add.

    Args:
        schemas: (path, schema) of each file.
        text_column: becomes a string.

    Raises:
        BroetchenError: a file has two columns of one name, or a column's types cannot be united; it names both.

    >>> files = [("a", pa.schema({"id": pa.int32()})), ("b", pa.schema({"id": pa.int64(), "url": pa.large_string()}))]
    >>> str(unite_schemas(files, "text")).splitlines()
    ['id: int64', 'url: large_string']
    """
    united: dict[str, pa.Field] = {}
    seen: dict[pa.Schema, str] = {}
    for path, schema in schemas:
        schema = schema.remove_metadata()
        if schema in seen:
            continue
        _check_names(path, schema.names)
        columns = {field.name: _plain(path, field, text_column) for field in schema}
        for name, field in columns.items():
            if name not in united:
                united[name] = field.with_nullable(True) if seen else field
                continue
            try:
                united[name] = _unite(united[name], field)
            except pa.ArrowException as error:
                raise BroetchenError(
                    f"{path}: column {name!r} is {field.type}, and in other files, as {next(iter(seen.values()))}, "
                    f"{united[name].type}, which cannot be one column; {_ADVICE}"
                ) from error
        united |= {name: field.with_nullable(True) for name, field in united.items() if name not in columns}
        seen[schema] = path
    return pa.schema(list(united.values()))


def fit_table(table: pa.Table, schema: pa.Schema, text_column: str, where: str) -> pa.Table:
    """The rows of a table with the columns of a schema that `unite_schemas` has made of its own and others.

    Args:
        text_column: stays as it is.
        where: the rows come from, as an error begins.

    Raises:
        BroetchenError: a value cannot be kept as it is in a wider type.
    """
    columns: list[pa.Array | pa.ChunkedArray] = []
    fields: list[pa.Field] = []
    for field in schema:
        fields.append(field if field.name != text_column else table.schema.field(field.name))
        if field.name == text_column:
            columns.append(table[field.name])
            continue
        if field.name not in table.column_names:
            columns.append(pa.nulls(len(table), field.type))
            continue
        try:
            chunks = [_fit(chunk, field.type) for chunk in table[field.name].chunks]
        except pa.ArrowException as error:
            raise BroetchenError(
                f"{where}: column {field.name!r} cannot be {field.type}, as other files have it ({one_line(error)}); "
                f"{_ADVICE}"
            ) from error
        columns.append(pa.chunked_array(chunks, field.type))
    return pa.table(columns, schema=pa.schema(fields))


def _check_names(path: str, names: list[str], what: str = "columns", inside: str = "") -> None:
    name, times = next(iter(Counter(names).most_common(1)), ("", 0))
    if times > 1:
        raise BroetchenError(
            f"{path}: has {times} {what} {name!r}{inside}, and nothing tells them apart; rename all but one"
        )


def _plain(path: str, field: pa.Field, text_column: str) -> pa.Field:
    """A column as a dataset has it."""
    if field.name == text_column:
        return pa.field(field.name, pa.string())

    def plain(kind: pa.DataType) -> pa.DataType:
        if isinstance(kind, pa.BaseExtensionType):
            return plain(kind.storage_type)
        if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
            return pa.string() if pa.types.is_string_view(kind) else pa.binary()
        if pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
            return pa.decimal128(kind.precision, kind.scale)
        if pa.types.is_struct(kind):
            fields = [kind.field(index) for index in range(kind.num_fields)]
            _check_names(path, [child.name for child in fields], "fields", f" in column {field.name!r}")
            return pa.struct([child.remove_metadata().with_type(plain(child.type)) for child in fields])
        if pa.types.is_map(kind):
            entry = pa.struct([pa.field("key", plain(kind.key_type), False), pa.field("value", plain(kind.item_type))])
            return pa.list_(pa.field("element", entry, False))
        if pa.types.is_large_list(kind) or pa.types.is_large_list_view(kind):
            return pa.large_list(_element(kind, plain(kind.value_type)))
        if _is_list(kind):
            # Lists of a fixed size cannot be read back where one is null (pyarrow 25).
            return pa.list_(_element(kind, plain(kind.value_type)))
        return kind

    return field.remove_metadata().with_type(plain(field.type))


def _element(kind: pa.DataType, value: pa.DataType) -> pa.Field:
    return kind.value_field.remove_metadata().with_type(value)


def _unite(first: pa.Field, second: pa.Field) -> pa.Field:
    """
    Raises:
        ArrowException: their types cannot be one.
    """
    return first.with_type(_unite_types(first.type, second.type)).with_nullable(first.nullable or second.nullable)


def _unite_types(first: pa.DataType, second: pa.DataType) -> pa.DataType:
    if first == second:
        return first
    if pa.types.is_dictionary(first) != pa.types.is_dictionary(second):
        return _unite_types(*(kind.value_type if pa.types.is_dictionary(kind) else kind for kind in (first, second)))
    if pa.types.is_struct(first) and pa.types.is_struct(second):
        fields = {field.name: field for field in first}
        for field in second:
            known = fields.get(field.name)
            fields[field.name] = field.with_nullable(True) if known is None else _unite(known, field)
        others = {field.name for field in second}
        return pa.struct([field if field.name in others else field.with_nullable(True) for field in fields.values()])
    if _is_list(first) and _is_list(second):
        element = _unite(first.value_field, second.value_field)
        large = pa.types.is_large_list(first) or pa.types.is_large_list(second)
        return pa.large_list(element) if large else pa.list_(element)
    if any(map(pa.types.is_floating, (first, second))) and any(map(pa.types.is_decimal, (first, second))):
        raise pa.ArrowTypeError("a decimal cannot always be a float")
    schemas = [pa.schema([pa.field("one", kind)]) for kind in (first, second)]
    return pa.unify_schemas(schemas, promote_options="permissive").field("one").type


def _is_list(kind: pa.DataType) -> bool:
    views = pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind)
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind) or views)


def _fit(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """The same values as another type.

    Raises:
        ArrowException: some cannot be kept.
    """
    if array.type == kind:
        return array
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), kind)
    if isinstance(array.type, pa.BaseExtensionType):
        return _fit(array.storage, kind)
    if pa.types.is_dictionary(array.type) and not pa.types.is_dictionary(kind):
        return _fit(array.dictionary_decode(), kind)
    if pa.types.is_struct(array.type):
        have = array.type.names
        fields = [
            _fit(array.field(field.name), field.type) if field.name in have else pa.nulls(len(array), field.type)
            for field in kind
        ]
        return pa.StructArray.from_arrays(fields, fields=list(kind), mask=array.is_null())
    if pa.types.is_map(array.type):
        entries = pa.StructArray.from_arrays([array.keys, array.items], names=["key", "value"])
        return _list_of(array.offsets, entries.slice(array.offsets[0].as_py()), array, kind)
    if _is_list(array.type):
        ends = pc.cumulative_sum(pc.fill_null(pc.list_value_length(array), 0))
        return _list_of(pa.concat_arrays([pa.array([0], ends.type), ends]), array.flatten(), array, kind)
    return array.cast(kind)


def _list_of(offsets: pa.Array, values: pa.Array, array: pa.Array, kind: pa.DataType) -> pa.Array:
    """The lists of `array` as another kind of list."""
    large = pa.types.is_large_list(kind)
    array_of = pa.LargeListArray if large else pa.ListArray
    from_zero = pc.subtract(offsets, offsets[0]).cast(pa.int64() if large else pa.int32())
    inner = _fit(values.slice(0, from_zero[-1].as_py()), kind.value_type)
    return array_of.from_arrays(from_zero, inner, type=kind, mask=array.is_null())
