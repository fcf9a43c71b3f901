"""A runner may do any step again, after any other: Flink and Spark compute lost results again."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from tests.support.killed_builds import tree
from tests.transforms.building.conftest import MakeBuild
from transforms.arrayrecord.records import Format
from transforms.building.publish import clear_work
from transforms.dataset.manifest import manifest_path
from transforms.errors import BroetchenError


@pytest.mark.parametrize("written", get_args(Format))
@pytest.mark.parametrize("cleared", [False, True])
def test_publishing_again_after_the_end(make_build: MakeBuild, written: Format, cleared: bool) -> None:
    build = make_build(written)
    publish_plan, published, told = build.publish()
    manifest = build.finish(publish_plan, published, told)
    if cleared:
        clear_work(build.spec)
    before = tree(build.folder)
    assert build.place(publish_plan) == ([], [])
    assert build.finish(publish_plan, [], []) == manifest
    again = build.plan and build.changed().place(publish_plan)
    assert again == ([], [])
    assert tree(build.folder) == before


@pytest.mark.parametrize("written", get_args(Format))
def test_publishing_again_before_the_end(make_build: MakeBuild, written: Format) -> None:
    build = make_build(written)
    publish_plan, published, told = build.publish()
    assert build.place(publish_plan) == (published, told)
    build.finish(publish_plan, published, told)
    clear_work(build.spec)
    assert not Path(build.spec.work_root).exists()


def test_planning_the_publication_again_after_the_end(make_build: MakeBuild) -> None:
    build = make_build("text")
    build.finish(*build.publish())
    again = build.publish_plan()
    assert (again.tasks, again.rows) == ((), ())
    assert Path(manifest_path(build.spec.folder)).exists()


def test_a_manifest_of_another_build_answers_for_nothing(make_build: MakeBuild) -> None:
    build = make_build()
    publish_plan, published, told = build.publish()
    build.finish(publish_plan, published, told)
    clear_work(build.spec)
    path = Path(manifest_path(build.spec.folder))
    path.write_text(path.read_text().replace(build.plan.fingerprint, "0" * 64))
    with pytest.raises(BroetchenError, match="cannot be"):
        build.place(publish_plan)
