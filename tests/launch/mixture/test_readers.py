"""The records that each reader of a mixture reads, by Grain itself, and their tokens, by drawing them."""

from __future__ import annotations

import random

import grain.python as grain
import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.mixture.readers import Part, Readers, least_tokens, readings, short_of
from tests.support.examples import at_most

parts = st.lists(st.tuples(st.integers(100, 900), st.integers(1, 60)), min_size=1, max_size=3).map(
    lambda given: [Part(f"part {index}", *one, tokens=one[1]) for index, one in enumerate(given)]
)


def by_grain(parts: list[Part], epochs: int, readers: Readers, host: int, worker: int) -> tuple[int, ...]:
    """The records of each part that Grain draws for a reader, dealt out as MaxText and Grain do it."""
    datasets = [
        grain.MapDataset.source([index] * part.records)
        .shuffle(seed=0)
        .repeat(epochs)[host :: readers.hosts][worker :: readers.workers]
        .to_iter_dataset()
        for index, part in enumerate(parts)
    ]
    found = list(grain.IterDataset.mix(datasets, [part.integer for part in parts]))
    return tuple(found.count(index) for index in range(len(parts)))


@at_most(15)
@given(parts, st.integers(1, 3), st.integers(1, 4), st.integers(1, 3))
def test_each_reader_draws_as_grain_draws(parts: list[Part], epochs: int, hosts: int, workers: int) -> None:
    # Grain scales the smallest to 100.
    smallest = min(part.integer for part in parts)
    scaled = [Part(one.name, one.integer * 100 // smallest, one.records, one.tokens) for one in parts]
    readers = Readers(hosts, workers)
    found = readings(scaled, epochs, readers)
    assert [len(host) for host in found] == [workers] * hosts
    for host, of_host in enumerate(found):
        for worker, reading in enumerate(of_host):
            drawn = by_grain(parts, epochs, readers, host, worker)
            assert reading.drawn == drawn
            rank = host + hosts * worker
            left = len(range(rank, parts[reading.ended_by].records * epochs, readers.count))
            assert drawn[reading.ended_by] == left


def test_all_records_have_their_tokens_to_the_token() -> None:
    part = Part("a", 100, 10, 305)
    assert [least_tokens([part], [count], 64) for count in (0, 10, 20, 30)] == [0, 305, 610, 915]
    # No record is empty.
    assert least_tokens([part], [1], 64) == 1
    assert least_tokens([part, part], [10, 1], 64) == 306


@pytest.mark.parametrize("longest", [None, 64])
@pytest.mark.parametrize("hosts", [1, 2, 8])
def test_tokens_of_some_records_are_seldom_fewer(longest: int | None, hosts: int) -> None:
    """The records differ as much as records can, and are drawn 2,000 times."""
    chance = random.Random(5)
    records = [64 if chance.random() < 0.4 else 1 for _ in range(400)]
    part = Part("a", 100, len(records), sum(records))
    for count in (10, 40, 400 // hosts):
        least = least_tokens([part], [count], longest, hosts)
        fewer = sum(sum(chance.sample(records, count)) < least for _ in range(2000))
        assert fewer <= 10
        if longest is not None and count == 400 // hosts:
            assert least > part.tokens / hosts * 0.5


def test_parts_that_are_too_small_for_all_readers() -> None:
    parts = [Part("a", 100, 63, 1000), Part("b", 100, 64, 1000)]
    assert [part.name for part in short_of(parts, 1, Readers(4, 8), 2)] == ["a"]
    assert list(short_of(parts, 2, Readers(4, 8), 2)) == []
