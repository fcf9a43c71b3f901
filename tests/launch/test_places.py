"""Where the machines that train find a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.places import LocalPlace, MountedPlace, Mounts
from transforms.errors import UsageError


def test_this_machine_has_no_buckets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert LocalPlace().locate("a/../b") == str(tmp_path / "b")
    with pytest.raises(UsageError, match="gs://bucket/mix is not on this machine, where the trainer reads"):
        LocalPlace().locate("gs://bucket/mix")


def test_other_machines_have_no_disk_of_ours(tmp_path: Path) -> None:
    place = MountedPlace("a TPU VM")
    with pytest.raises(UsageError, match="a TPU VM cannot see this machine's disk; name a folder as gs://BUCKET"):
        place.locate(str(tmp_path))
    assert place.locate("gs://corpus/mix/a") == "/mnt/broetchen/corpus/mix/a"
    assert place.locate("gs://corpus") == "/mnt/broetchen/corpus"
    assert place.buckets == ["corpus"]
    with pytest.raises(UsageError, match="write it as gs://BUCKET/FOLDER"):
        place.locate("gs://A;b/x")


def test_mounts_take_the_place_of_buckets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Mounts.parse(["gs://bucket=/mnt/all/", "gs://bucket/deep/er=/mnt/deep", "gs://other/=/o=p"])
    assert place.locate("gs://bucket/x/y") == "/mnt/all/x/y"
    assert place.locate("gs://bucket/deep/er/z") == "/mnt/deep/z"
    assert place.locate("gs://bucket/deep/erz") == "/mnt/all/deep/erz"
    assert place.locate("gs://bucket") == "/mnt/all"
    assert place.locate("gs://bucket2/x") == "gs://bucket2/x"
    assert place.locate("gs://other/x") == "/o=p/x"
    monkeypatch.chdir(tmp_path)
    assert place.locate("a/../b") == str(tmp_path / "b")
    with pytest.raises(UsageError, match="MaxText reads local paths and gs:// alone"):
        place.locate("hf://datasets/a/b")


@pytest.mark.parametrize("option", ["gs://bucket", "gs://=/x", "bucket=/x", "gs://bucket=x", "=", ""])
def test_mounts_that_are_none(option: str) -> None:
    with pytest.raises(UsageError, match="not of the form gs://bucket=/path"):
        Mounts.parse([option])
