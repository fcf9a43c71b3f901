"""Shards of a mixture that are missing, cut short or too many, on disk and in a bucket."""

from __future__ import annotations

import fnmatch
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from maxtext.input_pipeline.grain_data_processing import find_data_files

from beam_pipelines.jobs.mixture import write_mixture
from launch.mixture.datasets import read_mixture
from launch.mixture.file import train_mixture
from launch.mixture.shards import check_shards, shard_problems
from launch.places import LocalPlace
from tests.support.command import run_command
from tests.support.services.gcs_requests import Requests, gcs_requests
from tests.support.trainable_mixes import build_mix, training_config
from transforms.dataset.manifest import Manifest, read_manifest
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.files.listing import list_files

__all__ = ["gcs_requests"]

TRAIN, BOTH = ("train",), ("train", "eval")
HOSTILE = "a b 'c' ;d, [x]* ö"


def manifest_of(sizes: dict[str, list[int]]) -> Manifest:
    """A dataset by the sizes of the shards of its splits; beside each shard lies an index of a tenth of that."""
    counts = {"tokens": 1, "documents": 1, "records": 1}
    splits = {
        name: {
            **counts,
            "budget": 1,
            "missing": 0,
            "bytes": sum(shards),
            "shards": [
                {
                    **counts,
                    "file": f"{name}-{index:05d}-of-{len(shards):05d}.arecord",
                    "bytes": size,
                    "sha256": "0" * 64,
                    "beside": [
                        {
                            "file": f"{name}-{index:05d}-of-{len(shards):05d}.idx",
                            "bytes": size // 10,
                            "sha256": "0" * 64,
                        }
                    ],
                }
                for index, size in enumerate(shards)
            ],
        }
        for name, shards in sizes.items()
    }
    return Manifest.model_validate(
        {
            "format_version": 2,
            "mix": "mix",
            "dataset": "a",
            "fingerprint": "01",
            "config": {
                "records": {"format": "tokens", "max_tokens": 8},
                "dataset": {"tokens": 1, "on_shortfall": "fail", "text_column": "text"},
            },
            "tokenizer": {
                "path": "../tokenizer/tokenizer.json",
                "sha256": "0" * 64,
                "vocab_size": 256,
                "bos_id": None,
                "eos_id": None,
                "special_tokens": "text",
            },
            "splits": splits,
            "skipped": {},
            "source": [],
            "versions": {},
        }
    )


def whole(manifest: Manifest) -> dict[str, int | None]:
    """A folder in which all of it lies, and what else a build writes."""
    files = {one.file: one.bytes for split in manifest.splits.values() for one in split.shards}
    files |= {one.file: one.bytes for split in manifest.splits.values() for s in split.shards for one in s.beside}
    return {**files, "manifest.json": 100, ".broetchen": None, "_trace": None, ".train-00000-of-00001.tmp-ab": 3}


SIZES = st.lists(st.integers(min_value=0, max_value=10**9), min_size=1, max_size=12)


@given(SIZES, SIZES, st.data())
def test_each_shard_that_is_not_as_written_is_named(train: list[int], evaluation: list[int], data: Any) -> None:
    manifest = manifest_of({"train": train, "eval": evaluation})
    sizes = whole(manifest)
    assert list(shard_problems(manifest, BOTH, sizes)) == []
    file = data.draw(st.sampled_from(sorted(set(sizes) & {f for f in sizes if f.startswith(("train", "eval"))})))
    change = data.draw(st.sampled_from(["gone", "short", "link"]))
    if change == "gone":
        del sizes[file]
    else:
        sizes[file] = None if change == "link" else (sizes[file] or 0) + data.draw(st.sampled_from([-1, 1]))
    (said,) = shard_problems(manifest, BOTH, sizes)
    assert said.startswith(f"{file} ")
    # Of a split that is not read, it does not matter.
    assert list(shard_problems(manifest, TRAIN, sizes)) == ([said] if file.startswith("train") else [])


@pytest.mark.parametrize(
    ("file", "trained"),
    [
        ("train-00000-of-00003.arecord", False),  # of another build
        ("train-00002-of-00002.arecord", True),
        ("train-copy-of-00002.arecord", True),
        ("train-00000-of-00002 (1)-of-00002.arecord", True),
        ("eval-00000-of-00009.arecord", False),
        ("old-00000-of-00001.parquet", False),
        ("train-00000-of-00002.arecord.gz", False),
    ],
)
def test_a_file_too_many_is_named(file: str, trained: bool) -> None:
    manifest = manifest_of({"train": [10, 20], "eval": [5]})
    (said,) = shard_problems(manifest, TRAIN, {**whole(manifest), file: 10})
    assert said == f"{file} is not of the dataset{', and would be trained on' * trained}"
    assert trained == fnmatch.fnmatchcase(file, "train-*-of-00002.arecord")


@pytest.mark.parametrize(
    "file", ["README.md", "train.txt", "copy of train-00000-of-00002", "train-0-of-2.arecord", "ö"]
)
def test_other_files_do_not_matter(file: str) -> None:
    manifest = manifest_of({"train": [10, 20]})
    assert list(shard_problems(manifest, TRAIN, {**whole(manifest), file: 10})) == []


