"""The datasets of a source that is smaller than its budget, and is to be read several times."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest

from tests.support.small_builds import EOS, SmallBuild, small_build, small_count, small_ids
from transforms.arrayrecord.records import Format, holds_ids
from transforms.building.publish import publish_shard
from transforms.coders import from_json, to_json
from transforms.dataset.reader import ShardReader
from transforms.errors import BroetchenError

FORMATS = get_args(Format)

# As text 3 + 3, none, 5 + 7 + 4, 0 and 3 tokens; as ids each document has one more.
ROWS: list[list[str | None]] = [["abab", "cd"], [None, ""], [" efgab", "🙂hi", "xyz"], ["vw"]]
TEXT_TOKENS, ID_TOKENS = 25, 31


def repeated(
    folder: Path, record_format: Format, budgets: Mapping[str, int], max_repeats: float, **others: Any
) -> SmallBuild:
    build = small_build(folder, record_format, ROWS)
    return dataclasses.replace(
        build, spec=dataclasses.replace(build.spec, budgets=budgets, max_repeats=max_repeats, **others)
    )


def written(build: SmallBuild) -> dict[str, list[Any]]:
    """Publishes all files, and reads the records of each split."""
    publish_plan = build.publish_plan()
    assert from_json(type(publish_plan), to_json(publish_plan)) == publish_plan
    found: dict[str, list[Any]] = {split: [] for split in build.spec.budgets}
    for task in publish_plan.tasks:
        shard = publish_shard(build.spec, task)
        assert shard is not None
        path = Path(build.spec.folder) / shard.file
        with ShardReader(str(path), build.spec.records.format, "text") as reader:
            if build.spec.records.is_text:
                found[task.split] += [text for texts in reader.texts() for text in texts.to_pylist()]
            else:
                found[task.split] += [token for ids in reader.ids() for token in ids.tolist()]
    return found


@pytest.mark.parametrize("record_format", ["tokens", "megatron"])
@pytest.mark.parametrize("order", [("train", "eval"), ("eval", "train")])
def test_ids_are_held_out_exactly_and_all_others_are_written_once(
    tmp_path: Path, order: tuple[str, str], record_format: Format
) -> None:
    budgets = {"train": 60, "eval": 5}
    build = repeated(tmp_path, record_format, {split: budgets[split] for split in order}, 4)
    stream = [token for documents in build.documents for text in documents for token in [*small_ids(text), EOS]]
    assert len(stream) == ID_TOKENS
    publish_plan = build.publish_plan()
    assert (publish_plan.sums.missing, publish_plan.sums.once) == ({"train": 0, "eval": 0}, {"train": ID_TOKENS - 5})
    # Of the source all rows are told of, also those without a document.
    assert [(task.count.ordinal, task.used) for task in publish_plan.rows] == [(o, None) for o in range(len(ROWS))]
    expected = {"eval": stream[-5:], "train": stream[:-5]}
    if order[0] == "eval":
        expected = {"eval": stream[:5], "train": stream[5:]}
    assert written(build) == expected


@pytest.mark.parametrize("record_format", ["text", "parquet"])
@pytest.mark.parametrize(
    ("order", "held_out"),
    [
        *((("train", "eval"), held_out) for held_out in (2, 3, 5, 7, 10, 12, 19, 21)),
        *((("eval", "train"), held_out) for held_out in (2, 3, 4, 5, 7, 10, 15, 21)),
    ],
)
def test_text_is_held_out_exactly_and_all_other_is_written_once(
    tmp_path: Path, record_format: Format, order: tuple[str, str], held_out: int
) -> None:
    budgets = {"train": 70, "eval": held_out}
    build = repeated(tmp_path, record_format, {split: budgets[split] for split in order}, 100)
    documents = [text for shard in build.documents for text in shard]
    found = written(build)
    assert sum(map(small_count, found["eval"])) == held_out
    assert build.publish_plan().sums.once == {"train": sum(map(small_count, found["train"]))}
    # Each character is there once, and documents are whole, but for the one in which eval begins or ends.
    assert sorted("".join(found["train"] + found["eval"])) == sorted("".join(documents))
    pieces = [text for text in found["train"] + found["eval"] if text not in documents]
    assert pieces == [] or "".join(pieces) in documents or "".join(pieces[::-1]) in documents
    if not build.publish_plan().sums.put_back["eval"]:
        assert "".join(found[order[0]] + found[order[1]]) == "".join(documents)


@pytest.mark.parametrize("record_format", ["text", "parquet"])
def test_a_document_whose_end_has_no_cut_stays_in_train(tmp_path: Path, record_format: Format) -> None:
    """Behind "🙂hi" are 7 tokens, and no end of it has the 4 that are missing; the document before it is cut."""
    build = repeated(tmp_path, record_format, {"train": 40, "eval": 11}, 4)
    assert build.publish_plan().sums.put_back == {"eval": 1}
    assert written(build) == {"train": ["abab", "cd", "🙂hi", " e"], "eval": ["fgab", "xyz", "vw"]}


def test_behind_a_document_that_stays_another_one_may_fit(tmp_path: Path) -> None:
    build = repeated(tmp_path, "text", {"train": 40, "eval": 12}, 4)
    assert build.publish_plan().sums.put_back == {"eval": 1}
    assert written(build) == {"train": ["abab", "cd", "🙂hi"], "eval": [" efgab", "xyz", "vw"]}


def test_where_no_document_has_a_cut_the_source_is_short(tmp_path: Path) -> None:
    """One token is missing behind "vw", and with the space before it no end of a document has so few."""
    with pytest.raises(BroetchenError, match=r"the source is exhausted .* eval lacks 4 of 4 tokens"):
        repeated(tmp_path, "text", {"train": 40, "eval": 4}, 4).publish_plan()


@pytest.mark.parametrize("record_format", FORMATS)
def test_a_budget_beyond_the_most_repeats_is_a_shortfall(tmp_path: Path, record_format: Format) -> None:
    tokens = ID_TOKENS if holds_ids(record_format) else TEXT_TOKENS
    once = tokens - 3  # The last document of text has three tokens.
    budgets = {"train": once * 2 + once // 2 + 1, "eval": 3}
    with pytest.raises(BroetchenError) as failed:
        repeated(tmp_path, record_format, budgets, 2.5).publish_plan()
    assert str(failed.value) == (
        f"dataset small: the source is exhausted (1 files): train lacks 1 of {budgets['train']} tokens, though its "
        f"{once} are read 2.5 times (max_repeats), 1 tokens missing in all; nothing of it was published. Add source "
        "files, lower the budget, or set on_shortfall: keep or a larger max_repeats"
    )
    kept = repeated(tmp_path, record_format, budgets, 2.5, on_shortfall="keep").publish_plan()
    assert (kept.sums.missing, kept.sums.once) == ({"train": 1, "eval": 0}, {"train": once})
    met = repeated(tmp_path, record_format, budgets | {"train": budgets["train"] - 1}, 2.5).publish_plan()
    assert (met.sums.missing, met.sums.once) == ({"train": 0, "eval": 0}, {"train": once})


@pytest.mark.parametrize("record_format", FORMATS)
def test_a_source_of_nothing_but_what_is_held_out_is_short(tmp_path: Path, record_format: Format) -> None:
    tokens = ID_TOKENS if holds_ids(record_format) else TEXT_TOKENS
    for held_out in (tokens, tokens + 1):
        with pytest.raises(BroetchenError, match=r"the source is exhausted .* eval lacks"):
            repeated(tmp_path, record_format, {"train": 10, "eval": held_out}, 100).publish_plan()


@pytest.mark.parametrize("record_format", FORMATS)
def test_a_source_that_holds_its_budget_is_built_as_without_repeats(tmp_path: Path, record_format: Format) -> None:
    tokens = ID_TOKENS if holds_ids(record_format) else TEXT_TOKENS
    for train in (1, 8, tokens - 3):
        plain, allowed = (repeated(tmp_path, record_format, {"train": train, "eval": 3}, most) for most in (1, 4))
        by_content = [
            [(task.file, task.count.ordinal, task.piece, task.spans) for task in build.publish_plan().tasks]
            for build in (plain, allowed)
        ]
        assert by_content[0] == by_content[1]
        assert allowed.publish_plan().sums.once == {}
