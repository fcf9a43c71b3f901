"""Beam's options: which runner a name means, and which options go with it."""

from __future__ import annotations

import pytest
from apache_beam.options.pipeline_options import StandardOptions

from beam_pipelines.runners.local import local_parallelism
from beam_pipelines.runners.options import pipeline_options
from transforms.errors import UsageError

WORKERS = "--direct_running_mode=multi_processing"


@pytest.mark.parametrize(
    "name",
    [
        "DirectRunner",
        "direct",
        "SwitchingDirectRunner",
        "FnApiRunner",
        "apache_beam.runners.direct.DirectRunner",
        "apache_beam.runners.direct.direct_runner.SwitchingDirectRunner",
        "apache_beam.runners.portability.fn_api_runner.FnApiRunner",
    ],
)
def test_every_name_of_the_local_runner_means_ours(name: str) -> None:
    options = pipeline_options([f"--runner={name}", WORKERS, "--direct_num_workers=3"])
    assert options.view_as(StandardOptions).runner == "FnApiRunner"
    assert local_parallelism(options) == 3


@pytest.mark.parametrize("name", ["InteractiveRunner", "TestDirectRunner", "BundleBasedDirectRunner", "my.own.Runner"])
def test_no_other_runner_starts_local_workers(name: str) -> None:
    """The first two hand this on to Beam's local runner, whose servers listen on all addresses."""
    with pytest.raises(UsageError) as refused:
        pipeline_options([f"--runner={name}", WORKERS])
    assert str(refused.value) == (
        "--direct_running_mode multi_processing: is for runs on this machine; leave out this option, or "
        f"--runner {name}"
    )
    assert local_parallelism(pipeline_options([f"--runner={name}"])) == 0
