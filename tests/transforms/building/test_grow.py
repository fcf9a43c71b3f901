"""Shards taken over from a dataset of another size: the same bytes as without, or an error that names a file."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, event, given
from hypothesis import strategies as st

from tests.support.corpora import write_parquet
from tests.support.examples import at_most
from tests.support.killed_builds import tree
from tests.transforms.building.conftest import Build, MakeBuild, plan_build
from transforms.arrayrecord.records import Format, holds_ids
from transforms.building.datasets import tokenize_again
from transforms.building.grow import check_old_files, check_old_output, held_out_tokens, old_shards
from transforms.building.shard import build_shard
from transforms.building.status import StatusReader
from transforms.dataset.consistency import manifest_problems
from transforms.dataset.manifest import Manifest, read_manifest, write_manifest
from transforms.errors import BroetchenError, UsageError
from transforms.files import storage
from transforms.files.listing import list_files

FORMATS: tuple[Format, ...] = get_args(Format)
# The shards of CORPUS have 8, 7, 8, 10 and 5 tokens.
SMALL, LARGE = {"tokens": 18, "eval_tokens": 7}, {"tokens": 30, "eval_tokens": 6}


def grown(make_build: MakeBuild, tmp_path: Path, written: Format = "tokens", **others: Any) -> tuple[Build, Build]:
    """An old dataset that is finished, and a larger one that is to be grown from it."""
    others = {"dataset": LARGE} | others
    old = make_build(written, output=str(tmp_path / "old"), dataset=SMALL if holds_ids(written) else None)
    old.run()
    new = make_build(written, output=str(tmp_path / "new"), **others)
    return old, new.changed(grow=str(tmp_path / "old"))


def taken_over(build: Build) -> list[int]:
    return [count.ordinal for count in build.tokenize() if not count.has_rows]


documents = st.text("ab ü🙂", max_size=6)
corpora = st.lists(
    st.lists(st.lists(st.one_of(st.none(), documents), max_size=5), min_size=1, max_size=6), min_size=1, max_size=3
)
sizes = st.fixed_dictionaries(
    {
        "tokens": st.integers(1, 50),
        "eval_tokens": st.integers(0, 20),
        "eval_position": st.sampled_from(["end", "start"]),
    }
)


@at_most(8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_some_sizes_from_others_are_those_of_a_fresh_build(
    data: st.DataObject, make_build: MakeBuild, corpus: Path, tmp_path: Path
) -> None:
    check_any_size(data, corpus, tmp_path)


@pytest.mark.slow
@at_most(100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_size_from_any_other_is_that_of_a_fresh_build(
    data: st.DataObject, make_build: MakeBuild, corpus: Path, tmp_path: Path
) -> None:
    check_any_size(data, corpus, tmp_path)


def check_any_size(data: st.DataObject, corpus: Path, tmp_path: Path) -> None:
    """All else varies: the format, files that come to the source, rows that hold no text and are kept or not."""
    shutil.rmtree(tmp_path / "any", ignore_errors=True)
    folder, written = tmp_path / "any", data.draw(st.sampled_from(FORMATS), "format")
    on_bad_rows = data.draw(st.sampled_from(["skip", "quarantine"]), "on_bad_rows")
    target = data.draw(st.sampled_from([1, 8, 20]), "target_size")

    def build(output: str, size: Mapping[str, Any]) -> Build:
        return plan_build(
            folder / "source",
            corpus / "tokenizer.json",
            str(folder / output),
            written,
            dataset={**size, "on_shortfall": "keep"},
            on_bad_rows=on_bad_rows,
            shards={"target_size": target},
        )

    def write(files: Sequence[Sequence[Sequence[str | None]]], first: int) -> int:
        for number, row_groups in enumerate(files, first):
            write_parquet(folder / "source" / "a" / f"{number:03d}.parquet", row_groups)
        return first + len(files)

    files = write(data.draw(corpora, "files"), 0)
    with contextlib.suppress(BroetchenError):  # a source without any text
        build("old", data.draw(sizes, "old")).run()
    if data.draw(st.booleans(), "more files"):
        write(data.draw(corpora, "new files"), files)
    size = data.draw(sizes, "new")
    try:
        fresh = build("fresh", size)
    except BroetchenError:
        return
    fresh.run()
    before = tree(folder / "old") if (folder / "old").exists() else None
    new = build("new", size).changed(grow=str(folder / "old"))
    event("takes over" if taken_over(new) else "takes nothing over")
    new.run()
    assert tree(folder / "new" / "a") == tree(folder / "fresh" / "a")
    assert before is None or tree(folder / "old") == before


@pytest.mark.parametrize("written", FORMATS)
def test_whole_shards_are_links_and_the_others_tokenized(
    written: Format, make_build: MakeBuild, tmp_path: Path
) -> None:
    size = LARGE if holds_ids(written) else {"tokens": 22, "eval_tokens": 4}
    old, new = grown(make_build, tmp_path, written, dataset=size)
    # The third is cut in the old one.
    assert sorted(old_shards(new.spec, new.plan)) == [0, 1]
    assert taken_over(new) == [0, 1]
    taken = sum(count.tokens for count in new.tokenize() if not count.has_rows)
    new.work.write_budgets(new.spec.budgets)
    assert StatusReader(new.spec, begun=True).read().taken_over == taken > 0
    new.run()
    extension = old.spec.records.extension
    names = {os.stat(path).st_ino: path.name for path in new.folder.glob(f"train-*.{extension}")}
    linked = [path for path in sorted(old.folder.glob(f"train-*.{extension}")) if os.stat(path).st_ino in names]
    assert [path.name[:11] for path in linked] == ["train-00000", "train-00001"]
    shutil.rmtree(old.spec.output)
    assert tree(new.folder) == tree(fresh(make_build, tmp_path, written, dataset=size).folder)


def fresh(make_build: MakeBuild, tmp_path: Path, written: Format = "tokens", **others: Any) -> Build:
    build = make_build(written, output=str(tmp_path / "fresh"), **others)
    build.run()
    return build


def test_files_that_cannot_be_linked_are_copied(
    make_build: MakeBuild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from another filesystem."""
    _, new = grown(make_build, tmp_path)
    original = os.link

    def link(source: str, target: str, **others: Any) -> None:
        if "/old/" in source:
            raise OSError(18, "Invalid cross-device link")
        original(source, target, **others)

    monkeypatch.setattr(os, "link", link)
    assert taken_over(new) == [0, 1]
    new.run()
    assert tree(new.folder) == tree(fresh(make_build, tmp_path, dataset=LARGE).folder)
    assert all(path.stat().st_nlink == 1 for path in new.folder.glob("train-*"))


