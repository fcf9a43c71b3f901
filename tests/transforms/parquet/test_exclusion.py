"""Lists of values to leave out: which values are in one, in any form."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import at_most
from transforms.errors import BroetchenError, UsageError
from transforms.parquet.exclusion import Exclusion, file_sha256, is_listed
from transforms.parquet.row_filter import FileFilter, RowFilter


def listed_in(path: Path, values: Any, column: str = "id") -> Exclusion:
    if path.suffix == ".parquet":
        pq.write_table(values if isinstance(values, pa.Table) else pa.table({column: values}), path)
    else:
        path.write_bytes(values)
    return Exclusion(column, str(path), hashlib.sha256(path.read_bytes()).hexdigest())


names = st.none() | st.text(max_size=3)


@at_most(60)
@given(st.lists(names, max_size=8), st.lists(names, max_size=8))
def test_a_value_is_found_if_it_is_listed(
    tmp_path_factory: pytest.TempPathFactory, listed: list[str | None], column: list[str | None]
) -> None:
    exclusion = listed_in(tmp_path_factory.mktemp("listed") / "a.parquet", pa.array(listed, pa.string()))
    expected = [value is not None and value in listed for value in column]
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        assert is_listed(pa.array(column, kind), exclusion).to_pylist() == expected
    assert is_listed(pa.array(column, pa.string()).dictionary_encode(), exclusion).to_pylist() == expected


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint16(), pa.int64(), pa.uint64()])
def test_whole_numbers_are_found_whatever_their_width(tmp_path: Path, kind: pa.DataType) -> None:
    exclusion = listed_in(tmp_path / "a.parquet", pa.array([1, 100, None], pa.int32()))
    assert is_listed(pa.array([0, 1, 100, None], kind), exclusion).to_pylist() == [False, True, True, False]


def test_text_files_have_a_value_in_each_line(tmp_path: Path) -> None:
    exclusion = listed_in(tmp_path / "a.txt", "\ufeffä\r\n\n b\u2028c \n7".encode())
    column = pa.array(["ä", "", " b\u2028c ", "b", "7", None])
    assert is_listed(column, exclusion).to_pylist() == [True, False, True, False, True, False]
    assert is_listed(pa.array([7, 8]), exclusion).to_pylist() == [True, False]


def test_columns_without_values_have_none_that_is_listed(tmp_path: Path) -> None:
    """As pandas writes them where all values are null; of lists likewise."""
    exclusion = listed_in(tmp_path / "a.txt", b"a\n")
    assert is_listed(pa.nulls(2), exclusion).to_pylist() == [False, False]
    assert is_listed(pa.array(["a"]), listed_in(tmp_path / "b.parquet", pa.nulls(2))).to_pylist() == [False]


def test_a_list_may_be_empty(tmp_path: Path) -> None:
    assert is_listed(pa.array(["a", None]), listed_in(tmp_path / "a.txt", b"")).to_pylist() == [False, False]


def test_the_column_of_the_values_is_the_one_of_that_name_or_the_only_one(tmp_path: Path) -> None:
    both = pa.table({"url": ["b"], "id": ["a"]})
    found = pa.array(["a", "b"])
    assert is_listed(found, listed_in(tmp_path / "1.parquet", both)).to_pylist() == [True, False]
    assert is_listed(found, listed_in(tmp_path / "2.parquet", both, "meta.url")).to_pylist() == [False, True]
    assert is_listed(found, listed_in(tmp_path / "3.parquet", both.select(["url"]))).to_pylist() == [False, True]
    with pytest.raises(BroetchenError, match='has no column "warc", but url, id; rename the one of the values'):
        is_listed(found, listed_in(tmp_path / "4.parquet", both, "warc"))


def test_lists_that_cannot_be_taken_are_named(tmp_path: Path) -> None:
    with pytest.raises(BroetchenError, match=r"a\.parquet: column \"id\" is double; values to exclude are text"):
        is_listed(pa.array(["a"]), listed_in(tmp_path / "a.parquet", [0.5]))
    with pytest.raises(BroetchenError, match=r"b\.txt: is not UTF-8"):
        is_listed(pa.array(["a"]), listed_in(tmp_path / "b.txt", b"\xff"))
    (tmp_path / "c.parquet").write_bytes(b"PAR1")
    broken = Exclusion("id", str(tmp_path / "c.parquet"), file_sha256(str(tmp_path / "c.parquet")))
    with pytest.raises(BroetchenError, match=r"c\.parquet: cannot be read as parquet"):
        is_listed(pa.array(["a"]), broken)
    with pytest.raises(UsageError, match=r"a\.csv: is no list of values to exclude"):
        file_sha256(str(tmp_path / "a.csv"))
    with pytest.raises(BroetchenError, match=r"gone\.txt"):
        file_sha256(str(tmp_path / "gone.txt"))


def test_a_list_that_has_changed_is_not_taken(tmp_path: Path) -> None:
    exclusion = listed_in(tmp_path / "a.txt", b"a\n")
    (tmp_path / "a.txt").write_bytes(b"a\nb\n")
    with pytest.raises(BroetchenError, match="is not the list of values that was named, by its SHA-256"):
        is_listed(pa.array(["a"]), exclusion)


def test_columns_that_cannot_be_listed_are_refused_by_file_and_column(tmp_path: Path) -> None:
    rows = RowFilter.of([], listed_in(tmp_path / "a.txt", b"1\n"))
    assert rows is not None
    with pytest.raises(BroetchenError, match=r'b\.parquet: column "id" is double, and `exclude` wants text or whole'):
        FileFilter(rows, "b.parquet", pa.schema({"id": pa.float64()}))
    with pytest.raises(BroetchenError, match=r'b\.parquet: no column "id"'):
        FileFilter(rows, "b.parquet", pa.schema({"text": pa.string()}))


def test_a_list_and_filters_hold_together(tmp_path: Path) -> None:
    rows = RowFilter.of([[("n", ">", 1)]], listed_in(tmp_path / "a.txt", b"c\n", "meta.id"))
    assert rows is not None
    table = pa.table({"n": [1, 2, 3, None], "meta": pa.array([{"id": one} for one in ["a", None, "c", "d"]])})
    file = FileFilter(rows, "a.parquet", table.schema)
    assert file.paths == ["n", "meta.id"]
    assert file.kept(table.to_batches()[0]).to_pylist() == [False, True, False, False]
