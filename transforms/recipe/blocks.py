"""Blocks of shards: in them the data of a dataset with many shards travel, so that no element grows with it.

A runner limits what one element, and one answer of a side input, may hold; a dataset of 200 billion tokens may have
166,000 shards. So the data of each shard have the dataset and the number of a block as their key, and a step that
wants all of a dataset asks for one block after another.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping

SHARDS_PER_BLOCK = 4096
"""The most counts or published shards in a block; each takes up to about a kilobyte."""

GROUPS_PER_BLOCK = 32_768
"""The most row groups in a block; plans and manifests say up to about a hundred bytes of each."""

type Block = tuple[str, int]
"""The name of a dataset, and the number of the block, from 0 without a gap."""


def shard_block(dataset: str, ordinal: int) -> Block:
    """The block of a planned shard, by its place in the dataset."""
    return dataset, ordinal // SHARDS_PER_BLOCK


def in_blocks[T](
    dataset: str, things: Iterable[T], most: int, weight: Callable[[T], int] = lambda _: 1
) -> Iterator[tuple[Block, T]]:
    """Each thing with its block: consecutive ones, as many as weigh `most` together; a heavier one stands alone.

    >>> list(in_blocks("wiki", "abc", 2))
    [(('wiki', 0), 'a'), (('wiki', 0), 'b'), (('wiki', 1), 'c')]
    """
    number = held = 0
    for thing in things:
        added = weight(thing)
        if held and held + added > most:
            number, held = number + 1, 0
        held += added
        yield (dataset, number), thing


def of_blocks[T](dataset: str, blocks: Mapping[Block, Iterable[T]]) -> Iterator[T]:
    """All that there is of a dataset, up to the first block that holds nothing; within a block in any order.

    Args:
        blocks: a side input, or a mapping that has an answer for every key.

    >>> import collections
    >>> list(of_blocks("wiki", collections.defaultdict(list, {("wiki", 0): "ab", ("wiki", 1): "c"})))
    ['a', 'b', 'c']
    """
    for number in itertools.count():
        is_empty = True
        for thing in blocks[dataset, number]:
            is_empty = False
            yield thing
        if is_empty:
            return
