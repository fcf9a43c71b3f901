"""The card of a build: the same however it was built, there whenever a build has ended, and a user's file stays."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from beam_pipelines.config.mix import load_config
from tests.support.command import run_command
from tests.support.killed_builds import tree
from tests.system.card.mixes import DATASETS, build, built, write_mix
from transforms.dataset.manifest import find_manifests
from transforms.errors import UsageError

CARD = {"README.md", "mix.yaml"}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mix(tmp_path_factory.mktemp("mix"))


@pytest.fixture(scope="module")
def output(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(config, tmp_path_factory.mktemp("built") / "out")


def card_of(output: Path) -> dict[str, str]:
    return {name: digest for name, digest in tree(output).items() if name in CARD}


def test_it_tells_of_the_datasets_and_holds_no_place(config: Path, output: Path) -> None:
    text = (output / "README.md").read_text()
    assert "2 datasets with 800 tokens to train on and 60 held out" in text
    assert "| `a` | `a/*.parquet` | 1 | `odc-by` | `de` |" in text
    assert "| `b` | `b/*.parquet` | 1 | `cc0-1.0` | `en`, `de` |" in text
    for name in CARD:
        assert str(config.parent) not in (output / name).read_text()
        assert "samples" not in (output / name).read_text()


@pytest.mark.parametrize("options", [["--direct_num_workers=2", "--direct_running_mode=multi_threading"]])
def test_one_by_one_and_at_once_end_the_same(config: Path, output: Path, tmp_path: Path, options: list[str]) -> None:
    first = built(config, tmp_path / "out", "--dataset", "b", *options)
    assert "Of the same mix, and not here: `a`." in (first / "README.md").read_text()
    assert tree(built(config, first, "--dataset", "a", *options)) == tree(output)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--direct_num_workers=2", "--direct_running_mode=multi_processing"], marks=pytest.mark.slow),
        ["--direct_runner_bundle_repeat=1"],
        ["--engine", "tokenizers"],
    ],
)
def test_every_way_of_running_gives_the_same_card(
    config: Path, output: Path, tmp_path: Path, options: list[str]
) -> None:
    assert tree(built(config, tmp_path, *options)) == tree(output)


def test_a_build_that_finds_all_finished_writes_what_is_missing(config: Path, output: Path, tmp_path: Path) -> None:
    shutil.copytree(output, tmp_path / "out")
    for name in CARD:
        (tmp_path / "out" / name).unlink()
        assert tree(built(config, tmp_path / "out")) == tree(output)


def test_a_license_changes_the_card_and_nothing_else(config: Path, output: Path, tmp_path: Path) -> None:
    shutil.copytree(output, tmp_path / "out")
    built(config, tmp_path / "out", "--set", "datasets.b.license=mit", "--set", "datasets.a.language=null")
    before, after = tree(output), tree(tmp_path / "out")
    assert {name for name in before if before[name] != after[name]} == CARD
    assert "| `b` | `b/*.parquet` | 1 | `mit` | `en`, `de` |" in (tmp_path / "out" / "README.md").read_text()
    assert tree(built(config, tmp_path / "out")) == before


def test_the_mix_builds_the_same_again(config: Path, output: Path, tmp_path: Path) -> None:
    """Where the sources lie as they did, relative to it; the tokenizer comes with it, to a folder of any name."""
    place = tmp_path / "über [all] #1"
    shutil.copytree(output, place)
    for name in DATASETS:
        for path in (config.parent / name).iterdir():
            shutil.copy(path, place / name)
    again = built(place / "mix.yaml", tmp_path / "again")
    assert tree(again) == tree(output)


def test_another_mix_takes_the_place_of_the_card(config: Path, output: Path, tmp_path: Path) -> None:
    shutil.copytree(output, tmp_path / "out")
    other = ["--set", "datasets.a.tokens=400", "--set", "datasets.b.tokens=200"]
    assert build(config, tmp_path / "out", *other).returncode == 2
    assert tree(tmp_path / "out") == tree(output)
    built(config, tmp_path / "out", *other, "--overwrite")
    assert "600 tokens to train on" in (tmp_path / "out" / "README.md").read_text()
    # Of the two that lie there, one is now of another config.
    built(config, tmp_path / "out", "--dataset", "a", "--overwrite")
    assert "1 dataset with 500 tokens to train on" in (tmp_path / "out" / "README.md").read_text()


def test_a_dataset_that_fails_is_not_in_it(config: Path, output: Path, tmp_path: Path) -> None:
    done = build(config, tmp_path, "--set", "datasets.b.tokens=1M")
    assert done.returncode == 1
    assert "dataset b: the source is exhausted" in done.stderr
    assert "Of the same mix, and not here: `b`." in (tmp_path / "README.md").read_text()
    assert tree(built(config, tmp_path)) == tree(output)


def test_nothing_is_told_of_while_it_is_replaced(config: Path, output: Path, tmp_path: Path) -> None:
    shutil.copytree(output, tmp_path / "out")
    done = build(config, tmp_path / "out", "--dataset", "b", "--set", "datasets.b.tokens=1M", "--overwrite")
    assert done.returncode == 1
    text = (tmp_path / "out" / "README.md").read_text()
    assert "Of the same mix, and not here: `b`." in text
    assert "1 dataset with 500 tokens" in text


# Kills this process the first time that it comes there.
KILLED = """
import os, signal, sys
from beam_pipelines.cli import main
import transforms.building.datasets as building
from transforms.files import storage

