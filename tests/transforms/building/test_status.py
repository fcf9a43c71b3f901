"""How far a running build is: its phases, and what of the work that lies there is its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.transforms.building.conftest import Build, MakeBuild
from tests.transforms.building.test_attempts import late_attempt
from transforms.building.publish import clear_work, finish_dataset
from transforms.building.shard import build_shard
from transforms.building.status import DatasetStatus, StatusReader
from transforms.building.work_folder import sweep_work
from transforms.progress.tally import Tally


def begin(build: Build) -> None:
    """What a build writes as soon as the dataset is planned."""
    build.work.write_budgets(build.spec.budgets)


def test_the_phases_of_a_dataset(make_build: MakeBuild) -> None:
    build = make_build()
    reader = StatusReader(build.spec)
    assert reader.read() == DatasetStatus(0, 0, "planning")
    begin(build)
    assert reader.read() == DatasetStatus(0, 0, "planned")
    first = build_shard(build.spec, build.plan.task(0, None))
    found = reader.read()
    assert found == DatasetStatus(min(first.tokens, build.spec.need), 1, "encoding", encoded=first.tokens)
    counts = build.tokenize()
    publication = build.publication()
    encoded = sum(count.tokens for count in counts)
    found = reader.read()
    assert (found.phase, found.tokens, found.encoded) == ("publishing", build.spec.need, encoded)
    renamed, files = found.published
    assert (renamed, files) == (0, sum(task.whole for task in publication.tasks))
    shards, rows = build.place(publication)
    assert reader.read().published == (files, files)
    finish_dataset(build.spec, build.plan, publication, shards, rows)
    done = DatasetStatus(build.spec.need, len(publication.tasks), "finished", encoded=encoded)
    assert reader.read() == done
    clear_work(build.spec)
    assert reader.read() == done
    # To the next build, it is no work.
    assert StatusReader(build.spec).read() == DatasetStatus(build.spec.need, len(publication.tasks), "finished")


def test_a_build_that_goes_on_counts_its_own_work(make_build: MakeBuild) -> None:
    build = make_build()
    begin(build)
    first = build_shard(build.spec, build.plan.task(0, 5))
    # The next run looks before it is planned, when nobody knows whether what lies there serves it.
    reader = StatusReader(build.spec)
    assert reader.read() == DatasetStatus(0, 0, "planning")
    begin(build)
    assert reader.read() == DatasetStatus(first.tokens, 1, "planned")
    second = build_shard(build.spec, build.plan.task(1, None))
    assert reader.read() == DatasetStatus(
        min(build.spec.need, first.tokens + second.tokens), 2, "encoding", encoded=second.tokens
    )
    # Read on, the first one holds more.
    whole = build_shard(build.spec, build.plan.task(0, None))
    found = reader.read()
    assert (found.shards, found.encoded) == (2, second.tokens + whole.tokens)


def test_one_that_is_followed_has_begun_already(make_build: MakeBuild) -> None:
    build = make_build()
    begin(build)
    count = build_shard(build.spec, build.plan.task(0, None))
    found = StatusReader(build.spec, begun=True).read()
    assert (found.phase, found.shards, found.encoded) == ("planned", 1, 0)
    assert found.tokens == min(build.spec.need, count.tokens)


def test_work_of_another_config_is_not_counted(make_build: MakeBuild, tmp_path: Path) -> None:
    other = make_build(records={"max_tokens": 3})
    begin(other)
    build_shard(other.spec, other.plan.task(0, None))
    build = make_build()
    assert build.spec.work_root == other.spec.work_root
    assert build.work.path != other.work.path
    reader = StatusReader(build.spec)
    reader.read()
    begin(build)
    assert reader.read() == DatasetStatus(0, 0, "planned")


def test_a_shard_counts_while_it_is_written(make_build: MakeBuild) -> None:
    build = make_build()
    reader = StatusReader(build.spec)
    reader.read()
    begin(build)
    seen: list[DatasetStatus] = []
    count = late_attempt(build, 0, None, lambda: seen.append(reader.read()))
    # Its tally, right before its count is written: by the last batch it holds all of it.
    assert [(found.phase, found.encoded, found.shards) for found in seen] == [("encoding", count.tokens, 0)]
    assert not list(Path(build.work.path).glob("*.tally"))
    assert reader.read().encoded == count.tokens


def test_of_attempts_the_one_that_has_most_counts_and_a_dead_ones_is_swept(make_build: MakeBuild) -> None:
    build = make_build()
    reader = StatusReader(build.spec)
    reader.read()
    begin(build)
    for attempt, tokens in (("a" * 12, 3), ("b" * 12, 5)):
        Tally(build.work.tally(1, attempt)).add(tokens)
    assert (reader.read().tokens, reader.read().encoded) == (5, 5)
    count = build_shard(build.spec, build.plan.task(1, None))
    assert reader.read().tokens == min(build.spec.need, count.tokens)
    swept = sweep_work(build.spec.work_root)
    assert sorted(Path(path).name for path in swept) == [f"shard-00001-{12 * one}.tally" for one in "ab"]
    assert reader.read().encoded == count.tokens


@pytest.mark.parametrize("content", [b"", b"1 2", b"x" * 500])
def test_a_tally_that_lies_is_left_out(make_build: MakeBuild, content: bytes) -> None:
    build = make_build()
    reader = StatusReader(build.spec)
    reader.read()
    begin(build)
    Path(build.work.tally(0, "c" * 12)).write_bytes(content)
    assert reader.read() == DatasetStatus(0, 0, "planned")
