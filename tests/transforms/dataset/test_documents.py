"""Documents counted and hashed by the BOS and EOS that frame them, wherever shards cut the stream."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from transforms.arrayrecord.records import record_bounds
from transforms.dataset.documents import DocumentCounter, DocumentHasher, is_among

BOS, EOS = 0, 1
documents = st.lists(st.lists(st.integers(2, 4), max_size=7), min_size=1, max_size=8)
frames = st.sampled_from([(BOS, None), (None, EOS), (BOS, EOS), (EOS, EOS)])


def framed(texts: list[list[int]], bos: int | None, eos: int | None) -> list[list[int]]:
    return [[*([] if bos is None else [bos]), *text, *([] if eos is None else [eos])] for text in texts]


def records_between(texts: list[list[int]], max_tokens: int, start: int, end: int) -> list[list[int]]:
    """The records of a part of the stream, cut at its ends."""
    offsets = np.cumsum([0, *map(len, texts)])
    bounds = [start, *(int(bound) for bound in record_bounds(offsets, max_tokens) if start < bound < end), end]
    stream = [*itertools.chain(*texts)]
    return [stream[first:last] for first, last in itertools.pairwise(bounds) if first < last]


@given(documents, frames, st.integers(1, 9), st.data())
def test_any_part_of_a_stream_is_of_so_many_documents(
    texts: list[list[int]], frame: tuple[int | None, int | None], max_tokens: int, data: st.DataObject
) -> None:
    whole = framed(texts, *frame)
    end = data.draw(st.integers(1, sum(map(len, whole))))
    start = data.draw(st.integers(0, end - 1))
    places = itertools.accumulate(map(len, whole), initial=0)
    expected = sum(first < end and start < last for first, last in itertools.pairwise(places))
    counter = DocumentCounter(*frame)
    for record in records_between(whole, max_tokens, start, end):
        assert counter.add(np.array(record)) is None
    assert expected in counter.possible
    assert len(counter.possible) == 1 or frame == (EOS, EOS)
    assert len(counter.possible) <= 2
    assert str(expected) in counter.in_words


@pytest.mark.parametrize(
    ("frame", "record", "problem"),
    [
        ((None, EOS), [EOS, 5], "EOS (1) within a document, where no build puts it"),
        ((BOS, None), [5, BOS], "BOS (0) within a document, where no build puts it"),
        ((BOS, EOS), [BOS, EOS, EOS], "EOS (1) within a document, where no build puts it"),
        ((BOS, EOS), [BOS, BOS, EOS], "BOS (0) within a document, where no build puts it"),
        ((EOS, EOS), [EOS, EOS, EOS], "BOS (1) within a document, where no build puts it"),
        ((BOS, EOS), [BOS, EOS], None),
        ((EOS, EOS), [EOS, EOS], None),
        ((None, EOS), [EOS], None),
        ((None, None), [EOS, BOS, 5], None),
    ],
)
def test_a_frame_within_a_document(
    frame: tuple[int | None, int | None], record: list[int], problem: str | None
) -> None:
    assert DocumentCounter(*frame).add(np.array(record)) == problem


def test_a_bos_without_the_eos_before_it() -> None:
    counter = DocumentCounter(BOS, EOS)
    for record in ([BOS, 5], [BOS, 6, EOS]):
        counter.add(np.array(record))
    assert not counter.possible
    assert counter.in_words == "by BOS 2 and by EOS 1"


def test_no_record_is_no_document() -> None:
    assert DocumentCounter(None, EOS).possible == range(1)


@given(documents, frames, st.integers(1, 9))
def test_hashes_do_not_depend_on_where_records_end(
    texts: list[list[int]], frame: tuple[int | None, int | None], max_tokens: int
) -> None:
    whole = framed(texts, *frame)
    hasher = DocumentHasher(*frame)
    for record in records_between(whole, max_tokens, 0, sum(map(len, whole))):
        hasher.add_ids(np.array(record, np.int64))
    found = hasher.hashes().tolist()
    if frame != (EOS, EOS) or max_tokens > 1:
        assert found == [xxhash.xxh3_64_intdigest(np.array(text, np.int64).tobytes()) for text in whole]


def test_records_are_hashed_one_by_one_where_nothing_frames_documents() -> None:
    hasher = DocumentHasher()
    for record in ([2, 3], [4], [2, 3]):
        hasher.add_ids(np.array(record, np.int64))
    one, other, again = hasher.hashes()
    assert one == again != other


def test_texts_are_hashed_as_they_are() -> None:
    hasher = DocumentHasher()
    hasher.add_texts(pa.array(["a", "ö"], pa.large_string()))
    assert hasher.hashes().tolist() == [xxhash.xxh3_64_intdigest(b"a"), xxhash.xxh3_64_intdigest("ö".encode())]


@given(st.lists(st.integers(0, 9)), st.lists(st.integers(0, 9)))
def test_which_are_among_others(wanted: list[int], held: list[int]) -> None:
    found = is_among(np.array(wanted, np.uint64), np.sort(np.array(held, np.uint64)))
    assert found.tolist() == [one in held for one in wanted]
