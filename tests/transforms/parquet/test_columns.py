"""Columns of files that have other ones: united where no value changes by it, or refused by the name of the file."""

from __future__ import annotations

import datetime
import decimal
import uuid
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.errors import BroetchenError
from transforms.parquet.columns import decode_schema, encode_schema, fit_table, unite_schemas

A, B = "a.parquet", "b.parquet"


def united(*kinds: pa.DataType) -> pa.DataType:
    files = [(f"{number}.parquet", pa.schema({"text": pa.string(), "c": kind})) for number, kind in enumerate(kinds)]
    return unite_schemas(files, "text").field("c").type


def fitted(array: pa.Array, kind: pa.DataType) -> pa.Array:
    table = pa.table({"text": [""] * len(array), "c": array})
    found = fit_table(table, pa.schema({"text": pa.string(), "c": kind}), "text", "here")
    found.validate(full=True)
    return found["c"].combine_chunks()


@pytest.mark.parametrize(
    ("first", "second", "one"),
    [
        (pa.int8(), pa.int64(), pa.int64()),
        (pa.uint8(), pa.int8(), pa.int16()),
        (pa.int32(), pa.float64(), pa.float64()),
        (pa.float32(), pa.float64(), pa.float64()),
        (pa.null(), pa.struct({"a": pa.int8()}), pa.struct({"a": pa.int8()})),
        (pa.list_(pa.null()), pa.list_(pa.string()), pa.list_(pa.string())),
        (pa.string(), pa.large_string(), pa.large_string()),
        (pa.string(), pa.string_view(), pa.string()),
        (pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("ns")),
        (pa.date32(), pa.date32(), pa.date32()),
        (pa.decimal128(10, 2), pa.decimal128(12, 4), pa.decimal128(12, 4)),
        (pa.dictionary(pa.int32(), pa.string()), pa.string(), pa.string()),
        (pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int32(), pa.string()), None),
        (
            pa.struct({"a": pa.int8(), "b": pa.null()}),
            pa.struct({"b": pa.string(), "c": pa.bool_()}),
            pa.struct({"a": pa.int8(), "b": pa.string(), "c": pa.bool_()}),
        ),
        (
            pa.list_(pa.struct({"a": pa.int8()})),
            pa.large_list(pa.struct({"a": pa.float32()})),
            pa.large_list(pa.struct({"a": pa.float32()})),
        ),
        (pa.map_(pa.string(), pa.int8()), pa.map_(pa.string(), pa.int64()), None),
    ],
)
def test_types_are_widened_in_either_order(first: pa.DataType, second: pa.DataType, one: pa.DataType | None) -> None:
    for kinds in ((first, second), (second, first)):
        found = united(*kinds)
        assert one is None or {(field.name, field.type) for field in _leaves(found)} == {
            (field.name, field.type) for field in _leaves(one)
        }
        assert united(found, *kinds) == found


def _leaves(kind: pa.DataType) -> list[pa.Field]:
    if pa.types.is_struct(kind):
        return [leaf for field in kind for leaf in _leaves(field.type) or [field]]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _leaves(kind.value_type) or [pa.field("element", kind.value_type)]
    return []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.int64(), pa.string()),
        (pa.bool_(), pa.int8()),
        (pa.float64(), pa.decimal128(10, 2)),
        (pa.timestamp("us"), pa.timestamp("us", "UTC")),
        (pa.date32(), pa.timestamp("us")),
        (pa.struct({"a": pa.int8()}), pa.list_(pa.int8())),
        (pa.struct({"a": pa.int8()}), pa.struct({"a": pa.string()})),
        (pa.list_(pa.float64()), pa.list_(pa.decimal128(10, 2))),
    ],
)
def test_types_that_cannot_be_one_are_refused_by_file_and_column(first: pa.DataType, second: pa.DataType) -> None:
    for kinds in ((first, second), (second, first)):
        with pytest.raises(BroetchenError, match=r"^1\.parquet: column 'c' is .*, and in other files, as 0\.parquet, "):
            united(*kinds)


def test_columns_are_those_of_the_first_file_and_what_others_add() -> None:
    files = [
        (A, pa.schema([pa.field("id", pa.int8(), False), ("text", pa.binary()), pa.field("n", pa.int8(), False)])),
        (B, pa.schema([("url", pa.string()), ("text", pa.string()), pa.field("id", pa.int8(), False)])),
    ]
    found = unite_schemas(files, "text")
    assert found.names == ["id", "text", "n", "url"]
    assert [field.nullable for field in found] == [False, True, True, True]
    assert decode_schema(encode_schema(found)).equals(found, check_metadata=True)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (
            pa.schema([("m", pa.int8()), ("m", pa.int8())]),
            r"^b\.parquet: has 2 columns 'm', and nothing tells",
        ),
        (
            pa.schema([("s", pa.list_(pa.struct([("x", pa.int8()), ("x", pa.int8())])))]),
            r"^b\.parquet: has 2 fields 'x' in column 's', and nothing tells them apart; rename all but one$",
        ),
    ],
)
def test_two_of_one_name_are_refused(schema: pa.Schema, message: str) -> None:
    with pytest.raises(BroetchenError, match=message):
        unite_schemas([(A, pa.schema({"text": pa.string()})), (B, schema)], "text")


