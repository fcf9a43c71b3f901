"""A shard is not begun where its disk is too small for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from beam_pipelines.config.mix import load_config
from beam_pipelines.jobs.build import build
from tests.support.corpora import SAMPLES
from transforms.errors import BroetchenError
from transforms.files.listing import list_files
from transforms.files.staged import check_space, scratch_folder

DEMO = SAMPLES.parent / "mix_configs" / "demo.yaml"


def test_remote_files_are_built_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert Path(scratch_folder("gs://bucket/a/b.arecord")).parent == tmp_path
    assert scratch_folder("gs://bucket/a/b.arecord", "/elsewhere") == "/elsewhere"
    assert scratch_folder("/data/a/b.arecord") == "/data/a"
    assert scratch_folder("b.arecord") == "."


def test_the_message_says_where_how_much_and_what_to_do(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    path = str(tmp_path / "not" / "yet" / "shard.arecord")
    check_space(path, free // 2)
    with pytest.raises(BroetchenError, match=r"it takes about .* on the disk of .*/not/yet, which has .* free"):
        check_space(path, 2 * free)
    with pytest.raises(BroetchenError, match="set TMPDIR"):
        check_space("gs://bucket/shard.arecord", 2 * free)


def test_a_build_ends_before_the_first_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As if a byte of text took a terabyte of disk: the sample corpora are too small to fill a real one.
    monkeypatch.setattr("transforms.recipe.spec.DatasetSpec.file_bytes", lambda _, text_bytes: text_bytes << 40)
    with pytest.raises(BroetchenError, match=r"shard-00000-[0-9a-f]{12}\.arecord: it takes about"):
        build(load_config(str(DEMO)), str(tmp_path / "out"), datasets=["fineweb_english"], quiet=True)
    assert not list_files(str(tmp_path / "out" / "fineweb_english"), "**/*.arecord")
