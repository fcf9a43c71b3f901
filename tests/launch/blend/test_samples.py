"""Which tokens each sequence has: all of them, without gap or padding, pass after pass; as MaxText lays them out."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from maxtext.input_pipeline import _mmap_index_utils as maxtext_utils

from launch.blend import samples
from tests.support.examples import at_most

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=25)


def stream(sizes: np.ndarray, passes: int) -> np.ndarray:
    """The documents of the whole stream."""
    return np.concatenate(list(samples.document_orders(len(sizes), passes, 7, "german", shuffle=True)))


def order(sequences: int, tokens: int, length: int) -> np.ndarray:
    return np.concatenate(list(samples.sequence_order(sequences, tokens, length, 7, "german", shuffle=True)))


@given(sizes=SIZES, length=st.integers(1, 60), part=st.floats(0.01, 3.5))
@at_most(150)
def test_sequences_begin_where_maxtext_has_them(sizes: list[int], length: int, part: float):
    of_documents = np.array(sizes, np.int32)
    tokens = sum(sizes)
    count = max(1, int(tokens * part) // length)
    in_a_row = samples.streamed(count, tokens, length)
    documents = stream(of_documents, samples.passes_laid_out(in_a_row, tokens, length))
    starts = np.concatenate(list(samples.sequence_starts(of_documents, iter([documents]), in_a_row, length)))
    expected = maxtext_utils.build_sample_index(of_documents.astype(np.int64), documents, length)
    assert starts.shape == (in_a_row + 1, 2)
    assert np.array_equal(expected[: in_a_row + 1], starts)
    # In pieces they are the same.
    pieces = np.array_split(documents, 3)
    again = samples.sequence_starts(of_documents, (piece for piece in pieces if len(piece)), in_a_row, length)
    assert np.array_equal(np.concatenate(list(again)), starts)
    ordered = order(count, tokens, length)
    assert len(set(ordered.tolist())) == count
    assert ordered.max() < in_a_row


@given(sizes=SIZES, length=st.integers(1, 60), passes=st.integers(1, 4))
@at_most(100)
def test_all_sequences_of_a_pass_come_before_those_of_the_next(sizes: list[int], length: int, passes: int):
    tokens = sum(sizes)
    count = samples.begun_in(passes, tokens, length)
    ordered = order(count, tokens, length)
    assert sorted(ordered.tolist()) == list(range(count))
    assert np.array_equal(ordered * length // tokens, np.sort(ordered * length // tokens))
    # So what a training of whole passes reads is each token as often as that, but for less than a sequence.
    assert 0 <= count * length - passes * tokens < length


@given(sizes=SIZES, length=st.integers(1, 60), count=st.integers(1, 60), more=st.integers(0, 60))
@at_most(100)
def test_the_order_of_fewer_sequences_begins_that_of_more(sizes: list[int], length: int, count: int, more: int):
    tokens = sum(sizes)
    assert np.array_equal(order(count + more, tokens, length)[:count], order(count, tokens, length))


@given(sizes=SIZES, length=st.integers(1, 60))
@at_most(100)
def test_a_dataset_that_is_read_once_is_laid_out_once(sizes: list[int], length: int):
    tokens = sum(sizes)
    count = samples.available(tokens, length)
    assert count * length + 1 <= tokens or not count
    if count:
        assert samples.streamed(count, tokens, length) == count
        assert samples.passes_laid_out(count, tokens, length) == 1


def test_each_pass_has_all_documents_in_an_order_of_its_own():
    first, second = samples.document_orders(50, 2, 7, "german", shuffle=True)
    assert Counter(first.tolist()) == Counter(second.tolist()) == Counter(range(50))
    assert first.tolist() != second.tolist()
    (other,) = samples.document_orders(50, 1, 7, "english", shuffle=True)
    assert other.tolist() != first.tolist()
    plain = list(samples.document_orders(4, 2, 7, "german", shuffle=False))
    assert [found.tolist() for found in plain] == [[0, 1, 2, 3]] * 2


def test_shuffles_are_these_for_good():
    # A training that goes on after an update of NumPy has to find the order that it began with.
    assert samples.shuffled(8, 0, "german/train", 0, "documents", shuffle=True).tolist() == [4, 1, 0, 5, 3, 6, 7, 2]
