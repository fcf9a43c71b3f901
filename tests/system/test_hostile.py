"""The hostile input campaign, its short form: `python -m tests.campaign.hostile` is the long one."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest

from tests.campaign import hostile
from tests.campaign.hostile_build import build_and_check, check_output, write_config
from tests.campaign.hostile_case import CaseKind, Outcome, Wrong
from tests.campaign.hostile_parquet import write_sound
from tests.campaign.hostile_worker import Worker, run_case
from tests.campaign.untrusted.endings import check_shown, command
from tests.campaign.untrusted.sound import copied, secrets
from transforms.arrayrecord.records import Format
from transforms.dataset.splits import open_dataset


@pytest.mark.slow
def test_no_hostile_input_ends_in_anything_but_an_error_of_ours_or_a_sound_dataset() -> None:
    campaign = hostile.run(hostile.plan(20, 45, heavy=0), commands=1, seed=20, quiet=True)
    assert [(result.kind, result.seed, result.outcome.detail) for result in campaign.wrong] == []
    assert {result.outcome.ending for result in campaign.results} == {"error", "skipped", "built"}
    assert hostile.table(campaign).row_count > len(hostile.KINDS) - 3


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("record_format", ["tokens", "text"])
def test_a_manifest_that_is_not_harmed_is_read_by_every_command(
    tmp_path: Path, record_format: Format, version: int
) -> None:
    """So the end of each of the campaign's cases is due to the harm."""
    output = copied(tmp_path, record_format, version)
    commands: list[list[str | Path]] = [
        ["verify", output],
        ["report", output, "--output", tmp_path / "page.html"],
        ["mix", output, "--output", tmp_path / "mixture.json", "--simulate", "20"],
        ["status", output],
        ["count", output],
        ["show", output / "a", "-n", "3", "--ids"],
    ]
    for arguments in commands:
        assert command(tmp_path, arguments, secrets(tmp_path)).ending == "built", arguments
    with open_dataset(output / "a") as dataset:
        assert dataset.manifest.format_version == version
        assert dataset["train"][0].text


def test_the_campaign_sees_what_no_command_may_show() -> None:
    check_shown("a\tplain “line”\n", ["secret"])
    for text, said in (("\x1b[2J", "control"), ("a\u202eb", "control"), ("the secret is", "'secret' is shown")):
        with pytest.raises(Wrong, match=said):
            check_shown(text, ["secret"])


def test_a_plan_has_each_kind_and_is_the_same_again() -> None:
    planned = hostile.plan(1, 100, heavy=1)
    assert planned == hostile.plan(1, 100, heavy=1) != hostile.plan(2, 100, heavy=1)
    assert len(planned) == 100
    assert {number for number, _ in planned} == set(range(len(hostile.KINDS)))


def _dies(chance: random.Random, folder: Path) -> Outcome:
    import os

    os.abort()


def _hangs(chance: random.Random, folder: Path) -> Outcome:
    while True:
        pass


def _swells(chance: random.Random, folder: Path) -> Outcome:
    return Outcome("built", str(len(bytearray(b"x") * (200 << 20))))


def _raises(chance: random.Random, folder: Path) -> Outcome:
    raise RuntimeError("not one of ours")


@pytest.mark.slow
def test_the_campaign_sees_a_crash_a_hang_a_swollen_process_and_a_foreign_error() -> None:
    kinds = [
        CaseKind("dies", _dies),
        CaseKind("hangs", _hangs, timeout_s=20),
        CaseKind("swells", _swells, memory_mib=100),
        CaseKind("raises", _raises),
    ]
    with Worker(kinds) as worker:
        results = [worker.run(number, "0") for number in range(len(kinds))]
    assert [result.outcome.ending for result in results] == ["wrong"] * 4
    for result, said in zip(results, ("died", "hangs", "MiB", "not one of ours"), strict=True):
        assert said in result.outcome.detail


def test_the_campaign_sees_a_dataset_that_is_not_what_the_source_holds(tmp_path: Path) -> None:
    path = tmp_path / "a" / "0.parquet"
    write_sound(random.Random(1), path, ["eins", "zwei"], pa.string())
    config = write_config(tmp_path)
    assert build_and_check(config).ending == "built"
    for others, said in ((["eins", "drei"], "that are not the"), (["eins", "zwei", None], "left out")):
        write_sound(random.Random(1), path, others, pa.string())
        with pytest.raises(Wrong, match=said):
            check_output(config)


def test_a_case_leaves_no_folder_behind(tmp_path: Path) -> None:
    seen: list[Path] = []

    def attempt(chance: random.Random, folder: Path) -> Outcome:
        (folder / "a").write_text("a")
        seen.append(folder)
        return Outcome("built")

    outcome, grown = run_case(CaseKind("leaves", attempt), "0")
    assert outcome.ending == "built"
    assert grown >= 0
    assert not seen[0].exists()
