"""The shards of a dataset that are published, whole or in part, and the message where it is short."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.support.small_builds import EOS, SmallBuild, follow_split, small_build, small_count, small_ids
from transforms.arrayrecord.records import Format, holds_ids
from transforms.budget.text_cut import DocumentSpan
from transforms.budget.token_budget import ShardCount, ShardSlice
from transforms.building.cut import PublishPlan, PublishTask, SplitSums, missing_text, work_folder
from transforms.building.publish import publish_shard
from transforms.building.rows import RowsTask
from transforms.coders import from_json, to_json
from transforms.dataset.reader import ShardReader
from transforms.encoding.unfit import GigatokenUnfitError
from transforms.errors import BroetchenError
from transforms.tokenizer.spec import ChosenEngine

FORMATS = get_args(Format)

# As text 3 + 3, none, 5 + 7 + 4 and 3 tokens; as ids each document has one more.
ROWS: list[list[str | None]] = [["abab", "cd"], [None, ""], [" efgab", "🙂hi", "xyz"], ["vw"]]
TEXT_TOKENS, ID_TOKENS = 25, 31

Content = tuple[int, ShardSlice | None, tuple[DocumentSpan, ...]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Format], SmallBuild]:
    """The shards in a format, of which nothing may be published; made when they are first asked for."""
    builds: dict[Format, SmallBuild] = {}

    def find(record_format: Format) -> SmallBuild:
        if record_format not in builds:
            builds[record_format] = small_build(tmp_path_factory.mktemp("built"), record_format, ROWS)
        return builds[record_format]

    return find


def contents(publish_plan: PublishPlan, split: str) -> list[Content]:
    """The content of each file of a split; the tasks are in the order of the files."""
    tasks = [task for task in publish_plan.tasks if task.split == split]
    assert [(task.index, task.of) for task in tasks] == [(index, len(tasks)) for index in range(len(tasks))]
    return [(task.count.ordinal, task.piece, task.spans) for task in tasks]


def texts(build: SmallBuild, publish_plan: PublishPlan, split: str) -> list[str]:
    """The documents of a split, read off its tasks."""
    found = []
    for ordinal, _, spans in contents(publish_plan, split):
        documents = build.documents[ordinal]
        for span in spans or (DocumentSpan(ordinal, 0, len(documents), 0),):
            assert span.ordinal == ordinal
            assert span.documents == 1 or (span.start, span.stop) == (0, None)
            found += [document[span.start : span.stop] for document in documents[span.first : span.last]]
    return found


@pytest.mark.parametrize("record_format", FORMATS)
def test_the_documents_are_counted_as_the_tests_count_them(
    built: Callable[[Format], SmallBuild], record_format: Format
) -> None:
    build = built(record_format)
    added = int(holds_ids(record_format))
    expected = [sum(small_count(text) + added for text in documents) for documents in build.documents]
    assert [count.tokens for count in build.counts] == expected
    assert sum(expected) == (ID_TOKENS if added else TEXT_TOKENS)


WHOLE: tuple[None, tuple[()]] = (None, ())


@pytest.mark.parametrize(
    ("train", "of_train", "of_eval"),
    [
        (7, [(0, ShardSlice(0, 0, 7), ())], [(0, ShardSlice(0, 7, 1), ()), (2, ShardSlice(2, 0, 2), ())]),
        (8, [(0, *WHOLE)], [(2, ShardSlice(2, 0, 3), ())]),
        (9, [(0, *WHOLE), (2, ShardSlice(2, 0, 1), ())], [(2, ShardSlice(2, 1, 3), ())]),
        # The end of the last shard; a token is left for eval, or none.
        (30, [(0, *WHOLE), (2, *WHOLE), (3, ShardSlice(3, 0, 3), ())], [(3, ShardSlice(3, 3, 1), ())]),
        (31, [(0, *WHOLE), (2, *WHOLE), (3, *WHOLE)], []),
        (32, [(0, *WHOLE), (2, *WHOLE), (3, *WHOLE)], []),
    ],
)
def test_a_shard_of_ids_is_published_whole_only_with_its_last_token(
    built: Callable[[Format], SmallBuild], train: int, of_train: list[Content], of_eval: list[Content]
) -> None:
    """Otherwise train would have a token more than its budget, which eval has as well."""
    publish_plan = built("tokens").with_budgets({"train": train, "eval": 3}, "keep").publish_plan()
    assert (contents(publish_plan, "train"), contents(publish_plan, "eval")) == (of_train, of_eval)


@pytest.mark.parametrize("record_format", ["text", "parquet"])
@pytest.mark.parametrize(
    ("train", "of_train", "of_eval"),
    [
        (
            5,
            [(0, None, (DocumentSpan(0, 0, 1, 3), DocumentSpan(0, 1, 2, 2, 0, 1)))],
            [(0, None, (DocumentSpan(0, 1, 2, 2, 1),)), (2, None, (DocumentSpan(2, 0, 1, 1, 0, 1),))],
        ),
        (6, [(0, *WHOLE)], [(2, None, (DocumentSpan(2, 0, 1, 3, 0, 3),))]),
        (
            7,
            [(0, *WHOLE), (2, None, (DocumentSpan(2, 0, 1, 1, 0, 1),))],
            [(2, None, (DocumentSpan(2, 0, 1, 3, 1, 3),))],
        ),
        # A shard of one document; what is left of it has 2 tokens, with the space that now begins it.
        (
            24,
            [(0, *WHOLE), (2, *WHOLE), (3, None, (DocumentSpan(3, 0, 1, 2, 0, 1),))],
            [(3, None, (DocumentSpan(3, 0, 1, 2, 1),))],
        ),
        (25, [(0, *WHOLE), (2, *WHOLE), (3, *WHOLE)], []),
        (26, [(0, *WHOLE), (2, *WHOLE), (3, *WHOLE)], []),
    ],
)
def test_a_shard_of_text_is_published_whole_only_with_its_last_token(
    built: Callable[[Format], SmallBuild],
    record_format: Format,
    train: int,
    of_train: list[Content],
    of_eval: list[Content],
) -> None:
    publish_plan = built(record_format).with_budgets({"train": train, "eval": 3}, "keep").publish_plan()
    assert (contents(publish_plan, "train"), contents(publish_plan, "eval")) == (of_train, of_eval)


@pytest.mark.parametrize("record_format", ["text", "parquet"])
def test_no_text_is_in_two_splits_and_none_is_lost_wherever_they_end(
    built: Callable[[Format], SmallBuild], record_format: Format
) -> None:
    for train in range(1, TEXT_TOKENS + 2):
        build = built(record_format).with_budgets({"train": train, "eval": 4, "test": 3}, "keep")
        publish_plan = build.publish_plan()
        waiting = [document for documents in build.documents for document in documents]
        for split, budget in build.spec.budgets.items():
            written = texts(build, publish_plan, split)
            waiting, put_back = follow_split(written, waiting, budget, small_count)
            assert publish_plan.sums.put_back[split] == put_back
            assert publish_plan.sums.missing[split] == budget - sum(map(small_count, written))


def published(build: SmallBuild) -> dict[str, list[list[int]] | list[str]]:
    """Publishes all files, and reads the ids of their records, or their documents."""
    for task in build.publish_plan().tasks:
        publish_shard(build.spec, task)
    found: dict[str, list[list[int]] | list[str]] = {}
    for path in sorted(Path(build.spec.folder).glob(f"*.{build.spec.records.extension}")):
        if path.suffix == ".parquet":
            found[path.stem] = pq.read_table(path)["text"].to_pylist()
            continue
        with ShardReader(str(path), build.spec.records.format) as reader:
            if build.spec.records.is_text:
                found[path.stem] = [text for texts in reader.texts() for text in texts.to_pylist()]
            else:
                found[path.stem] = [ids.tolist() for ids in reader.ids()]
    return found


def rows_told(build: SmallBuild, publish_plan: PublishPlan) -> list[tuple[int, int, int | None]]:
    """Ordinal, what is before it, and what is used of it, of each shard whose rows are to be told of."""
    for task in publish_plan.rows:
        assert task.count == build.counts[task.count.ordinal]
        assert task.group_rows == (len(ROWS[task.count.ordinal]),)
        assert (task.dataset, task.work_folder) == (build.spec.name, build.plan.work_folder)
        assert (task.extension, task.fingerprint) == (build.spec.records.extension, build.plan.fingerprint)
    return [(task.count.ordinal, task.before, task.used) for task in publish_plan.rows]


@pytest.mark.parametrize("record_format", ["text", "parquet"])
def test_published_text_is_the_documents_cut_where_the_splits_end(tmp_path: Path, record_format: Format) -> None:
    """Train and eval end within documents; "🙂" has no part of 2 tokens, so it is passed over, and the next split's."""
    build = small_build(tmp_path, record_format, ROWS).with_budgets({"train": 8, "eval": 6, "test": 9})
    publish_plan = build.publish_plan()
    assert publish_plan.sums.put_back == {"train": 0, "eval": 1, "test": 0}
    assert publish_plan.sums.missing == {"train": 0, "eval": 0, "test": 0}
    # The dataset has the source up to "xyz", the third document of shard 2. Shard 3 was not needed.
    assert rows_told(build, publish_plan) == [(0, 0, None), (1, 2, None), (2, 2, 3)]
    assert published(build) == {
        "train-00000-of-00002": ["abab", "cd"],
        "train-00001-of-00002": [" e"],
        "eval-00000-of-00001": ["fgab", "x"],
        "test-00000-of-00001": ["🙂hi", "y"],
    }


