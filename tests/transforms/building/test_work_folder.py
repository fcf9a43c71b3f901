"""The unfinished work that a build goes on with: files as they were written, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import io
import json
import re
import struct
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pytest
import xxhash
from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.localfilesystem import LocalFileSystem
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from tests.support.examples import at_most
from tests.support.killed_builds import tree
from tests.support.services.gcs_requests import Requests, gcs_requests
from tests.transforms.building.conftest import Build, MakeBuild, Stage, Stages
from tests.transforms.building.test_attempts import late_attempt
from transforms.budget.token_budget import ShardCount
from transforms.building.publish import clear_work, finish_dataset
from transforms.building.shard import build_shard
from transforms.building.status import DatasetStatus, StatusReader, read_progress, tokens_left
from transforms.building.work_folder import ROW, FinalNames, WorkFolder, sweep_work
from transforms.checksums import mark_of
from transforms.coders import to_json
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.files.listing import list_files
from transforms.parquet import texts
from transforms.progress.tally import Tally

__all__ = ["gcs_requests"]

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


def files_of(stages: Stages, stage: Stage, ordinal: int) -> dict[str, Path]:
    """Where the files of a shard lie, its count left out. Shards 0 and 1 are published whole, and hold bad rows."""
    folder, work = stages.build.folder, Path(stages.build.plan.work_folder)
    published = stage == "published" and ordinal < 2
    place = f"0000{ordinal}-{stages.counts[ordinal].attempt}"
    files = {
        "shard": folder / f"train-0000{ordinal}-of-00003.arecord" if published else work / f"shard-{place}.arecord",
        "rows": work / f"shard-{place}.rows",
    }
    if ordinal < 2:
        final = folder / "_quarantine" / f"bad-rows-0000{ordinal}.parquet"
        files["quarantine"] = final if published else work / f"bad-rows-{place}.parquet"
    return files


def noted(build: Build, what: str) -> Path:
    """The file that says something of one budget of the work."""
    return Path(build.plan.work_folder) / f"{what}-{build.plan.fingerprint[:16]}.json"


def row_bytes(*rows: tuple[int, int, str]) -> bytes:
    """The content of a file of rows, each with its kind, its tokens and its text."""
    return b"".join(
        struct.pack("<BIQ", kind, tokens, xxhash.xxh3_64_intdigest(text.encode())) for kind, tokens, text in rows
    )


def test_what_lies_there(stages: Stages) -> None:
    """Builds of other versions, `status` and people read these files."""
    build = stages.restore("published")
    work = Path(build.plan.work_folder)
    assert work.parent == build.folder / ".broetchen"
    attempts = [count.attempt for count in stages.counts]
    assert all(re.fullmatch("[0-9a-f]{12}", attempt) for attempt in attempts)
    assert len(set(attempts)) == 4
    build_key = build.plan.fingerprint[:16]
    assert build_key != work.name
    assert {path.name for path in work.iterdir()} == {
        *(f"shard-0000{ordinal}.json" for ordinal in ORDINALS),
        *(f"shard-0000{ordinal}-{attempts[ordinal]}.rows" for ordinal in ORDINALS),
        # The shards that were published in part, with the rest behind the cut.
        f"shard-00002-{attempts[2]}.arecord",
        f"shard-00003-{attempts[3]}.arecord",
        f"budgets-{build_key}.json",
        f"publication-{build_key}.json",
    }
    files = files_of(stages, "published", 0)
    shard, held = files["shard"], files["quarantine"]

    def mark(path: Path) -> dict[str, Any]:
        content = path.read_bytes()
        crc32c = base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()
        return {"bytes": len(content), "crc32c": crc32c, "sha256": hashlib.sha256(content).hexdigest()}

    contents: dict[str, dict[str, Any]] = {
        "shard-00000.json": {
            "attempt": attempts[0],
            "complete": True,
            "documents": 2,
            "engine": f"tokenizers {importlib.metadata.version('tokenizers')}",
            "file": mark(shard),
            "ordinal": 0,
            "quarantine": mark(held),
            "records": 3,
            "row_file": mark(files["rows"]),
            "rows": 3,
            "skipped": {"null": 1},
            "source": build.plan.task(0, None).source,
            "text_bytes": 6,
            "tokens": 8,
            "trace": None,
            "with_special": None,
            "without_tokens": 0,
        },
        f"budgets-{build_key}.json": {"exhausted": False, "tokens": {"eval": 7, "train": 18}},
        f"publication-{build_key}.json": {
            "names": {"0": str(shard), "1": str(build.folder / "train-00001-of-00003.arecord")},
        },
    }
    for name, content in contents.items():
        seal = hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()
        assert json.loads((work / name).read_bytes()) == content | {"seal": seal}
    left_out = bytes([1, *[0] * 12])
    assert files["rows"].read_bytes() == row_bytes((0, 5, "aaaa")) + left_out + row_bytes((0, 3, "bb"))
    assert files_of(stages, "published", 2)["rows"].read_bytes() == row_bytes((0, 2, "d"), (0, 6, "eeeee"))
    assert build.work.lengths(stages.counts[2]).tolist() == [2, 6]
    (progress,) = read_progress(build.spec.output)
    assert (progress.wanted, progress.tokens, progress.shards, progress.state) == (25, 25, 4, "publishing")


@pytest.mark.parametrize("stage", ["tokenized", "published"])
def test_sound_work_is_gone_on_with(stages: Stages, stage: Stage) -> None:
    build = stages.restore(stage)
    assert [build.work.finished(ordinal) for ordinal in ORDINALS] == list(stages.counts)
    assert build.work.finished(4) is None
    places = [build.work.place(count) for count in stages.counts]
    assert places == [str(files_of(stages, stage, ordinal)["shard"]) for ordinal in ORDINALS]
    before = {path: path.stat().st_ino for path in map(Path, places)}
    build.publish_plan()
    assert {path: path.stat().st_ino for path in before} == before
    build.run()
    assert tree(build.folder) == stages.finished()


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("stage", ["tokenized", "published"])
def test_a_shard_is_unfinished_without_one_of_its_files(stages: Stages, stage: Stage, harm: str) -> None:
    """A hole in a dataset otherwise, or a manifest of files that are not those which it names."""
    counts = {count.ordinal: count for count in stages.counts}
    for ordinal in (0, 2):
        for kind, path in files_of(stages, stage, ordinal).items():
            build = stages.restore(stage)
            HARMS[harm](path)
            found = {other: build.work.finished(other) for other in ORDINALS}
            assert found == counts | {ordinal: None}, (ordinal, kind)


@pytest.mark.parametrize("kind", ["shard", "rows", "quarantine"])
@pytest.mark.parametrize("stage", ["tokenized", "published"])
def test_what_is_damaged_is_made_anew(stages: Stages, stage: Stage, kind: str) -> None:
    build = stages.restore(stage)
    for ordinal, harm in enumerate((flip, Path.unlink)):
        harm(files_of(stages, stage, ordinal)[kind])
    flip(files_of(stages, stage, 2)["shard"])
    build.run()
    assert tree(build.folder) == stages.finished()


def test_a_damaged_shard_is_not_put_over_a_whole_one(stages: Stages) -> None:
    build = stages.restore("published")
    for damaged in (files_of(stages, "tokenized", 0)["shard"], files_of(stages, "tokenized", 1)["quarantine"]):
        damaged.write_bytes(b"half of it")
    assert [build.work.finished(ordinal) is None for ordinal in ORDINALS] == [True, True, False, False]
    build.run()
    assert tree(build.folder) == stages.finished()


@pytest.mark.parametrize(
    "rows",
    [
        row_bytes((0, 3, "d"), (0, 6, "eeeee")),
        row_bytes((0, 1, "d"), (0, 6, "eeeee")),
        row_bytes((0, 3, "d"), (0, 5, "eeeee")),
        row_bytes((0, 8, "deeeee")),
        row_bytes((0, 2, "d"), (0, 6, "eeeee"), (0, 0, "")),
        row_bytes((0, 2, "d"), (0, 6, "eeeef")),
        row_bytes((0, 2, "d"), (1, 6, "eeeee")),
        bytes(26),
        b"",
    ],
    ids=["more tokens", "fewer", "as many", "fewer documents", "more", "another text", "no document", "zeros", "none"],
)
def test_rows_are_those_that_the_count_tells_of(stages: Stages, rows: bytes) -> None:
    build = stages.restore("tokenized")
    path = files_of(stages, "tokenized", 2)["rows"]
    path.write_bytes(rows)
    assert build.work.finished(2) is None
    with pytest.raises(BroetchenError) as caught:
        build.work.lengths(stages.counts[2])
    assert str(caught.value) == damaged(path, "it is not as it was written")


ATTEMPT = "0123456789ab"


@pytest.fixture
def work(tmp_path: Path) -> WorkFolder:
    """A work folder with the file of a shard that holds nothing."""
    found = WorkFolder(str(tmp_path / "a" / ".broetchen" / "0123"), "arecord", "f" * 64)
    storage.write_bytes(found.shard(70_000, ATTEMPT), b"")
    return found


@pytest.mark.parametrize("lengths", [[], [0], [2**32 - 1, 2**32 - 1, 7]])
def test_any_documents_may_be_in_a_shard(work: WorkFolder, lengths: list[int]) -> None:
    rows = np.zeros(2 * len(lengths), ROW)
    rows["kind"][::2] = 3  # of bad rows, whose tokens are none of a document
    rows["tokens"][::2] = 9
    rows["tokens"][1::2] = lengths
    row_file = work.write_rows(70_000, ATTEMPT, rows)
    count = ShardCount(
        70_000, sum(lengths), len(lengths), rows=len(rows), attempt=ATTEMPT, file=mark_of(b""), row_file=row_file
    )
    assert work.finished(70_000) is None
    assert work.finish(count) == count
    assert work.finished(70_000) == count
    assert work.lengths(count).tolist() == lengths
    assert work.rows(count).tobytes() == rows.tobytes()


def damaged(path: Path, why: str) -> str:
    return f"{path}: damaged ({why}); delete the folder {path.parent} and build again"


def others_than(value: Any) -> Iterator[Any]:
    """Values of the same type; of a mapping those in which one value is another, and one in which a key is."""
    match value:
        case bool():
            yield not value
        case int():
            yield value + 1
        case str():
            yield value[::-1]
        case dict():
            for key, inner in value.items():
                yield from (value | {key: other} for other in others_than(inner))
            yield {f"{key}s": inner for key, inner in value.items()}


def test_nothing_of_a_count_can_change_unseen(stages: Stages) -> None:
    """A wrong number would go into the manifest, and a key that has another name would leave its default there."""
    build = stages.restore("tokenized")
    path = Path(build.plan.work_folder) / "shard-00000.json"
    count = json.loads(path.read_bytes())
    for changed_key, value in count.items():
        renamed = {f"{key}s" if key == changed_key else key: kept for key, kept in count.items()}
        # A number, or of a file, that it does not have.
        absent = 0 if changed_key == "with_special" else {"bytes": 1, "sha256": "ab", "crc32c": ""}
        wrong = [absent] if value is None else others_than(value)
        others = [count | {changed_key: other} for other in wrong]
        assert others
        for changed in (*others, renamed):
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


@pytest.mark.parametrize("pattern", ["shard-00000.json", "budgets-*.json"])
def test_who_looks_at_damaged_work_is_told_on_one_line(stages: Stages, pattern: str) -> None:
    build = stages.restore("tokenized")
    (path,) = Path(build.plan.work_folder).glob(pattern)
    cut_short(path)
    with pytest.raises(BroetchenError) as caught:
        read_progress(build.spec.output)
    assert str(caught.value).startswith(f"{path}: damaged (1 validation error for ")
    assert str(caught.value).endswith("); build again, which says what to do")
    assert "\n" not in str(caught.value)


def test_a_count_belongs_to_one_shard(stages: Stages) -> None:
    build = stages.restore("tokenized")
    work = Path(build.plan.work_folder)
    for path in work.glob("*-00000*"):
        path.with_name(path.name.replace("-00000", "-00001")).write_bytes(path.read_bytes())
    with pytest.raises(BroetchenError) as caught:
        build.tokenize()
    assert str(caught.value) == damaged(work / "shard-00001.json", "it is that of shard 0")


@pytest.mark.parametrize("stage", ["tokenized", "published"])
def test_a_shard_without_a_count_is_made_anew(stages: Stages, stage: Stage) -> None:
    build = stages.restore(stage)
    for ordinal in (1, 2):
        (Path(build.plan.work_folder) / f"shard-0000{ordinal}.json").unlink()
    assert [build.work.finished(ordinal) is None for ordinal in ORDINALS] == [False, True, True, False]
    build.run()
    assert tree(build.folder) == stages.finished()


def test_without_the_final_names_shards_are_made_anew(stages: Stages) -> None:
    build = stages.restore("published")
    noted(build, "publication").unlink()
    assert [build.work.finished(ordinal) is None for ordinal in ORDINALS] == [True, True, False, False]
    build.run()
    assert tree(build.folder) == stages.finished()


@pytest.mark.parametrize("harm", [cut_short, flip, lambda path: path.write_bytes(b"{}")])
def test_damaged_names_are_told(stages: Stages, harm: Harm) -> None:
    build = stages.restore("published")
    names = noted(build, "publication")
    harm(names)
    with pytest.raises(BroetchenError, match=rf"^{names}: damaged \(.*\); delete the folder {names.parent} and build"):
        build.tokenize()


def test_names_are_not_looked_at_where_no_shard_has_one_yet(stages: Stages) -> None:
    build = stages.restore("tokenized")
    noted(build, "publication").write_bytes(b"of a build that")
    build.run()
    assert tree(build.folder) == stages.finished()


def test_a_shard_that_was_to_be_cut_has_no_final_name(stages: Stages) -> None:
    build = stages.restore("published")
    build.work.write_final_names(FinalNames({0: "elsewhere"}))
    first, second = stages.counts[:2]
    assert [build.work.place(count) for count in (first, second)] == ["elsewhere", build.work.shard(1, second.attempt)]


@pytest.mark.parametrize("harm", HARMS)
def test_the_budgets_are_written_again(stages: Stages, harm: str) -> None:
    """They are for `status`, and a build does not need them."""
    build = stages.restore("tokenized")
    HARMS[harm](noted(build, "budgets"))
    build.tokenize()
    (progress,) = read_progress(build.spec.output)
    assert (progress.wanted, progress.shards) == (25, 4)
    build.run()
    assert tree(build.folder) == stages.finished()


@at_most(8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_bit_of_any_file_may_change(stages: Stages, data: st.DataObject) -> None:
    """The same bytes come out, or an error that says what to do."""
    build = stages.restore(data.draw(st.sampled_from(["tokenized", "published"])))
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
    for path in local.glob("*-00000*"):
        storage.upload(str(path), f"{remote}/{path.name}")
    found = WorkFolder(remote, "arecord", build.plan.fingerprint)
    final = f"{gcs_prefix}/out/a/train-00000-of-00003.arecord"
    found.write_final_names(FinalNames({0: final}))
    storage.rename(found.shard(0, stages.counts[0].attempt), final)
    return found


def test_in_a_bucket_the_checksums_of_the_store_tell(
    remote: WorkFolder, stages: Stages, gcs_requests: Requests
) -> None:
    """It has one of each object, so that a resume fetches none of all that it finds but the counts."""
    count = stages.counts[0]
    assert remote.finished(0) == count
    assert remote.finished(1) is None
    shard = remote.place(count)
    files = [shard, f"{remote.path}/shard-00000-{count.attempt}.rows", remote.quarantine(0, count.attempt)]
    assert [gcs_requests.kinds(path).count("read") for path in files] == [0, 0, 0]
    with gcs_requests.of_others():
        for path in files:
            content = storage.read_bytes(path)
            for changed in (content[::-1], content[:-1]):
                storage.write_bytes(path, changed)
                assert remote.finished(0) is None
            storage.delete([path])
            assert remote.finished(0) is None
            storage.write_bytes(path, content)
            assert remote.finished(0) == count


@pytest.mark.slow
@at_most(8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_in_a_bucket_any_bit_of_any_file_of_a_shard_may_change(
    remote: WorkFolder, stages: Stages, data: st.DataObject
) -> None:
    """It is not finished then, or an error says what to do."""
    count = stages.counts[0]
    work = [path for path, _ in list_files(remote.path, "*")]
    changed = data.draw(st.sampled_from([*work, remote.place(count)]))
    content = storage.read_bytes(changed)
    harmed = bytearray(content)
    harmed[int(len(harmed) * data.draw(st.floats(0, 1, exclude_max=True)))] ^= 1 << data.draw(st.integers(0, 7))
    storage.write_bytes(changed, bytes(harmed))
    if changed.endswith(".json"):
        with pytest.raises(BroetchenError) as caught:
            remote.finished(0)
        assert str(caught.value).startswith(f"{changed}: damaged (")
        assert str(caught.value).endswith(f"delete the folder {remote.path} and build again")
    else:
        assert remote.finished(0) is None
    storage.write_bytes(changed, content)
    assert remote.finished(0) == count


# --- How far a running build is ---------------------------------------------------------------------------------------


def begin(build: Build) -> None:
    """Writes the file that a build writes as soon as the dataset is planned."""
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
    publish_plan = build.publish_plan()
    encoded = sum(count.tokens for count in counts)
    found = reader.read()
    assert (found.phase, found.tokens, found.encoded) == ("publishing", build.spec.need, encoded)
    renamed, files = found.published
    assert (renamed, files) == (0, sum(task.whole for task in publish_plan.tasks))
    shards, rows = build.place(publish_plan)
    assert reader.read().published == (files, files)
    finish_dataset(build.spec, build.plan, publish_plan.sums, shards, rows)
    done = DatasetStatus(build.spec.need, len(publish_plan.tasks), "finished", encoded=encoded)
    assert reader.read() == done
    clear_work(build.spec)
    assert reader.read() == done
    # To the next build, it is no work.
    assert StatusReader(build.spec).read() == DatasetStatus(build.spec.need, len(publish_plan.tasks), "finished")


def test_a_build_that_goes_on_counts_its_own_work(make_build: MakeBuild, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "_MAX_BATCH_ROWS", 1)  # shards are so small that they are read at once otherwise
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
    assert whole.tokens > first.tokens
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


class SlowStore(LocalFileSystem):
    """A store that answers once three files are asked for together."""

    ASKED = threading.Barrier(3, timeout=10)
    COUNTS = tuple(
        f"slow://out/a/.broetchen/{key}/shard-{ordinal:05d}.json" for key in ("k1", "k2") for ordinal in range(6)
    )

    @classmethod
    def scheme(cls) -> str:
        return "slow"

    def match(self, patterns: list[str], limits: list[int] | None = None) -> list[Any]:
        return [types.SimpleNamespace(metadata_list=[FileMetadata(path, 1) for path in self.COUNTS])]

    def open(self, path: str, *_: object, **__: object) -> io.BytesIO:
        self.ASKED.wait()
        ordinal = int(path[-10:-5])
        damaged = path.startswith("slow://out/a/.broetchen/k2") and ordinal == 5
        return io.BytesIO(b"{" if damaged else to_json(ShardCount(ordinal, 10)).encode())


def test_what_is_left_in_a_store_is_asked_for_together() -> None:
    """A build that goes on waits for it, and a dataset may have 100,000 shards."""
    assert tokens_left("slow://out/a/.broetchen") == 60