ONE_AND_A_HALF = decimal.Decimal("1.5")
STORED = uuid.UUID(int=7).bytes
TIME = datetime.datetime(2020, 1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    ("array", "kind", "values"),
    [
        (pa.array(["a", None], pa.string_view()), pa.string(), ["a", None]),
        (pa.array([b"a", None], pa.binary_view()), pa.binary(), [b"a", None]),
        (pa.array([["a"], None], pa.list_(pa.string_view())), pa.list_(pa.string()), [["a"], None]),
        (
            pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}', None])),
            pa.string(),
            ['{"a": 1}', None],
        ),
        (
            pa.ExtensionArray.from_storage(pa.uuid(), pa.array([STORED, None], pa.binary(16))),
            pa.binary(16),
            [STORED, None],
        ),
        (
            pa.array([[("k", 1), ("l", None)], None], pa.map_(pa.string(), pa.int32())),
            None,
            [[{"key": "k", "value": 1}, {"key": "l", "value": None}], None],
        ),
        (pa.array([[1, 2], None], pa.list_(pa.int8(), 2)), pa.list_(pa.int8()), [[1, 2], None]),
        (pa.array([[1, 2], None], pa.list_view(pa.int8())), pa.list_(pa.int8()), [[1, 2], None]),
        (
            pa.array([ONE_AND_A_HALF, None], pa.decimal32(5, 1)),
            pa.decimal128(5, 1),
            [ONE_AND_A_HALF, None],
        ),
        (pa.array([TIME, None], pa.timestamp("us")), pa.timestamp("us"), [TIME, None]),
        (pa.array([{"a": None}, None], pa.struct({"a": pa.null()})), pa.struct({"a": pa.null()}), [{"a": None}, None]),
    ],
)
def test_odd_types_become_plain_ones_with_the_same_values(
    array: pa.Array, kind: pa.DataType | None, values: list[Any]
) -> None:
    found = united(array.type)
    assert kind is None or found == kind
    assert fitted(array, found).to_pylist() == values
    # In the midst of more.
    assert fitted(pa.concat_arrays([array, array, array]).slice(1, 3), found).to_pylist() == [values[1], *values]


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (pa.array([2**53 + 1]), pa.float64()),
        (pa.array([2**63], pa.uint64()), pa.int64()),
        (pa.array([[2**53 + 1]]), pa.list_(pa.float64())),
        (pa.array([{"a": 2**53 + 1}]), pa.struct({"a": pa.float64()})),
        (pa.array([datetime.datetime(2500, 1, 1)], pa.timestamp("us")), pa.timestamp("ns")),
    ],
)
def test_a_value_that_would_change_is_refused(array: pa.Array, kind: pa.DataType) -> None:
    with pytest.raises(BroetchenError, match=r"^here: column 'c' cannot be .*, as other files have it"):
        fitted(array, kind)


VALUES = st.recursive(
    st.sampled_from([pa.int8(), pa.int64(), pa.string(), pa.null(), pa.bool_(), pa.float64()]),
    lambda inner: (
        inner.map(pa.list_)
        | inner.map(pa.large_list)
        | st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3).map(pa.struct)
    ),
    max_leaves=5,
)


def _values(kind: pa.DataType) -> st.SearchStrategy[Any]:
    if pa.types.is_null(kind):
        return st.none()
    if pa.types.is_struct(kind):
        return st.none() | st.fixed_dictionaries({field.name: _values(field.type) for field in kind})
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return st.none() | st.lists(_values(kind.value_type), max_size=3)
    plain = {
        pa.int8(): st.integers(-128, 127),
        pa.int64(): st.integers(-(2**53), 2**53),
        pa.string(): st.text(max_size=3),
        pa.bool_(): st.booleans(),
        pa.float64(): st.floats(allow_nan=False),
    }
    return st.none() | plain[kind]


def _filled(value: Any, kind: pa.DataType) -> Any:
    """A value with all fields of a type, those that it lacks null."""
    if value is None:
        return None
    if pa.types.is_struct(kind):
        return {field.name: _filled(value.get(field.name), field.type) for field in kind}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [_filled(one, kind.value_type) for one in value]
    return value


@given(VALUES, VALUES, st.data())
def test_no_value_changes(first: pa.DataType, second: pa.DataType, data: st.DataObject) -> None:
    try:
        one = united(first, second)
    except BroetchenError:
        return
    for kind in (first, second):
        rows = data.draw(st.lists(_values(kind), max_size=4))
        start = data.draw(st.integers(0, len(rows)))
        found = fitted(pa.array(rows, kind).slice(start), one)
        assert found.to_pylist() == [_filled(row, one) for row in rows[start:]]


def test_what_is_fitted_can_be_written_and_read(tmp_path: Any) -> None:
    array = pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int32()))
    pq.write_table(pa.table({"c": fitted(array, united(array.type))}), tmp_path / "a.parquet")
    assert pq.read_table(tmp_path / "a.parquet")["c"].to_pylist() == [[{"key": "k", "value": 1}], None]
