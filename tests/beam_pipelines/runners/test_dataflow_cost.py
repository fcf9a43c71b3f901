"""The cost of a job on Dataflow: hours, dollars and machines, and that docs/dataflow.md says the same."""

from __future__ import annotations

import pytest
from apache_beam.options.pipeline_options import PipelineOptions, WorkerOptions
from hypothesis import given
from hypothesis import strategies as st

from beam_pipelines.runners.dataflow_cost import (
    PRICES_OF,
    TOKENS_PER_S,
    Machines,
    dataflow_cost,
    machine_options,
    machines_for,
)
from tests.support.documents import ROOT

HOUR = 3600.0
ON_DATAFLOW = ["--runner=DataflowRunner"]


def test_four_processor_hours_are_a_machine_hour_at_list_prices() -> None:
    cost = dataflow_cost(4 * HOUR)
    assert cost.processor_hours == 4
    assert cost.dollars == pytest.approx(4 * 0.056 + 16 * 0.003557 + 50 * 0.000054)
    assert dataflow_cost(0).dollars == 0


@pytest.mark.parametrize(
    ("seconds", "machine_type", "expected"),
    [
        (0, None, Machines(1, 2)),
        (HOUR, None, Machines(1, 2)),
        (HOUR + 1, None, Machines(2, 4)),
        (5 * HOUR, "n2-standard-4", Machines(5, 10)),
        (5 * HOUR, "c3-highcpu-22", Machines(1, 2)),
        (12 * HOUR, "n2-standard-8", Machines(6, 12)),
        (5 * HOUR, "custom", Machines(5, 10)),
        (12 * HOUR, "n2-custom-8-16384", Machines(6, 12)),
        (12 * HOUR, "custom-8-16384-ext", Machines(6, 12)),
        (5 * HOUR, "e2-custom-0", Machines(20, 24)),
        (1000 * HOUR, None, Machines(24, 24)),
    ],
)
def test_a_machine_for_each_quarter_hour_of_its_processors(
    seconds: float, machine_type: str | None, expected: Machines
) -> None:
    assert machines_for(seconds, machine_type=machine_type) == expected


@given(st.floats(0, 1e9), st.none() | st.integers(1, 500), st.none() | st.integers(1, 500))
def test_given_numbers_stand_and_the_others_fit(seconds: float, first: int | None, most: int | None) -> None:
    given_options = [
        *ON_DATAFLOW,
        *([] if first is None else [f"--num_workers={first}"]),
        *([] if most is None else ["--max_num_workers", str(most)]),
    ]
    options = PipelineOptions([*machine_options(given_options, seconds), *given_options]).view_as(WorkerOptions)
    assert first is None or options.num_workers == first
    assert most is None or options.max_num_workers == most
    assert options.num_workers >= 1
    assert options.num_workers <= options.max_num_workers or (first is not None and most is not None)


def test_without_autoscaling_the_first_machines_are_all() -> None:
    options = [*ON_DATAFLOW, "--autoscaling_algorithm=NONE"]
    assert machine_options(options, 5 * HOUR) == ["--num_workers=5"]
    assert machine_options([*options, "--num_workers=3"], 5 * HOUR) == []


def test_the_document_has_these_figures() -> None:
    text = (ROOT / "docs" / "dataflow.md").read_text(encoding="utf-8")
    cost, machines = dataflow_cost(200e9 / TOKENS_PER_S), machines_for(200e9 / TOKENS_PER_S)
    assert f"{TOKENS_PER_S / 1e6:g} million tokens a second" in text
    assert f"| processor hours | {cost.processor_hours:.1f} |" in text
    assert f"list prices of {PRICES_OF} in us-central1 | ${cost.dollars:.2f} |" in text
    assert f"`--num_workers={machines.first}`, `--max_num_workers={machines.most}`" in text


def test_the_tutorial_has_the_same_figures() -> None:
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    cost = dataflow_cost(200e9 / TOKENS_PER_S)
    hours = cost.processor_hours
    assert f"| {hours:.1f} processor hours: {hours / 4:.1f} hours on a machine of 4" in text
    assert f"extrapolated from {TOKENS_PER_S / 1e6:g} million tokens a second and process" in text
    assert f"| ${cost.dollars:.2f} of processors, memory and disks on Dataflow" in text
