"""The values of a column that are text, and those that are left out."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from transforms.texts import to_texts

rows = st.lists(st.one_of(st.none(), st.text(max_size=5)), max_size=12)


@given(rows, st.sampled_from([pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]))
def test_texts_are_the_rows_that_hold_some(values: list[str | None], kind: pa.DataType) -> None:
    column = pa.array(values, pa.string()).cast(kind)
    batch = to_texts(column)
    assert batch.texts.to_pylist() == [value for value in values if value]
    assert batch.skipped.get("null", 0) == values.count(None)
    assert batch.skipped.get("empty", 0) == values.count("")
    assert batch.rows == len(values)
    assert batch.text_bytes == sum(len(value.encode()) for value in values if value)


@given(st.lists(st.one_of(st.none(), st.binary(max_size=4)), max_size=12), st.booleans())
def test_bytes_that_are_not_utf8_are_left_out_and_counted(values: list[bytes | None], as_string: bool) -> None:
    column = pa.array(values, pa.binary())
    if as_string:  # a parquet file may call bytes a string without being right
        column = pa.Array.from_buffers(pa.string(), len(column), column.buffers(), column.null_count)
    kept, wrong = [], 0
    for value in values:
        try:
            kept += [value.decode()] if value else []
        except UnicodeDecodeError:
            wrong += 1
    batch = to_texts(column)
    assert batch.texts.to_pylist() == kept
    assert batch.skipped.get("not_text", 0) == wrong
    assert batch.rows == len(values)
