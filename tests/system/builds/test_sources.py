"""Names of folders and files are names, with any characters; and a source that is short costs no work twice."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from beam_pipelines.config.mix import load_config
from beam_pipelines.jobs.build import build
from tests.support.command import run_command
from tests.support.corpora import SAMPLES, TOKENIZER
from transforms.errors import BroetchenError, UsageError

GERMAN = sorted((SAMPLES / "corpora" / "fineweb2_german").glob("*.parquet"))
ODD = "a [1] b*?"


def write_mix(folder: Path, source: Any, **settings: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    dataset = {"source": source, "tokens": 20_000, "eval_tokens": 500} | settings.pop("dataset", {})
    content = {
        "name": "odd",
        "tokenizer": {"path": str(TOKENIZER), "eos_token": "<|eos|>"},
        "shards": {"target_size": "64KiB"},
        "datasets": {"german": dataset},
    }
    path = folder / "mix.yaml"
    path.write_text(yaml.safe_dump(content | settings))
    return path


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_an_output_in_brackets_is_another_than_the_one_that_it_would_match(tmp_path: Path) -> None:
    config = write_mix(tmp_path, [str(path) for path in GERMAN])
    plain, odd = tmp_path / "mix1", tmp_path / "mix[1]"
    for output in (plain, odd):
        ended = run_command("build", config, "--output", output, "--quiet")
        assert ended.returncode == 0, ended.stderr
    assert hashes(plain) == hashes(odd)
    assert hashes(plain)
    # It is found again, and what it replaces is its own.
    assert "finished" in run_command("status", odd).stdout
    assert "20,000" in run_command("count", odd).stdout
    for command in (("verify", odd), ("report", odd, "--output", tmp_path / "page.html"), ("mix", odd)):
        ended = run_command(*command)
        assert ended.returncode == 0, ended.stderr
    again = ("build", config, "--output", odd, "--quiet", "--set", "datasets.german.tokens=9000")
    assert "holds a dataset of another config" in run_command(*again).stderr
    ended = run_command(*again, "--overwrite")
    assert ended.returncode == 0, ended.stderr
    assert run_command("verify", odd).returncode == 0
    assert hashes(plain)["german/manifest.json"] != hashes(odd)["german/manifest.json"]
    assert run_command("verify", plain).returncode == 0


def test_a_config_its_source_and_its_output_in_folders_with_odd_names(tmp_path: Path) -> None:
    folder = tmp_path / ODD
    (folder / "de[1]").mkdir(parents=True)
    for path in GERMAN:
        shutil.copy(path, folder / "de[1]")
    plain = write_mix(tmp_path / "plain", [str(path) for path in GERMAN])
    build(load_config(str(plain)), str(tmp_path / "plain" / "out"), quiet=True)
    wanted = hashes(tmp_path / "plain" / "out")
    for number, source in enumerate(
        (
            "de[[]1]/*.parquet",
            [f"de[1]/{path.name}" for path in GERMAN],
            [f"{folder}/de[1]/{path.name}" for path in GERMAN],
        )
    ):
        config = load_config(str(write_mix(folder, source)))
        build(config, str(folder / f"out {number}"), quiet=True)
        found = hashes(folder / f"out {number}")
        shards = {name for name in wanted if "-of-" in name}
        assert {name: found[name] for name in shards} == {name: wanted[name] for name in shards}
        assert str(tmp_path) not in (folder / "out 0" / "german" / "manifest.json").read_text()


def test_a_tokenizer_from_text_in_a_folder_with_an_odd_name(tmp_path: Path) -> None:
    config = write_mix(tmp_path, [str(path) for path in GERMAN])
    text = tmp_path / ODD
    ended = run_command("vocab", config, "--output", text, "--quiet")
    assert ended.returncode == 0, ended.stderr
    learned = []
    for number, location in enumerate((text, text / "german")):
        output = tmp_path / f"tokenizer[{number}]"
        ended = run_command("train-tokenizer", location, "--output", output, "--vocab-size", "1000")
        assert ended.returncode == 0, ended.stderr
        learned.append((output / "tokenizer.json").read_bytes())
    assert learned[0] == learned[1]


def test_a_source_that_matches_what_the_build_writes(tmp_path: Path) -> None:
    (tmp_path / "data" / "de").mkdir(parents=True)
    for path in GERMAN:
        shutil.copy(path, tmp_path / "data" / "de")
    mix = write_mix(tmp_path, "data/**/*.parquet", records={"format": "parquet", "add_eos": False})
    config = load_config(str(mix))
    with pytest.raises(
        UsageError, match=r"datasets\.german\.source: data/\*\*/\*\.parquet would also match what is built at .*/out"
    ):
        build(config, str(tmp_path / "data" / "out"), quiet=True)
    build(config, str(tmp_path / "elsewhere"), quiet=True)
    shutil.copytree(tmp_path / "elsewhere", tmp_path / "data" / "old")
    with pytest.raises(BroetchenError, match=r"also matches files of .*/data/old/german, a dataset that was built"):
        build(config, str(tmp_path / "new"), quiet=True)


def test_a_file_that_is_there_twice_is_told_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "de").mkdir()
    shutil.copy(GERMAN[0], tmp_path / "de" / "a.parquet")
    shutil.copy(GERMAN[0], tmp_path / "de" / "b.parquet")
    (tmp_path / "de" / "c.parquet").symlink_to("a.parquet")
    ended = run_command("build", write_mix(tmp_path, "de/*.parquet"), "--output", tmp_path / "out", "--quiet")
    assert ended.returncode == 0, ended.stderr
    told = [line for line in ended.stderr.splitlines() if "the same file by size and footer" in line]
    assert len(told) == 1
    assert all(f"/de/{name}.parquet" in told[0] for name in "abc")


def test_home_is_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    ended = run_command("build", write_mix(tmp_path, [str(path) for path in GERMAN]), "--output=~/out", "--quiet")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "home" / "out" / "german" / "manifest.json").exists()
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("change", ["datasets.german.on_shortfall=keep", "datasets.german.tokens=150000"])
def test_a_shortfall_costs_nothing(tmp_path: Path, change: str) -> None:
    config, output = write_mix(tmp_path, [str(path) for path in GERMAN]), tmp_path / "out"
    short = ("--quiet", "--set", "datasets.german.tokens=90M")
    assert "the source is exhausted" in run_command("build", config, "--output", output, *short).stderr
    assert "failed: source exhausted" in run_command("status", output).stdout
    written = {path.stat().st_mtime_ns for path in (output / "german" / ".broetchen").rglob("shard-*.arecord")}
    assert len(written) > 3
    for folder in (output, tmp_path / "fresh"):
        ended = run_command("build", config, "--output", folder, *short, "--set", change)
        assert ended.returncode == 0, ended.stderr
    assert hashes(output) == hashes(tmp_path / "fresh")
    # All but those at the two cuts have only got a name.
    published = [path.stat().st_mtime_ns for path in (output / "german").glob("*.arecord")]
    assert sum(time in written for time in published) >= len(published) - 2 > 0
