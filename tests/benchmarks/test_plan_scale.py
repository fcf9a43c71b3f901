"""Planning stays cheap where the source has hundreds of thousands of row groups, and its elements stay small."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.plan_scale import ROW_GROUPS


@pytest.mark.slow
def test_300000_row_groups_are_planned_within_a_minute_and_a_gibibyte() -> None:
    """It runs in a process of its own, whose peak of memory is measured."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.plan_scale", str(ROW_GROUPS)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    cost = json.loads(done.stdout)
    assert cost["row_groups"] == cost["shards"] == 300_000
    assert sum(cost["seconds"].values()) < 60
    assert cost["peak_bytes"] < 1 << 30
    # Of 166,000 shards: nothing that a runner has to take in one piece.
    travels = cost["travels"]
    assert (travels["count"]["elements"], travels["plan head"]["elements"]) == (166_000, 1)
    assert max(travel["largest_bytes"] for travel in travels.values()) < 10e6
    assert max(travel["block_bytes"] for travel in travels.values()) < 10e6
