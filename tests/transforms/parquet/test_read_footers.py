"""`ReadFooters`: all footers, several at a time, in any windows of the pipeline."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, TimestampedValue

from beam_pipelines.runners.failures import plain_errors
from tests.support.corpora import write_parquet
from transforms.errors import BroetchenError
from transforms.parquet.footer import SourceFile, read_footer
from transforms.parquet.read import ReadFooters, TextSource

AT_A_TIME = 8


def sources(folder: Path, files: int) -> list[TextSource]:
    """Two sources with a column of their own each, of so many files."""
    for name in ("text", "body"):
        for number in range(files):
            write_parquet(folder / name / f"{number:02d}.parquet", [[f"{name} {number}"]] * (number + 1), column=name)
    return [TextSource(f"the {name}", (f"{folder}/{name}/*.parquet",), name) for name in ("text", "body")]


def expected(given: list[TextSource]) -> list[tuple[str, SourceFile]]:
    return [
        (source.name, read_footer(str(path), path.stat().st_size, source.text_column))
        for source in given
        for path in Path(source.patterns[0]).parent.iterdir()
    ]


def test_every_file_of_every_source_is_read_once(tmp_path: Path) -> None:
    given = sources(tmp_path, files=11)
    with TestPipeline() as pipeline:
        footers = pipeline | beam.Create(given) | ReadFooters()
        assert_that(footers, equal_to(expected(given)))


def test_eight_footers_are_read_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read waits for seven others, and counts those at work."""
    given = sources(tmp_path, files=2 * AT_A_TIME)[:1]
    together = threading.Barrier(AT_A_TIME)
    lock, reading, most = threading.Lock(), 0, 0

    def read(path: str, size: int, text_column: str, **others: Any) -> SourceFile:
        nonlocal reading, most
        with lock:
            reading += 1
            most = max(most, reading)
        together.wait(timeout=60)
        footer = read_footer(path, size, text_column, **others)
        with lock:
            reading -= 1
        return footer

    monkeypatch.setattr("transforms.parquet.read.read_footer", read)
    with TestPipeline() as pipeline:
        footers = pipeline | beam.Create(given) | ReadFooters()
        assert_that(footers, equal_to(expected(given)))
    assert most == AT_A_TIME


def test_a_damaged_file_ends_it(tmp_path: Path) -> None:
    given = sources(tmp_path, files=3)
    (tmp_path / "body" / "01.parquet").write_bytes(b"PAR1 is no parquet file")
    named = pytest.raises(BroetchenError, match=r"body/01\.parquet: not a parquet file")
    with named, plain_errors(), TestPipeline() as pipeline:
        _ = pipeline | beam.Create(given) | ReadFooters()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("footer")]


class _Windows(beam.DoFn):
    def process(self, element: tuple[str, SourceFile], window: Any = beam.DoFn.WindowParam) -> Any:
        yield element[0], float(window.start)


def test_windows_are_kept(tmp_path: Path) -> None:
    text, body = sources(tmp_path, files=1)
    with TestPipeline() as pipeline:
        found = (
            pipeline
            # Beam takes the type of these elements to be that of the time that they come with.
            | beam.Create([TimestampedValue(text, 3), TimestampedValue(body, 25)]).with_output_types(TextSource)
            | beam.WindowInto(FixedWindows(10))
            | ReadFooters()
            | beam.ParDo(_Windows())
        )
        assert_that(found, equal_to([("the text", 0.0), ("the body", 20.0)]))
