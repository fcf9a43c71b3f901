"""Two workers at one shard, work files that lie, and names that another build has given: nothing of it gets through."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.killed_builds import tree
from tests.transforms.building.conftest import Build, MakeBuild, Stages
from transforms.budget.token_budget import ShardCount
from transforms.building import shard as shards
from transforms.building.cut import work_folder
from transforms.building.datasets import with_trusted_engine
from transforms.building.shard import build_shard
from transforms.building.work_folder import ROW, WorkFolder, sweep_work
from transforms.coders import from_json
from transforms.dataset.manifest import manifest_path
from transforms.encoding.recheck import check_probe, engine_version
from transforms.errors import BroetchenError, UsageError
from transforms.files import storage
from transforms.parquet import texts
from transforms.recipe.plan import DatasetPlan


def late_attempt(build: Build, ordinal: int, stop_after: int | None, meanwhile: Callable[[], object]) -> ShardCount:
    """A worker that writes a shard, and is taken for dead; `meanwhile` is what is done before it writes its count."""
    with pytest.MonkeyPatch.context() as patch:
        finish = WorkFolder.finish

        def late(work: WorkFolder, count: ShardCount) -> ShardCount:
            patch.undo()
            meanwhile()
            return finish(work, count)

        patch.setattr(WorkFolder, "finish", late)
        return build_shard(build.spec, build.plan.task(ordinal, stop_after))


@pytest.fixture
def row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards are so small that they are read at once otherwise."""
    monkeypatch.setattr(texts, "_MAX_BATCH_ROWS", 1)


def shard_files(build: Build) -> list[str]:
    return sorted(os.listdir(build.plan.work_folder))


@pytest.mark.usefixtures("row_by_row")
def test_a_late_shorter_attempt_does_not_replace_a_longer_one(make_build: MakeBuild) -> None:
    build = make_build()
    whole: list[ShardCount] = []
    late = late_attempt(build, 0, 1, lambda: whole.append(build_shard(build.spec, build.plan.task(0, None))))
    assert whole == [late] == [build.work.finished(0)]
    assert late.complete
    assert build.run() == make_build(output=str(build.folder.parent.parent / "other")).run()


@pytest.mark.usefixtures("row_by_row")
def test_a_late_longer_attempt_replaces_a_shorter_one(make_build: MakeBuild) -> None:
    build = make_build()
    short: list[ShardCount] = []
    late = late_attempt(build, 3, None, lambda: short.append(build_shard(build.spec, build.plan.task(3, 1))))
    assert short[0].tokens < late.tokens
    assert build.work.finished(3) == late


def test_an_attempt_that_comes_to_nothing_leaves_no_files(make_build: MakeBuild) -> None:
    build = make_build()
    late_attempt(build, 0, None, lambda: build_shard(build.spec, build.plan.task(0, None)))
    attempt = from_json(ShardCount, (Path(build.plan.work_folder) / "shard-00000.json").read_bytes()).attempt
    assert shard_files(build) == [
        f"bad-rows-00000-{attempt}.parquet",
        f"shard-00000-{attempt}.arecord",
        f"shard-00000-{attempt}.rows",
        "shard-00000.json",
    ]


@pytest.mark.usefixtures("row_by_row")
def test_a_count_whose_files_are_gone_is_replaced_by_a_shorter_one(make_build: MakeBuild) -> None:
    build = make_build()
    count = build_shard(build.spec, build.plan.task(3, None))
    os.unlink(build.work.shard(3, count.attempt))
    shorter = build_shard(build.spec, build.plan.task(3, 1))
    assert shorter.tokens < count.tokens
    assert build.work.finished(3) == shorter


