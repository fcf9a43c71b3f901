"""What of unfinished work a build goes on with: files as they were written, and nothing else."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from tests.support.examples import at_most
from tests.support.killed_builds import tree
from tests.transforms.building.conftest import Build, Stage, Stages
from transforms.budget.token_budget import ShardCount
from transforms.building.status import read_progress
from transforms.building.work_folder import Publication, WorkFolder
from transforms.errors import BroetchenError
from transforms.files import storage

ORDINALS = range(4)

Harm = Callable[[Path], object]


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path, place: float = 0.5) -> None:
    """Changes one bit, so that nothing but the content tells."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 1
    path.write_bytes(content)


HARMS: dict[str, Harm] = {"gone": Path.unlink, "short": cut_short, "flipped": flip}


def files_of(build: Build, stage: Stage, ordinal: int) -> dict[str, Path]:
    """Where the files of a shard lie, its count left out. Shards 0 and 1 are published whole, and hold bad rows."""
    work = Path(build.plan.work_folder)
    published = stage == "published"
    files = {
        "shard": build.folder / f"train-0000{ordinal}-of-00003.arecord"
        if published and ordinal < 2
        else work / f"shard-0000{ordinal}.arecord",
        "lengths": work / f"shard-0000{ordinal}.lengths",
    }
    if ordinal < 2:
        name = f"bad-rows-0000{ordinal}.parquet"
        files["quarantine"] = (build.folder / "_quarantine" if published else work) / name
    return files


def publish_quarantine_as_well(build: Build) -> None:
    """As the build's last step begins."""
    (build.folder / "_quarantine").mkdir()
    for path in Path(build.plan.work_folder).glob("bad-rows-*"):
        path.rename(build.folder / "_quarantine" / path.name)


@pytest.fixture
def restore(stages: Stages) -> Callable[[Stage], Build]:
    def find(stage: Stage) -> Build:
        build = stages.restore(stage)
        if stage == "published":
            publish_quarantine_as_well(build)
        return build

    return find


def test_what_lies_there(stages: Stages) -> None:
    """Builds of other versions, `status` and people read these files."""
    build = stages.restore("published")
    work = Path(build.plan.work_folder)
    assert work == build.folder / ".broetchen" / build.plan.fingerprint[:16]
    shards = {f"shard-0000{ordinal}.{kind}" for ordinal in ORDINALS for kind in ("json", "lengths")}
    assert {path.name for path in work.iterdir()} == {
        *shards,
        "shard-00002.arecord",
        "shard-00003.arecord",
        "bad-rows-00000.parquet",
        "bad-rows-00001.parquet",
        "budgets.json",
        "publication.json",
    }
    shard, held = build.folder / "train-00000-of-00003.arecord", work / "bad-rows-00000.parquet"
    contents: dict[str, dict[str, Any]] = {
        "shard-00000.json": {
            "complete": True,
            "documents": 2,
            "file_bytes": shard.stat().st_size,
            "ordinal": 0,
            "quarantine_bytes": held.stat().st_size,
            "quarantine_sha256": hashlib.sha256(held.read_bytes()).hexdigest(),
            "records": 3,
            "row_groups": 1,
            "sha256": hashlib.sha256(shard.read_bytes()).hexdigest(),
            "skipped": {"null": 1},
            "text_bytes": 6,
            "tokens": 8,
        },
        "budgets.json": {"tokens": {"eval": 7, "train": 18}},
        "publication.json": {
            "names": {"0": str(shard), "1": str(build.folder / "train-00001-of-00003.arecord")},
        },
    }
    for name, content in contents.items():
        seal = hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()
        assert json.loads((work / name).read_bytes()) == content | {"seal": seal}
    assert (work / "shard-00002.lengths").read_bytes() == struct.pack("<2I", 2, 6)
    assert build.work.lengths(2).tolist() == [2, 6]
    (progress,) = read_progress(build.spec.output)
    assert (progress.wanted, progress.tokens, progress.shards, progress.state) == (25, 25, 4, "publishing")


@pytest.mark.parametrize("stage", ["tokenized", "published"])
def test_sound_work_is_gone_on_with(restore: Callable[[Stage], Build], stages: Stages, stage: Stage) -> None:
    build = restore(stage)
    assert [build.work.finished(ordinal) for ordinal in ORDINALS] == list(stages.counts)
    assert build.work.finished(4) is None
    places = [build.work.place(ordinal) for ordinal in ORDINALS]
    assert places == [str(files_of(build, stage, ordinal)["shard"]) for ordinal in ORDINALS]
    before = {path: path.stat().st_ino for path in map(Path, places)}
    build.publication()
    assert {path: path.stat().st_ino for path in before} == before
    build.run()
    assert tree(build.folder) == stages.finished()


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("stage", ["tokenized", "published"])
def test_a_shard_is_unfinished_without_one_of_its_files(
    restore: Callable[[Stage], Build], stages: Stages, stage: Stage, harm: str
) -> None:
    """A hole in a dataset otherwise, or a manifest of files that are not those which it names."""
    counts = {count.ordinal: count for count in stages.counts}
    for ordinal in (0, 2):
        for kind in files_of(stages.build, stage, ordinal):
            build = restore(stage)
            HARMS[harm](files_of(build, stage, ordinal)[kind])
            found = {other: build.work.finished(other) for other in ORDINALS}
            assert found == counts | {ordinal: None}, (ordinal, kind)


