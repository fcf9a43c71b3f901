"""Filters pass the rows that pyarrow's own readers pass, and rule out no row group that holds one of them."""

from __future__ import annotations

import datetime
import io
import math
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import at_most
from transforms.errors import BroetchenError
from transforms.parquet.exclusion import Exclusion
from transforms.parquet.footer import read_footer
from transforms.parquet.row_filter import FileFilter, RowFilter
from transforms.parquet.texts import read_files, read_texts
from transforms.texts import FILTERED, KINDS

NAN = math.nan
SCHEMA = pa.schema(
    {
        "text": pa.string(),
        "whole": pa.int32(),
        "large": pa.uint64(),
        "price": pa.decimal128(10, 2),
        "half": pa.float16(),
        "view": pa.string_view(),
        "nothing": pa.null(),
        "score": pa.float64(),
        "small": pa.float32(),
        "flag": pa.bool_(),
        "name": pa.string(),
        "kind": pa.dictionary(pa.int32(), pa.string()),
        "meta": pa.struct({"a.b": pa.int8(), "depth": pa.int64(), "in": pa.struct({"tag": pa.string()})}),
        "day": pa.date32(),
        "time": pa.timestamp("us"),
    }
)
DAYS = [datetime.date(2024, 1, 1), datetime.date(2024, 6, 1), datetime.date(2025, 1, 1)]
NAMES = ["", "a", "b", "ä", "zz" * 40]


def or_null(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


rows = st.fixed_dictionaries(
    {
        "text": or_null(st.sampled_from(NAMES)),
        "whole": or_null(st.integers(-2, 3) | st.sampled_from([-(2**31), 2**24 + 1, 2**31 - 1])),
        "large": or_null(st.integers(0, 3) | st.sampled_from([2**53 + 1, 2**64 - 1])),
        "price": or_null(st.sampled_from([Decimal("0.00"), Decimal("3.00"), Decimal("3.25"), Decimal("-1.10")])),
        "half": or_null(st.sampled_from([0.0, 0.5, 2.0])).map(lambda one: None if one is None else np.float16(one)),
        "view": or_null(st.sampled_from(NAMES)),
        "nothing": st.none(),
        "score": or_null(st.sampled_from([-1.0, -0.0, 0.0, 0.5, 5.0, NAN, math.inf])),
        "small": or_null(st.sampled_from([0.9, 0.5, 0.1, 0.0, 0.2])),
        "flag": or_null(st.booleans()),
        "name": or_null(st.sampled_from(NAMES)),
        "kind": or_null(st.sampled_from(NAMES)),
        "meta": or_null(
            st.fixed_dictionaries(
                {
                    "a.b": or_null(st.integers(0, 1)),
                    "depth": or_null(st.integers(0, 3)),
                    "in": or_null(st.fixed_dictionaries({"tag": or_null(st.sampled_from(NAMES))})),
                }
            )
        ),
        "day": or_null(st.sampled_from(DAYS)),
        "time": or_null(st.sampled_from([datetime.datetime.combine(day, datetime.time(12)) for day in DAYS])),
    }
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "whole": st.integers(-3, 4) | st.sampled_from([0.5, 1.0, -0.5, 1e3, 2.0**24 + 1, 2**40, -1e300]),
    "large": st.integers(-1, 4) | st.sampled_from([0.5, 2**53 + 1, 2**62, 1e30]),
    "price": st.integers(-2, 4) | st.sampled_from([3.25, 0.0, -1.1, 1e20]),
    "half": st.sampled_from([0, 0.5, 2.0, 0.1]),
    "view": st.sampled_from(NAMES),
    "nothing": st.sampled_from(["", 1, 0.5]),
    "score": st.sampled_from([-1.0, 0.0, -0.0, 0, 0.5, 5.0, 5]),
    "small": st.sampled_from([0.9, 0.5, 0.1, 0, 0.0, 0.2]),
    "name": st.sampled_from(NAMES),
    "kind": st.sampled_from(NAMES),
    "meta.depth": st.integers(0, 3),
    "meta.in.tag": st.sampled_from(NAMES),
    "day": st.sampled_from([str(day) for day in DAYS]),
    "time": st.sampled_from([f"{day}T12:00:00" for day in DAYS]),
}


@st.composite
def predicates(draw: st.DrawFn) -> tuple[str, str, Any]:
    column = draw(st.sampled_from([*VALUES, "flag"]))
    if column == "flag":
        return column, draw(st.sampled_from(["=", "==", "!="])), draw(st.booleans())
    op = draw(st.sampled_from(["=", "==", "!=", "<", ">", "<=", ">=", "in", "not in"]))
    values = VALUES[column]
    if op in ("in", "not in"):
        return column, op, draw(st.lists(values, min_size=1, max_size=5))
    return column, op, draw(values)


filters = st.lists(st.lists(predicates(), min_size=1, max_size=3), min_size=1, max_size=3)


def plain(column: str, op: str, wanted: Any, value: Any, kind: pa.DataType) -> bool:
    """The answer of pyarrow for one value: a comparison with null holds for none, `not in` for null as well."""
    if pa.types.is_temporal(kind) and value is not None:
        value = value.isoformat()
    if pa.types.is_decimal(kind):
        wanted = [Decimal(str(one)) for one in wanted] if isinstance(wanted, list) else Decimal(str(wanted))
    if op in ("in", "not in"):
        among = value is not None and any(value == one for one in wanted)
        return among == (op == "in")
    if value is None:
        return False
    comparisons = {"=": value == wanted, "==": value == wanted, "!=": value != wanted}
    if op in comparisons:
        return comparisons[op]
    return {"<": value < wanted, ">": value > wanted, "<=": value <= wanted, ">=": value >= wanted}[op]


def value_at(row: dict[str, Any], column: str) -> Any:
    value: Any = row
    for part in column.split("."):
        value = None if value is None else value[part]
    return value


def kind_of(column: str) -> pa.DataType:
    first, *others = column.split(".")
    kind = SCHEMA.field(first).type
    for name in others:
        kind = kind.field(name).type
    return kind


def as_file(table: pa.Table, row_group_size: int) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=row_group_size)
    return buffer.getvalue()