@pytest.mark.parametrize("record_format", ["tokens", "megatron"])
def test_published_ids_are_those_of_the_documents_cut_where_the_splits_end(
    tmp_path: Path, record_format: Format
) -> None:
    build = small_build(tmp_path, record_format, ROWS).with_budgets({"train": 10, "eval": 6, "test": 12})
    publish_plan = build.publish_plan()
    assert publish_plan.sums.put_back == {}
    assert rows_told(build, publish_plan) == [(0, 0, None), (1, 8, None), (2, 8, None), (3, 27, 1)]
    assert publish_plan.sums.missing == {"train": 0, "eval": 0, "test": 0}
    stream = [token for documents in build.documents for text in documents for token in [*small_ids(text), EOS]]
    expected = {
        "train-00000-of-00002": stream[:8],
        "train-00001-of-00002": stream[8:10],
        "eval-00000-of-00001": stream[10:16],
        "test-00000-of-00002": stream[16:27],
        "test-00001-of-00002": stream[27:28],
    }
    assert {name: np.concatenate(records).tolist() for name, records in published(build).items()} == expected


def test_a_document_can_be_cut_for_one_split_after_another(tmp_path: Path) -> None:
    build = small_build(tmp_path, "text", [["cdefghijkl"]]).with_budgets({"train": 4, "eval": 3, "test": 2})
    publish_plan = build.publish_plan()
    # Each of them begins with a space as it is encoded, so they are a character shorter than their budgets.
    assert [texts(build, publish_plan, split) for split in build.spec.budgets] == [["cde"], ["fg"], ["h"]]


