"""One reader for all shards: any slice of any format is that slice of the records."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.corpora import write_parquet
from tests.support.megatron.pairs import write_pair
from transforms.arrayrecord.example import encode_ids, encode_texts
from transforms.arrayrecord.records import Format
from transforms.arrayrecord.writer import ShardWriter
from transforms.dataset.reader import ShardReader, check_ids, row_group_ends
from transforms.errors import BroetchenError

TEXTS = [f"Brötchen {number} {'x' * (number % 5)}" for number in range(57)]
GROUPS = [0, 1, 20, 20, 41, 57]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("shards")
    with ShardWriter(str(folder / "ids.arecord")) as writer:
        writer.write_many(encode_ids(np.arange(57 * 3, dtype=np.uint32), np.arange(0, 57 * 3 + 1, 3)))
        writer.close()
    with ShardWriter(str(folder / "text.arecord")) as writer:
        writer.write_many(encode_texts([text.encode() for text in TEXTS]))
        writer.close()
    write_parquet(folder / "text.parquet", [TEXTS[a:b] for a, b in itertools.pairwise(GROUPS)])
    write_pair(folder / "pair", [[3 * number, 3 * number + 1, 3 * number + 2] for number in range(57)], 300)
    return {
        "tokens": f"{folder}/ids.arecord",
        "text": f"{folder}/text.arecord",
        "parquet": f"{folder}/text.parquet",
        "megatron": f"{folder}/pair.bin",
    }


@given(bounds=st.tuples(st.integers(0, 57), st.integers(0, 57)).map(sorted), whole=st.booleans())
def test_a_slice_is_that_slice_of_the_records(shards: dict[str, str], bounds: list[int], whole: bool) -> None:
    first, last = bounds[0], None if whole else bounds[1]
    for name in ("text", "parquet"):
        with ShardReader(shards[name], name, "text") as reader:
            assert len(reader) == 57
            found = [text for batch in reader.texts(first, last) for text in batch.to_pylist()]
            assert found == TEXTS[first:last]
    formats: tuple[Format, ...] = ("tokens", "megatron")
    for name in formats:
        with ShardReader(shards[name], name) as reader:
            ids = [record.tolist() for record in reader.ids(first, last)]
        assert ids == [[3 * number, 3 * number + 1, 3 * number + 2] for number in range(57)][first:last]


def test_documents_by_number_in_any_order(shards: dict[str, str]) -> None:
    for name in ("text", "parquet"):
        with ShardReader(shards[name], name, "text", expected=57) as reader:
            order = [56, 0, 19, 20, 1, 41, 40, 20]
            assert [reader.text(number) for number in order] == [TEXTS[number] for number in order]


def test_slices_that_are_not_there_and_ids_of_text(shards: dict[str, str]) -> None:
    for name in ("text", "parquet"):
        with ShardReader(shards[name], name, "text") as reader:
            for first, last in ((-1, 1), (0, 58), (5, 4), (58, None)):
                with pytest.raises(IndexError, match="it has 57"):
                    list(reader.texts(first, last))
            for number in (-1, 57):
                with pytest.raises(IndexError, match="it has 57"):
                    reader.text(number)
            with pytest.raises(BroetchenError):
                list(reader.ids(0, 1))


def test_where_row_groups_end(shards: dict[str, str]) -> None:
    assert row_group_ends(shards["parquet"], "text") == [1, 20, 20, 41, 57]


@pytest.mark.parametrize("name", ["tokens", "text", "parquet", "megatron"])
def test_another_number_of_records_is_an_error(shards: dict[str, str], name: str) -> None:
    with (
        pytest.raises(BroetchenError, match="holds 57 records, and its manifest says 58"),
        ShardReader(shards[name], name, "text", expected=58),  # type: ignore[arg-type]
    ):
        pass


@pytest.mark.parametrize("row", [None, ""])
def test_parquet_with_rows_that_no_build_writes_is_an_error(tmp_path: Path, row: str | None) -> None:
    write_parquet(tmp_path / "a.parquet", [["a"], ["b", row, "c"]])
    with ShardReader(str(tmp_path / "a.parquet"), "parquet", "text") as reader:
        assert reader.text(0) == "a"
        with pytest.raises(BroetchenError, match="row group 1 has rows without text"):
            list(reader.texts())


def test_records_of_the_other_kind_are_an_error(shards: dict[str, str], tmp_path: Path) -> None:
    with (
        ShardReader(shards["text"], "tokens") as reader,
        pytest.raises(BroetchenError),
    ):
        list(reader.ids())
    with ShardWriter(str(tmp_path / "a.arecord")) as writer:
        writer.write_many(encode_texts([b"a", b"\xff", b"b"]))
        writer.close()
    with ShardReader(str(tmp_path / "a.arecord"), "text") as reader:
        with pytest.raises(BroetchenError, match="record 1 is not UTF-8"):
            reader.text(1)
        with pytest.raises(BroetchenError, match="records without text, which no build writes"):
            list(reader.texts())


@pytest.mark.parametrize("name", ["tokens", "text", "parquet"])
def test_a_link_is_no_shard(shards: dict[str, str], tmp_path: Path, name: str) -> None:
    """However sound the file is that it leads to."""
    path = tmp_path / Path(shards[name]).name
    path.symlink_to(shards[name])
    with (
        pytest.raises(BroetchenError, match="not a regular file but a link, which is not followed"),
        ShardReader(str(path), name, "text", expected=57),  # type: ignore[arg-type]
    ):
        pass


@pytest.mark.parametrize("ids", [[5, -1], [2**32], [-(2**63), 2**63 - 1]])
def test_ids_that_no_tokenizer_has(ids: list[int]) -> None:
    check_ids([])
    check_ids([0, 2**32 - 1])
    with pytest.raises(BroetchenError, match=f"a record holds the ids {min(ids)} to {max(ids)}, which no tokenizer"):
        check_ids(ids)
