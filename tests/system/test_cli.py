"""The command line, as its users meet it: commands, options, tables, exit codes and errors."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from beam_pipelines.cli import app
from tests.support.command import run_command, run_on_terminal, without_hint
from tests.support.corpora import TOKENIZER, documents_of, reference_ids, write_parquet
from tests.support.small_tokenizers import byte_level, split_then_bytes
from transforms.dataset.manifest import read_manifest
from transforms.quantities import format_short

IN_MEMORY: list[str] = []
THREADS = ["--direct_running_mode=multi_threading", "--direct_num_workers=2"]
PROCESSES = ["--direct_running_mode", "multi_processing", "--direct_num_workers", "2"]
MODES = {"in memory": IN_MEMORY, "threads": THREADS, "processes": PROCESSES}

TOKENS = {"a": 3000, "b": 2000, "c": 1000}


def write_mix(folder: Path, name: str, **changes: Any) -> Path:
    """Writes a config over the corpora of `folder`; `changes` replace its top-level keys."""
    content: dict[str, Any] = {
        "name": "commands",
        "tokenizer": {"path": str(TOKENIZER), "eos_token": "<|eos|>"},
        "records": {"max_tokens": 64, "add_eos": True},
        "shards": {"target_size": "2KiB"},
        "datasets": {
            dataset: {"source": f"{folder}/{dataset}/*.parquet", "tokens": tokens, "eval_tokens": 50}
            for dataset, tokens in TOKENS.items()
        },
    }
    path = folder / name
    path.write_text(yaml.safe_dump(content | changes))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three datasets of some 7,000 tokens, in files of several row groups."""
    folder = tmp_path_factory.mktemp("commands")
    for dataset in TOKENS:
        for file in range(2):
            groups = [
                [f"Straße {dataset} {file} {group} {row} and more words. " * 8 for row in range(8)]
                for group in range(3)
            ]
            write_parquet(folder / dataset / f"{file}.parquet", groups)
    return folder


@pytest.fixture(scope="module")
def mix(folder: Path) -> Path:
    return write_mix(folder, "mix.yaml")


