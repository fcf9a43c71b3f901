"""`WriteToArrayRecord`: any PCollection of bytes, as ArrayRecord files, on every filesystem that Beam can write."""

from __future__ import annotations

import dataclasses
import itertools
import os
import posixpath
import re
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.transforms.display import DisplayDataItem
from apache_beam.transforms.window import GlobalWindow, GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue

from transforms.arrayrecord.options import writer_options
from transforms.arrayrecord.writer import ShardWriter
from transforms.coders import register_json_coder
from transforms.errors import UsageError
from transforms.files import storage
from transforms.files.staged import WrittenShard

_RECORDS_A_CALL = 1024


def shard_name(template: str, index: int, count: int) -> str:
    """A shard template with its runs of ``S`` and ``N`` replaced by the shard's index and the number of shards.

    >>> shard_name("-SSSSS-of-NNNNN", 7, 123)
    '-00007-of-00123'
    """
    numbers = {"S": index, "N": count}
    return re.sub(r"S+|N+", lambda run: str(numbers[run[0][0]]).zfill(len(run[0])), template)


@dataclasses.dataclass(frozen=True)
class _Layout:
    """Where the files go while they are written and in the end, and how they are encoded."""

    prefix: str
    suffix: str
    template: str
    temporary: str
    group_size: int
    compression: str

    def final(self, index: int, count: int) -> str:
        return f"{self.prefix}{shard_name(self.template, index, count)}{self.suffix}"

    def writer(self, path: str) -> ShardWriter:
        return ShardWriter(path, group_size=self.group_size, compression=self.compression)

    def temporary_writer(self) -> ShardWriter:
        # Each attempt at a bundle has names of its own, so that attempts never meet.
        return self.writer(posixpath.join(self.temporary, uuid.uuid4().hex))


@register_json_coder
@dataclasses.dataclass(frozen=True)
class _FileToPublish:
    """One file to publish; without a `source`, an empty one."""

    source: str | None
    bytes: int
    target: str


class _WriteBundle(beam.DoFn):
    """Writes each bundle to a file of its own, or to several, when `limit` bytes of records are reached."""

    def __init__(self, layout: _Layout, limit: int | None) -> None:
        self._layout = layout
        self._limit = limit
        self._writer: ShardWriter | None = None
        self._bytes = 0

    def start_bundle(self) -> None:
        # The worker may use this DoFn again after a bundle that failed.
        self._abort()

    def process(self, record: bytes) -> Sequence[tuple[int, WrittenShard]]:
        _check_type(record)
        if self._writer is None:
            self._writer, self._bytes = self._layout.temporary_writer(), 0
        self._writer.write(record)
        self._bytes += len(record)
        if self._limit is None or self._bytes < self._limit:
            return ()
        return [self._close(self._writer)]

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self._writer is not None:
            window = GlobalWindow()
            yield WindowedValue(self._close(self._writer), window.max_timestamp(), (window,))

    def teardown(self) -> None:
        self._abort()

    def _close(self, writer: ShardWriter) -> tuple[int, WrittenShard]:
        self._writer = None
        return 0, writer.close()

    def _abort(self) -> None:
        if self._writer is not None:
            self._writer.abort()
            self._writer = None


def _check_type(record: object) -> None:
    if not isinstance(record, bytes):
        raise TypeError(f"a record is of type {type(record).__name__}; WriteToArrayRecord takes bytes")


class _ChooseShard(beam.DoFn):
    """Keys a record by its shard, which depends on nothing but the record's bytes."""

    def __init__(self, shards: int) -> None:
        self._shards = shards

    def process(self, record: bytes) -> Sequence[tuple[int, bytes]]:
        _check_type(record)
        return [(zlib.crc32(record) % self._shards, record)]


class _WriteShard(beam.DoFn):
    """Writes all records of a shard."""

    def __init__(self, layout: _Layout) -> None:
        self._layout = layout

    def process(self, element: tuple[int, Iterable[bytes]]) -> Sequence[tuple[int, WrittenShard]]:
        index, records = element
        with self._layout.temporary_writer() as writer:
            for batch in itertools.batched(records, _RECORDS_A_CALL):
                writer.write_many(batch)
        return [(index, writer.close())]


