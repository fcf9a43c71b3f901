"""Shards of one size of a dataset among those that another size has planned: by intervals of the stream alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from transforms.budget.text_cut import DocumentSpan, take_exactly
from transforms.budget.token_budget import cut_shards
from transforms.dataset.manifest import ShardEntry, SplitEntry
from transforms.recipe.old_shards import sure_intervals

Published = tuple[int, bool, int, int]
"""A published shard: its planned one, whether it is that whole, its tokens, its documents."""

# Tokens of each document of each shard.
corpora = st.lists(st.lists(st.integers(0, 6), max_size=6), min_size=1, max_size=12)


def split_entry(shards: Sequence[Published], put_back: int = 0) -> SplitEntry:
    entries = [
        ShardEntry(
            file=f"x-{number:05d}-of-{len(shards):05d}.arecord",
            tokens=tokens,
            documents=documents,
            records=0,
            bytes=0,
            sha256="0" * 64,
        )
        for number, (_, _, tokens, documents) in enumerate(shards)
    ]
    tokens, documents = sum(shard[2] for shard in shards), sum(shard[3] for shard in shards)
    return SplitEntry(
        budget=tokens,
        tokens=tokens,
        missing=0,
        documents=documents,
        records=0,
        bytes=0,
        documents_put_back=put_back,
        shards=entries,
    )


def intervals(sizes: Sequence[int]) -> dict[tuple[int, int], int]:
    """The planned shards that hold something, by the part of the stream that each takes."""
    ends = list(itertools.accumulate(sizes))
    return {(end - size, end): ordinal for ordinal, (end, size) in enumerate(zip(ends, sizes, strict=True)) if size}


def found(
    splits: Sequence[Sequence[Published]],
    put_back: Sequence[int],
    planned: dict[tuple[int, int], int],
    *,
    is_text: bool,
) -> list[tuple[Published, int]]:
    """The published shards that are taken for a planned one, and for which."""
    entries = [split_entry(shards, back) for shards, back in zip(splits, put_back, strict=True)]
    of_entry = {
        id(entry): shard
        for split, shards in zip(entries, splits, strict=True)
        for entry, shard in zip(split.shards, shards, strict=True)
    }
    return [
        (of_entry[id(entry)], planned[start, end])
        for entry, start, end in sure_intervals(entries, is_text=is_text)
        if (start, end) in planned
    ]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(0, 60), st.integers(0, 60))
def test_of_ids_exactly_the_whole_shards_are_found(sizes: list[int], first: int, second: int) -> None:
    cuts = cut_shards(enumerate(sizes), {"train": first, "eval": second})
    splits = [[(one.ordinal, one.take == sizes[one.ordinal], one.take, 0) for one in cut.slices] for cut in cuts]
    whole = [(shard, shard[0]) for split in splits for shard in split if shard[1]]
    assert found(splits, [0, 0], intervals(sizes), is_text=False) == whole


def publish_text(
    corpus: list[list[int]], budgets: Sequence[int], refused: set[int]
) -> tuple[list[list[Published]], list[int]]:
    """Publishes a corpus of text as a build does; no document of a size in `refused` can be cut."""

    def lengths(ordinal: int) -> npt.NDArray[np.int64]:
        return np.array(corpus[ordinal], np.int64)

    def cut(span: DocumentSpan, tokens: int) -> tuple[DocumentSpan, DocumentSpan] | None:
        if span.tokens in refused or not span.whole:
            return None
        # The rest of a text may give one token more than it had in the whole.
        rest = span.tokens - tokens + (tokens % 2)
        return (
            DocumentSpan(span.ordinal, span.first, span.last, tokens, stop=1),
            DocumentSpan(span.ordinal, span.first, span.last, rest, start=1),
        )

    rest: Sequence[DocumentSpan] = [
        DocumentSpan(ordinal, 0, len(shard), sum(shard)) for ordinal, shard in enumerate(corpus) if shard
    ]
    splits, put_back = [], []
    for budget in budgets:
        taken = take_exactly(rest, budget, lengths, cut)
        rest = taken.rest
        put_back.append(len(taken.put_back))
        shards = []
        for ordinal, members in itertools.groupby(taken.taken, key=lambda span: span.ordinal):
            spans = tuple(members)
            whole = spans == (DocumentSpan(ordinal, 0, len(corpus[ordinal]), sum(corpus[ordinal])),)
            shards.append((ordinal, whole, sum(s.tokens for s in spans), sum(s.documents for s in spans)))
        splits.append(shards)
    return splits, put_back


@given(corpora, st.integers(0, 80), st.integers(0, 80), st.sets(st.integers(1, 6)))
def test_of_text_only_whole_shards_are_found(
    corpus: list[list[int]], first: int, second: int, refused: set[int]
) -> None:
    splits, put_back = publish_text(corpus, (first, second), refused)
    for shard, ordinal in found(splits, put_back, intervals([len(one) for one in corpus]), is_text=True):
        assert (shard[0], shard[1]) == (ordinal, True)


@given(corpora, st.integers(0, 80), st.integers(0, 80))
def test_of_text_all_whole_shards_of_several_documents_are_found(
    corpus: list[list[int]], first: int, second: int
) -> None:
    """All but the last of each split are; where no document was put back."""
    splits, put_back = publish_text(corpus, (first, second), set())
    if any(put_back):
        return
    taken = found(splits, put_back, intervals([len(one) for one in corpus]), is_text=True)
    wanted = [shard for split in splits for shard in split[:-1] if shard[1] and shard[3] > 1]
    assert {ordinal for _, ordinal in taken} >= {shard[0] for shard in wanted}