@pytest.mark.parametrize(("old_in_bucket", "new_in_bucket"), [(True, True), (False, True), (True, False)])
def test_buckets(
    old_in_bucket: bool, new_in_bucket: bool, make_build: MakeBuild, gcs_prefix: str, tmp_path: Path
) -> None:
    old_output = f"{gcs_prefix}/old" if old_in_bucket else str(tmp_path / "old")
    new_output = f"{gcs_prefix}/new" if new_in_bucket else str(tmp_path / "new")
    make_build(output=old_output, dataset=SMALL).run()
    before = {path: storage.look(path) for path, _ in list_files(old_output)}
    new = make_build(output=new_output, dataset=LARGE).changed(grow=old_output)
    check_old_output([new.spec])
    assert taken_over(new) == [0, 1]
    assert taken_over(new) == [0, 1]
    new.run()
    found = {
        path.removeprefix(f"{new.spec.folder}/"): storage.read_bytes(path) for path, _ in list_files(new.spec.folder)
    }
    expected = fresh(make_build, tmp_path, dataset=LARGE).folder
    assert found == {
        str(path.relative_to(expected)): path.read_bytes() for path in expected.rglob("*") if path.is_file()
    }
    assert {path: storage.look(path) for path, _ in list_files(old_output)} == before


def test_a_damaged_file_is_not_sent_to_a_bucket(make_build: MakeBuild, gcs_prefix: str, tmp_path: Path) -> None:
    old = make_build(output=str(tmp_path / "old"), dataset=SMALL)
    old.run()
    change_a_byte(old.folder / "train-00001-of-00003.arecord")
    new = make_build(output=f"{gcs_prefix}/new", dataset=LARGE).changed(grow=str(tmp_path / "old"))
    with pytest.raises(BroetchenError, match=r"old/a/train-00001-of-00003.arecord: is not the file that"):
        new.run()
    assert not list_files(new.spec.work_root, "*/shard-00001-*")


