"""The parts of a source that a sample reads, and the estimates that follow."""

from __future__ import annotations

import dataclasses
import io
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.io.filesystems import FileSystems

from tests.transforms.recipe.test_plan import spec_in, text_bytes, written
from transforms.arrayrecord.records import RecordSpec
from transforms.errors import BroetchenError
from transforms.parquet.footer import SourceFile, read_footer
from transforms.recipe.sample import Sample, take_sample, within_reach

KIB = 1 << 10

# The tokenizer of these tests makes a token of each byte.


def groups_of(source: Sequence[SourceFile]) -> list[tuple[int, int]]:
    return [(file, group) for file, footer in enumerate(source) for group in range(len(footer.row_groups))]


def sample_of(folder: Path, source: Sequence[SourceFile]) -> Sample:
    return take_sample(spec_in(folder), source, groups_of(source), groups_of(source), fetched_bytes=1e9)


def table_file(path: Path, texts: Sequence[str | bytes | None], rows: int, **settings: object) -> SourceFile:
    kind = pa.binary() if any(isinstance(text, bytes) for text in texts) else pa.string()
    pq.write_table(pa.table({"text": pa.array(texts, kind)}), path, row_group_size=rows, **settings)
    return read_footer(str(path), path.stat().st_size, "text")


def held_bytes(texts: Sequence[str | bytes | None]) -> int:
    return sum(len(text.encode()) for text in texts if isinstance(text, str))


def words(count: int, seed: int) -> str:
    draw = random.Random(seed)
    return " ".join(f"{draw.randrange(36**6):x}" for _ in range(count))


def test_of_a_small_source_every_document_is_taken_whole(tmp_path: Path) -> None:
    documents = [f"{number:3000}" for number in range(70)]
    files = [
        written(tmp_path / "a.parquet", [documents[:10], [None, ""], documents[10:40]]),
        written(tmp_path / "b.parquet", [documents[40:]]),
    ]
    sample = sample_of(tmp_path, files)
    assert sample.texts.to_pylist() == documents
    assert sample.ratio.tokens(sum(group.text_bytes for file in files for group in file.row_groups)) == (210_000, 0)


def test_of_a_large_source_some_128_pieces_of_2_kib_are_taken_from_all_over_it(tmp_path: Path) -> None:
    documents = [f"<{number}>" + "a" * 10_000 for number in range(2000)]
    file = table_file(tmp_path / "a.parquet", documents, 20)
    sample = sample_of(tmp_path, [file])
    assert len(file.row_groups) == 100
    assert 100 <= len(sample.texts) <= 200
    assert all(2 * KIB <= len(text) < 2 * KIB + 8 for text in sample.texts.to_pylist())
    assert len(sample.ratio.steps) == 32
    tokens, error = sample.ratio.tokens(sum(group.text_bytes for group in file.row_groups))
    assert abs(tokens - held_bytes(documents)) <= error < tokens / 10


def test_short_documents_are_taken_whole_and_several_to_a_piece(tmp_path: Path) -> None:
    documents = [f"{number:100}" for number in range(50_000)]
    file = table_file(tmp_path / "a.parquet", documents, 5000)
    texts = sample_of(tmp_path, [file]).texts.to_pylist()
    assert set(texts) < set(documents)
    assert 2500 < len(texts) < 3500
    # From everywhere, in their order.
    assert texts == sorted(texts)
    assert int(texts[0]) < 500
    assert int(texts[-1]) > 49_000


def test_a_code_point_is_not_cut_in_two(tmp_path: Path) -> None:
    file = table_file(tmp_path / "a.parquet", ["x" + "ü€😀" * 100_000] * 3, 1)
    texts = sample_of(tmp_path, [file]).texts.to_pylist()
    assert len(texts) > 100
    assert set("".join(texts)) <= set("xü€😀")


@pytest.mark.parametrize("long_bytes", [2_000_000, 20_000_000])
def test_a_long_document_counts_by_its_bytes(tmp_path: Path, long_bytes: int) -> None:
    """A row group whose first rows are short, and its second document is long."""
    documents = ["short", "a" * long_bytes, *(f"short {number}" for number in range(500))]
    file = table_file(tmp_path / "a.parquet", documents, 1000)
    sample = sample_of(tmp_path, [file])
    tokens, error = sample.ratio.tokens(file.row_groups[0].text_bytes)
    assert abs(tokens - held_bytes(documents)) <= error < tokens / 5


