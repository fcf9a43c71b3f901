"""Parquet as PTransforms: `ReadFooters`, with which plans, counts and evaluations begin, and `ReadParquet`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.transforms.display import DisplayDataItem
from apache_beam.utils.windowed_value import WindowedValue

from transforms.coders import register_json_coder
from transforms.parquet.footer import SourceFile, read_footer
from transforms.parquet.row_filter import RowFilter
from transforms.parquet.source_files import expand_sources
from transforms.parquet.texts import read_texts

_AT_A_TIME = 8


@register_json_coder
@dataclasses.dataclass(frozen=True)
class TextSource:
    """Parquet files whose text belongs together: a dataset, or a group of texts.

    Attributes:
        name: in results.
        patterns: globs of its files, as they are opened.
        text_column: their column that is read.
        with_columns: whether the other columns are wanted, and so the schemas of the files.
        rows: which rows are wanted, if not all.
    """

    name: str
    patterns: tuple[str, ...]
    text_column: str
    with_columns: bool = False
    rows: RowFilter | None = None


# (source, path, size in bytes)
_File = tuple[TextSource, str, int]


def _files_of(source: TextSource) -> Iterator[_File]:
    for path, size in expand_sources(source.patterns):
        yield source, path, size


class _ReadFooters(beam.DoFn):
    """Reads the footers of a bundle's files, several at a time: each takes round trips to where it lies."""

    def start_bundle(self) -> None:
        self._pool = ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="footer")
        self._read: list[tuple[str, Future[SourceFile], Any, Any]] = []

    def process(
        self, element: _File, timestamp: Any = beam.DoFn.TimestampParam, window: Any = beam.DoFn.WindowParam
    ) -> None:
        source, path, size = element
        footer = self._pool.submit(
            read_footer, path, size, source.text_column, with_columns=source.with_columns, rows=source.rows
        )
        self._read.append((source.name, footer, timestamp, window))

    def finish_bundle(self) -> Iterator[WindowedValue]:
        with self._pool:
            try:
                for name, footer, timestamp, window in self._read:
                    yield WindowedValue((name, footer.result()), timestamp, (window,))
            except BaseException:
                self._pool.shutdown(wait=False, cancel_futures=True)
                raise


@beam.typehints.with_input_types(TextSource)
@beam.typehints.with_output_types(tuple[str, SourceFile])
class ReadFooters(beam.PTransform[beam.PCollection[TextSource], beam.PCollection[tuple[str, SourceFile]]]):
    """PCollection[TextSource] in, (name of the source, SourceFile) of each of its files out.

    Each bundle reads eight footers at a time.

    Example:
        >>> source = TextSource("edu", ("samples/corpora/fineweb_edu_english/*.parquet",), text_column="text")
        >>> with beam.Pipeline() as pipeline:
        ...     footers = pipeline | beam.Create([source]) | ReadFooters()
        ...     shown = footers | beam.MapTuple(lambda name, file: print(name, len(file.row_groups)))
        edu 3
        edu 3
        edu 3

    Raises:
        BroetchenError: (when run) a pattern matches nothing, a file is not parquet or damaged, or it has no such
            column, or none to filter by.
    """

    def expand(self, sources: beam.PCollection[TextSource]) -> beam.PCollection[tuple[str, SourceFile]]:
        return (
            sources
            | "Expand" >> beam.FlatMap(_files_of).with_output_types(_File)
            | "SpreadFiles" >> beam.Reshuffle()
            | "Footers" >> beam.ParDo(_ReadFooters()).with_output_types(tuple[str, SourceFile])
        )


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


@beam.typehints.with_input_types(str)
@beam.typehints.with_output_types(str)
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

    def display_data(self) -> dict[str, Any]:
        """The arguments of this step that the runner's pages show."""
        return {"text_column": DisplayDataItem(self._text_column, label="Text column")}

    def _source(self, pattern: str) -> TextSource:
        return TextSource(pattern, (pattern,), self._text_column)


def _row_groups(_: str, file: SourceFile) -> Iterator[tuple[str, int]]:
    for index in range(len(file.row_groups)):
        yield file.path, index
