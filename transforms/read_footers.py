"""The footers of all files of some sources, as one PTransform: what planning, counting and evaluating begin with."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import apache_beam as beam
from apache_beam.utils.windowed_value import WindowedValue

from transforms.json_coder import register_json_coder
from transforms.parquet_footer import SourceFile, read_footer
from transforms.source_files import expand_sources

_AT_A_TIME = 8

# (name of the source, text column, path, size in bytes)
_File = tuple[str, str, str, int]


@register_json_coder
@dataclasses.dataclass(frozen=True)
class TextSource:
    """Parquet files whose text belongs together: a dataset, or a group of texts.

    Attributes:
        name: what it is called in results.
        patterns: globs of its files, as they are opened.
        text_column: their column that is read.
    """

    name: str
    patterns: tuple[str, ...]
    text_column: str


def _files_of(source: TextSource) -> Iterator[_File]:
    for path, size in expand_sources(source.patterns):
        yield source.name, source.text_column, path, size


class _ReadFooters(beam.DoFn):
    """Reads the footers of a bundle's files, several at a time: each takes round trips to where it lies."""

    def start_bundle(self) -> None:
        self._pool = ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="footer")
        self._read: list[tuple[str, Future[SourceFile], Any, Any]] = []

    def process(
        self, element: _File, timestamp: Any = beam.DoFn.TimestampParam, window: Any = beam.DoFn.WindowParam
    ) -> None:
        name, text_column, path, size = element
        self._read.append((name, self._pool.submit(read_footer, path, size, text_column), timestamp, window))

    def finish_bundle(self) -> Iterator[WindowedValue]:
        with self._pool:
            try:
                for name, footer, timestamp, window in self._read:
                    yield WindowedValue((name, footer.result()), timestamp, (window,))
            except BaseException:
                self._pool.shutdown(wait=False, cancel_futures=True)
                raise


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
            column.
    """

    def expand(self, sources: beam.PCollection[TextSource]) -> beam.PCollection[tuple[str, SourceFile]]:
        return (
            sources
            | "Expand" >> beam.FlatMap(_files_of).with_output_types(_File)
            | "SpreadFiles" >> beam.Reshuffle()
            | "Footers" >> beam.ParDo(_ReadFooters()).with_output_types(tuple[str, SourceFile])
        )