def log_normal(sigma: float) -> list[str]:
    draw = np.random.default_rng(5)
    return ["a" * int(length) for length in draw.lognormal(np.log(3000), sigma, 4000)]


@pytest.mark.parametrize(
    ("texts", "settings"),
    [
        (lambda: log_normal(1.0), {}),
        (lambda: log_normal(2.0), {"use_dictionary": False}),
        (lambda: log_normal(1.5), {"use_dictionary": False, "column_encoding": {"text": "DELTA_LENGTH_BYTE_ARRAY"}}),
        # Few texts many times: bytes of the column that stand for more.
        (lambda: [f"{number % 50:20000}" for number in range(4000)], {}),
        (lambda: [words(3000, number % 300) for number in range(4000)], {}),
        (
            lambda: [words(3000, 1) + str(number) for number in range(4000)],
            {"column_encoding": {"text": "DELTA_BYTE_ARRAY"}, "use_dictionary": False},
        ),
        # Rows that hold no text.
        (lambda: [None if number % 3 else f"{number:3000}" for number in range(10_000)], {}),
        (lambda: ["" if number % 3 else f"{number:3000}" for number in range(10_000)], {}),
        (lambda: [f"{number}" for number in range(1_000_000)], {}),
    ],
)
def test_the_size_of_the_text_is_known_however_it_is_stored(
    tmp_path: Path, texts: Callable[[], list[str | None]], settings: dict[str, object]
) -> None:
    documents = texts()
    file = table_file(tmp_path / "a.parquet", documents, max(200, len(documents) // 50), **settings)
    sample = sample_of(tmp_path, [file])
    tokens, error = sample.ratio.tokens(sum(group.text_bytes for group in file.row_groups))
    assert abs(tokens - held_bytes(documents)) <= error < tokens / 4


def test_bytes_that_are_no_text_are_not_counted_as_text(tmp_path: Path) -> None:
    documents: list[str | bytes] = [b"\xff" * 3000 if number % 2 else b"a" * 3000 for number in range(4000)]
    file = table_file(tmp_path / "a.parquet", documents, 200)
    tokens, error = sample_of(tmp_path, [file]).ratio.tokens(sum(group.text_bytes for group in file.row_groups))
    assert abs(tokens - 6_000_000) <= error < tokens / 4


def test_bos_and_eos_count_for_each_document(tmp_path: Path) -> None:
    file = table_file(tmp_path / "a.parquet", [f"{number:10}" for number in range(500_000)], 20_000)
    spec = spec_in(tmp_path, records=RecordSpec("tokens", 8, 1, 2))
    tokens, error = take_sample(spec, [file], groups_of([file]), [], fetched_bytes=0).ratio.tokens(
        sum(group.text_bytes for group in file.row_groups)
    )
    assert abs(tokens - 6_000_000) <= error < tokens / 10


def test_row_groups_without_text_have_no_tokens(tmp_path: Path) -> None:
    rows = [None] * 8192 + ["late"]
    sample = sample_of(tmp_path, [written(tmp_path / "a.parquet", [rows, ["later"]])])
    assert sample.texts.to_pylist() == ["late", "later"]


def test_where_what_is_looked_at_holds_no_text_the_first_document_is_found(tmp_path: Path) -> None:
    """One in a thousand row groups."""
    rows: list[str | None] = [None] * 10_000
    rows[7777] = "here"
    file = table_file(tmp_path / "a.parquet", rows, 10)
    sample = sample_of(tmp_path, [file])
    assert sample.texts.to_pylist() == ["here"]
    assert sample.ratio.tokens_per_byte > 0


def test_a_source_without_row_groups_holds_no_text(tmp_path: Path) -> None:
    with pytest.raises(BroetchenError, match="holds no text in any of its files"):
        sample_of(tmp_path, [written(tmp_path / "a.parquet", [])])


def test_a_document_behind_a_million_rows_without_text_is_found(tmp_path: Path) -> None:
    rows: list[str | None] = [None] * 1_000_000 + ["late"]
    sample = sample_of(tmp_path, [table_file(tmp_path / "a.parquet", rows, len(rows))])
    assert sample.texts.to_pylist() == ["late"]


def test_where_the_budget_reaches_no_text_it_is_sought_behind_it(tmp_path: Path) -> None:
    file = written(tmp_path / "a.parquet", [[None, ""], [None], ["late"]])
    assert take_sample(spec_in(tmp_path), [file], [(0, 0)], groups_of([file]), fetched_bytes=0).texts.to_pylist() == [
        "late"
    ]


def spoil(path: Path, group: int) -> None:
    column = pq.read_metadata(path).row_group(group).column(1)
    with path.open("r+b") as file:
        file.seek(column.dictionary_page_offset)
        file.write(bytes(column.total_compressed_size))


def test_what_cannot_be_read_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A budget may end before it."""
    files = [written(tmp_path / f"{name}.parquet", [["good", name]]) for name in "abc"]
    spoil(tmp_path / "b.parquet", 0)
    assert sample_of(tmp_path, files).texts.to_pylist() == ["good", "a", "good", "c"]
    (record,) = caplog.records
    assert record.getMessage().startswith(f"dataset bread: {tmp_path}/b.parquet: row group 0 cannot be read")
    assert record.getMessage().endswith("; the plan does without it")


def test_nothing_that_can_be_read_is_an_error(tmp_path: Path) -> None:
    file = written(tmp_path / "a.parquet", [["good"]])
    spoil(tmp_path / "a.parquet", 0)
    with pytest.raises(BroetchenError, match=r"a\.parquet: row group 0 cannot be read"):
        sample_of(tmp_path, [file])


def test_a_reach_ends_with_the_row_group_that_holds_its_last_byte(tmp_path: Path) -> None:
    files = [written(tmp_path / "a.parquet", [["a"], ["b"]]), written(tmp_path / "b.parquet", [["c"]])]
    groups = groups_of(files)
    sizes = [text_bytes(files[0], 0), text_bytes(files[0], 1), text_bytes(files[1], 0)]
    assert within_reach(files, groups, 1) == groups[:1]
    assert within_reach(files, groups, sizes[0]) == groups[:1]
    assert within_reach(files, groups, sizes[0] + 1) == groups[:2]
    assert within_reach(files, groups, sum(sizes)) == groups
    assert within_reach(files, groups, sum(sizes) + 1) == groups


def test_a_sample_of_a_file_on_the_hub_fetches_nothing_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planning looks at the beginnings of row groups: half a megabyte more of each would be fetched in vain."""
    path = tmp_path / "a.parquet"
    documents = [f"{number:1024}" for number in range(3 * KIB)]
    pq.write_table(
        pa.table({"text": documents}), path, compression="none", use_dictionary=False, data_page_size=16 * KIB
    )
    fetched: list[int] = []

    class Fetched(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size) or b""
            fetched.append(len(data))
            return data

    monkeypatch.setattr(FileSystems, "open", lambda *_, **__: Fetched(path))
    footer = read_footer(str(path), path.stat().st_size, "text")
    on_hub = dataclasses.replace(footer, path=f"hf://datasets/owner/corpus@{'0' * 40}/a.parquet")
    fetched.clear()
    sample_of(tmp_path, [on_hub])
    # A batch of a megabyte, a buffer, and the footer.
    assert KIB * KIB < sum(fetched) < 1280 * KIB


def test_a_shuffled_source_is_sampled_in_the_order_of_reading(tmp_path: Path) -> None:
    files = [written(tmp_path / "a.parquet", [["a"], ["bb"]]), written(tmp_path / "b.parquet", [["ccc"]])]
    sample = take_sample(spec_in(tmp_path), files, [(0, 1), (1, 0), (0, 0)], [], fetched_bytes=0)
    assert sample.texts.to_pylist() == ["bb", "ccc", "a"]


def test_of_files_that_are_not_local_as_few_row_groups_are_looked_at_as_were_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One page of each may hold all of it."""
    documents = [words(20_000, number) for number in range(40)]
    file = table_file(tmp_path / "a.parquet", documents, 1)
    monkeypatch.setattr("transforms.files.storage.is_local", lambda path: False)
    size = sum(group.stored_bytes for group in file.row_groups) / 40
    for fetched, looked_at in ((0, 1), (3.5 * size, 3), (1e9, 32)):
        sample = take_sample(spec_in(tmp_path), [file], groups_of([file]), [], fetched_bytes=fetched)
        assert len(sample.ratio.steps) == looked_at
        tokens, error = sample.ratio.tokens(sum(group.text_bytes for group in file.row_groups))
        assert abs(tokens - held_bytes(documents)) <= error