@pytest.mark.parametrize("kind", ["shard", "lengths", "quarantine"])
@pytest.mark.parametrize("stage", ["tokenized", "published"])
def test_what_is_damaged_is_made_anew(
    restore: Callable[[Stage], Build], stages: Stages, stage: Stage, kind: str
) -> None:
    build = restore(stage)
    for ordinal, harm in enumerate((flip, Path.unlink)):
        harm(files_of(build, stage, ordinal)[kind])
    flip(files_of(build, stage, 2)["shard"])
    build.run()
    assert tree(build.folder) == stages.finished()


def test_a_damaged_shard_is_not_put_over_a_whole_one(restore: Callable[[Stage], Build], stages: Stages) -> None:
    build = restore("published")
    work = Path(build.plan.work_folder)
    for damaged in (work / "shard-00000.arecord", work / "bad-rows-00001.parquet"):
        damaged.write_bytes(b"half of it")
    assert [build.work.finished(ordinal) is None for ordinal in ORDINALS] == [True, True, False, False]
    build.run()
    assert tree(build.folder) == stages.finished()


@pytest.mark.parametrize(
    "lengths", [[5, 4], [5, 2], [8], [5, 3, 0]], ids=["more tokens", "fewer tokens", "fewer documents", "more"]
)
def test_lengths_are_those_that_the_count_tells_of(stages: Stages, lengths: list[int]) -> None:
    build = stages.restore("tokenized")
    (Path(build.plan.work_folder) / "shard-00000.lengths").write_bytes(struct.pack(f"<{len(lengths)}I", *lengths))
    assert build.work.finished(0) is None


@pytest.fixture
def work(tmp_path: Path) -> WorkFolder:
    """With the file of a shard that holds nothing."""
    found = WorkFolder(str(tmp_path / "a" / ".broetchen" / "0123"), "arecord")
    storage.write_bytes(found.shard(70_000), b"")
    return found


@pytest.mark.parametrize("lengths", [[], [0], [2**32 - 1, 2**32 - 1, 7]])
def test_any_documents_may_be_in_a_shard(work: WorkFolder, lengths: list[int]) -> None:
    count = ShardCount(70_000, sum(lengths), len(lengths), sha256=hashlib.sha256(b"").hexdigest())
    assert work.finished(70_000) is None
    work.finish(count, np.array(lengths, np.uint32))
    assert work.finished(70_000) == count
    assert work.lengths(70_000).tolist() == lengths


def damaged(path: Path, why: str) -> str:
    return f"{path}: damaged ({why}); delete the folder {path.parent} and build again"


def other_than(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case str():
            return value[::-1]
    return {key: number + 1 for key, number in value.items()}


def test_nothing_of_a_count_can_change_unseen(stages: Stages) -> None:
    """A wrong number would go into the manifest, and a key that has another name would leave its default there."""
    build = stages.restore("tokenized")
    path = Path(build.plan.work_folder) / "shard-00000.json"
    count = json.loads(path.read_bytes())
    for changed_key, value in count.items():
        renamed = {f"{key}s" if key == changed_key else key: kept for key, kept in count.items()}
        for changed in (count | {changed_key: other_than(value)}, renamed):
            path.write_text(json.dumps(changed, separators=(",", ":")))
            with pytest.raises(BroetchenError) as caught:
                build.work.finished(0)
            if {"ordinal", "tokens"} <= changed.keys():
                assert str(caught.value) == damaged(path, "it is not as it was written")
    path.write_text(json.dumps(count, separators=(",", ":")))
    assert build.work.finished(0) == stages.counts[0]


def test_a_count_that_is_no_json_is_told_on_one_line(stages: Stages) -> None:
    build = stages.restore("tokenized")
    path = Path(build.plan.work_folder) / "shard-00000.json"
    cut_short(path)
    with pytest.raises(BroetchenError) as caught:
        build.work.finished(0)
    assert str(caught.value).startswith(f"{path}: damaged (1 validation error for ShardCount Invalid JSON: EOF while")
    assert str(caught.value).endswith(f"); delete the folder {path.parent} and build again")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["shard-00000.json", "budgets.json"])
def test_who_looks_at_damaged_work_is_told_on_one_line(stages: Stages, name: str) -> None:
    build = stages.restore("tokenized")
    path = Path(build.plan.work_folder) / name
    cut_short(path)
    with pytest.raises(BroetchenError) as caught:
        read_progress(build.spec.output)
    assert str(caught.value).startswith(f"{path}: damaged (1 validation error for ")
    assert str(caught.value).endswith("); build again, which says what to do")
    assert "\n" not in str(caught.value)


