"""Parquet as a source: the documents of files that glob patterns name, as one PTransform."""

from __future__ import annotations

from collections.abc import Iterator

import apache_beam as beam
from apache_beam.metrics import Metrics

from transforms.parquet_footer import SourceFile
from transforms.parquet_texts import read_texts
from transforms.read_footers import ReadFooters, TextSource


class _ReadRowGroup(beam.DoFn):
    def __init__(self, text_column: str) -> None:
        self._text_column = text_column
        self._documents = Metrics.counter("broetchen", "documents")

    def process(self, element: tuple[str, int]) -> Iterator[str]:
        path, row_group = element
        for _, batch in read_texts(path, [row_group], self._text_column):
            for reason, rows in batch.skipped.items():
                Metrics.counter("broetchen", f"skipped_{reason}").inc(rows)
            self._documents.inc(len(batch.texts))
            yield from batch.texts.to_pylist()


class ReadParquet(beam.PTransform[beam.PCollection[str], beam.PCollection[str]]):
    """Reads the text column of parquet files: PCollection[str] of glob patterns in, PCollection[str] of documents out.

    Files are expanded and footers read in the pipeline, and the row groups are read in parallel. Rows that are null,
    empty or not UTF-8 are left out and counted in the metrics `broetchen/skipped_null`, `…_empty`, `…_not_text`.
    A PCollection has no order; the main job, whose output has one, uses `read_texts` within a shard instead.

    Example:
        >>> import apache_beam as beam
        >>> with beam.Pipeline() as pipeline:
        ...     count = (
        ...         pipeline
        ...         | beam.Create(["samples/corpora/fineweb_english/*.parquet"])
        ...         | ReadParquet(text_column="text")
        ...         | beam.combiners.Count.Globally()
        ...         | beam.Map(lambda documents: print(documents > 100))
        ...     )
        True

    Args:
        text_column: the column that holds the documents.

    Raises:
        BroetchenError: (when run) a pattern matches nothing, a file is not parquet, or it has no such column.
    """

    def __init__(self, text_column: str = "text") -> None:
        super().__init__()
        self._text_column = text_column

    def expand(self, patterns: beam.PCollection[str]) -> beam.PCollection[str]:
        return (
            patterns
            | "Sources" >> beam.Map(self._source).with_output_types(TextSource)
            | "ReadFooters" >> ReadFooters()
            | "RowGroups" >> beam.FlatMapTuple(_row_groups).with_output_types(tuple[str, int])
            | "SpreadRowGroups" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(_ReadRowGroup(self._text_column)).with_output_types(str)
        )

    def _source(self, pattern: str) -> TextSource:
        return TextSource(pattern, (pattern,), self._text_column)


def _row_groups(_: str, file: SourceFile) -> Iterator[tuple[str, int]]:
    for index in range(len(file.row_groups)):
        yield file.path, index
