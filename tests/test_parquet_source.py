"""Parquet as a source of documents."""

import random
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as st

from tests.corpora import write_parquet
from transforms import files
from transforms.errors import BroetchenError
from transforms.parquet_source import ReadParquet, expand_sources, read_footer, read_texts, to_texts

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


def test_row_groups_are_read_in_the_order_asked_for_and_no_others(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [["a", "b"], ["c"], [], ["d", None, ""]])
    found = [
        (group, batch.texts.to_pylist()) for group, batch in read_texts(str(tmp_path / "a.parquet"), [3, 0], "text")
    ]
    assert found == [(3, ["d"]), (0, ["a", "b"])]


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


def test_a_damaged_page_names_file_and_row_group(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_parquet(path, [["some text"] * 50, [f"{n} other text" for n in range(500)]])
    offset = pq.read_metadata(path).row_group(1).column(1).data_page_offset
    content = bytearray(path.read_bytes())
    content[offset : offset + 40] = b"\xff" * 40
    path.write_bytes(content)
    with pytest.raises(BroetchenError, match=r"a\.parquet: row group 1 cannot be read"):
        list(read_texts(str(path), [0, 1], "text"))


def test_a_missing_or_unfit_column_is_named(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [["a"]], column="body")
    size = (tmp_path / "a.parquet").stat().st_size
    with pytest.raises(BroetchenError, match="no column 'text'; the file has id, body"):
        read_footer(str(tmp_path / "a.parquet"), size, "text")
    with pytest.raises(BroetchenError, match="column 'id' is int64, not text"):
        read_footer(str(tmp_path / "a.parquet"), size, "id")


def test_a_pattern_that_matches_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(BroetchenError, match=r"nothing-\*\.parquet: no file matches"):
        expand_sources([str(tmp_path / "nothing-*.parquet")])


def test_the_transform_reads_every_document(tmp_path: Path) -> None:
    write_parquet(tmp_path / "1.parquet", [["a", "b"], [None, "c"]])
    write_parquet(tmp_path / "2.parquet", [["d", ""]])
    with TestPipeline() as pipeline:
        documents = pipeline | beam.Create([str(tmp_path / "*.parquet")]) | ReadParquet()
        assert_that(documents, equal_to(["a", "b", "c", "d"]))


def test_a_file_in_a_bucket_is_fetched_once(gcs_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    letters = random.Random(1)
    row_groups = [
        ["".join(letters.choices("abcdefghijklmnopqrstuvwxyz", k=4000)) for _ in range(1500)] for _ in range(6)
    ]
    write_parquet(tmp_path / "a.parquet", row_groups)
    files.upload(str(tmp_path / "a.parquet"), f"{gcs_prefix}/a.parquet")
    sent = 0
    send_header = BaseHTTPRequestHandler.send_header

    def counted(self: BaseHTTPRequestHandler, keyword: str, value: str) -> None:
        nonlocal sent
        sent += int(value) if keyword.lower() == "content-length" else 0
        send_header(self, keyword, value)

    monkeypatch.setattr(BaseHTTPRequestHandler, "send_header", counted)
    batches = [batch for _, batch in read_texts(f"{gcs_prefix}/a.parquet", range(6), "text")]
    assert sum(len(batch.texts) for batch in batches) == 9000
    size = (tmp_path / "a.parquet").stat().st_size
    assert size - 100_000 < sent < 1.5 * size  # only the column of numbers beside the text is left out