class _Name(beam.DoFn):
    """Decides on the final names. Its answer depends only on the files of the attempts that the runner committed."""

    def __init__(self, layout: _Layout, num_shards: int) -> None:
        self._layout = layout
        self._num_shards = num_shards

    def process(self, _: bytes, written: Sequence[tuple[int, WrittenShard]]) -> Iterator[_FileToPublish]:
        shards: dict[int, WrittenShard]
        if self._num_shards:
            count, shards = self._num_shards, dict(written)
        else:
            # By content first: the temporary names are random.
            shards = dict(enumerate(sorted((shard for _, shard in written), key=lambda s: (s.sha256, s.path))))
            count = max(1, len(shards))
        for index in range(count):
            shard = shards.get(index)
            target = self._layout.final(index, count)
            yield _FileToPublish(shard.path, shard.bytes, target) if shard else _FileToPublish(None, 0, target)


class _Publish(beam.DoFn):
    """Gives a file its final name; does nothing if an earlier attempt did."""

    def __init__(self, layout: _Layout) -> None:
        self._layout = layout

    def process(self, file: _FileToPublish) -> Sequence[str]:
        if file.source is None:
            self._layout.writer(file.target).close()
        else:
            storage.rename(file.source, file.target, size=file.bytes)
        return [file.target]


class _Finish(beam.DoFn):
    """Deletes the remains of attempts that failed, and lets the names go on once all files are in place."""

    def __init__(self, layout: _Layout) -> None:
        self._layout = layout

    def process(self, _: bytes, names: Sequence[str]) -> Sequence[str]:
        storage.delete_tree(self._layout.temporary)
        return sorted(names)


