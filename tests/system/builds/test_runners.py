"""Runners beside Beam's local one: the same bytes, or a reason why not; docs/runners.md."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.dask.dask_runner import DaskRunner
from distributed import LocalCluster, default_client

from beam_pipelines.config.mix import load_config
from beam_pipelines.jobs.specs import dataset_specs, keep_tokenizer, load_config_tokenizer
from tests.support.command import run_command
from tests.support.corpora import SAMPLES
from tests.support.services.job_service import job_service
from transforms.building.datasets import BuildDatasets

__all__ = ["job_service"]

CONFIG = SAMPLES.parent / "mix_configs" / "demo.yaml"
SMALL = ("--set", "total_tokens=60_000", "--quiet")


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
def test_a_portable_job_service_writes_the_same_bytes(job_service: str, tmp_path: Path) -> None:
    here = run_command("build", CONFIG, "--output", tmp_path / "here", *SMALL)
    assert here.returncode == 0, here.stderr
    portable = ("--runner=PortableRunner", f"--job_endpoint={job_service}", "--environment_type=LOOPBACK")
    there = run_command("build", CONFIG, "--output", tmp_path / "there", *SMALL, *portable)
    assert there.returncode == 0, there.stderr
    assert tree(tmp_path / "there") == tree(tmp_path / "here") != {}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["DaskRunner", "dask", "apache_beam.runners.dask.dask_runner.DaskRunner"])
def test_dask_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    refused = run_command("build", CONFIG, "--output", tmp_path / "out", f"--runner={name}")
    assert refused.returncode == 2
    assert "Beam's DaskRunner cannot run this job" in refused.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_dask_still_cannot_build(tmp_path: Path) -> None:
    """If this fails, DaskRunner may have become fit for use: see docs/runners.md."""
    config = load_config(CONFIG, overrides={"total_tokens": "60_000"})
    tokenizer = load_config_tokenizer(config)
    keep_tokenizer(tokenizer, str(tmp_path))
    specs = dataset_specs(
        config, list(config.datasets), tokenizer, output=str(tmp_path), engine="tokenizers", overwrite=False
    )
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        pipeline = beam.Pipeline(
            runner=DaskRunner(), options=PipelineOptions([f"--dask_client_address={cluster.scheduler_address}"])
        )
        _ = pipeline | beam.Create(specs, reshuffle=False) | BuildDatasets()
        try:
            with contextlib.suppress(AttributeError):
                pipeline.run().wait_until_finish()
        finally:
            default_client().close()
    assert not list(tmp_path.glob("*/manifest.json"))