def test_two_attempts_with_as_much_are_one(make_build: MakeBuild) -> None:
    """The first one stays: somebody may be about to publish it."""
    build = make_build()
    first = build_shard(build.spec, build.plan.task(0, None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WorkFolder, "finished", lambda work, ordinal: None)
        assert build_shard(build.spec, build.plan.task(0, None)) == first


@pytest.mark.parametrize("name", ["shard-*.rows", "shard-*.arecord", "bad-rows-*.parquet"])
def test_a_work_file_of_zeros_and_of_the_right_size_is_made_anew(make_build: MakeBuild, name: str) -> None:
    build = make_build()
    counts = build.tokenize()
    for path in Path(build.plan.work_folder).glob(name):
        path.write_bytes(bytes(path.stat().st_size))
    again = build.tokenize()
    changed = [count.ordinal for count, before in zip(again, counts, strict=True) if count.attempt != before.attempt]
    assert changed == [count.ordinal for count in counts if count.quarantine or not name.startswith("bad-rows")]
    finished = make_build(output=str(build.folder.parent.parent / "other"))
    assert build.run() == finished.run()
    assert tree(build.folder) == tree(finished.folder)


def test_rows_that_change_before_they_are_told_of_are_told(make_build: MakeBuild) -> None:
    build = make_build()
    publish_plan = build.publish_plan()
    path = next(Path(build.plan.work_folder).glob("shard-00002-*.rows"))
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(BroetchenError, match=r"shard-00002-\w+\.rows: damaged \(it is not as it was written\); delete"):
        build.place(publish_plan)


def test_in_a_bucket_work_of_the_right_size_is_made_anew(make_build: MakeBuild, gcs_prefix: str) -> None:
    build = make_build(output=gcs_prefix)
    counts = build.tokenize()
    for path in (
        build.work.shard(0, counts[0].attempt),
        build.work.shard(1, counts[1].attempt).replace("arecord", "rows"),
        build.work.quarantine(2, counts[2].attempt) if counts[2].quarantine else build.work.shard(2, counts[2].attempt),
    ):
        storage.write_bytes(path, bytes(storage.size(path)))
    again = build.tokenize()
    assert [a.attempt == b.attempt for a, b in zip(again, counts, strict=True)] == [False] * 3 + [True] * (
        len(counts) - 3
    )


def test_the_rows_of_a_shard(make_build: MakeBuild) -> None:
    build = make_build()
    rows = build.work.rows(build_shard(build.spec, build.plan.task(0, None)))
    assert rows.dtype == ROW
    assert rows["kind"].tolist() == [0, 1, 0]
    assert rows["tokens"].tolist() == [5, 0, 3]
    assert rows["text"][1] == 0
    assert len(np.unique(rows["text"])) == 3


def with_budget(make_build: MakeBuild, output: str, train: int, eval_tokens: int) -> Build:
    return make_build(output=output, dataset={"tokens": train, "eval_tokens": eval_tokens})


@pytest.mark.parametrize("renamed", [1, 2, 3])
def test_killed_between_two_renames_and_then_built_with_another_budget(
    make_build: MakeBuild, tmp_path: Path, renamed: int
) -> None:
    """The names that the first build has given are among those that the second gives to other shards."""
    output, other = str(tmp_path / "out"), str(tmp_path / "fresh")
    killed = with_budget(make_build, output, 8, 22)
    publish_plan = killed.publish_plan()
    killed.place(
        dataclasses.replace(publish_plan, tasks=publish_plan.tasks[:renamed], rows=publish_plan.rows[:renamed])
    )
    build, fresh = (with_budget(make_build, place, 15, 8) for place in (output, other))
    assert build.plan.work_folder == killed.plan.work_folder
    assert build.plan.fingerprint != killed.plan.fingerprint
    before = {count.ordinal: count.attempt for count in killed.tokenize()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "_write_shard", None)  # All shards are there.
        build.run()
    fresh.run()
    assert before
    assert tree(build.folder) == tree(fresh.folder)


def test_shards_under_names_of_another_build_are_taken_back(make_build: MakeBuild, tmp_path: Path) -> None:
    killed = with_budget(make_build, str(tmp_path / "out"), 8, 22)
    publish_plan = killed.publish_plan()
    killed.place(publish_plan)
    assert list(killed.folder.glob("*.arecord"))
    build = with_budget(make_build, str(tmp_path / "out"), 15, 8)
    build.work.take_back()
    whole = {task.count.ordinal for task in publish_plan.tasks if task.whole}
    assert whole
    assert all(Path(build.work.shard(task.count.ordinal, task.count.attempt)).exists() for task in publish_plan.tasks)
    assert not [path for path in os.listdir(build.plan.work_folder) if path.startswith(("publication", "budgets"))]


def test_what_killed_workers_left_is_swept(make_build: MakeBuild) -> None:
    build = make_build()
    build.tokenize()
    before = shard_files(build)
    work = Path(build.plan.work_folder)
    orphans = [
        "shard-00000-0123456789ab.arecord",
        "shard-00000-0123456789ab.rows",
        "bad-rows-00070-0123456789ab.parquet",
        "shard-00070-0123456789ab.arecord",
        ".shard-00001-0123456789ab.arecord.tmp-0123",
    ]
    for name in orphans:
        (work / name).write_bytes(b"left")
    assert sorted(map(os.path.basename, sweep_work(build.spec.work_root))) == sorted(orphans)
    assert shard_files(build) == before
    assert sweep_work(build.spec.work_root) == []


def test_a_manifest_is_not_written_over_a_shard_that_is_another(make_build: MakeBuild) -> None:
    build = make_build()
    parts = build.publish()
    path = build.folder / parts[1][1].file
    path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(BroetchenError, match=r"train-00001-of-0000\d\.arecord: is another than was written"):
        build.finish(*parts)
    assert not Path(manifest_path(build.spec.folder)).exists()


def test_a_manifest_is_not_written_over_a_shard_that_is_gone(make_build: MakeBuild) -> None:
    build = make_build()
    parts = build.publish()
    (build.folder / parts[1][0].file).unlink()
    with pytest.raises(BroetchenError, match=r"train-00000-of-0000\d\.arecord: is gone, so that no manifest"):
        build.finish(*parts)


def test_in_a_bucket_the_checksum_is_looked_at(make_build: MakeBuild, gcs_prefix: str) -> None:
    build = make_build(output=gcs_prefix)
    parts = build.publish()
    path = f"{build.spec.folder}/{parts[1][0].file}"
    content = storage.read_bytes(path)
    storage.write_bytes(path, content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BroetchenError, match=r"train-00000-of-0000\d\.arecord: is another than was written"):
        build.finish(*parts)
    assert not storage.exists(manifest_path(build.spec.folder))


def test_another_manifest_goes_before_the_first_rename(make_build: MakeBuild, stages: Stages) -> None:
    finished = stages.restore("finished")
    content = (finished.folder / "manifest.json").read_bytes()
    build = make_build(dataset={"tokens": 15, "eval_tokens": 8})
    build.folder.mkdir(parents=True)
    counts = build.tokenize()
    assert counts
    (build.folder / "manifest.json").write_bytes(content)
    build.publish_plan()
    assert not (build.folder / "manifest.json").exists()


def test_shards_of_an_engine_that_errs_are_not_taken_over(
    make_build: MakeBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = make_build()
    first = build_shard(build.spec, build.plan.task(0, None))
    assert first.engine == engine_version("tokenizers")
    build.work.distrust(first.engine, "it gave other ids")
    assert build.work.finished(0) is None


def test_an_engine_that_errs_stops_the_build_and_the_next_one_takes_the_reference(make_build: MakeBuild) -> None:
    build = make_build()
    plan: DatasetPlan = dataclasses.replace(build.plan, engine="gigatoken")
    check_probe.cache_clear()
    taken = build_shard(build.spec, plan.task(0, None))
    check_probe.cache_clear()
    wrong = dataclasses.replace(plan, probe="0" * 64)
    with pytest.raises(BroetchenError, match=r"gigatoken [\d.]+ gives other ids on this machine") as caught:
        build_shard(build.spec, wrong.task(1, None))
    assert type(caught.value) is BroetchenError
    work = work_folder(build.spec, plan)
    assert work.distrusted(taken.engine) == str(caught.value)
    trusted = with_trusted_engine(dataclasses.replace(build.spec, engine="auto"), plan, work)
    assert trusted.engine == "tokenizers"
    again = build_shard(build.spec, trusted.task(0, None))
    assert again.engine == engine_version("tokenizers")
    assert (again.file, again.row_file) == (taken.file, taken.row_file)
    with pytest.raises(UsageError, match=r"--engine gigatoken was found to err: .*; take --engine auto"):
        with_trusted_engine(dataclasses.replace(build.spec, engine="gigatoken"), plan, work)


def test_a_worker_with_another_version_is_refused(make_build: MakeBuild) -> None:
    build = make_build()
    plan = dataclasses.replace(build.plan, versions={**build.plan.versions, "array_record": "0.0.1"})
    with pytest.raises(
        BroetchenError,
        match=r"dataset a: this worker has array_record 0\.\S+, and the build was planned with 0\.0\.1; install",
    ):
        build_shard(build.spec, plan.task(0, None))


def test_neither_manifest_nor_fingerprint_name_an_engine(make_build: MakeBuild) -> None:
    build = make_build()
    build.run()
    manifest = (build.folder / "manifest.json").read_text()
    assert "gigatoken" not in manifest
    assert set(json.loads(manifest)["versions"]) == {"broetchen", "tokenizers", "array_record", "pyarrow"}
