"""Packing against first-fit in plain words; `test_report.py` holds it against MaxText's own step."""

from __future__ import annotations

from collections.abc import Sequence

import grain.python as grain
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import at_most
from transforms.sampling.packing import pack_first_fit


def first_fit(lengths: Sequence[int], length: int, bins: int) -> list[list[int]]:
    """First-fit packing in the order given, in plain words."""
    full: list[list[int]] = []
    open_bins: list[list[int]] = [[] for _ in range(bins)]
    for tokens in lengths:
        fitting = next((one for one in open_bins if sum(one) + tokens <= length), None)
        if fitting is None:
            full += open_bins
            open_bins = [[] for _ in range(bins)]
            fitting = open_bins[0]
        fitting.append(tokens)
    return [one for one in [*full, *open_bins] if one]


@at_most(30)  # each packs through Grain
@given(st.lists(st.integers(1, 20), min_size=1, max_size=60), st.integers(1, 5))
def test_packing_is_first_fit_over_shuffled_records(lengths: Sequence[int], bins: int) -> None:
    order = list(grain.MapDataset.source(list(lengths)).shuffle(seed=0))
    expected = first_fit(order, 20, bins)
    packing = pack_first_fit(lengths, 20, bins)
    assert packing.sequences == len(expected)
    assert (packing.records, packing.tokens) == (len(lengths), sum(lengths))
    assert packing.padding == pytest.approx(1 - sum(lengths) / (20 * len(expected)))


def test_of_a_sample_the_last_sequences_do_not_count() -> None:
    lengths = [5] * 21
    assert pack_first_fit(lengths, 10, 4).sequences == 11
    assert pack_first_fit(lengths, 10, 4, whole=False).sequences == 8


def test_a_record_that_is_too_long_for_a_sequence() -> None:
    with pytest.raises(ValueError, match="a record of 9 tokens does not fit into a sequence of 8"):
        pack_first_fit([3, 9], 8, 4)