@pytest.mark.parametrize("record_format", FORMATS)
@pytest.mark.parametrize(
    ("train_lacks", "eval_budget", "said"),
    [
        (0, 1234, "eval lacks 1,234 of 1,234 tokens, 1,234"),
        (2000, 1, "train lacks 2,000 of {train:,} tokens, eval lacks 1 of 1 tokens, 2,001"),
        (2, 0, "train lacks 2 of {train:,} tokens, 2"),
    ],
    ids=["eval", "both", "train"],
)
def test_a_short_source_fails_before_anything_of_it_is_published(
    built: Callable[[Format], SmallBuild], record_format: Format, train_lacks: int, eval_budget: int, said: str
) -> None:
    build = built(record_format)
    train = build.tokens + train_lacks
    work = work_folder(build.spec, build.plan)
    noted = Path(build.plan.work_folder) / f"publication-{build.plan.fingerprint[:16]}.json"
    noted.unlink(missing_ok=True)
    with pytest.raises(BroetchenError) as failed:
        build.with_budgets({"train": train, "eval": eval_budget}).publish_plan()
    assert str(failed.value) == (
        f"dataset small: the source is exhausted (1 files): {said.format(train=train)} tokens missing in all; "
        "nothing of it was published. Add source files, lower the budget, or set on_shortfall: keep"
    )
    assert not noted.exists()
    assert all(Path(work.shard(count.ordinal, count.attempt)).exists() for count in build.counts)


