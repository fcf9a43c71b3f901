"""The mould of the command line: the parts that all commands have, subcommands among them, and the effect of each."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer.main
from typer.core import TyperGroup

from beam_pipelines.cli import app, run
from beam_pipelines.runners.options import take_beam_options
from tests.support.command import run_command
from tests.support.corpora import SAMPLES
from transforms.dataset.manifest import read_manifest
from transforms.errors import UsageError

DEMO = SAMPLES.parent / "mix_configs" / "demo.yaml"
TRAINING = SAMPLES.parent / "launch" / "configs" / "demo.yaml"


def commands(
    group: TyperGroup, above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], typer.core.TyperCommand]]:
    """Each command with its words, those of subgroups among them."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, (*above, name))
        else:
            assert isinstance(command, typer.core.TyperCommand)
            yield (*above, name), command


def all_commands() -> dict[str, typer.core.TyperCommand]:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return {" ".join(words): command for words, command in commands(group)}


ALL = all_commands()


def help_of(words: str, option: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert run(lambda: app([*words.split(), option], prog_name="broetchen"), debug=False) == 0
    return capsys.readouterr().out


def test_all_commands_are_looked_at() -> None:
    assert {"build", "status", "train", "eval-tokenizer", "cluster serve", "cluster worker"} < set(ALL)
    assert len(ALL) == 17


@pytest.mark.parametrize("words", ALL)
def test_every_command_has_the_mould(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = {name: one for one in ALL[words].params for name in one.opts}
    for names in (("--json",), ("--quiet", "-q"), ("--output", "-o"), ("--debug",)):
        found = {options[name].name for name in names}
        assert len(found) == 1, names
    for switch in ("--json", "--quiet", "--debug"):
        assert getattr(options[switch], "is_flag", False), f"{switch} takes no value"
    assert not getattr(options["--output"], "is_flag", True)
    shown = help_of(words, "-h", capsys)
    assert f"Usage: broetchen {words}" in shown
    assert "<bool>" not in shown
    assert help_of(words, "--help", capsys) == shown


@pytest.mark.parametrize("words", ALL)
def test_help_breaks_no_sentence(words: str) -> None:
    """Each paragraph is one line, which the terminal breaks where it ends."""
    text = ALL[words].help or ""
    assert text
    assert all("\n" not in paragraph for paragraph in text.split("\n\n"))


@pytest.mark.parametrize("words", ALL)
def test_help_says_where_options_of_beam_are_listed(words: str) -> None:
    takes_beams = words in ("build", "vocab", "count", "verify", "eval-tokenizer", "demo")
    assert ("apache_beam.options.pipeline_options" in (ALL[words].help or "")) == takes_beams


def test_the_version() -> None:
    result = run_command("--version")
    assert (result.returncode, result.stdout) == (0, f"broetchen {importlib.metadata.version('broetchen')}\n")


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("broetchen bu", {"build"}),
        ("broetchen build --engine g", {"gigatoken"}),
        ("broetchen build --runner DirectRunner --dry", {"--dry-run"}),
        ("broetchen cluster se", {"serve"}),
        ("broetchen train run.yaml st", {"start", "status", "stop"}),
    ],
)
def test_a_shell_completes_words(line: str, completed: set[str]) -> None:
    words = line.split()
    asked = {"_BROETCHEN_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-m", "beam_pipelines"], env={**os.environ, **asked}, capture_output=True, text=True
    )
    assert set(done.stdout.split()) == completed


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--ouput", "did you mean --output?"),
        ("--direct_num_worker", "did you mean --direct_num_workers?"),
        # Beam has --dataflow_… and --dry_run, which are as close.
        ("--dry-ru", "did you mean --dry-run"),
        ("--dryrun", "did you mean --dry-run"),
    ],
)
def test_options_of_the_command_are_suggested_before_those_of_beam(given: str, meant: str) -> None:
    own = {"--output": True, "--dry-run": False, "--dataset": True}
    with pytest.raises(UsageError, match=re.escape(meant)):
        take_beam_options([given], own)


# --- Configs of the other sort, and words in the other order ----------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [["train", DEMO], ["train", "status", DEMO], ["show", SAMPLES, "--step", "1", "--run", DEMO]],
)
def test_a_mix_config_for_a_training_is_one_line(arguments: list[str | Path]) -> None:
    result = run_command(*arguments)
    assert result.returncode == 2
    assert result.stderr == (
        f"broetchen: {DEMO}: is a mix config, which `broetchen build` takes; name a training config here, see "
        "docs/training.md\n"
    )


