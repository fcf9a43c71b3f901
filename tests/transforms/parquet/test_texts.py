"""The text of parquet files, batch by batch."""

from __future__ import annotations

import random
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.corpora import write_parquet
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.parquet.texts import read_beginnings, read_texts


def test_row_groups_are_read_in_the_order_asked_for_and_no_others(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [["a", "b"], ["c"], [], ["d", None, ""]])
    found = [
        (group, batch.texts.to_pylist()) for group, batch in read_texts(str(tmp_path / "a.parquet"), [3, 0], "text")
    ]
    assert found == [(3, ["d"]), (0, ["a", "b"])]


def test_a_damaged_page_names_file_and_row_group(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_parquet(path, [["some text"] * 50, [f"{n} other text" for n in range(500)]])
    offset = pq.read_metadata(path).row_group(1).column(1).data_page_offset
    content = bytearray(path.read_bytes())
    content[offset : offset + 40] = b"\xff" * 40
    path.write_bytes(content)
    with pytest.raises(BroetchenError, match=r"a\.parquet: row group 1 cannot be read"):
        list(read_texts(str(path), [0, 1], "text"))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of each answer of the bucket, from now on."""
    found: list[int] = []
    send_header = BaseHTTPRequestHandler.send_header

    def counted(self: BaseHTTPRequestHandler, keyword: str, value: str) -> None:
        if keyword.lower() == "content-length":
            found.append(int(value))
        send_header(self, keyword, value)

    monkeypatch.setattr(BaseHTTPRequestHandler, "send_header", counted)
    return found


def put_noise(path: str, local: Path, *, rows: int) -> int:
    """Puts six row groups of 4,000 letters a row at `path`, and returns their bytes."""
    letters = random.Random(1)
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    write_parquet(local, [["".join(letters.choices(alphabet, k=4000)) for _ in range(rows)] for _ in range(6)])
    storage.upload(str(local), path)
    return local.stat().st_size


@pytest.mark.slow
def test_a_file_in_a_bucket_is_fetched_once(gcs_prefix: str, tmp_path: Path, sent: list[int]) -> None:
    size = put_noise(f"{gcs_prefix}/a.parquet", tmp_path / "a.parquet", rows=1500)
    sent.clear()
    batches = [batch for _, batch in read_texts(f"{gcs_prefix}/a.parquet", range(6), "text")]
    assert sum(len(batch.texts) for batch in batches) == 9000
    assert size - 100_000 < sum(sent) < 1.5 * size  # only the column of numbers beside the text is left out


def test_of_a_file_in_a_bucket_little_more_is_fetched_than_is_looked_at(
    gcs_prefix: str, tmp_path: Path, sent: list[int]
) -> None:
    """Beam's handles fetch 16 MiB for each look, which would be all of this file, again and again."""
    size = put_noise(f"{gcs_prefix}/a.parquet", tmp_path / "a.parquet", rows=1000)
    sent.clear()
    seen = [next(beginning.batches) for beginning in read_beginnings(f"{gcs_prefix}/a.parquet", [0, 3, 5], "text")]
    assert all(len(batch.texts) for batch in seen)
    # Three of the six row groups, and a MiB more of each at the most.
    assert sum(sent) < size / 2 + 3 * (1 << 20)


def test_a_few_short_columns_beside_the_text_do_not_cut_batches_short(tmp_path: Path) -> None:
    """Unless all columns are read, of which parquet is written whose row groups end where batches do."""
    path = tmp_path / "a.parquet"
    texts = [f"{number} " + "abcdefgh" * 300 for number in range(1000)]
    names = [f"document {number}" for number in range(1000)]
    pq.write_table(pa.table({"text": texts, "id": names, "more": names}), path, dictionary_pagesize_limit=16 << 20)

    def batches(*columns: str) -> list[int]:
        schema = pa.schema([("text", pa.string()), *((column, pa.string()) for column in columns)])
        read = read_texts(str(path), [0], "text", schema=schema if columns else None)
        return [len(batch.texts) for _, batch in read]

    assert len(batches("id")) == len(batches()) == 3
    assert max(batches("id", "more")) < max(batches("id"))
    assert sum(batches("id", "more")) == sum(batches("id")) == 1000