def test_it_is_quick_with_many_shards(tmp_path: Path) -> None:
    """15,000 shards on disk, as 200 billion tokens make: seconds would be felt at each start."""
    manifest = manifest_of({"train": [0] * 15_000})
    sizes = whole(manifest)
    began = time.process_time()
    assert list(shard_problems(manifest, TRAIN, {**sizes, "train-x-of-15000.arecord": 1})) == [
        "train-x-of-15000.arecord is not of the dataset, and would be trained on"
    ]
    assert time.process_time() - began < 2


@pytest.fixture(scope="module")
def mixes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixes")
    build_mix(folder, shards={"target_size": 500})
    return folder


@pytest.fixture
def mix(mixes: Path, tmp_path: Path) -> Path:
    """A copy of a mix of several shards a dataset, below a folder with a hostile name."""
    return Path(shutil.copytree(mixes / "mix", tmp_path / HOSTILE / "mix"))


def test_what_maxtext_finds_is_what_the_manifest_names(mix: Path) -> None:
    mixture = read_mixture([str(mix)])
    check_shards(mixture, BOTH)
    shares = mixture.shares()
    manifest = read_manifest(str(mix / "german"))
    assert manifest is not None
    names = [shard.file for shard in manifest.splits["train"].shards]
    assert len(names) > 1
    pattern = str(train_mixture(mixture.components, shares, LocalPlace())["german"]["path"])
    assert sorted(os.path.basename(path) for path in find_data_files(pattern)) == names
    # A file, a folder or a link that MaxText would take for a shard.
    extra = mix / "german" / f"train-extra-of-{len(names):05d}.arecord"
    for make in (
        lambda: extra.write_bytes(b"x"),
        lambda: extra.mkdir(),
        lambda: extra.symlink_to(mix / "german" / names[0]),
    ):
        make()
        assert len(find_data_files(pattern)) == len(names) + 1
        with pytest.raises(BroetchenError, match=r"train-extra-of-\d+.arecord is not of the dataset, and would be tr"):
            check_shards(mixture, TRAIN)
        extra.rmdir() if extra.is_dir() and not extra.is_symlink() else extra.unlink()
    check_shards(mixture, TRAIN)


def test_all_datasets_are_named_at_once(mix: Path) -> None:
    mixture = read_mixture([str(mix)])
    first, second = sorted((mix / "german").glob("train-*"))[:2]
    first.write_bytes(first.read_bytes()[:-1])
    second.rename(mix / "kept.arecord")
    second.symlink_to(mix / "kept.arecord")
    (mix / "english" / "eval-00000-of-00001.arecord").unlink()
    with pytest.raises(BroetchenError) as error:
        check_shards(mixture, BOTH)
    said = str(error.value)
    size = first.stat().st_size
    assert f"english ({mix}/english): eval-00000-of-00001.arecord is missing; german ({mix}/german): " in said
    assert f"{first.name} has {size:,} bytes in the place of {size + 1:,}, {second.name} is a link or a folder" in said
    assert "build that dataset again with --overwrite" in said
    with pytest.raises(BroetchenError) as error:
        check_shards(mixture, TRAIN)
    assert "english" not in str(error.value).replace(f"{mix}", "")


def test_a_bucket_is_listed_once_for_a_dataset(mixes: Path, gcs_prefix: str, gcs_requests: Requests) -> None:
    with gcs_requests.of_others():
        for path, _ in list_files(str(mixes / "mix")):
            storage.upload(path, f"{gcs_prefix}/mix/{os.path.relpath(path, mixes / 'mix')}")
    mixture = read_mixture([f"{gcs_prefix}/mix"])
    bucket = "/".join(gcs_prefix.split("/")[:3])
    before = len(gcs_requests.of(bucket))
    check_shards(mixture, BOTH)
    listings = [one.asked["prefix"] for one in gcs_requests.of(bucket)[before:] if "prefix" in one.asked]
    assert sorted(listings) == sorted(f"{one.folder.removeprefix(bucket)[1:]}/" for one in mixture.components)
    assert not any(gcs_requests.of(path) for path, _ in list_files(gcs_prefix) if path.endswith(".arecord"))
    gone, short = [path for path, _ in list_files(f"{gcs_prefix}/mix/german", "train-*")][:2]
    number = gone.rpartition("-")[2]
    with gcs_requests.of_others():
        content = storage.read_bytes(short)
        storage.delete([gone])
        storage.write_bytes(short, content[:-3])
        storage.write_bytes(f"{gcs_prefix}/mix/german/train-99999-of-{number}", content)
    with pytest.raises(BroetchenError) as error:
        write_mixture([f"{gcs_prefix}/mix"], None)
    said = str(error.value)
    assert f"{os.path.basename(gone)} is missing, {os.path.basename(short)} has {len(content) - 3:,} bytes in" in said
    assert f"train-99999-of-{number} is not of the dataset, and would be trained on" in said


def test_the_commands_refuse_before_they_write(mix: Path) -> None:
    next((mix / "german").glob("train-00001-*")).unlink()
    target = mix / "mixture.json"
    mixed = run_command("mix", mix, "--output", target)
    trained = run_command("train", training_config(mix.parent), "--dry-run")
    for ended in (mixed, trained):
        assert (ended.returncode, ended.stdout) == (1, "")
        assert "train-00001-of-" in ended.stderr
        assert "is missing" in ended.stderr
        assert "Traceback" not in ended.stderr
    assert not target.exists()
    next((mix / "english").glob("eval-00000-*")).unlink()
    assert "eval-00000" in run_command("mix", mix, "--eval-output", target).stderr
    assert not target.exists()