@pytest.mark.parametrize("command", ["plan", "build", "count", "download", "mix"])
def test_a_training_config_for_a_mix_is_one_line(command: str, tmp_path: Path) -> None:
    output = ["-o", str(tmp_path / "out")] if command in ("build", "download") else []
    result = run_command(command, TRAINING, "--quiet", *output)
    assert result.returncode == 2
    assert result.stderr == (
        f"broetchen: {TRAINING}: is a training config, which `broetchen train` takes; name a mix config here, see "
        "docs/config.md\n"
    )


def training_config(folder: Path, **changes: str) -> Path:
    config = folder / "run.yaml"
    lines = {"name": "run", "data": "{outputs: out}", "model": "nano-german-slm", "output": "training"}
    lines |= {"parameters": "{steps: 10, per_device_batch_size: 1}", **changes}
    config.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
    return config


def test_train_takes_its_words_in_either_order(tmp_path: Path) -> None:
    config = training_config(tmp_path)
    result = run_command("train", config, "status")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "run          run: not running\ncheckpoints  none\n"
    assert run_command("train", "status", config).stdout == result.stdout
    facts = json.loads(run_command("train", "status", config, "--json").stdout)
    assert facts == {
        "run": "run",
        "action": "status",
        "folder": str(tmp_path / "training" / "run"),
        "running": False,
        "process": None,
        "steps": 10,
        "last_step": None,
        "loss": None,
        "tokens_per_second": None,
        "ended_early": None,
        "checkpoints": [],
    }
    elsewhere = json.loads(run_command("train", "status", config, "--json", "-o", tmp_path / "other").stdout)
    assert elsewhere["folder"] == str(tmp_path / "other" / "run")


def test_a_config_called_like_an_action_is_a_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training_config(tmp_path).rename(tmp_path / "status")
    monkeypatch.chdir(tmp_path)
    for words in (["status", "status"], ["stop", "status"], ["status", "stop"]):
        assert run_command("train", *words).returncode == 0


def test_train_says_what_it_lacks(tmp_path: Path) -> None:
    result = run_command("train", "status")
    assert (result.returncode, result.stdout) == (2, "")
    assert "name its config, as in broetchen train run.yaml status" in result.stderr
    result = run_command("train", training_config(tmp_path), "begin")
    assert result.returncode == 2
    assert "begin is none of its actions; they are start, status," in result.stderr


def test_the_target_of_a_config_and_the_option_before_it(tmp_path: Path) -> None:
    config = training_config(tmp_path, target="tpu-vm")
    lacking = run_command("train", config, "status")
    assert lacking.returncode == 2
    assert "tpu_vm" in lacking.stderr
    assert run_command("train", config, "status", "--target=local").returncode == 0


# --- Hints ------------------------------------------------------------------------------------------------------------


def test_the_next_command_is_the_last_line_unless_it_is_quiet_or_json(tmp_path: Path) -> None:
    config = tmp_path / "my mix.yaml"
    told = run_command("init", config)
    assert (told.returncode, told.stdout) == (0, f"{config} is written\n")
    assert told.stderr == f"Next: broetchen plan '{config}'\n"
    assert run_command("init", "-o", tmp_path / "b.yaml", "-q").stderr == ""
    as_json = run_command("init", tmp_path / "c.yaml", "--json")
    assert (json.loads(as_json.stdout), as_json.stderr) == ({"config": str(tmp_path / "c.yaml")}, "")


def test_init_writes_one_file(tmp_path: Path) -> None:
    both: list[str | Path] = [tmp_path / "a.yaml", "-o", tmp_path / "b.yaml"]
    nothing: list[str | Path] = []
    for arguments in (nothing, both):
        result = run_command("init", *arguments)
        assert (result.returncode, result.stdout) == (2, "")
        assert "name it once" in result.stderr
    assert not list(tmp_path.iterdir())


# --- Quick answers ----------------------------------------------------------------------------------------------------


