"""Eval of one dataset in the train split of another, by the sources in their manifests."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.mixture.held_out import Overlap, held_out_in_train
from transforms.dataset.manifest import Manifest

Sizes = Sequence[Sequence[int]]
"""Tokens, or documents, of each row group of each file."""


def manifest_of(
    files: Sizes,
    splits: Mapping[str, int],
    *,
    footers: str = "0123456789abcdef",
    written: str = "tokens",
    **others: Any,
) -> Manifest:
    """A dataset of the first tokens, or documents, of the files; `footers` has a letter for each."""
    total, position, source = sum(splits.values()), 0, []
    for number, groups in enumerate(files):
        starts = []
        for size in groups:
            if position < total:
                starts.append(position)
            position += size
        if starts:
            source.append(
                {
                    "path": f"{number}.parquet",
                    "size": 1,
                    "footer_sha256": footers[number] * 64,
                    "checksum": None,
                    "row_groups": list(range(len(starts))),
                    "starts": starts,
                    "texts": ["0" * 16] * len(starts),
                }
            )
    entries = {
        name: {"budget": size, "tokens": size, "missing": 0, "documents": size, "records": 0, "bytes": 0, "shards": []}
        for name, size in splits.items()
    }
    return Manifest.model_validate(
        {
            "format_version": 2,
            "mix": "mix",
            "dataset": "a",
            "fingerprint": "01",
            "config": {
                "records": {"format": written, "max_tokens": 8},
                "dataset": {"tokens": splits["train"], "on_shortfall": "fail", "text_column": "text"},
            },
            "tokenizer": {
                "path": "../tokenizer.json",
                "sha256": "89" * 32,
                "vocab_size": 9,
                "bos_id": None,
                "eos_id": 0,
                "special_tokens": "text",
                **others,
            },
            "splits": entries,
            "rows": 1,
            "skipped": {},
            "source": source,
            "versions": {},
        }
    )


def members(files: Sizes, splits: Mapping[str, int], split: str) -> set[tuple[int, int, int]]:
    """(file, row group, place in it) of each token of a split, one by one."""
    stream = [
        (file, group, place)
        for file, groups in enumerate(files)
        for group, size in enumerate(groups)
        for place in range(size)
    ]
    ends = dict(zip(splits, itertools.accumulate(splits.values()), strict=True))
    return set(stream[ends[split] - splits[split] : ends[split]]) if split in splits else set()


sizes = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4), min_size=1, max_size=4)


@st.composite
def splits_of(draw: st.DrawFn, files: Sizes) -> dict[str, int]:
    total = sum(map(sum, files))
    train = draw(st.integers(0, total))
    found = {"train": train, "eval": draw(st.integers(0, total - train))}
    return found if draw(st.booleans()) else dict(reversed(found.items()))


@given(st.data(), sizes, sizes)
def test_of_the_same_tokens_as_many_as_a_plain_loop_counts(data: st.DataObject, files: Sizes, more: Sizes) -> None:
    """The second dataset has other files before those of the first."""
    both = [*more, *files]
    first, second = data.draw(splits_of(files)), data.draw(splits_of(both))
    ids = st.sampled_from(["tokens", "megatron"])
    one = manifest_of(files, first, footers="abcd", written=data.draw(ids))
    other = manifest_of(both, second, footers="01234567"[: len(more)] + "abcd", written=data.draw(ids))
    held = {(file + len(more), group, place) for file, group, place in members(files, first, "eval")}
    amount = len(held & members(both, second, "train"))
    found = [overlap for overlap in held_out_in_train({"one": one, "other": other}) if overlap.held_out == "one"]
    assert sum(overlap.amount for overlap in found) == amount
    assert all(overlap.sure and overlap.unit == "tokens" and overlap.trained == "other" for overlap in found)


def test_a_larger_build_trains_on_what_a_smaller_one_holds_out() -> None:
    small, large = (manifest_of([[10, 10], [10]], {"train": train, "eval": 5}) for train in (12, 20))
    (found,) = held_out_in_train({"small": small, "large": large})
    assert found == Overlap("small", "large", 5, "tokens", True, "0.parquet", 1)
    assert str(found) == ("5 tokens that small holds out stand in the train split of large, of one source (0.parquet)")


def test_eval_at_the_start_is_in_no_larger_train_split() -> None:
    small, large = (manifest_of([[10, 10], [10]], {"eval": 5, "train": train}) for train in (12, 20))
    assert held_out_in_train({"small": small, "large": large}) == []


def test_the_same_dataset_twice_and_other_files_are_none() -> None:
    one = manifest_of([[10, 10], [10]], {"train": 12, "eval": 5})
    other = manifest_of([[10, 10], [10]], {"train": 20, "eval": 5}, footers="abc")
    assert held_out_in_train({"one": one, "again": one, "other": other}) == []


@pytest.mark.parametrize(
    ("train", "sure", "told"),
    [
        (30, True, "5 tokens that small holds out stand in"),
        (13, False, "up to 5 tokens that small holds out may stand in"),
    ],
)
def test_by_another_tokenizer_only_row_groups_that_are_taken_whole_are_sure(train: int, sure: bool, told: str) -> None:
    small = manifest_of([[10, 10], [10, 10]], {"train": 12, "eval": 5})
    large = manifest_of([[10, 10], [10, 10]], {"train": train, "eval": 5}, sha256="77" * 32)
    (found,) = (one for one in held_out_in_train({"small": small, "large": large}) if one.held_out == "small")
    assert (found.amount, found.sure) == (5, sure)
    assert str(found).startswith(told)


def test_of_text_documents_at_a_cut_are_no_overlap() -> None:
    """The document in which train ends counts in both splits, so that all places behind it are in doubt by one."""
    small = manifest_of([[10, 10]], {"train": 11, "eval": 5}, written="text")
    shifted = manifest_of([[10, 10]], {"train": 12, "eval": 5}, written="text")
    assert held_out_in_train({"small": small, "shifted": shifted}) == []
    large = manifest_of([[10, 10]], {"train": 16, "eval": 3}, written="text")
    (found,) = held_out_in_train({"small": small, "large": large})
    assert (found.amount, found.unit, found.sure) == (5, "documents", True)


def test_a_manifest_that_does_not_say_where_row_groups_begin_says_nothing() -> None:
    small, large = (manifest_of([[10, 10], [10]], {"train": train, "eval": 5}) for train in (12, 20))
    silent = small.model_copy(
        update={"source": [entry.model_copy(update={"starts": (), "texts": ()}) for entry in small.source]}
    )
    assert held_out_in_train({"small": silent, "large": large}) == []