@at_most(300)
@given(st.lists(rows, min_size=1, max_size=12), st.integers(1, 4), filters)
def test_the_rows_that_pass_are_those_of_a_plain_loop(
    found: list[dict[str, Any]], row_group_size: int, wanted: list[list[tuple[str, str, Any]]]
) -> None:
    table = pa.Table.from_pylist(found, SCHEMA)
    rows = RowFilter.of(wanted)
    assert rows is not None
    file = FileFilter(rows, "a.parquet", SCHEMA)
    (batch,) = table.combine_chunks().to_batches()
    kept = file.kept(batch).to_pylist()
    # As the table has them: 0.9 is another number in 32 bits.
    assert kept == [
        any(all(plain(c, op, v, value_at(row, c), kind_of(c)) for c, op, v in every) for every in wanted)
        for row in table.to_pylist()
    ]
    ruled_out = file.ruled_out(as_file(table, row_group_size))
    for group in ruled_out:
        assert not any(kept[group * row_group_size : (group + 1) * row_group_size])


def filtered(table: pa.Table, *wanted: tuple[str, str, Any]) -> list[bool]:
    rows = RowFilter.of([wanted])
    assert rows is not None
    return FileFilter(rows, "a.parquet", table.schema).kept(table.combine_chunks().to_batches()[0]).to_pylist()


def ruled_out(table: pa.Table, row_group_size: int, *wanted: tuple[str, str, Any]) -> set[int]:
    rows = RowFilter.of([wanted])
    assert rows is not None
    return FileFilter(rows, "a.parquet", table.schema).ruled_out(as_file(table, row_group_size))


def test_what_is_documented_of_nulls_and_nan() -> None:
    table = pa.table({"score": pa.array([0.5, None, NAN, 1.0])})
    assert filtered(table, ("score", ">=", 0.5)) == [True, False, False, True]
    assert filtered(table, ("score", "!=", 0.5)) == [False, False, True, True]
    assert filtered(table, ("score", "in", [0.5])) == [True, False, False, False]
    assert filtered(table, ("score", "not in", [0.5])) == [False, True, True, True]


def test_statistics_rule_out_what_they_prove() -> None:
    table = pa.table({"n": [1, 2, 3, 4, None, None], "s": ["a", "a", "b", "c", None, None]})
    assert ruled_out(table, 2, ("n", ">", 2)) == {0, 2}
    assert ruled_out(table, 2, ("n", "==", 3)) == {0, 2}
    assert ruled_out(table, 2, ("s", "!=", "a")) == {0, 2}
    assert ruled_out(table, 2, ("s", "in", ["c"])) == {0, 2}
    assert ruled_out(table, 2, ("s", "<", "z")) == {2}
    meta = pa.table({"meta": pa.array([{"n": one} for one in range(6)])})
    assert ruled_out(meta, 2, ("meta.n", ">=", 4)) == {0, 1}