def test_a_smaller_one_tokenizes_the_shard_in_which_it_ends(make_build: MakeBuild, tmp_path: Path) -> None:
    make_build(output=str(tmp_path / "old"), dataset=LARGE).run()
    size = {"tokens": 9, "eval_tokens": 3}
    new = make_build(output=str(tmp_path / "new"), dataset=size).changed(grow=str(tmp_path / "old"))
    assert taken_over(new) == [0]
    new.run()
    assert tree(new.folder) == tree(fresh(make_build, tmp_path, dataset=size).folder)


def test_steps_may_be_repeated_and_a_killed_build_goes_on_without_the_old_one(
    make_build: MakeBuild, tmp_path: Path
) -> None:
    old, new = grown(make_build, tmp_path)
    counts = new.tokenize()
    assert new.tokenize() == counts
    # Without --grow from now on: what was taken over is there.
    shutil.rmtree(old.spec.output)
    alone = new.changed(grow=None)
    assert alone.tokenize() == counts
    publish_plan = alone.publish_plan()
    alone.place(publish_plan)
    alone.place(publish_plan)
    alone.run()
    assert tree(new.folder) == tree(fresh(make_build, tmp_path, dataset=LARGE).folder)


def test_what_was_taken_over_serves_other_sizes_and_is_taken_back(make_build: MakeBuild, tmp_path: Path) -> None:
    """A grown build is killed while it publishes, and another size is built at the same place."""
    _, new = grown(make_build, tmp_path)
    new.publish()
    size = {"tokens": 12, "eval_tokens": 5, "eval_position": "start"}
    other = make_build(output=str(tmp_path / "new"), dataset=size)
    other.run()
    assert tree(new.folder) == tree(fresh(make_build, tmp_path, dataset=size).folder)


def test_rows_without_text_fail_a_build_that_takes_them_for_an_error(make_build: MakeBuild, tmp_path: Path) -> None:
    make_build(output=str(tmp_path / "old"), dataset=SMALL, on_bad_rows="skip").run()
    new = make_build(output=str(tmp_path / "new"), dataset=LARGE, on_bad_rows="fail").changed(
        grow=str(tmp_path / "old")
    )
    with pytest.raises(BroetchenError, match="row group 0, row 1"):
        new.run()


def cut_short(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:-1])


def change_a_byte(shard: Path) -> None:
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)


def make_a_link(shard: Path) -> None:
    shard.rename(shard.with_name("elsewhere"))
    shard.symlink_to("elsewhere")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (Path.unlink, "is gone, or no regular file, and its manifest says"),
        (cut_short, "has [0-9,]+ bytes, and its manifest says"),
        (change_a_byte, r"is not the file that .*/old/a/manifest.json tells of, by its size or SHA-256"),
        (make_a_link, "is gone, or no regular file, and its manifest says"),
    ],
)
@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("train-00001-of-00003.arecord", "tokens"),
        ("_quarantine/bad-rows-00000.parquet", "tokens"),
        ("train-00001-of-00003.idx", "megatron"),
    ],
)
def test_a_damaged_file_is_named(
    harm: Callable[[Path], None], message: str, name: str, written: Format, make_build: MakeBuild, tmp_path: Path
) -> None:
    old, new = grown(make_build, tmp_path, written)
    harm(old.folder / name)
    with pytest.raises(BroetchenError, match=f"^{re.escape(str(old.folder / name))}: {message}") as caught:
        new.run()
    assert "\n" not in str(caught.value)
    # Nothing of it was taken.
    left = [
        path.name for path in new.folder.rglob("*") if path.is_file() and re.match("shard-0000[1].*json", path.name)
    ]
    assert not left or "quarantine" in name
    alone = new.changed(grow=None)
    alone.run()
    assert tree(new.folder) == tree(fresh(make_build, tmp_path, written, dataset=LARGE).folder)


@pytest.mark.parametrize("harm", [Path.unlink, cut_short, change_a_byte])
def test_an_index_that_was_taken_over_and_lost_is_taken_again(
    harm: Callable[[Path], None], make_build: MakeBuild, tmp_path: Path
) -> None:
    _, new = grown(make_build, tmp_path, "megatron")
    count = new.tokenize()[0]
    assert not count.has_rows
    index = Path(new.work.index(0, count.attempt))
    content = index.read_bytes()
    index.unlink()  # a link to the old one, which stays as it is
    index.write_bytes(content)
    harm(index)
    assert new.work.finished(0) is None
    new.run()
    assert tree(new.folder) == tree(fresh(make_build, tmp_path, "megatron", dataset=LARGE).folder)


