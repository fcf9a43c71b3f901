"""`broetchen init`: the starter config is whole, builds at once, and touches nothing that lies there."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest

from beam_pipelines.config.mix import load_config
from beam_pipelines.config.starter import starter, write_starter
from tests.support.command import run_command
from tests.support.documents import ROOT
from transforms.dataset.manifest import read_manifest
from transforms.errors import UsageError

# A folder and a name that need quotes in YAML, in a shell and in patterns.
ODD = "it's a [x] # {folder}"


def test_the_starter_is_the_shipped_config_with_other_paths(tmp_path: Path) -> None:
    path = tmp_path / "my mix.yaml"
    write_starter(str(path))
    shipped, written = load_config(ROOT / "mix_configs/starter.yaml"), load_config(path)
    assert written.tokenizer_path() == shipped.tokenizer_path()
    for name in shipped.datasets:
        assert written.sources(name) == shipped.sources(name)
    assert written.budgets() == shipped.budgets()
    lines = path.read_text().splitlines()
    assert lines[0] == f"# yaml-language-server: $schema={ROOT / 'mix_configs/mix.schema.json'}"
    assert "#   broetchen plan 'my mix.yaml'" in lines
    assert "FILE" not in path.read_text()


def test_an_installation_in_a_folder_of_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / ODD
    for package in ("mix_configs", "samples"):
        shutil.copytree(ROOT / package, installed / package)
    monkeypatch.setattr("importlib.resources.files", installed.joinpath)
    path = tmp_path / "mix.yaml"
    path.write_text(starter("mix.yaml"))
    config = load_config(path)
    assert Path(config.tokenizer_path()) == installed / "samples/tokenizer.json"
    for name in config.datasets:
        (source,) = config.sources(name)
        assert source.startswith(f"{tmp_path}/it's a [[]x] # {{folder}}/samples/corpora/")


def test_what_lies_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "mix.yaml"
    path.write_text("mine")
    with pytest.raises(UsageError, match="there is a file already, and it stays"):
        write_starter(str(path))
    (tmp_path / "link.yaml").symlink_to(tmp_path / "nowhere.yaml")
    with pytest.raises(UsageError, match="there is a file already"):
        write_starter(str(tmp_path / "link.yaml"))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["link.yaml", "mix.yaml"]
    with pytest.raises(UsageError, match="there is no folder for it"):
        write_starter(str(tmp_path / "absent" / "mix.yaml"))
    with pytest.raises(UsageError, match="there is a file already"):
        write_starter(str(tmp_path))
    assert path.read_text() == "mine"


def test_a_new_user_builds_at_once(tmp_path: Path) -> None:
    folder = tmp_path / ODD
    folder.mkdir()
    config, output = folder / "my mix.yaml", folder / "out"
    ended = run_command("init", config)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"{config} is written\n"
    assert ended.stderr == f"Next: broetchen plan {shlex.quote(str(config))}\n"
    again = run_command("init", config)
    assert (again.returncode, again.stdout) == (2, "")
    assert "choose another name" in again.stderr
    built = run_command("build", config, "--output", output)
    assert built.returncode == 0, built.stderr
    splits = {
        (name, split): found.tokens
        for name in ("german", "english")
        if (manifest := read_manifest(str(output / name))) is not None
        for split, found in manifest.splits.items()
    }
    assert splits == {
        ("german", "train"): 60_000,
        ("german", "eval"): 1_000,
        ("english", "train"): 40_000,
        ("english", "eval"): 1_000,
    }