def test_statistics_without_nan_do_not_rule_nan_out() -> None:
    """Writers leave NaN out of minimum and maximum: 5 to 5 may hold one, which is unequal to 5."""
    table = pa.table({"score": [5.0, NAN, 5.0, 5.0]})
    assert filtered(table, ("score", "!=", 5.0)) == [False, True, False, False]
    assert ruled_out(table, 2, ("score", "!=", 5.0)) == set()
    assert ruled_out(table, 2, ("score", "<", 5.0)) == {0, 1}


def test_in_finds_zeros_and_32_bit_floats_as_comparisons_do() -> None:
    """Writers store a minimum of 0.0 as -0.0; and no 32-bit float is 0.1."""
    labels = pa.table({"label": pa.array([0.0, 0.0, 1.0, None], pa.float64())})
    for zero in (0, 0.0, -0.0):
        assert filtered(labels, ("label", "in", [zero])) == [True, True, False, False]
        assert ruled_out(labels, 2, ("label", "in", [zero])) == {1}
    small = pa.table({"small": pa.array([0.1, 0.2, 0.5, 0.25], pa.float32())})
    assert filtered(small, ("small", "in", [0.1, 0.5])) == [False, False, True, False]
    assert ruled_out(small, 2, ("small", "in", [0.1, 0.5])) == {0}


def test_whole_numbers_are_compared_with_any_number_exactly() -> None:
    table = pa.table(
        {"n": pa.array([0, 2**24 + 1, 2**53 + 1, None], pa.int64()), "h": pa.array([0, 2**64 - 1, 5, 6], pa.uint64())}
    )
    assert filtered(table, ("n", ">", 1e3)) == [False, True, True, False]
    assert filtered(table, ("n", ">", 2.0**53)) == [False, False, True, False]
    assert filtered(table, ("n", "<", -1e300)) == [False] * 4
    assert filtered(table, ("n", "!=", 0.5)) == [True, True, True, False]
    assert filtered(table, ("n", "not in", [0.5, 0.0])) == [False, True, True, True]
    assert filtered(table, ("h", ">", 5)) == [False, True, False, True]
    assert filtered(table, ("h", ">=", -1)) == [True] * 4
    assert filtered(table, ("h", "in", [5, -1])) == [False, False, True, False]


def test_a_field_and_a_column_of_one_name_are_told_apart() -> None:
    table = pa.table({"a": pa.array([{"b": 1}, {"b": 2}]), "a.b": [2, 1]})
    assert filtered(table, ("a.b", "==", 1)) == [False, True]
    assert filtered(table.drop_columns(["a.b"]), ("a.b", "==", 1)) == [True, False]


@pytest.mark.parametrize(
    ("predicate", "said"),
    [
        (
            ("nope", "==", 1),
            'a.parquet: no column "nope", by which its rows are to be filtered; the file has text, whole',
        ),
        (("meta.nope", "==", 1), 'no column "meta.nope"'),
        (("whole.a", "==", 1), 'no column "whole.a"'),
        (("whole", "==", "1"), 'a.parquet: column "whole" is int32, which cannot be compared as `== "1"`'),
        (("whole", "in", [True]), 'column "whole" is int32'),
        (("flag", "in", [1]), 'column "flag" is bool'),
        (("small", "in", [True, False]), 'column "small" is float'),
        (("price", "==", "3"), 'column "price" is decimal128(10, 2)'),
        (("name", "==", 1), 'column "name" is string'),
        (("whole", "==", "a\nb" * 500), 'column "whole" is int32'),
        (("flag", "==", 0), 'column "flag" is bool, which cannot be compared'),
        (("name", ">", 1), 'column "name" is string'),
        (("name", "in", [1, 2]), 'column "name" is string'),
        (("day", ">", "tomorrow"), 'column "day" is date32'),
        (("meta", "==", 1), 'column "meta" is struct'),
    ],
)
def test_what_cannot_be_compared_is_refused_by_file_and_column(predicate: tuple[str, str, Any], said: str) -> None:
    rows = RowFilter.of([[predicate]])
    assert rows is not None
    with pytest.raises(BroetchenError) as error:
        FileFilter(rows, "a.parquet", SCHEMA)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_a_column_that_stands_twice_is_refused() -> None:
    schema = pa.schema([("text", pa.string()), ("id", pa.int8()), ("id", pa.int8())])
    with pytest.raises(BroetchenError, match='has 2 columns "id"'):
        FileFilter(RowFilter('[[["id","==",1]]]'), "a.parquet", schema)


