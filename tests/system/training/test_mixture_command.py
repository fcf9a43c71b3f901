"""`broetchen mix`, as its users meet it, on the demo's mix."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from beam_pipelines.config.mix import load_config
from beam_pipelines.console.layout import OutputFormat
from beam_pipelines.jobs.build import build, demo_config
from beam_pipelines.jobs.mixture import MixtureSummary, parse_percents, write_mixture
from beam_pipelines.tables.mixture import notes, print_mixture
from tests.support.command import run_command, without_hint
from transforms.errors import UsageError

DOCS = Path(__file__).parents[3] / "docs" / "mixture.md"
SHARES = {
    "fineweb2_german": 0.3,
    "finepdfs_german": 0.5,
    "fineweb_english": 0.05,
    "fineweb_edu_english": 0.05,
    "finepdfs_english": 0.1,
}
OTHERS = dict(zip(SHARES, (0.1, 0.2, 0.3, 0.15, 0.25), strict=True))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("demo") / "demo-output"
    build(demo_config(), str(output), quiet=True)
    return output


@pytest.mark.slow
def test_a_config_gives_the_order_of_shares(demo: Path) -> None:
    config = str(Path(__file__).parents[3] / "mix_configs" / "demo.yaml")
    summary = write_mixture([config, str(demo)], None, shares="30,50,5,5,10")
    assert {name: row["wanted_share"] for name, row in rows_of(summary).items()} == pytest.approx(SHARES)
    with pytest.raises(UsageError, match="it is not certain which share is whose"):
        write_mixture([str(demo)], None, shares="30,50,5,5,10")


def printed(summary: MixtureSummary, output_format: OutputFormat) -> str:
    text = io.StringIO()
    print_mixture(Console(file=text, width=200), summary, output_format)
    return text.getvalue()


def rows_of(summary: MixtureSummary) -> dict[str, dict[str, Any]]:
    """The row of each dataset in JSON."""
    return {row.pop("dataset"): row for row in json.loads(printed(summary, "json"))}


def said(summary: MixtureSummary) -> str:
    return "\n".join(notes(summary))


def named(shares: dict[str, float]) -> str:
    return ",".join(f"{name}={share:.0%}" for name, share in shares.items())


@pytest.mark.slow
def test_the_demo_mix_comes_out_with_the_shares_of_its_config(demo: Path, tmp_path: Path) -> None:
    """The command draws nearly all there is, and leaves two files that agree with its output."""
    target, evaluation = tmp_path / "mixture.json", tmp_path / "eval.txt"
    result = run_command(
        "mix", demo, "--output", target, "--eval-output", evaluation, "--simulate", "600", "--format", "json"
    )
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout)
    assert {row["dataset"]: row["wanted_share"] for row in rows} == SHARES
    for row in rows:
        assert row["simulated_share"] == pytest.approx(row["wanted_share"], abs=0.0005)
        assert row["expected_share"] == pytest.approx(row["wanted_share"], abs=0.0005)
        assert row["epochs_at_end"] > 0.97
    told = "drawing records\nbroetchen: the mixture ended after 520 of 600 records drawn\n"
    assert without_hint(result.stderr) == told
    written = json.loads(target.read_text())
    assert list(written) == [row["dataset"] for row in rows] == sorted(SHARES)
    for row in rows:
        assert written[row["dataset"]]["weight"] == row["weight"]
        assert written[row["dataset"]]["path"].startswith(f"{demo}/{row['dataset']}/train-*-of-0")
    (line,) = evaluation.read_text().splitlines()
    assert len(line.split(";")) == len(SHARES)


@pytest.mark.slow
def test_other_shares_come_out_as_they_were_wanted(demo: Path) -> None:
    summary = write_mixture([str(demo)], None, shares=named(OTHERS), epochs=1000, simulated=4000)
    rows = rows_of(summary)
    for name, share in OTHERS.items():
        assert rows[name]["wanted_share"] == share
        assert rows[name]["simulated_share"] == pytest.approx(share, abs=0.005)
    assert "fineweb_english runs out after " in said(summary)
    assert sum(row["simulated_records"] for row in rows.values()) == 4000


def test_shares_in_the_order_of_the_datasets(demo: Path) -> None:
    by_option = write_mixture([str(demo)], None, datasets=list(SHARES), shares="30,50,5,5,10")
    by_folder = write_mixture([str(demo / name) for name in SHARES], None, shares=" 30, 50%,5, 5,10")
    for summary in (by_option, by_folder):
        rows = rows_of(summary)
        assert list(rows) == list(SHARES)
        assert {name: row["wanted_share"] for name, row in rows.items()} == SHARES


def test_it_says_at_which_step_data_ends_and_what_epochs_that_takes(demo: Path) -> None:
    """256 sequences of 512 tokens are 131,072 tokens a step: 400,000 tokens are three steps, and some are over."""
    summary = write_mixture([str(demo)], None, steps=10, batch=256, length=512)
    for row in rows_of(summary).values():
        assert row["last_step"] == 3
        assert row["epochs_after_steps"] == pytest.approx(10 * 131_072 / 400_000, rel=0.01)
    assert "the data ends at about step 3 of 10" in said(summary)
    assert "num_epoch=4 has enough for all steps" in said(summary)
    table = printed(summary, "table")
    assert "last step ≈" in table
    assert "epochs at 10 ≈" in table
    enough = write_mixture([str(demo)], None, steps=10, batch=256, length=512, epochs=4)
    assert said(enough) == ""
    assert all(row["last_step"] == 12 for row in rows_of(enough).values())


def test_a_step_has_as_many_tokens_as_records_may_have(demo: Path) -> None:
    summary = write_mixture([str(demo)], None, batch=8)
    assert {row["last_step"] for row in rows_of(summary).values()} <= {24, 25}
    assert "epochs_after_steps" not in rows_of(summary)["finepdfs_german"]


def test_what_runs_out_first_is_named_with_what_is_left_of_the_others(demo: Path) -> None:
    summary = write_mixture(
        [str(demo)], None, datasets=["finepdfs_german", "fineweb_english"], shares="50,50", batch=1, length=1000
    )
    assert re.fullmatch(
        r"fineweb_english runs out after \d+ records, about (39|4\d),\d\d\d tokens, at about step (39|4\d), and the "
        r"mixture ends with it; by then it has been read 1\.00 times, finepdfs_german 0\.1\d times",
        said(summary),
    )


def test_a_source_that_was_short_is_named(demo: Path, tmp_path: Path) -> None:
    overrides = {
        "total_tokens": "20M",
        "on_shortfall": "keep",
        "datasets.fineweb_edu_english.eval_tokens": "0",
    }
    config = load_config(str(DOCS.parent.parent / "mix_configs" / "demo.yaml"), overrides=overrides)
    build(config, str(tmp_path / "out"), datasets=["fineweb_edu_english"], quiet=True)
    outputs = [str(tmp_path / "out"), str(demo / "finepdfs_english")]
    summary = write_mixture(outputs, None)
    assert re.search(
        r"fineweb_edu_english has 28\d,\d\d\d of the 1,000,000 tokens that its config wanted", said(summary)
    )
    assert "fineweb_edu_english runs out after" in said(summary)
    assert "that its config wanted" not in said(write_mixture(outputs, None, shares="90,10"))
    with pytest.raises(UsageError, match="fineweb_edu_english has no eval split"):
        write_mixture(outputs, str(tmp_path / "m.json"), eval_output=str(tmp_path / "e.txt"))
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_the_table_and_csv_show_the_same(demo: Path) -> None:
    summary = write_mixture([str(demo)], None)
    table = printed(summary, "table")
    assert re.search(r"finepdfs_german +200,000 +152 +1,315\.8 +50\.00 % +50\.00 % +1267\.5", table)
    assert "The mixture yields 520 records, about 399,592 tokens, with num_epoch=1." in table
    shown = {row.pop("dataset"): row for row in csv.DictReader(io.StringIO(printed(summary, "csv")))}
    rows = rows_of(summary)
    assert shown == {name: {key: str(value) for key, value in row.items()} for name, row in rows.items()}


def test_percentages_are_exact() -> None:
    assert parse_percents(["33.3", " 66.7 % "]) == (Fraction(333, 1000), Fraction(667, 1000))


@pytest.mark.parametrize(
    ("percents", "message"),
    [
        (["30", "60"], "add up to 90 %, not to 100 %"),
        (["100", "0"], "is 0; leave the dataset out"),
        (["fifty", "50"], "is not a percentage"),
        (["-10", "110"], "is not between"),
        ([""], "is not a percentage"),
    ],
)
def test_percentages_that_are_none(percents: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_percents(percents)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shares": "30,50,5,5,10"}, "it is not certain which share is whose"),
        ({"shares": "30,70"}, "2 shares are not one for each of 5 datasets"),
        ({"shares": "a=30,70"}, "'70' is not of the form NAME=SHARE"),
        ({"shares": "a=30,a=70"}, "a comes twice"),
        ({"shares": "a=30,b=60"}, "add up to 90 %"),
        ({"shares": "a=100"}, "a share is for a, which is none of the datasets"),
        ({"datasets": ["a"]}, "there is no dataset a; there is "),
        ({"steps": 10}, "--steps says nothing about data without --batch"),
        ({"length": 10}, "--length says nothing about data without --batch"),
        ({"mounts": ["bucket"]}, "not of the form gs://bucket=/path"),
    ],
)
def test_usage_errors_leave_nothing_behind(demo: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        write_mixture([str(demo)], str(tmp_path / "mixture.json"), **options)
    assert not list(tmp_path.iterdir())


def test_exit_codes(demo: Path, tmp_path: Path) -> None:
    result = run_command("mix", demo, "--output", tmp_path / "mixture.json", "--shares", "30,50,5,5,10")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("broetchen: it is not certain which share is whose")
    assert len(result.stderr.splitlines()) == 1
    result = run_command("mix", tmp_path / "nothing", "--output", tmp_path / "mixture.json")
    assert (result.returncode, result.stdout) == (1, "")
    assert "no finished dataset here" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_commands_of_the_docs_run(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Word for word, in a folder with the demo's output."""
    (tmp_path / "demo-output").symlink_to(demo)
    (tmp_path / "mix_configs").symlink_to(DOCS.parents[1] / "mix_configs")
    monkeypatch.chdir(tmp_path)
    text = DOCS.read_text(encoding="utf-8").replace("\\\n", " ")
    commands = [line for line in text.splitlines() if line.startswith("broetchen mix ")]
    assert len(commands) >= 4
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda line: run_command(*shlex.split(line, comments=True)[1:]), commands))
    for line, result in zip(commands, results, strict=True):
        assert result.returncode == 0, f"{line}: {result.stderr}"
    assert {path.name for path in tmp_path.iterdir()} == {"mix_configs", "demo-output", "mixture.json", "eval.txt"}