def test_an_index_that_changes_before_it_is_published_is_an_error(make_build: MakeBuild, tmp_path: Path) -> None:
    _, new = grown(make_build, tmp_path, "megatron")
    publish_plan = new.publish_plan()
    count = publish_plan.tasks[0].count
    change_a_byte(Path(new.work.index(0, count.attempt)))
    with pytest.raises(BroetchenError, match=r"shard-00000-\w+\.idx: damaged .* delete the folder .* and build again"):
        new.place(publish_plan)


@pytest.mark.parametrize("change", [{"tokens": 9}, {"sha256": "0" * 64}])
def test_a_manifest_that_lies_about_a_shard_is_not_believed(
    change: dict[str, Any], make_build: MakeBuild, tmp_path: Path
) -> None:
    old, new = grown(make_build, tmp_path)
    manifest = read(old)
    split = manifest.splits["train"]
    shards = [split.shards[0].model_copy(update=change), *split.shards[1:]]
    splits = {**manifest.splits, "train": split.model_copy(update={"shards": shards})}
    write_manifest(old.spec.folder, manifest.model_copy(update={"splits": splits}))
    if "tokens" in change:
        assert 0 not in old_shards(new.spec, new.plan)
    else:
        with pytest.raises(BroetchenError, match="is not the file that"):
            new.run()


def read(build: Build) -> Manifest:
    manifest = read_manifest(build.spec.folder)
    assert manifest is not None
    return manifest


