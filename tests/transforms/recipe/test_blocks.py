"""Blocks of shards: nothing is lost between them, and none grows."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from transforms.recipe.blocks import SHARDS_PER_BLOCK, Block, in_blocks, of_blocks, shard_block


@given(st.lists(st.integers(0, 9)), st.integers(1, 12))
def test_what_is_put_into_blocks_comes_out_of_them(weights: list[int], most: int) -> None:
    blocks: defaultdict[Block, list[int]] = defaultdict(list)
    for block, weight in in_blocks("wiki", weights, most, lambda weight: weight):
        blocks[block].append(weight)
    assert sorted(blocks) == [("wiki", number) for number in range(len(blocks))], "a gap would end the reading"
    assert all(sum(held) <= most or len([one for one in held if one]) == 1 for held in blocks.values())
    assert list(of_blocks("wiki", blocks)) == weights
    assert list(of_blocks("news", blocks)) == []


def test_planned_shards_have_their_block_by_their_place() -> None:
    assert shard_block("wiki", SHARDS_PER_BLOCK - 1) == ("wiki", 0)
    assert shard_block("wiki", SHARDS_PER_BLOCK) == ("wiki", 1)
