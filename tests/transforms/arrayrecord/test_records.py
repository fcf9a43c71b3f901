"""Documents to records."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import maxtext
import numpy as np
import pydantic
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from maxtext.input_pipeline.protos.example_pb2 import Example

from transforms.arrayrecord.example import encode_ids
from transforms.arrayrecord.records import (
    FEATURE,
    Format,
    RecordSpec,
    add_bos_eos,
    file_extension,
    record_bounds,
    slice_records,
)

documents_lists = st.lists(st.lists(st.integers(2, 99), max_size=12), max_size=10)
special = st.one_of(st.none(), st.just(0)), st.one_of(st.none(), st.just(1))


def flat(documents: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    ids = np.array([token for document in documents for token in document], np.uint32)
    return ids, np.cumsum([0, *map(len, documents)], dtype=np.int64)


@given(documents_lists, *special)
@example([], 0, 1)
@example([[]], 0, 1)
@example([[5], [], [6, 7]], 0, None)
@example([[5], [], [6, 7]], None, 1)
def test_bos_and_eos_frame_each_document(documents: list[list[int]], bos: int | None, eos: int | None) -> None:
    before, after = [bos] if bos is not None else [], [eos] if eos is not None else []
    framed = [before + document + after for document in documents]
    ids, offsets = add_bos_eos(*flat(documents), bos, eos)
    expected_ids, expected_offsets = flat(framed)
    assert ids.tolist() == expected_ids.tolist()
    assert offsets.tolist() == expected_offsets.tolist()
    assert ids.dtype == np.uint32
    assert offsets.dtype == np.int64


def test_ids_of_any_size_are_framed_as_they_are() -> None:
    """Every id is one of 32 bits, also where the numbers of BOS and EOS are larger than those of any text."""
    ids, offsets = add_bos_eos(np.array([2**32 - 1, 0], np.uint32), np.array([0, 1, 2]), 2**31, 2**32 - 2)
    assert ids.tolist() == [2**31, 2**32 - 1, 2**32 - 2, 2**31, 0, 2**32 - 2]
    assert offsets.tolist() == [0, 3, 6]


def test_documents_that_get_no_frame_are_not_copied() -> None:
    """They may be hundreds of megabytes."""
    ids, offsets = flat([[5], [6, 7]])
    framed, framed_offsets = add_bos_eos(ids, offsets, None, None)
    assert framed is ids
    assert framed_offsets is offsets


@given(documents_lists, st.integers(1, 7))
@example([], 3)
@example([[]], 3)
@example([[], [5], [], [6, 7, 8], []], 3)
@example([[5, 6, 7, 8], [], [9], [10, 11, 12]], 3)
def test_records_are_each_document_in_pieces(documents: list[list[int]], most: int) -> None:
    ids, offsets = flat(documents)
    bounds = record_bounds(offsets, most)
    records = [ids[a:b].tolist() for a, b in itertools.pairwise(bounds)]
    assert records == [document[i : i + most] for document in documents for i in range(0, len(document), most)]
    assert bounds.dtype == np.int64
    assert bounds[-1] == offsets[-1]


def test_bounds_of_records_that_no_32_bits_hold() -> None:
    offsets = np.array([0, 2**33, 2**33 + 1])
    assert record_bounds(offsets, 2**32).tolist() == [0, 2**32, 2**33, 2**33 + 1]
    assert record_bounds(offsets, 2**33).tolist() == [0, 2**33, 2**33 + 1]


@given(documents_lists, st.integers(0, 60), st.integers(0, 60))
@example([[5, 6, 7], [8]], 1, 1)
@example([[5, 6, 7], [8]], 3, 1)
@example([[5, 6, 7], [8]], 2, 2)
def test_a_slice_holds_those_ids_and_keeps_the_bounds_of_records(
    records: list[list[int]], skip: int, take: int
) -> None:
    stream = [(number, token) for number, record in enumerate(records) for token in record]
    wanted = stream[skip : skip + take]
    sliced = [piece.tolist() for piece in slice_records(map(np.array, records), skip, take)]
    groups = dict.fromkeys(number for number, _ in wanted)
    assert sliced == [[token for other, token in wanted if other == number] for number in groups]


@pytest.mark.parametrize("take", [0, 1, 3])
def test_a_slice_does_not_read_on_to_the_end_of_the_stream(take: int) -> None:
    """The stream is that of a shard's file, and a cut at its beginning has no use for the rest."""

    def stream() -> Iterator[np.ndarray]:
        yield np.array([5, 6])
        yield np.array([7, 8])
        yield np.array([9])
        raise AssertionError("read on")

    assert [token for piece in slice_records(stream(), 1, take) for token in piece] == [6, 7, 8][:take]


def test_maxtext_finds_records_in_the_column_that_it_reads_unless_told_otherwise() -> None:
    config = yaml.safe_load(Path(maxtext.__path__[0], "configs", "base.yml").read_text())
    (column,) = config["train_data_columns"]
    ids, offsets = add_bos_eos(*flat([[5, 6, 7]]), None, 1)
    records = [Example.FromString(record) for record in encode_ids(ids, record_bounds(offsets, 3), FEATURE)]
    assert [list(record.features.feature[column].int64_list.value) for record in records] == [[5, 6, 7], [1]]


@pytest.mark.parametrize(
    ("record_format", "is_text", "extension"),
    [("tokens", False, "arecord"), ("text", True, "arecord"), ("parquet", True, "parquet")],
)
def test_what_each_format_is(record_format: Format, is_text: bool, extension: str) -> None:
    spec = pydantic.TypeAdapter(RecordSpec).validate_python(
        {"format": record_format, "max_tokens": 4, "bos_id": None, "eos_id": 1}
    )
    assert spec == RecordSpec(record_format, max_tokens=4, bos_id=None, eos_id=1)
    assert spec.is_text == is_text
    assert spec.extension == file_extension(record_format) == extension


def test_there_is_no_other_format() -> None:
    wrong = {"format": "csv", "max_tokens": 4, "bos_id": None, "eos_id": 1}
    with pytest.raises(pydantic.ValidationError, match="'tokens', 'text', 'parquet' or 'megatron'"):
        pydantic.TypeAdapter(RecordSpec).validate_python(wrong)