def refusal(build: Build) -> str:
    with pytest.raises(BroetchenError) as caught:
        check_old_files(build.spec, build.plan)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_source_that_is_another_is_told(make_build: MakeBuild, corpus: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(corpus / "a", source / "a")
    old = make_build(source=source, output=str(tmp_path / "old"), dataset=SMALL)
    old.run()

    def told(**others: Any) -> str:
        new = make_build(source=source, output=str(tmp_path / "new"), dataset=LARGE, **others)
        return refusal(new.changed(grow=str(tmp_path / "old")))

    write_parquet(source / "a" / "00.parquet", [["new"]])
    assert "its source has row group 0 of a/1.parquet elsewhere, and a/00.parquet comes before it here" in told()
    (source / "a" / "00.parquet").rename(source / "a" / "2.parquet")
    new = make_build(source=source, output=str(tmp_path / "new"), dataset=LARGE)
    assert sorted(check_old_files(new.changed(grow=str(tmp_path / "old")).spec, new.plan)) == [0, 1]
    write_parquet(source / "a" / "1.parquet", [["other"]])
    assert "its source a/1.parquet has changed since" in told()
    (source / "a" / "1.parquet").unlink()
    assert "its source has a/1.parquet, and this one has not" in told()


def test_a_shuffled_source_has_to_have_the_same_files(make_build: MakeBuild, corpus: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(corpus / "a", source / "a")

    def build(output: str, size: Mapping[str, Any]) -> Build:
        return make_build(source=source, output=str(tmp_path / output), dataset={**size, "order": "shuffled"}, seed=3)

    build("old", SMALL).run()
    new = build("new", LARGE).changed(grow=str(tmp_path / "old"))
    assert taken_over(new) == [0, 1]
    new.run()
    build("fresh", LARGE).run()
    assert tree(tmp_path / "new" / "a") == tree(tmp_path / "fresh" / "a")
    write_parquet(source / "a" / "2.parquet", [["new"]])
    told = refusal(build("newer", LARGE).changed(grow=str(tmp_path / "old")))
    assert "with order: shuffled, the list of the source's files has to be the same" in told


def test_columns_that_new_files_add_are_told(make_build: MakeBuild, corpus: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(corpus / "a", source / "a")
    make_build("parquet", source=source, output=str(tmp_path / "old")).run()
    pq.write_table(pa.table({"id": [1], "text": ["new"], "url": ["u"]}), source / "a" / "2.parquet")
    new = make_build("parquet", source=source, output=str(tmp_path / "new")).changed(grow=str(tmp_path / "old"))
    assert "has other columns than all files of the source together (url)" in refusal(new)


def test_a_manifest_that_does_not_say_where_rows_were_left_out_is_refused(
    make_build: MakeBuild, tmp_path: Path
) -> None:
    old, new = grown(make_build, tmp_path)
    path = old.folder / "manifest.json"
    content = json.loads(path.read_bytes())
    for entry in content["source"]:
        entry.pop("left_out", None)
    path.write_text(json.dumps(content))
    assert "rows were left out of it, and its manifest, of an earlier version" in refusal(new)


def test_an_older_format_and_other_libraries_are_told(make_build: MakeBuild, tmp_path: Path) -> None:
    old, new = grown(make_build, tmp_path)
    path = old.folder / "manifest.json"
    content = json.loads(path.read_bytes())
    content["versions"]["tokenizers"] = "0.1"
    content["tokenizer"]["sha256"] = "0" * 64
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError) as caught:
        check_old_output([new.spec])
    told = str(caught.value)
    assert told.startswith(f"{old.folder}: cannot be grown: the tokenizer's sha256 is 0000")
    assert "the version of tokenizers is 0.1 there, and " in told
    content["format_version"] = 1
    del content["rows"]
    for entry in content["source"]:
        del entry["starts"], entry["texts"]
        entry.pop("left_out", None)
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="it was built by an older version of Brötchen"):
        check_old_output([new.spec])


def test_a_shard_that_the_source_does_not_give_any_more_ends_the_taking_over(
    make_build: MakeBuild, tmp_path: Path
) -> None:
    """As where letters have changed in a source that is not compressed, which its footer does not show."""
    _, new = grown(make_build, tmp_path)
    (first, *_) = new.tokenize()
    wrong = dataclasses.replace(first, file=dataclasses.replace(first.file, sha256="0" * 64))
    with pytest.raises(BroetchenError, match="shard 0 of the plan, taken over by --grow, is not what its source gives"):
        tokenize_again(new.spec, new.plan, wrong)
    old = old_shards(new.spec, new.plan)[1]
    assert build_shard(new.spec, dataclasses.replace(new.plan.task(1, None), old=old)).has_rows


@pytest.mark.parametrize(
    ("then", "now", "shared"),
    [
        ({"train": 10, "eval": 4}, {"train": 12, "eval": 4}, 2),
        ({"train": 10, "eval": 4}, {"train": 10, "eval": 4}, 0),
        ({"train": 10, "eval": 4}, {"eval": 4, "train": 40}, 4),
        ({"eval": 4, "train": 10}, {"eval": 4, "train": 40}, 0),
        ({"eval": 4, "train": 10}, {"eval": 3, "train": 40}, 1),
        ({"eval": 4, "train": 10}, {"train": 40}, 4),
        ({"train": 10}, {"train": 40, "eval": 3}, 0),
        ({"train": 30, "eval": 4}, {"train": 12, "eval": 4}, 0),
    ],
)
def test_eval_tokens_that_will_be_trained_on(
    then: dict[str, int], now: dict[str, int], shared: int, make_build: MakeBuild
) -> None:
    del make_build
    from tests.transforms.recipe.test_old_shards import split_entry

    old = {name: split_entry([(0, True, tokens, 0)]) for name, tokens in then.items()}
    assert held_out_tokens(old, now) == shared


def test_eval_position_decides_what_is_published_and_no_provisional_shard(make_build: MakeBuild) -> None:
    default = make_build()
    end, start = (make_build(dataset={"eval_position": position}) for position in ("end", "start"))
    assert (end.spec.config, end.plan.fingerprint) == (default.spec.config, default.plan.fingerprint)
    assert "eval_position" not in default.spec.config["dataset"]
    assert start.spec.config["dataset"]["eval_position"] == "start"
    assert start.plan.fingerprint != default.plan.fingerprint
    assert start.plan.work_folder == default.plan.work_folder
    assert list(start.spec.budgets) == ["eval", "train"]
    # Where nothing is held out, it says nothing.
    none, nothing = ({"eval_tokens": 0, "eval_position": position} for position in ("end", "start"))
    assert make_build(dataset=none).plan.fingerprint == make_build(dataset=nothing).plan.fingerprint


def test_what_row_groups_have_left_out_is_what_the_dataset_has(make_build: MakeBuild) -> None:
    manifest = make_build().run()
    told = [dict(rows) for entry in manifest.source for rows in entry.left_out]
    assert told == [{"null": 1}, {"empty": 1}]
    assert manifest_problems("a", manifest) == []
    source = [entry.model_copy(update={"left_out": [*entry.left_out[:1]] * 2}) for entry in manifest.source[:1]]
    wrong = manifest.model_copy(update={"source": [*source, *manifest.source[1:]]})
    assert manifest_problems("a", wrong) == ["a: its row groups have left out 2 rows (null), and it says 1"]