def write(path: Path, table: pa.Table, row_group_size: int) -> str:
    pq.write_table(table, path, row_group_size=row_group_size, compression="none", use_dictionary=False)
    return str(path)


def test_footers_tell_what_is_ruled_out_and_readers_leave_the_rest_of_the_rows_out(tmp_path: Path) -> None:
    table = pa.table({"text": [f"text {n}" for n in range(6)], "n": range(6), "other": ["x"] * 6})
    path = write(tmp_path / "a.parquet", table, 2)
    rows = RowFilter.of([[("n", ">=", 3)]])
    footer = read_footer(path, Path(path).stat().st_size, "text", rows=rows)
    assert [group.ruled_out for group in footer.row_groups] == [True, False, False]
    assert footer.wanted_groups == [1, 2]
    assert [group.wanted_bytes > 0 for group in footer.row_groups] == [False, True, True]
    batches = [batch for _, batch in read_texts(path, footer.wanted_groups, "text", rows=rows)]
    assert [batch.texts.to_pylist() for batch in batches] == [["text 3"], ["text 4", "text 5"]]
    assert [KINDS[kind] for kind in batches[0].kinds] == [FILTERED, "document"]
    assert (batches[0].filtered, batches[0].filtered_bytes, batches[0].skipped) == (1, len("text 2"), {})


def read_planned(paths: Sequence[str], rows: RowFilter, wanted: pa.Schema | None = None) -> list[list[str]]:
    footers = [read_footer(path, Path(path).stat().st_size, "text", rows=rows) for path in paths]
    groups = [(footer.path, group) for footer in footers for group in range(len(footer.row_groups))]
    planned = [(footer.version, group) for footer in footers for group in footer.row_groups]
    found = read_files(groups, "text", rows=rows, schema=wanted, planned=planned)
    batches = list(found)
    assert [place for place, _ in batches] == groups  # each of one batch
    assert sum(batch.rows for _, batch in batches) == sum(group.rows for _, group in planned)
    return [batch.texts.to_pylist() for _, batch in batches]


def test_row_groups_that_are_ruled_out_are_not_read_at_all(tmp_path: Path) -> None:
    """Their pages are overwritten: to read one would fail. So is a whole file between two others."""
    paths = []
    for number, first in enumerate((0, 100, 4)):
        table = pa.table({"text": [f"text {n}" for n in range(first, first + 6)], "n": range(first, first + 6)})
        paths.append(write(tmp_path / f"{number}.parquet", table, 2))
    rows = RowFilter.of([[("n", "<", 10), ("n", ">=", 4)]])
    assert rows is not None
    expected = [
        [],
        [],
        ["text 4", "text 5"],
        [],
        [],
        [],
        ["text 4", "text 5"],
        ["text 6", "text 7"],
        ["text 8", "text 9"],
    ]
    assert read_planned(paths, rows) == expected
    for path, groups in zip(paths, ((0, 1), (0, 1, 2), ()), strict=True):
        content, metadata = bytearray(Path(path).read_bytes()), pq.read_metadata(path)
        for group in groups:
            for column in range(2):
                chunk = metadata.row_group(group).column(column)
                start = chunk.data_page_offset
                content[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
        Path(path).write_bytes(content)
    assert read_planned(paths, rows) == expected
    with pytest.raises(BroetchenError, match="row group 0"):
        list(read_texts(paths[0], [0], "text"))


def test_only_the_columns_that_are_named_are_read_besides_the_text(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["a", "b"],
            "n": [1, 2],
            "noise": ["x" * 50_000, "y" * 50_000],
            "meta": pa.array([{"s": 1, "t": "z" * 9}] * 2),
        }
    )
    path = write(tmp_path / "a.parquet", table, 2)
    metadata = pq.read_metadata(path).row_group(0)
    stored = {metadata.column(n).path_in_schema: metadata.column(n).total_compressed_size for n in range(5)}

    def stored_bytes(rows: RowFilter | None, schema: pa.Schema | None = None) -> int:
        return sum(batch.stored_bytes for _, batch in read_texts(path, [0], "text", rows=rows, schema=schema))

    assert stored_bytes(None) == stored["text"]
    assert stored_bytes(RowFilter.of([[("n", ">", 1)]])) == stored["text"] + stored["n"]
    assert stored_bytes(RowFilter.of([[("meta.s", "==", 1)]])) == stored["text"] + stored["meta.s"]
    wanted = pa.schema({"text": pa.string(), "n": pa.int64(), "absent": pa.string()})
    assert stored_bytes(None, wanted) == stored["text"] + stored["n"]
    assert stored_bytes(None, table.schema) == sum(stored.values())


