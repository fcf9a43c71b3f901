from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from transforms.segments.encoded import Encoded, concatenated, first_difference, interleaved

documents = st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=5), max_size=6)


def documents_of(encoded: Encoded) -> list[list[int]]:
    assert encoded.ids.dtype == np.uint32
    assert encoded.offsets.dtype == np.int64
    ends = encoded.offsets.tolist()
    return [encoded.ids[start:end].tolist() for start, end in itertools.pairwise(ends)]


@given(st.lists(documents, min_size=1, max_size=4))
def test_parts_one_after_another(parts: list[list[list[int]]]) -> None:
    assert documents_of(concatenated([Encoded.of(part) for part in parts])) == [ids for part in parts for ids in part]


@given(documents, documents, st.randoms(use_true_random=False))
def test_two_batches_in_one(chosen, others, random):
    first = [True] * len(chosen) + [False] * len(others)
    random.shuffle(first)
    found = interleaved(np.array(first, np.bool_), {True: Encoded.of(chosen), False: Encoded.of(others)})
    waiting = {True: iter(chosen), False: iter(others)}
    assert documents_of(found) == [next(waiting[which]) for which in first]


def test_first_difference():
    def compared(expected: list[list[int]], found: list[list[int]]) -> str | None:
        return first_difference(Encoded.of(expected), Encoded.of(found))

    assert compared([[1], [], [2, 3]], [[1], [], [2, 3]]) is None
    assert compared([], []) is None
    assert compared([[1], [2, 3]], [[1], [2, 4]]) == "gives other ids in document 1, position 1: 4, not 3"
    assert compared([[1, 2], [3]], [[1], [2, 3]]) == "gives other ids in document 0, position 1: the end, not 2"
    assert compared([[], [3]], [[3], []]) == "gives other ids in document 0, position 0: 3, not the end"
    assert compared([[1]], [[1], [2]]) == "gives ids for 2 documents, not 1"