def imported_by(*arguments: str | Path) -> list[str]:
    """Which of the slow packages a command has imported when it ends well."""
    program = f"""
import contextlib, json, sys
from beam_pipelines import cli
with contextlib.suppress(SystemExit):
    cli.main({[str(argument) for argument in arguments]!r})
slow = ("apache_beam", "pyarrow", "grain", "jax", "google.auth", "pandas")
print(json.dumps([name for name in slow if name in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return list(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("quick") / "out"
    more = ["--dataset=fineweb_english", "--engine=tokenizers", "-q"]
    result = run_command("build", DEMO, "-o", output, *more)
    assert (result.returncode, result.stderr) == (0, "")
    return output


@pytest.mark.parametrize("command", ["status", "mix", "--help", "init"])
def test_commands_that_look_at_local_files_import_no_beam(built: Path, tmp_path: Path, command: str) -> None:
    arguments: dict[str, list[str | Path]] = {
        "status": [built],
        "mix": [built, "-o", tmp_path / "m.json"],
        "init": [tmp_path / "a.yaml"],
    }
    assert imported_by(command, *arguments.get(command, [])) == []
    assert command != "mix" or (tmp_path / "m.json").is_file()


def test_what_is_printed_is_written_as_well(built: Path, tmp_path: Path) -> None:
    result = run_command("status", built, "--json", "-o", tmp_path / "status.json")
    assert result.stderr == ""
    assert json.loads(result.stdout) == json.loads((tmp_path / "status.json").read_text())
    assert [(row["dataset"], row["state"]) for row in json.loads(result.stdout)] == [("fineweb_english", "finished")]
    table = run_command("status", built, "-o", tmp_path / "status.txt")
    assert table.stderr == f"Next: broetchen verify {built}\n"
    assert "fineweb_english" in (tmp_path / "status.txt").read_text()
    assert run_command("status", built, "--json", "--format=csv").returncode == 2


def test_a_build_of_what_is_there_says_that_there_is_nothing_to_do(built: Path) -> None:
    result = run_command("build", DEMO, "-o", built, "--dataset=fineweb_english", "--engine=tokenizers", "-q")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == f"Nothing to do: the dataset is complete; all in {built}"


def test_show_names_the_next_record_of_the_split_until_its_end(built: Path) -> None:
    dataset = built / "fineweb_english"
    manifest = read_manifest(str(dataset))
    assert manifest is not None
    split = manifest.splits["eval"]
    assert split.records >= 2
    shown = run_command("show", dataset, "--split=eval", "--record", str(split.records - 2))
    assert shown.stderr == f"Next: broetchen show {dataset} --split=eval --record {split.records - 1}\n"
    assert run_command("show", dataset, "--split=eval", "--record", str(split.records - 1)).stderr == ""


def test_the_next_command_of_a_dry_run_keeps_the_format(tmp_path: Path) -> None:
    arguments: list[str | Path] = ["vocab", DEMO, "-o", tmp_path, "--dataset=fineweb_english", "--engine=tokenizers"]
    result = run_command(*arguments, "--format=arrayrecord", "--dry-run")
    assert result.returncode == 0, result.stderr
    chosen = "--dataset=fineweb_english --engine=tokenizers --format=arrayrecord"
    assert result.stderr.splitlines()[-1] == f"Next: broetchen vocab {DEMO} --output {tmp_path} {chosen}"


def test_a_tokenizer_with_a_name_is_evaluated_and_chosen_next(tmp_path: Path) -> None:
    tokenizer = SAMPLES / "tokenizer.json"
    pq.write_table(pa.table({"text": ["Guten Morgen"]}), tmp_path / "a.parquet")
    arguments: list[str | Path] = [f"own={os.path.relpath(tokenizer)}", "--data", tmp_path / "a.parquet"]
    as_json = run_command("eval-tokenizer", *arguments, "--json")
    assert as_json.returncode == 0, as_json.stderr
    assert json.loads(as_json.stdout)["tokenizers"]
    # A path in a config starts at its folder, wherever that is.
    told = run_command("eval-tokenizer", *arguments)
    assert told.stderr.splitlines()[-1] == f"Next: broetchen plan CONFIG --set=tokenizer.path={tokenizer}"
    missing = run_command("eval-tokenizer", *arguments, "--json", tmp_path / "new.json")
    assert missing.returncode == 2
    assert "a file for it goes after --output" in missing.stderr


def test_a_folder_that_is_called_like_an_action_is_no_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "status").mkdir()
    monkeypatch.chdir(tmp_path)
    result = run_command("train", "status")
    assert result.returncode == 2
    assert "name its config, as in broetchen train run.yaml status" in result.stderr