def test_columns_that_are_wanted_come_with_the_documents_that_pass(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", None, "c", "d"], "n": pa.array([1, 2, 3, 4], pa.int16()), "noise": list("wxyz")})
    path = write(tmp_path / "a.parquet", table, 4)
    wanted = pa.schema({"text": pa.string(), "n": pa.int64(), "absent": pa.string()})
    ((_, batch),) = read_texts(path, [0], "text", rows=RowFilter.of([[("noise", "!=", "y")]]), schema=wanted)
    assert batch.table is not None
    assert batch.table.to_pydict() == {"text": ["a", "d"], "n": [1, 4], "absent": [None, None]}
    assert [KINDS[kind] for kind in batch.kinds] == ["document", "null", FILTERED, "document"]


def test_a_filter_is_what_its_config_says_and_not_where_its_list_lies() -> None:
    near, far = (
        RowFilter.of([[("a", "in", ["ä", "b"])]], Exclusion("id", path, "0" * 64)) for path in ("/x.txt", "/y.txt")
    )
    assert near is not None
    assert far is not None
    assert near.identity == far.identity
    assert near.alternatives == [[("a", "in", ["ä", "b"])]]
    assert near.columns == ["a", "id"]
    assert RowFilter.of([]) is None


def test_a_manifest_gives_its_filter_back() -> None:
    dataset = {"filters": [["a", ">", 1]], "exclude": {"column": "id", "values": "x.txt", "sha256": "1" * 64}}
    found = RowFilter.of_dataset(dataset, lambda path: f"/here/{path}")
    assert found == RowFilter.of([[("a", ">", 1)]], Exclusion("id", "/here/x.txt", "1" * 64))
    assert RowFilter.of_dataset({}, str) is None
    broken_ones: list[dict[str, Any]] = [
        {"filters": 3},
        {"filters": [["a", "like", "b"]]},
        {"exclude": {"column": "id"}},
        {"exclude": []},
    ]
    for broken in broken_ones:
        with pytest.raises(ValueError, match=r"filters|exclude"):
            RowFilter.of_dataset(broken, str)


@pytest.mark.parametrize("kind", [pa.string_view(), pa.binary_view()])
def test_texts_in_views_are_filtered(tmp_path: Path, kind: pa.DataType) -> None:
    texts = pa.array([f"text {n % 30}" for n in range(3000)]).cast(kind)
    path = write(tmp_path / "a.parquet", pa.table({"text": texts, "n": range(3000)}), 1000)
    found = [batch for _, batch in read_texts(path, [0, 1, 2], "text", rows=RowFilter.of([[("n", ">=", 2990)]]))]
    assert [text for batch in found for text in batch.texts.to_pylist()] == [
        f"text {n % 30}" for n in range(2990, 3000)
    ]


def test_rows_that_do_not_pass_need_not_fit_the_columns_of_other_files(tmp_path: Path) -> None:
    """No 64-bit float is 2⁵³ + 1."""
    table = pa.table({"text": ["a", "b"], "k": [0, 9], "n": pa.array([2**53 + 1, 7], pa.int64())})
    path = write(tmp_path / "a.parquet", table, 2)
    wanted = pa.schema({"text": pa.string(), "k": pa.int64(), "n": pa.float64()})
    ((_, batch),) = read_texts(path, [0], "text", rows=RowFilter.of([[("k", ">", 5)]]), schema=wanted)
    assert batch.table is not None
    assert batch.table.to_pydict() == {"text": ["b"], "k": [9], "n": [7.0]}
    with pytest.raises(BroetchenError, match="column 'n' cannot be double"):
        list(read_texts(path, [0], "text", schema=wanted))
