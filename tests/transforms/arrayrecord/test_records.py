"""Documents to records."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from transforms.arrayrecord.records import add_bos_eos, record_bounds, slice_records

documents_lists = st.lists(st.lists(st.integers(2, 99), max_size=12), max_size=10)
special = st.one_of(st.none(), st.just(0)), st.one_of(st.none(), st.just(1))


def flat(documents: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    ids = np.array([token for document in documents for token in document], np.uint32)
    return ids, np.cumsum([0, *map(len, documents)], dtype=np.int64)


@given(documents_lists, *special)
def test_bos_and_eos_frame_each_document(documents: list[list[int]], bos: int | None, eos: int | None) -> None:
    before, after = [bos] if bos is not None else [], [eos] if eos is not None else []
    framed = [before + document + after for document in documents]
    ids, offsets = add_bos_eos(*flat(documents), bos, eos)
    expected_ids, expected_offsets = flat(framed)
    assert ids.tolist() == expected_ids.tolist()
    assert offsets.tolist() == expected_offsets.tolist()


@given(documents_lists, st.integers(1, 7))
def test_records_are_each_document_in_pieces(documents: list[list[int]], most: int) -> None:
    ids, offsets = flat(documents)
    bounds = record_bounds(offsets, most)
    records = [ids[a:b].tolist() for a, b in itertools.pairwise(bounds)]
    assert records == [document[i : i + most] for document in documents for i in range(0, len(document), most)]


@given(documents_lists, st.integers(0, 60), st.integers(0, 60))
def test_a_slice_holds_those_ids_and_keeps_the_bounds_of_records(
    records: list[list[int]], skip: int, take: int
) -> None:
    stream = [(number, token) for number, record in enumerate(records) for token in record]
    wanted = stream[skip : skip + take]
    sliced = [piece.tolist() for piece in slice_records(map(np.array, records), skip, take)]
    groups = dict.fromkeys(number for number, _ in wanted)
    assert sliced == [[token for other, token in wanted if other == number] for number in groups]
