"""What of a build counts as work."""

from __future__ import annotations

import pytest

from beam_pipelines.console.build_progress import work_of
from transforms.building.status import DatasetStatus


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        (DatasetStatus(40, 4, "encoding"), (40, 100)),
        (DatasetStatus(90, 9, "finished"), (90, 90)),
        (DatasetStatus(40, 4, "encoding", taken_over=40), (0, 60)),
        (DatasetStatus(55, 6, "encoding", taken_over=40), (15, 60)),
        (DatasetStatus(100, 9, "finished", taken_over=40), (60, 60)),
        (DatasetStatus(100, 9, "encoding", taken_over=100), (0, 1)),
        (DatasetStatus(100, 9, "finished", taken_over=100), (1, 1)),
    ],
)
def test_what_is_taken_over_is_no_work(status: DatasetStatus, shown: tuple[int, int]) -> None:
    assert work_of(status, 100) == shown
