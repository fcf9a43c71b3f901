"""The tables of datasets, of which some have names and numbers that no build gives."""

from __future__ import annotations

import io

from rich.console import Console

from beam_pipelines.console.layout import NO_LIMIT
from beam_pipelines.jobs.build import BuildSummary
from beam_pipelines.tables.datasets import print_build
from beam_pipelines.tables.status import print_status
from tests.transforms.card.cards import manifest_of, split_of
from transforms.building.status import DatasetProgress


def test_the_status_of_a_dataset_that_wants_nothing() -> None:
    shown = io.StringIO()
    progress = DatasetProgress("a[/]\x1b[2J", state="finished", wanted=0, tokens=0, shards=0)
    print_status(Console(file=shown, width=NO_LIMIT), [progress], "table")
    (row,) = [line.split() for line in shown.getvalue().splitlines() if "finished" in line]
    assert row == ["a[/]\\u001b[2J", "finished", "0", "0", "0"]


def last_line(summary: BuildSummary) -> str:
    shown = io.StringIO()
    print_build(Console(file=shown, width=NO_LIMIT), summary, "out[b]")
    return shown.getvalue().splitlines()[-1]


def test_a_build_that_goes_on_counts_its_own_work_alone() -> None:
    manifests = {f"out/{name}": manifest_of(name, {"train": split_of(4_000_000)}) for name in ("a", "b")}
    tokens = 4_000_000
    all_own = last_line(BuildSummary(manifests, set(manifests), 2.0))
    assert all_own.startswith(f"{2 * tokens:,} tokens in 2.0 s ({2 * tokens / 2e6:.2f} Mtok/s, ")
    assert "earlier run" not in all_own
    some = last_line(BuildSummary(manifests, {"out/b"}, 2.0, tokens_before=tokens // 4))
    own = tokens - tokens // 4
    assert some.startswith(f"{own:,} tokens in 2.0 s ({own / 2e6:.2f} Mtok/s, ")
    assert f", and {tokens // 4:,} by an earlier run; 1 of 2 datasets were there already; all in out[b]" in some


def test_a_build_of_finished_datasets_has_nothing_to_do() -> None:
    manifests = {f"out/{name}": manifest_of(name, {"train": split_of(4_000_000)}) for name in "abc"}
    assert last_line(BuildSummary(manifests, set(), 2.0)) == "Nothing to do: all 3 datasets are complete; all in out[b]"
    del manifests["out/c"]
    assert last_line(BuildSummary(manifests, set(), 2.0)) == "Nothing to do: both datasets are complete; all in out[b]"