@pytest.mark.parametrize("record_format", FORMATS)
def test_a_short_source_is_published_where_the_config_keeps_it(
    built: Callable[[Format], SmallBuild], record_format: Format
) -> None:
    build = built(record_format)
    kept = build.with_budgets({"train": build.tokens + 5, "eval": 7}, "keep").publish_plan()
    assert contents(kept, "train") == [(0, *WHOLE), (2, *WHOLE), (3, *WHOLE)]
    assert kept.sums.missing == {"train": 5, "eval": 7}
    # All that there is was read, what follows the last token as well.
    assert [(ordinal, used) for ordinal, _, used in rows_told(build, kept)] == [(o, None) for o in range(len(ROWS))]
    # A dataset that is not short is as it would be with `fail`.
    budgets = {"train": build.tokens - 3}
    assert build.with_budgets(budgets, "keep").publish_plan() == build.with_budgets(budgets, "fail").publish_plan()


@pytest.mark.parametrize("record_format", FORMATS)
def test_the_work_folder_knows_what_whole_shards_are_called(tmp_path: Path, record_format: Format) -> None:
    """A build that is killed while it publishes finds the shards that it has renamed."""
    build = small_build(tmp_path, record_format, ROWS)
    build = build.with_budgets({"train": build.tokens - 1, "eval": 1}, "keep")
    build.publish_plan()
    folder, extension = build.spec.folder, build.spec.records.extension
    noted = Path(build.plan.work_folder) / f"publication-{build.plan.fingerprint[:16]}.json"
    assert json.loads(noted.read_text())["names"] == {
        "0": f"{folder}/train-00000-of-00003.{extension}",
        "2": f"{folder}/train-00001-of-00003.{extension}",
    }
    published(build)
    work = work_folder(build.spec, build.plan)
    assert not Path(work.shard(0, build.counts[0].attempt)).exists()
    assert [work.finished(ordinal) for ordinal in range(len(ROWS))] == list(build.counts)


def test_nothing_is_published_where_no_document_has_a_cut(tmp_path: Path) -> None:
    """All rows are told of, as of any source that is exhausted."""
    build = small_build(tmp_path, "text", [["🙂"], ["xyz"]]).with_budgets({"train": 1}, "keep")
    publish_plan = build.publish_plan()
    assert publish_plan == PublishPlan((), publish_plan.rows, SplitSums(missing={"train": 1}, put_back={"train": 2}))
    assert [(task.count, task.before, task.used) for task in publish_plan.rows] == [
        (build.counts[0], 0, None),
        (build.counts[1], 1, None),
    ]


def test_the_tokens_that_text_lacks_are_added_up(built: Callable[[Format], SmallBuild]) -> None:
    """The build decides by them whether to read on."""
    build = built("text").with_budgets({"train": 30, "eval": 4})
    assert missing_text(build.spec, build.plan, build.counts) == 5 + 4
    assert missing_text(build.spec, build.plan, build.counts[:2]) == 24 + 4
    assert missing_text(build.spec, build.plan, ()) == 34
    enough = build.with_budgets({"train": 6, "eval": 5})
    assert missing_text(enough.spec, enough.plan, enough.counts) == 0
    # There are tokens, but no document has a part with this one.
    without_cut = build.with_budgets({"train": 15})
    assert missing_text(without_cut.spec, without_cut.plan, without_cut.counts[:3]) == 0