@pytest.fixture(scope="module")
def built(mix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("built") / "out"
    result = run_command("build", mix, "--output", output)
    assert result.returncode == 0, result.stderr
    # The table on the one, all else on the other.
    assert all(f" {dataset} " in result.stdout for dataset in TOKENS)
    assert result.stderr.startswith("build: planning 3 datasets\n")
    assert sorted(line for line in result.stderr.splitlines() if not line.startswith("build: ")) == [
        f"Next: broetchen verify {output}",
        "a: 3.05K tokens, published",
        "b: 2.05K tokens, published",
        "c: 1.05K tokens, published",
    ]
    return output


def damaged(folder: Path, target: Path) -> Path:
    """A copy of dataset a whose first row group cannot be read."""
    shutil.copytree(folder / "a", target)
    path = target / "0.parquet"
    offset = pq.read_metadata(path).row_group(0).column(1).data_page_offset
    content = bytearray(path.read_bytes())
    content[offset : offset + 40] = b"\xff" * 40
    path.write_bytes(content)
    return target


def one_dataset(source: Path, **others: Any) -> dict[str, Any]:
    return {"datasets": {"a": {"source": f"{source}/*.parquet", "tokens": 3000, **others}}}


# --- Commands that go well --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_demo_builds_exactly_what_it_wants_and_verifies_it(tmp_path: Path) -> None:
    started = time.monotonic()
    result = run_command("demo", "--output", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert time.monotonic() - started < 60
    rows = re.findall(r"^ (\w+) +(train|eval) +([\d,]+) +([\d,]+) ", result.stdout, re.MULTILINE)
    assert len(rows) == 10
    assert all(wanted == written for _, _, wanted, written in rows)
    numbers = {split: [int(row[3].replace(",", "")) for row in rows if row[1] == split] for split in ("train", "eval")}
    assert sorted(numbers["train"]) == [20_000, 20_000, 40_000, 120_000, 200_000]
    assert numbers["eval"] == [2_000] * 5
    assert result.stdout.count(" sound") == 5
    assert "MB/s" in result.stdout
    assert str(tmp_path / "out") in result.stdout
    assert "Traceback" not in result.stderr


def test_build_takes_chosen_datasets_settings_and_options_of_beam_in_any_order(mix: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    before: list[str | Path] = [
        "--runner",
        "direct",
        "--dataset",
        "c",
        *THREADS,
        mix,
        "--set",
        "datasets.a.tokens=1.5K",
    ]
    after = ["--dataset=a", "--quiet", f"--output={output}", "--set", "records.max_tokens=5"]
    result = run_command("build", *before, *after)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    written = {path.name for path in output.iterdir() if not path.name.startswith("tokenizer-")}
    assert written == {"README.md", "a", "c", "mix.yaml"}
    manifest = read_manifest(str(output / "a"))
    assert manifest is not None
    assert manifest.splits["train"].tokens == 1500
    assert manifest.config["records"]["max_tokens"] == 5


@pytest.mark.slow
def test_verify_says_that_all_is_sound(built: Path) -> None:
    result = run_command("verify", built, *THREADS, "--quiet")
    assert (result.returncode, result.stderr) == (0, "")
    assert len(re.findall(r"^ [abc] .* sound", result.stdout, re.MULTILINE)) == 3
    assert run_command("verify", built / "b").stdout.count("sound") == 1


def expected_counts(folder: Path) -> dict[str, int]:
    return {
        dataset: sum(map(len, reference_ids(documents_of((folder / dataset).glob("*.parquet")), eos=None)))
        for dataset in TOKENS
    }


def test_count_prints_json(mix: Path, folder: Path) -> None:
    result = run_command("count", mix, "--format", "json", "--quiet")
    assert (result.returncode, result.stderr) == (0, "")
    counts = {row["dataset"]: row["subtokens"] for row in json.loads(result.stdout)}
    expected = expected_counts(folder)
    assert counts == {**expected, "all": sum(expected.values())}


def test_count_prints_csv_of_what_is_built(built: Path) -> None:
    result = run_command("count", built, "--format", "csv", "--quiet")
    assert (result.returncode, result.stderr) == (0, "")
    counts = {row["dataset"]: int(row["subtokens"]) for row in csv.DictReader(io.StringIO(result.stdout))}
    each = {f"{name}/{split}": n for name, tokens in TOKENS.items() for split, n in (("train", tokens), ("eval", 50))}
    assert counts == {**each, "all": sum(each.values())}


def test_plan_prints_json_and_a_table(mix: Path) -> None:
    result = run_command("plan", mix, "--dataset=a", "--dataset=b", "--format=json", "--quiet")
    assert (result.returncode, result.stderr) == (0, "")
    assert {row["dataset"]: row["need"] for row in json.loads(result.stdout)} == {"a": 3050, "b": 2050}
    changes = ("--set", "datasets.a.tokens=1M", "--set", "shards.max_records=1")
    table = run_command("plan", mix, "--engine=tokenizers", *changes).stdout
    assert re.search(r"^ a +tokenizers +1,000,050 ", table, re.MULTILINE)
    assert "a will lack" in table
    told = " ".join(table.split())
    assert re.search(r"a: row groups of more records than shards\.max_records are shards of their own, [1-9]", told)
    assert re.search(r"holds an index of about [\d.]+ \w+ in each worker process of Grain's", told)


def test_a_command_may_open_as_many_files_as_the_system_allows() -> None:
    """A trainer that it starts may as well; shells often set 1,024, and Grain opens every shard."""
    program = """
import resource
from beam_pipelines.cli import allow_open_files
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
allow_open_files()
print(resource.getrlimit(resource.RLIMIT_NOFILE) == (min(hard, 1 << 17) if hard > 0 else 1 << 17, hard))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.mark.slow
def test_the_package_is_the_command_too(mix: Path, built: Path, tmp_path: Path) -> None:
    """The build is a second one, which finds everything done."""
    output = str(shutil.copytree(built, tmp_path / "out"))
    for arguments in (("build", str(mix), "--output", output), ("verify", output)):
        result = run_command(*arguments, module="beam_pipelines")
        assert result.returncode == 0, result.stderr
        assert re.search(r"^ a +", result.stdout, re.MULTILINE)
    result = run_command("build", mix, module="beam_pipelines")
    assert result.returncode == 2
    assert "Usage: broetchen build" in result.stderr


@pytest.mark.slow
def test_help_names_every_command_and_each_has_its_own() -> None:
    commands = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    assert {"build", "plan", "count", "verify", "demo"} <= set(commands)
    result = run_command("--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert all(f"│ {command} " in result.stdout for command in commands)
    for command in commands:
        result = run_command(command, "--help")
        assert (result.returncode, result.stderr) == (0, "")
        assert f"Usage: broetchen {command}" in result.stdout
        assert "--debug" in result.stdout


def test_help_imports_no_beam() -> None:
    """It takes a second or more, and help comes at once."""
    commands = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    program = f"""
import sys
from beam_pipelines.cli import app, run
for command in {commands!r}:
    sys.argv = ["broetchen", command, "--help"]
    assert run(app, debug=False) == 0
assert "apache_beam" not in sys.modules
assert "pyarrow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


# --- On a terminal ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_command_leaves_out_what_it_does_not_use_of_beam() -> None:
    """Beam does without it."""
    code = (
        "import contextlib, sys\n"
        "from beam_pipelines import cli\n"
        "with contextlib.suppress(SystemExit):\n    cli.main(['build', '--help'])\n"
        "import apache_beam as beam\n"
        "from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner\n"
        "with beam.Pipeline() as pipeline:\n    _ = pipeline | beam.Create([1, 2]) | beam.Reshuffle()\n"
        "from transforms.left_out import LEFT_OUT, allow\n"
        "assert not sys.modules.keys() & set(LEFT_OUT)\n"
        "import pyarrow as pa\n"
        "assert pa.array([1, None]).null_count == 1\n"
        "allow('pandas')\n"
        "import pandas\n"
        "assert pandas.Series([1, 2]).sum() == 3\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_terminal_shows_bars_and_a_table_that_fits(mix: Path, tmp_path: Path) -> None:
    code, shown = run_on_terminal("build", mix, "--output", tmp_path / "out", "--engine=tokenizers", columns=80)
    assert code == 0
    assert re.search(r"^all .*━ +100 % finishing, 3/3 datasets", shown, re.MULTILINE)
    assert re.search(r"^a .*━ +100 % 3\.05K tokens, published", shown, re.MULTILINE)
    table = shown[shown.index(" dataset ") :]
    assert "…" not in table
    assert re.search(r"^ a +train +3,000 +3,000 ", table, re.MULTILINE)


def test_ctrl_c_ends_with_one_line_and_the_next_run_goes_on(folder: Path, tmp_path: Path) -> None:
    groups = [[f"{row} " + "Wörter und Sätze, mehr davon; " * 400 for row in range(40)] for _ in range(40)]
    write_parquet(tmp_path / "long" / "0.parquet", groups)
    config = write_mix(tmp_path, "long.yaml", datasets={"long": {"source": "long/*.parquet", "tokens": "5M"}})
    arguments = ["build", str(config), "--output", str(tmp_path / "out"), "--engine=tokenizers"]
    code, shown = run_on_terminal(*arguments, columns=100, interrupt_at=" tok/s ")
    assert code == 130, shown
    assert re.search(r"^long .*\d % [\d.]+[KM] tokens, encoding, \d+ shards", shown, re.MULTILINE)
    assert re.search(r"^all .*\d % encoding, 0/1 dataset +[\d.]+[KM] tok/s +\d+ (s|min) left", shown, re.MULTILINE)
    assert shown.rstrip().splitlines()[-1] == "broetchen: stopped; run the same command again to go on"
    assert "Traceback" not in shown
    assert not (tmp_path / "out" / "long" / "manifest.json").exists()
    assert list((tmp_path / "out" / "long" / ".broetchen").glob("*/*"))


# --- Errors -----------------------------------------------------------------------------------------------------------


def check_error(result: Any, code: int, message: str) -> None:
    assert result.returncode == code, result.stderr
    assert re.search(message, result.stderr), result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert re.search(r"^broetchen: ", result.stderr, re.MULTILINE)


WRONG_CONFIGS: dict[str, tuple[Mapping[str, Any], str]] = {
    "unknown key": ({"recrods": {"max_tokens": 5}}, r"mix\.yaml.*recrods.*records"),
    "no such file": (
        {"datasets": {"a": {"source": "nothing/*.parquet", "tokens": 5}}},
        r"nothing/\*\.parquet: no file",
    ),
    "no filesystem": ({"datasets": {"a": {"source": "nope://a/b.parquet", "tokens": 5}}}, "no filesystem for nope://"),
}


@pytest.mark.parametrize("case", WRONG_CONFIGS)
def test_a_wrong_config_starts_nothing(folder: Path, tmp_path: Path, case: str) -> None:
    changes, message = WRONG_CONFIGS[case]
    config = write_mix(tmp_path, "mix.yaml", **changes)
    result = run_command("build", config, "--output", tmp_path / "out")
    check_error(result, 2, message)
    assert not list((tmp_path / "out").glob("*/*.arecord"))


def test_a_config_that_is_missing_or_no_yaml(tmp_path: Path) -> None:
    check_error(
        run_command("build", tmp_path / "no.yaml", "--output", tmp_path / "out"), 2, r"no\.yaml: there is no such"
    )
    (tmp_path / "bad.yaml").write_text("name: [")
    check_error(run_command("plan", tmp_path / "bad.yaml"), 2, r"bad\.yaml:1:8: is not valid YAML")


WRONG_OPTIONS = {
    "mistyped": (["--ouput=x"], r"--ouput: .* \(did you mean --output\?\)"),
    "mistyped Beam option": (
        ["--direct_num_worker", "2"],
        r"--direct_num_worker: .*did you mean --direct_num_workers\?",
    ),
    "value of Beam option": (["--direct_num_workers", "two"], "--direct_num_workers: invalid int value: 'two'"),
    "runner": (["--runner", "Nonsense"], "--runner Nonsense: Beam has no such runner; it has DataflowRunner"),
    "runner's own": (["--runner=DataflowRunner"], "--output .*: Dataflow's workers cannot write there"),
    "setting": (["--set", "records"], "--set records: not of the form KEY=VALUE"),
    "dataset": (["--dataset", "d"], "--dataset d: the config has no such dataset; it has a, b, c"),
}


@pytest.mark.parametrize("case", WRONG_OPTIONS)
def test_a_wrong_option_is_named(mix: Path, tmp_path: Path, case: str) -> None:
    options, message = WRONG_OPTIONS[case]
    check_error(run_command("build", mix, "--output", tmp_path / "out", *options), 2, message)
    assert not list((tmp_path / "out").glob("*/*.arecord"))


@pytest.mark.parametrize(
    "arguments", [["build"], ["build", "mix.yaml"], ["plan", "mix.yaml", "--runner=x"], ["bild"], []]
)
def test_a_command_line_that_lacks_something_or_has_too_much_is_refused(arguments: list[str]) -> None:
    assert run_command(*arguments).returncode == 2


def test_a_column_that_is_not_there(folder: Path, tmp_path: Path) -> None:
    config = write_mix(tmp_path, "mix.yaml", **one_dataset(folder / "a", text_column="body"))
    result = run_command("build", config, "--output", tmp_path / "out")
    where = r"mix\.yaml:\d+: datasets\.\w+\.text_column: "
    check_error(result, 2, where + r".*a/0\.parquet: no column 'body'; the file has id, text: set text_column")


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_damaged_file_is_named_without_a_traceback(folder: Path, tmp_path: Path, mode: str) -> None:
    config = write_mix(tmp_path, "mix.yaml", **one_dataset(damaged(folder, tmp_path / "a")))
    result = run_command("build", config, "--output", tmp_path / "out", *MODES[mode])
    check_error(result, 1, r"a/0\.parquet: row group 0 cannot be read")
    assert not list((tmp_path / "out" / "a").glob("*"))


def test_debug_shows_the_traceback(folder: Path, tmp_path: Path) -> None:
    config = write_mix(tmp_path, "mix.yaml", **one_dataset(damaged(folder, tmp_path / "a")))
    result = run_command("build", config, "--output", tmp_path / "out", "--debug")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "parquet/texts.py" in result.stderr
    assert re.match(r"broetchen: .*row group 0 cannot be read", result.stderr[result.stderr.rindex("broetchen: ") :])


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["in memory", "processes"])
def test_a_short_source_says_by_how_much_and_the_others_are_published(
    mix: Path, tmp_path: Path, folder: Path, mode: str
) -> None:
    result = run_command(
        "build", mix, "--output", tmp_path / "out", "--set", "datasets.b.tokens=1M", "--quiet", *MODES[mode]
    )
    documents = documents_of((folder / "b").glob("*.parquet"))
    missing = 1_000_050 - sum(map(len, reference_ids(documents)))
    by_footers, warned, result.stderr = result.stderr.split("\n", 2)
    assert by_footers.startswith(
        "dataset b: by its footers the source has 15.5 KiB of text in 48 rows for 1.00M tokens"
    )
    assert warned == (
        f"dataset b: its source holds {1_000_050 - missing:,} tokens by a sample, and 1,000,050 are wanted: it will "
        f"lack {format_short(missing)}"
    )
    check_error(result, 1, rf"dataset b: the source is exhausted .* {missing:,} tokens missing in all")
    assert sorted(path.parent.name for path in (tmp_path / "out").glob("*/manifest.json")) == ["a", "c"]


def test_an_output_that_cannot_be_written(mix: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run_command("build", mix, "--output", tmp_path / "file" / "out")
    check_error(result, 1, r"file/out/.*cannot be written \(Not a directory\); a part of the path is a file")


@pytest.mark.slow
def test_a_full_disk(mix: Path, built: Path, tmp_path: Path) -> None:
    """The tokenizer, which is the largest file, is there already; the first shard does not fit."""
    (tokenizer,) = built.glob("tokenizer-*")
    shutil.copytree(tokenizer, tmp_path / "out" / tokenizer.name)
    result = run_command("build", mix, "--output", tmp_path / "out", *THREADS, largest_file=100_000)
    check_error(result, 1, r"shard-0000\d-[0-9a-f]{12}\.arecord: .*File too large.*run it again")
    assert not list((tmp_path / "out").glob("*/*.arecord"))


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["in memory", "processes"])
def test_a_warning_is_one_plain_line_from_wherever_it_comes(folder: Path, tmp_path: Path, mode: str) -> None:
    split = split_then_bytes(r"\p{N}{1,2}|\p{L}+|[^\p{N}\p{L}]+")
    (tmp_path / "tokenizer.json").write_text(json.dumps(byte_level(pre_tokenizer=split)))
    config = write_mix(
        tmp_path, "mix.yaml", tokenizer={"path": "tokenizer.json"}, records={}, **one_dataset(folder / "a")
    )
    result = run_command("build", config, "--output", tmp_path / "out", *MODES[mode])
    assert result.returncode == 0, result.stderr
    shown = ("build: ", "a: 3.00K tokens, published")
    (warning,) = [line for line in without_hint(result.stderr).splitlines() if not line.startswith(shown)]
    assert warning.startswith("dataset a: encoding with tokenizers, which is slower, since gigatoken ")
