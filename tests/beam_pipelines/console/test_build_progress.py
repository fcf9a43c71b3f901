"""The display of a build: its phase, its work, its rate."""

from __future__ import annotations

import pytest

from beam_pipelines.console.build_progress import build_frame, work_of
from transforms.building.status import DatasetStatus, Phase
from transforms.progress.display import Frame


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


def frame(**statuses: DatasetStatus) -> Frame:
    return build_frame(statuses, dict.fromkeys(statuses, 100))


@pytest.mark.parametrize(
    ("phases", "state"),
    [
        (("planning", "planning"), "planning"),
        (("planned", "planning"), "planning"),
        (("planned", "planned"), "encoding"),
        (("encoding", "planned"), "encoding"),
        (("publishing", "encoding"), "encoding"),
        (("publishing", "finished"), "publishing"),
        (("finished", "finished"), "finishing"),
    ],
)
def test_a_build_is_where_its_last_dataset_is(phases: tuple[Phase, Phase], state: str) -> None:
    first, second = phases
    assert frame(a=DatasetStatus(0, 0, first), b=DatasetStatus(0, 0, second)).state == state


def test_only_this_builds_work_makes_the_rate() -> None:
    found = frame(
        a=DatasetStatus(60, 6, "encoding", encoded=10), b=DatasetStatus(100, 9, "publishing", published=(2, 8))
    )
    assert (found.whole.done, found.whole.total, found.work) == (160, 200, 10)
    assert found.line == "encoding: 160 of 200 tokens (80 %), 0 of 2 datasets published"
    assert [row.note for row in found.parts] == ["60 tokens, encoding, 6 shards", "100 tokens, publishing 2 of 8 files"]
