"""Sound footers and damaged ones."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.corpora import write_parquet
from transforms.errors import BroetchenError
from transforms.parquet.footer import read_footer
from transforms.parquet.source_files import expand_sources
from transforms.parquet.texts import read_texts


def test_a_footer_tells_rows_and_bytes_and_identifies_the_content(tmp_path: Path) -> None:
    for name, last in (("a", "c"), ("same", "c"), ("other", "cc")):
        write_parquet(tmp_path / f"{name}.parquet", [["a", "b"], [last]])
    footers = [read_footer(path, size, "text") for path, size in expand_sources([str(tmp_path / "*.parquet")])]
    first, other, same = footers
    assert [group.rows for group in first.row_groups] == [2, 1]
    metadata = pq.read_metadata(tmp_path / "a.parquet")
    assert [group.text_bytes for group in first.row_groups] == [
        metadata.row_group(index).column(1).total_uncompressed_size for index in range(2)
    ]
    assert first.footer_sha256 == same.footer_sha256 != other.footer_sha256


def test_a_footer_larger_than_the_first_read(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [["a"]] * 3000)
    path = tmp_path / "a.parquet"
    assert pq.read_metadata(path).serialized_size > 64 << 10
    assert len(read_footer(str(path), path.stat().st_size, "text").row_groups) == 3000


@pytest.mark.parametrize("keep", [0, 3, 11, 100, -1])
def test_a_file_cut_short_is_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.parquet"
    write_parquet(path, [["some text"] * 50])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BroetchenError, match=r"a\.parquet.*(cut short|damaged|cannot be read)"):
        read_footer(str(path), path.stat().st_size, "text")


def test_a_missing_or_unfit_column_is_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [["a"]], column="body")
    size = (tmp_path / "a.parquet").stat().st_size
    with pytest.raises(BroetchenError, match="no column 'text'; the file has id, body"):
        read_footer(str(tmp_path / "a.parquet"), size, "text")
    with pytest.raises(BroetchenError, match="column 'id' is int64, not text"):
        read_footer(str(tmp_path / "a.parquet"), size, "id")


KINDS = [
    pa.int8(),
    pa.string(),
    pa.list_(pa.int8()),
    pa.large_list(pa.list_(pa.int8())),
    pa.map_(pa.string(), pa.struct({"x": pa.int8(), "y": pa.int8()})),
    pa.struct({"b": pa.int8(), "c": pa.list_(pa.struct({"x": pa.int8(), "y": pa.string()}))}),
    pa.dictionary(pa.int8(), pa.string()),
    pa.list_(pa.int8(), 2),
]


@pytest.mark.parametrize("before", [[], *([kind] for kind in KINDS), KINDS])
def test_the_text_is_found_behind_nested_columns(tmp_path: Path, before: list[pa.DataType]) -> None:
    """One of which has a field of the same path."""
    columns = {f"{number}": pa.nulls(2, kind) for number, kind in enumerate(before)}
    columns |= {"a": pa.array([{"b": 1}, None]), "a.b": pa.array(["x" * 5000, "y" * 6000])}
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path, compression="none")
    group = read_footer(str(path), path.stat().st_size, "a.b").row_groups[0]
    assert 11_000 < group.text_bytes < 12_000
    (batch,) = [batch for _, batch in read_texts(str(path), [0], "a.b")]
    assert [len(text) for text in batch.texts.to_pylist()] == [5000, 6000]
