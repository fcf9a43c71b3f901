"""Parquet as a source of documents."""

from __future__ import annotations

from pathlib import Path

import apache_beam as beam
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from tests.support.corpora import write_parquet
from transforms.parquet.read import ReadParquet


def test_the_transform_reads_every_document(tmp_path: Path) -> None:
    write_parquet(tmp_path / "1.parquet", [["a", "b"], [None, "c"]])
    write_parquet(tmp_path / "2.parquet", [["d", ""]])
    with TestPipeline() as pipeline:
        documents = pipeline | beam.Create([str(tmp_path / "*.parquet")]) | ReadParquet()
        assert_that(documents, equal_to(["a", "b", "c", "d"]))