@pytest.mark.parametrize("engine", ["tokenizers", "gigatoken"])
def test_documents_are_cut_at_the_same_places_by_either_engine(
    built: Callable[[Format], SmallBuild], engine: ChosenEngine
) -> None:
    build = built("text").with_budgets({"train": 8, "eval": 6, "test": 9})
    build = dataclasses.replace(build, plan=dataclasses.replace(build.plan, engine=engine))
    publish_plan = build.publish_plan()
    splits = {split: texts(build, publish_plan, split) for split in build.spec.budgets}
    assert splits == {"train": ["abab", "cd", " e"], "eval": ["fgab", "x"], "test": ["🙂hi", "y"]}


def test_a_document_is_cut_by_the_engine_that_the_plan_has_chosen(tmp_path: Path) -> None:
    """It was chosen because another one may give other ids: here it cannot be had, and no other takes its place."""
    build = small_build(tmp_path, "text", [["cdef"]], normalizer={"type": "Lowercase"}).with_budgets({"train": 3})
    assert contents(build.publish_plan(), "train") == [(0, None, (DocumentSpan(0, 0, 1, 3, 0, 2),))]
    other = dataclasses.replace(build, plan=dataclasses.replace(build.plan, engine="gigatoken"))
    with pytest.raises(GigatokenUnfitError):
        other.publish_plan()


def test_a_task_says_what_its_file_is_called_and_is_of_a_whole_shard_unless_told_otherwise() -> None:
    task = PublishTask("small", "work", "arecord", "f" * 64, False, "eval", 3, 12, ShardCount(7, 40, documents=9))
    assert task == dataclasses.replace(task, piece=None, spans=())
    assert (task.file, task.whole) == ("eval-00003-of-00012.arecord", True)
    assert not dataclasses.replace(task, piece=ShardSlice(7, 0, 39)).whole
    assert not dataclasses.replace(task, spans=(DocumentSpan(7, 0, 1, 39),)).whole


def test_a_task_says_where_in_its_shard_its_content_ends() -> None:
    """It says so in tokens, and where documents are text in documents; a part of one counts as one."""
    ids = PublishTask("small", "work", "arecord", "f" * 64, False, "eval", 0, 1, ShardCount(7, 40, documents=9))
    assert ids.end == 40
    assert dataclasses.replace(ids, piece=ShardSlice(7, 5, 30)).end == 35
    text = dataclasses.replace(ids, is_text=True)
    assert text.end == 9
    spans = (DocumentSpan(7, 1, 2, 4), DocumentSpan(7, 4, 6, 20), DocumentSpan(7, 6, 7, 2, 0, 3))
    assert dataclasses.replace(text, spans=spans).end == 7


@pytest.mark.parametrize("record_format", FORMATS)
def test_tasks_and_plans_survive_the_wire(built: Callable[[Format], SmallBuild], record_format: Format) -> None:
    build = built(record_format).with_budgets({"train": 9, "eval": 6})
    publish_plan = build.publish_plan()
    assert from_json(SplitSums, to_json(publish_plan.sums)) == publish_plan.sums
    for rows in publish_plan.rows:
        assert from_json(RowsTask, to_json(rows)) == rows
    for task in publish_plan.tasks:
        assert from_json(PublishTask, to_json(task)) == task
        assert (task.fingerprint, task.is_text) == (build.plan.fingerprint, not holds_ids(record_format))
        assert (task.dataset, task.work_folder) == ("small", build.plan.work_folder)
        assert task.count == build.counts[task.count.ordinal]
        assert task.extension == build.spec.records.extension