def test_a_count_belongs_to_one_shard(stages: Stages) -> None:
    build = stages.restore("tokenized")
    work = Path(build.plan.work_folder)
    for kind in ("json", "lengths", "arecord"):
        (work / f"shard-00001.{kind}").write_bytes((work / f"shard-00000.{kind}").read_bytes())
    with pytest.raises(BroetchenError) as caught:
        build.tokenize()
    assert str(caught.value) == damaged(work / "shard-00001.json", "it is that of shard 0")


@pytest.mark.parametrize("stage", ["tokenized", "published"])
def test_a_shard_without_a_count_is_made_anew(restore: Callable[[Stage], Build], stages: Stages, stage: Stage) -> None:
    build = restore(stage)
    for ordinal in (1, 2):
        (Path(build.plan.work_folder) / f"shard-0000{ordinal}.json").unlink()
    assert [build.work.finished(ordinal) is None for ordinal in ORDINALS] == [False, True, True, False]
    build.run()
    assert tree(build.folder) == stages.finished()


def test_without_the_final_names_shards_are_made_anew(restore: Callable[[Stage], Build], stages: Stages) -> None:
    build = restore("published")
    (Path(build.plan.work_folder) / "publication.json").unlink()
    assert [build.work.finished(ordinal) is None for ordinal in ORDINALS] == [True, True, False, False]
    build.run()
    assert tree(build.folder) == stages.finished()


@pytest.mark.parametrize("harm", [cut_short, flip, lambda path: path.write_bytes(b"{}")])
def test_damaged_names_are_told(restore: Callable[[Stage], Build], harm: Harm) -> None:
    build = restore("published")
    names = Path(build.plan.work_folder) / "publication.json"
    harm(names)
    with pytest.raises(BroetchenError, match=rf"^{names}: damaged \(.*\); delete the folder {names.parent} and build"):
        build.tokenize()


def test_names_are_not_looked_at_where_no_shard_has_one_yet(stages: Stages) -> None:
    build = stages.restore("tokenized")
    (Path(build.plan.work_folder) / "publication.json").write_bytes(b"of a build that")
    build.run()
    assert tree(build.folder) == stages.finished()


def test_a_shard_that_was_to_be_cut_has_no_final_name(stages: Stages) -> None:
    build = stages.restore("published")
    build.work.write_publication(Publication({0: "elsewhere"}))
    assert [build.work.place(ordinal) for ordinal in (0, 1)] == ["elsewhere", build.work.shard(1)]


@pytest.mark.parametrize("harm", HARMS)
def test_the_budgets_are_written_again(stages: Stages, harm: str) -> None:
    """They are for `status`, and a build does not need them."""
    build = stages.restore("tokenized")
    HARMS[harm](Path(build.plan.work_folder) / "budgets.json")
    build.tokenize()
    (progress,) = read_progress(build.spec.output)
    assert (progress.wanted, progress.shards) == (25, 4)
    build.run()
    assert tree(build.folder) == stages.finished()


@at_most(8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_bit_of_any_file_may_change(restore: Callable[[Stage], Build], stages: Stages, data: st.DataObject) -> None:
    """The same bytes come out, or an error that says what to do."""
    build = restore(data.draw(st.sampled_from(["tokenized", "published"])))
    files = sorted(path for path in build.folder.rglob("*") if path.is_file())
    changed = data.draw(st.sampled_from(files))
    flip(changed, data.draw(st.floats(0, 1, exclude_max=True)))
    said = ""
    try:
        build.run()
    except BroetchenError as error:
        said = str(error)
    if said:
        assert said.startswith(f"{changed}: damaged (")
        assert said.endswith(f"delete the folder {build.plan.work_folder} and build again")
        storage.delete_tree(build.plan.work_folder)
        build.run()
    assert tree(build.folder) == stages.finished()


@pytest.fixture
def remote(stages: Stages, gcs_prefix: str) -> WorkFolder:
    """The work in a bucket, its shard 0 published."""
    build = stages.restore("tokenized")
    local, remote = Path(build.plan.work_folder), f"{gcs_prefix}/out/a/.broetchen/0123"
    for path in local.glob("*-00000.*"):
        storage.upload(str(path), f"{remote}/{path.name}")
    found = WorkFolder(remote, "arecord")
    final = f"{gcs_prefix}/out/a/train-00000-of-00003.arecord"
    found.write_publication(Publication({0: final}))
    storage.rename(found.shard(0), final)
    return found


def test_in_a_bucket_sizes_tell(remote: WorkFolder, stages: Stages) -> None:
    """A store holds objects against checksums of its own, and a resume does not fetch all that it finds."""
    assert remote.finished(0) == stages.counts[0]
    assert remote.finished(1) is None
    shard = remote.place(0)
    content = storage.read_bytes(shard)
    storage.write_bytes(shard, content[::-1])
    assert remote.finished(0) == stages.counts[0]
    storage.write_bytes(shard, content[:-1])
    assert remote.finished(0) is None
