"""Whether a dataset that lies at the output counts as done, is refused, or makes way for a new one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.corpora import write_parquet
from tests.support.killed_builds import tree
from tests.transforms.building.conftest import Build, MakeBuild, Stages
from transforms.building.datasets import find_finished
from transforms.dataset.manifest import Manifest, find_manifests, read_manifest, write_manifest
from transforms.errors import BroetchenError

TRAIN, LAST = "train-00000-of-00003.arecord", "eval-00001-of-00002.arecord"
HELD = "_quarantine/bad-rows-00001.parquet"


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def make_longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def find(build: Build) -> Manifest | None:
    return find_finished(build.spec, build.plan)


def refusal_of(build: Build) -> str:
    """The error about the dataset, of which nothing is touched."""
    before = tree(build.folder)
    with pytest.raises(BroetchenError) as caught:
        find(build)
    assert tree(build.folder) == before
    return str(caught.value)


def test_without_a_manifest_nothing_is_finished(stages: Stages) -> None:
    build = stages.restore("published")
    before = tree(build.folder)
    for overwrite in (False, True):
        assert find(build.changed(overwrite=overwrite)) is None
    assert tree(build.folder) == before


def test_a_finished_dataset_is_left_as_it_is(stages: Stages) -> None:
    build = stages.restore("finished")
    files = {path: path.stat().st_mtime_ns for path in build.folder.rglob("*")}
    for overwrite in (False, True):
        assert find(build.changed(overwrite=overwrite)) == read_manifest(build.spec.folder)
    assert {path: path.stat().st_mtime_ns for path in build.folder.rglob("*")} == files


@pytest.mark.parametrize("harm", [Path.unlink, cut_short, make_longer])
@pytest.mark.parametrize("names", [[TRAIN], [LAST], [HELD], [TRAIN, LAST, HELD]])
def test_a_dataset_without_one_of_its_files_is_not_finished(
    stages: Stages, names: list[str], harm: Callable[[Path], object]
) -> None:
    build = stages.restore("finished")
    for name in names:
        harm(build.folder / name)
    assert refusal_of(build) == (
        f"{build.folder}: files that its manifest names are gone or cut short; --overwrite rebuilds it"
    )


def test_overwriting_mends_a_truncated_dataset(stages: Stages) -> None:
    build = stages.restore("finished").changed(overwrite=True)
    cut_short(build.folder / TRAIN)
    (build.folder / "train-00001-of-00003.arecord").unlink()
    build.run()
    assert tree(build.folder) == stages.finished()


def test_the_manifest_goes_before_anything_is_overwritten(stages: Stages) -> None:
    """Killed at any moment from then on, a build leaves no manifest of the old dataset over files of the new one."""
    build = stages.restore("finished").changed(overwrite=True)
    cut_short(build.folder / TRAIN)
    assert find(build) is None
    left = {path.name for path in build.folder.iterdir()}
    assert left == {path.name for path in (stages.kept / "finished" / "a").iterdir()} - {"manifest.json"}
    with pytest.raises(BroetchenError, match="no finished dataset here"):
        find_manifests(build.spec.output)
    build.publish()
    assert read_manifest(build.spec.folder) is None
    build.run()
    assert tree(build.folder) == stages.finished()


def test_another_fingerprint_is_another_dataset(stages: Stages, make_build: MakeBuild) -> None:
    old = stages.restore("finished")
    build = make_build(output=old.spec.output, dataset={"tokens": 17})
    assert refusal_of(build) == (
        f"{build.folder}: holds a dataset of another config, source or tokenizer: datasets.a.tokens is 18 there and 17 "
        "here; choose another --output, or replace it with --overwrite"
    )
    manifest = build.changed(overwrite=True).run()
    assert manifest.fingerprint == build.plan.fingerprint
    assert {name: split.tokens for name, split in manifest.splits.items()} == {"train": 17, "eval": 7}
    assert find(build) == manifest


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": "broetchen-dataset"}'])
def test_a_damaged_manifest_is_told_or_replaced(stages: Stages, content: bytes) -> None:
    build = stages.restore("finished")
    (build.folder / "manifest.json").write_bytes(content)
    assert refusal_of(build).startswith(f"{build.folder}/manifest.json: not a manifest that this version reads (")
    build.changed(overwrite=True).run()
    assert tree(build.folder) == stages.finished()


def test_rows_that_were_left_out_are_not_those_of_a_build_that_fails_at_them(stages: Stages) -> None:
    build = stages.restore("finished")
    strict = build.changed(on_bad_rows="fail")
    said = (
        f"{build.folder}: 2 rows of its source were left out, and now on_bad_rows is fail; "
        "build it at another --output to see the first one, or set on_bad_rows: skip"
    )
    assert refusal_of(strict) == said
    manifest = read_manifest(build.spec.folder)
    assert manifest is not None
    write_manifest(build.spec.folder, manifest.model_copy(update={"skipped": {"empty": 0, "null": 2}}))
    assert refusal_of(strict) == said
    write_manifest(build.spec.folder, manifest.model_copy(update={"skipped": {"empty": 0}}))
    assert find(strict) is not None
    assert find(build.changed(on_bad_rows="skip")) is not None


def test_without_bad_rows_there_is_no_quarantine_to_miss(make_build: MakeBuild, tmp_path: Path) -> None:
    write_parquet(tmp_path / "source" / "a" / "0.parquet", [["abcd"], ["efgh"]])
    build = make_build(source=tmp_path / "source", dataset={"tokens": 5, "eval_tokens": 5})
    build.run()
    for found in (find(build), find(build.changed(on_bad_rows="fail"))):
        assert found is not None
        assert (found.skipped, found.quarantine) == ({}, ())
    (build.folder / "eval-00000-of-00001.arecord").unlink()
    assert "files that its manifest names are gone" in refusal_of(build)
