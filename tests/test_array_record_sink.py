from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.test_stream import TestStream
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms import trigger
from apache_beam.transforms.window import FixedWindows, GlobalWindows
from grain.python import ArrayRecordDataSource

from transforms import array_record_sink, files
from transforms.array_record_sink import WriteToArrayRecord, shard_name
from transforms.errors import UsageError

RECORDS = [f"record {i} ".encode() * (i % 20) for i in range(300)]


@pytest.fixture(params=["local", "gcs"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "root") if request.param == "local" else request.getfixturevalue("gcs_prefix")


def names(root: str) -> list[str]:
    return [path.removeprefix(f"{root}/") for path, _ in files.list_files(f"{root}/**")]


def read(root: str, name: str) -> list[bytes]:
    with files.local_copy(f"{root}/{name}") as local:
        return list(ArrayRecordDataSource([local]))


def read_all(root: str) -> list[bytes]:
    return sorted(record for name in names(root) for record in read(root, name))


def write(root: str, records: Sequence[bytes], options: Sequence[str] = (), runner=None, **arguments) -> None:
    """Writes, and checks that the transform returns the names of exactly the files that are there."""
    with beam.Pipeline(runner=runner, options=PipelineOptions(list(options))) as pipeline:
        returned = (
            pipeline
            | beam.Create(records).with_output_types(bytes)
            | WriteToArrayRecord(f"{root}/train", **arguments)
            | beam.combiners.ToList()
            | "Sort" >> beam.Map(sorted)
        )
        # Side inputs of the last step: all files are there by now.
        (returned | beam.Map(lambda found, root=root: found == [f"{root}/{name}" for name in names(root)])) | beam.Map(
            _is_true
        )


def _is_true(answer: bool) -> None:
    assert answer


@pytest.mark.parametrize("arguments", [{}, {"num_shards": 3}, {"target_shard_size": 5_000}])
def test_what_goes_in_comes_out(root, arguments):
    write(root, RECORDS, **arguments)
    assert read_all(root) == sorted(RECORDS)
    assert all(name.startswith("train-0000") and name.endswith(".arecord") for name in names(root))