def kill(*arguments, **others):
    os.kill(os.getpid(), signal.SIGKILL)

def rename(source, target, **others):
    kill() if target.endswith(where) else renamed(source, target, **others)

where, renamed = sys.argv[1], storage.rename
if where == "before":
    building.write_card = kill
else:
    storage.rename = rename
sys.argv = ["broetchen", *sys.argv[2:]]
main()
"""


@pytest.mark.parametrize("where", ["before", pytest.param("/mix.yaml", marks=pytest.mark.slow), "/README.md"])
def test_killed_between_the_last_manifest_and_the_card(config: Path, output: Path, tmp_path: Path, where: str) -> None:
    arguments = ["build", str(config), "--output", str(tmp_path), "--quiet", "--direct_num_workers=1"]
    done = subprocess.run([sys.executable, "-c", KILLED, where, *arguments], capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert {manifest.dataset for manifest in find_manifests(str(tmp_path)).values()} == set(DATASETS)
    assert not (tmp_path / "README.md").exists()
    assert len(list(tmp_path.glob(".*.tmp-*"))) == (where != "before")
    assert tree(built(config, tmp_path)) == tree(output)


def test_a_users_file_stays_whatever_is_built_or_overwritten(config: Path, output: Path, tmp_path: Path) -> None:
    shutil.copytree(output, tmp_path / "out")
    readme = tmp_path / "out" / "README.md"
    readme.write_text(readme.read_text().replace("# small", "# Our corpus"))
    edited = readme.read_text()
    done = build(config, tmp_path / "out", "--set", "datasets.a.tokens=400", "--overwrite")
    assert done.returncode == 0
    assert f"{readme}: is not as a build wrote it, and is left as it is" in " ".join(done.stderr.split())
    assert readme.read_text() == edited
    assert "tokens: 400" in (tmp_path / "out" / "mix.yaml").read_text()


def test_a_config_in_its_output_stays(output: Path, tmp_path: Path) -> None:
    config = write_mix(tmp_path)
    before = config.read_text()
    (tmp_path / "a").rename(tmp_path / "corpus-a")
    (tmp_path / "b").rename(tmp_path / "corpus-b")
    moved = [f"--set=datasets.{name}.source=corpus-{name}/*.parquet" for name in DATASETS]
    done = build(config, tmp_path, *moved)
    assert done.returncode == 0
    assert "mix.yaml: is not as a build wrote it" in " ".join(done.stderr.split())
    assert config.read_text() == before
    assert (tmp_path / "README.md").exists()


def test_other_commands_take_no_notice(output: Path) -> None:
    before = tree(output)
    for command in ("verify", "status", "count"):
        done = run_command(command, output)
        assert done.returncode == 0, done.stderr
        assert "README" not in done.stdout + done.stderr
        assert "mix.yaml" not in done.stdout + done.stderr
    assert tree(output) == before


def test_a_source_that_would_match_the_card_is_refused(tmp_path: Path) -> None:
    config = write_mix(tmp_path)
    for pattern in ("*", "*.yaml", "README.*"):
        done = build(config, tmp_path / "out", "--set", f"datasets.a.source=out/{pattern}")
        assert done.returncode == 2
        assert "would also match what is built at" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("datasets.a.license=two words", "is no license's name"),
        ("datasets.a.license=[mit]", "is not text"),
        ("datasets.a.language=german", "is no code of a language"),
        ("datasets.a.language=[de, 1]", "is no code of a language"),
        ("datasets.a.language=[]", "is no language"),
    ],
)
def test_licenses_and_languages_are_checked(config: Path, setting: str, message: str) -> None:
    key, _, value = setting.partition("=")
    with pytest.raises(UsageError, match=message):
        load_config(config, overrides={key: value})


@pytest.mark.parametrize("name", ["readme.md", "README.md", "Mix.yaml"])
def test_a_dataset_has_no_name_of_the_card(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is the name of the output's"):
        load_config(write_mix(tmp_path, {name: {"tokens": 1}}))