@beam.typehints.with_input_types(bytes)
@beam.typehints.with_output_types(str)
class WriteToArrayRecord(beam.PTransform[beam.PCollection[bytes], beam.PCollection[str]]):
    """Writes a PCollection of bytes to ArrayRecord files and returns a PCollection of their names.

    Each element becomes one record; their order is not kept. Files are written under temporary names in a folder
    beside the output (``.NAME.tmp-…``), renamed when all of them are whole, and the folder is deleted. A bundle that
    the runner tries again writes new temporary files, and only those of the attempt that it commits are renamed, so
    records are neither lost nor doubled. Files of the same names are replaced; others that are there are left alone.
    If the pipeline fails, nothing is published and the temporary folder may stay behind.

    How many files there are:

    * ``num_shards=0`` (default): one for each bundle, which are as many as the runner decides. Nothing is shuffled.
    * ``target_shard_size``: the same, but a bundle goes on to another file whenever it has written so many bytes of
      records. That is before compression, since ArrayRecord compresses in the background: cutting by size on disk
      would make files depend on timing.
    * ``num_shards=N``: exactly N. All records are shuffled; a record's own bytes decide on its shard, so the same
      records form the same shards on every runner. Where there are too few records, the files left over are empty, that
      is, valid ArrayRecord files with no records.

    An empty PCollection gives N empty files, or one.

    Why not Beam's `FileBasedSink`: it counts the bytes of a file on the sink, which all writers share; when its final
    step is tried again, it returns only the files that this last attempt renamed; and it opens files by
    `FileSystems.create`, which ArrayRecord's writer cannot use.

    Example:
        >>> import tempfile
        >>> import apache_beam as beam
        >>> from array_record.python.array_record_data_source import ArrayRecordDataSource
        >>> folder = tempfile.TemporaryDirectory()
        >>> with beam.Pipeline() as pipeline:
        ...     names = (
        ...         pipeline
        ...         | beam.Create([b"spam", b"eggs", b"ham"])
        ...         | WriteToArrayRecord(f"{folder.name}/train", num_shards=2)
        ...         | beam.Map(lambda name: print(name.removeprefix(folder.name)))
        ...     )
        /train-00000-of-00002.arecord
        /train-00001-of-00002.arecord
        >>> sorted(ArrayRecordDataSource([f"{folder.name}/train-0000{i}-of-00002.arecord" for i in range(2)]))
        [b'eggs', b'ham', b'spam']
        >>> folder.cleanup()

    Args:
        file_path_prefix: folder and beginning of the names, such as ``gs://bucket/corpus/train``.
        file_name_suffix: their end.
        num_shards: how many files, see above.
        target_shard_size: bytes of records in a file, see above.
        shard_name_template: the middle of the names, with ``S`` for digits of the shard's index and ``N`` for those of
            the number of shards. ``""`` means one file whose name has no number.
        group_size: records that are compressed together; see `transforms.arrayrecord.options.writer_options`.
        compression: of the records; see `transforms.arrayrecord.options.writer_options`.

    Raises:
        UsageError: an argument is wrong, or the input is unbounded or not in the global window.
        TypeError: (when run) an element is not `bytes`.
        BroetchenError: (when run) a file could not be written.
    """

    def __init__(
        self,
        file_path_prefix: str | os.PathLike[str],
        *,
        file_name_suffix: str = ".arecord",
        num_shards: int = 0,
        target_shard_size: int | None = None,
        shard_name_template: str = "-SSSSS-of-NNNNN",
        group_size: int = 1,
        compression: str = "zstd",
    ) -> None:
        super().__init__()
        writer_options(group_size, compression)
        if num_shards < 0:
            raise UsageError(f"num_shards is {num_shards}; use 1 or more, or 0 to let the runner decide")
        if target_shard_size is not None and (num_shards or target_shard_size < 1):
            raise UsageError(
                f"target_shard_size is {target_shard_size} and num_shards {num_shards}; use either the one, with 1 or "
                "more bytes, or the other"
            )
        if not shard_name_template and num_shards <= 1 and target_shard_size is None:
            num_shards = 1
        elif "S" not in shard_name_template:
            raise UsageError(
                f"shard_name_template {shard_name_template!r} gives all shards the same name; put S in it, as in "
                "-SSSSS-of-NNNNN, or write one shard"
            )
        prefix = os.fspath(file_path_prefix)
        storage.check_scheme(prefix)
        folder, name = storage.split(prefix)
        if not storage.split(f"{prefix}{shard_name_template}{file_name_suffix}")[1]:
            raise UsageError(f"{prefix!r} and the suffix {file_name_suffix!r} make a folder, not the name of a file")
        self._num_shards = num_shards
        self._limit = target_shard_size
        self._layout = _Layout(
            prefix=prefix,
            suffix=file_name_suffix,
            template=shard_name_template,
            temporary=storage.temporary_path(posixpath.join(folder, name or "array_record")),
            group_size=group_size,
            compression=compression,
        )

    def expand(self, records: beam.PCollection[bytes]) -> beam.PCollection[str]:
        if not isinstance(records.windowing.windowfn, GlobalWindows) or not records.is_bounded:
            raise UsageError(
                "WriteToArrayRecord writes bounded input in the global window; for other input, use one "
                "WriteToArrayRecord for each window, in pipelines of their own"
            )
        if not records.windowing.is_default():
            # A trigger that fires early would make several shards of one.
            records = records | "DefaultTrigger" >> beam.WindowInto(GlobalWindows())
        if self._num_shards:
            written = (
                records
                | "ChooseShard" >> beam.ParDo(_ChooseShard(self._num_shards)).with_output_types(tuple[int, bytes])
                | "GroupShards" >> beam.GroupByKey()
                | "WriteShards" >> beam.ParDo(_WriteShard(self._layout)).with_output_types(tuple[int, WrittenShard])
            )
        else:
            written = records | "WriteBundles" >> beam.ParDo(_WriteBundle(self._layout, self._limit)).with_output_types(
                tuple[int, WrittenShard]
            )
        start = records.pipeline | "Start" >> beam.Impulse()
        names = (
            start
            | "Name"
            >> beam.ParDo(_Name(self._layout, self._num_shards), beam.pvalue.AsList(written)).with_output_types(
                _FileToPublish
            )
            | "Spread" >> beam.Reshuffle()
            | "Publish" >> beam.ParDo(_Publish(self._layout)).with_output_types(str)
        )
        return start | "Finish" >> beam.ParDo(_Finish(self._layout), beam.pvalue.AsList(names)).with_output_types(str)

    def display_data(self) -> dict[str, Any]:
        """The arguments of this step that the runner's pages show."""
        layout = self._layout
        pattern = f"{layout.prefix}{layout.template}{layout.suffix}"
        return {
            "file_pattern": DisplayDataItem(pattern, label="Files"),
            "num_shards": DisplayDataItem(self._num_shards, label="Number of files").drop_if_default(0),
            "target_shard_size": DisplayDataItem(self._limit, label="Bytes of records in a file").drop_if_none(),
            "compression": DisplayDataItem(layout.compression, label="Compression"),
            "group_size": DisplayDataItem(layout.group_size, label="Records compressed together"),
        }
