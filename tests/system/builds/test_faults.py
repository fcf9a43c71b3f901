"""The fault campaign in short: each kind of trial once, and the faults that the campaign would notice."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.campaign import fault_trials as trials
from tests.campaign.fault_bench import FaultBench, check_clean_failure
from tests.campaign.faults import KILLS, OTHERS, Tried, run_campaign, schedule, table
from tests.support.forks import ForkServer

pytestmark = pytest.mark.slow

# The others start worker processes, wait for a bucket that fails, or have tests of their own.
SHORT = (
    trials.kill_at_operation,
    trials.kill_at_operation,
    trials.kill_at_any_time,
    trials.kill_at_request,
    trials.kill_at_request,
    trials.full_disk,
    trials.two_builds,
    trials.clock_jumps,
)


@pytest.fixture(scope="module")
def bench(gcs_bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultBench]:
    with ForkServer() as server:
        yield FaultBench(tmp_path_factory.mktemp("faults"), f"{gcs_bucket}/faults", server)


def test_a_short_campaign_breaks_nothing(bench: FaultBench) -> None:
    plan = ((trial.__name__, trial) for trial in SHORT)
    tried = run_campaign(bench, 1, 1_000, lambda one: None, plan)
    assert [one.problem for one in tried] == [None] * len(SHORT)
    assert sum(one.kills for one in tried) >= 3


def test_the_campaign_notices_what_is_not_as_it_should_be(bench: FaultBench) -> None:
    output = bench.folder / "spoilt"
    shutil.copytree(bench.folder / "undisturbed", output)
    bench.check(str(output))
    (output / ".left").write_text("")
    with pytest.raises(AssertionError, match=r"leaves it: \.left$"):
        bench.check(str(output))
    (output / ".left").unlink()
    shard = next(output.glob("*/train-*"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(AssertionError, match=f"leaves it: {shard.relative_to(output)}$"):
        bench.check(str(output))
    with pytest.raises(AssertionError):
        bench.check_half(str(output))


@pytest.mark.parametrize(
    ("code", "errors"),
    [(0, ""), (1, "Traceback"), (1, "broetchen: other"), (1, "broetchen: full\nbroetchen: full"), (-9, "")],
)
def test_a_failure_that_is_not_clean_is_noticed(code: int, errors: str) -> None:
    check_clean_failure(1, "a: 3 tokens\nbroetchen: the disk is full", "disk is full")
    with pytest.raises(AssertionError):
        check_clean_failure(code, errors, "full")


def test_the_table_adds_up() -> None:
    tried = [
        Tried(0, "kind", "one", 1, 1.0),
        Tried(1, "kind", "one", 1, 2.0, "broken"),
        Tried(2, "kind", "two", 0, 3.0),
    ]
    cells = [list(column.cells) for column in table(tried).columns]
    assert list(zip(*cells, strict=True)) == [
        ("kind", "one", "2", "2", "1", "1", "1.5"),
        ("kind", "two", "1", "0", "1", "0", "3.0"),
        ("all", "", "3", "2", "2", "1", "2.0"),
    ]


def test_every_kind_of_trial_has_its_turn() -> None:
    turns = schedule()
    first = [next(turns)[1] for _ in range(sum(times for _, _, times in KILLS) + len(OTHERS))]
    assert set(first) == {trial for _, trial, _ in KILLS} | {trial for _, trial in OTHERS}
    assert set(SHORT) < set(first)
