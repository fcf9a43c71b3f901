"""The trace of a dataset: where in the source the document of each record stands. And its check against the manifest.

A shard's trace is a parquet file of its name in `<dataset>/_trace/`, with a row for each record, in their order:

    record      int64   its number in the shard, from 0
    file        string  of the source, as the manifest shows its path
    row_group   int32   in the file
    row         int64   in the row group, from 0; all rows of the file count
    first_token, last_token          int64  of a dataset of ids: the record holds the tokens [first, last) of the
                                            document's, its BOS and EOS among them where the build adds them
    first_character, last_character  int64  of a dataset of text: it holds these code points of the document's text
    and the source's columns that the config's `trace_columns` names
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from transforms.dataset.consistency import stream_order
from transforms.dataset.findings import FileCheck, held_against
from transforms.dataset.manifest import Manifest, ShardEntry
from transforms.errors import BroetchenError, UsageError, listed, one_line
from transforms.files import storage
from transforms.files.listing import list_files
from transforms.files.untrusted import check_regular
from transforms.parquet.shard import ParquetRows
from transforms.parquet.source_files import open_source

RECORD = "record"
_PLACE = ("file", "row_group", "row")
_FOLDER = "_trace"
# Few bytes of a foreign file may be long values.
_ROWS_AT_ONCE = 32


def trace_folder(folder: str) -> str:
    """Where the traces of the dataset in `folder` lie; no pattern of shard names matches anything there."""
    return posixpath.join(folder, _FOLDER)


def trace_name(shard: str) -> str:
    """The trace of a shard file, relative to the dataset's folder.

    >>> trace_name("train-00000-of-00010.arecord")
    '_trace/train-00000-of-00010.parquet'
    """
    return f"{_FOLDER}/{posixpath.splitext(shard)[0]}.parquet"


def range_columns(*, is_text: bool) -> tuple[str, str]:
    """The names of the two columns that tell which part of its document a record holds."""
    unit = "character" if is_text else "token"
    return f"first_{unit}", f"last_{unit}"


def trace_schema(columns: Iterable[pa.Field], *, is_text: bool) -> pa.Schema:
    """The schema of a trace with these columns of the source."""
    kinds = {"file": pa.string(), "row_group": pa.int32()}
    own = [
        pa.field(name, kinds.get(name, pa.int64()), nullable=False)
        for name in (RECORD, *_PLACE, *range_columns(is_text=is_text))
    ]
    return pa.schema([*own, *(field.with_type(_plain(field.type)).with_nullable(True) for field in columns)])


def _plain(kind: pa.DataType) -> pa.DataType:
    # A dictionary may list its entries in any order, and a file's bytes are to follow from its rows alone.
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def traced_columns(where: str, names: Sequence[str], text_column: str) -> tuple[str, ...]:
    """The columns of the source that go into a trace, as a config names them.

    Args:
        where: it names them, as an error begins.

    Raises:
        UsageError: one stands there twice, or is the text, or has the name of a column that every trace has.
    """
    own = {RECORD, *_PLACE, *range_columns(is_text=False), *range_columns(is_text=True)}
    for name, times in Counter(names).items():
        if times > 1:
            raise UsageError(f"{where}: trace_columns names {name!r} {times} times; name it once")
        if name == text_column:
            raise UsageError(f"{where}: trace_columns names {name!r}, the text, which is in the records; leave it out")
        if name in own:
            raise UsageError(
                f"{where}: trace_columns names {name!r}, a name that a column of every trace has; leave it out, or "
                "rename it in the source"
            )
    return tuple(names)


def trace_problems(folder: str, manifest: Manifest) -> list[str]:
    """The faults of the traces of a dataset as manifest and folder show them, before any is read."""
    problems = []
    found = {path for path, _ in list_files(trace_folder(folder), "*")}
    named = set()
    for split in manifest.splits.values():
        for shard in split.shards:
            if shard.trace is not None:
                named.add(posixpath.join(folder, shard.trace.file))
            if manifest.is_traced and (shard.trace is None or shard.trace.file != trace_name(shard.file)):
                problems.append(f"{folder}/{shard.file}: has no trace of its name in the manifest, and its config has")
            if not manifest.is_traced and shard.trace is not None:
                problems.append(f"{folder}/{shard.file}: has a trace, and by its config none")
    problems += [f"{path}: missing" for path in sorted(named - found)]
    problems += [f"{path}: not in the manifest" for path in sorted(found - named)]
    return problems


def trace_sizes(manifest: Manifest) -> Iterator[tuple[str, int]]:
    """The traces of a dataset, relative to its folder, with their sizes in bytes."""
    for split in manifest.splits.values():
        for shard in split.shards:
            if shard.trace is not None:
                yield shard.trace.file, shard.trace.bytes


def origin_of(folder: str, shard: ShardEntry, record: int) -> dict[str, Any] | None:
    """The trace of a record, by column; None where the shard has no trace.

    Raises:
        BroetchenError: the trace is missing or damaged, or none of this shard.
    """
    if shard.trace is None:
        return None
    with _opened(folder, shard) as trace:
        before = 0
        for group in range(trace.metadata.num_row_groups):
            rows = trace.metadata.row_group(group).num_rows
            if record < before + rows:
                for batch in trace.iter_batches(_ROWS_AT_ONCE, [group], use_threads=False):
                    if record < before + len(batch):
                        return _told(pa.table(batch).slice(record - before, 1))[0]
                    before += len(batch)
            before += rows
    raise BroetchenError(f"{folder}/{shard.trace.file}: holds fewer records than its footer says; build it again")


def find_records(
    folder: str, shard: ShardEntry, columns: Sequence[str], value: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records of a shard one of whose columns in the trace has a value; none where it has no trace.

    Args:
        columns: of the source. Numbers, times and the like are compared as text, and lists and structs not at all.

    Yields:
        (number of the record in the shard, its values in the trace, by column)

    Raises:
        BroetchenError: as `origin_of`.
    """
    if shard.trace is None:
        return
    with _opened(folder, shard) as trace:
        before = 0
        for batch in trace.iter_batches(_ROWS_AT_ONCE, use_threads=False):
            matches = np.zeros(len(batch), np.bool_)
            for column in columns:
                with contextlib.suppress(pa.ArrowException):
                    texts = batch.column(batch.schema.get_field_index(column)).cast(pa.string())
                    matches |= pc.fill_null(pc.equal(texts, value), False).to_numpy(zero_copy_only=False)
            if matches.any():
                told = _told(pa.table(batch).filter(pa.array(matches)))
                for number, origin in zip(np.flatnonzero(matches).tolist(), told, strict=True):
                    yield before + number, origin
            before += len(batch)


@contextlib.contextmanager
def _opened(folder: str, shard: ShardEntry) -> Iterator[pq.ParquetFile]:
    assert shard.trace is not None
    path = posixpath.join(folder, shard.trace.file)
    check_regular(path, within=folder)
    try:
        with contextlib.closing(open_source(path)) as handle:
            trace = pq.ParquetFile(handle, pre_buffer=False)
            if trace.metadata.num_rows != shard.records or trace.schema_arrow.names[:1] != [RECORD]:
                raise BroetchenError(
                    f"{path}: is no trace of {shard.records:,} records, as its manifest says; the file was changed or "
                    "is damaged: see what broetchen verify says, and build it again"
                )
            yield trace
    except (pa.ArrowException, OSError) as error:
        raise BroetchenError(f"{path}: cannot be read: {one_line(error)}") from error


def _told(rows: pa.Table) -> list[dict[str, Any]]:
    try:
        shown = rows.cast(pa.schema([field.with_type(_without_nanoseconds(field.type)) for field in rows.schema]))
        told: list[dict[str, Any]] = shown.to_pylist()
    except ValueError as error:  # a time that Python has none for, or text that is none
        raise pa.ArrowInvalid(str(error)) from error
    return told


def _without_nanoseconds(kind: pa.DataType) -> pa.DataType:
    """The type with text for times in nanoseconds, which Python has only with pandas (`transforms.left_out`)."""
    types = pa.types
    if (types.is_timestamp(kind) or types.is_time64(kind) or types.is_duration(kind)) and kind.unit == "ns":
        return pa.string()
    if types.is_struct(kind):
        return pa.struct([field.with_type(_without_nanoseconds(field.type)) for field in kind])
    if types.is_map(kind):
        return pa.map_(_without_nanoseconds(kind.key_type), _without_nanoseconds(kind.item_type))
    if types.is_list(kind) or types.is_large_list(kind):
        item = kind.value_field.with_type(_without_nanoseconds(kind.value_type))
        return pa.list_(item) if types.is_list(kind) else pa.large_list(item)
    return kind


@dataclasses.dataclass(frozen=True)
class TraceCheck:
    """The trace of a shard, and its facts if the dataset is sound.

    Attributes:
        records: of the shard.
        tokens: of the shard where it holds ids, else None.
        columns: of the source that are in it.
        sources: (file, row group) that the records may come from; None where that is not known.
    """

    path: str
    size: int
    sha256: str
    records: int
    tokens: int | None
    columns: tuple[str, ...]
    sources: tuple[tuple[str, int], ...] | None


def trace_checks(folder: str, manifest: Manifest) -> Mapping[str, TraceCheck]:
    """The check of each trace of a dataset, by the shard's file."""
    checks, position = {}, 0
    is_text = not manifest.holds_ids
    columns = manifest.trace_columns
    ranges = stream_order(manifest.source)
    starts = [place.start for place in ranges]
    for split in manifest.splits.values():
        for shard in split.shards:
            first, position = position, position + shard.tokens
            if shard.trace is None:
                continue
            sources = None
            # Of text, a document that is put back stands in another place than its row group.
            if ranges and not is_text:
                # Several row groups may begin at one place, of which all but one hold nothing.
                begin = bisect.bisect_left(starts, starts[max(0, bisect.bisect_right(starts, first) - 1)])
                members = ranges[begin : bisect.bisect_left(starts, position)]
                sources = tuple((place.path, place.group) for place in members)
            checks[shard.file] = TraceCheck(
                posixpath.join(folder, shard.trace.file),
                shard.trace.bytes,
                shard.trace.sha256,
                shard.records,
                None if is_text else shard.tokens,
                columns,
                sources,
            )
    return checks


def trace_file_problems(check: TraceCheck) -> list[str]:
    """The faults of one trace: its size, checksum, rows, and where it says that they come from. Empty if sound."""
    if not storage.exists(check.path):
        return []  # `trace_problems` has said so
    problems: list[str] = []
    try:
        check_regular(check.path, within=posixpath.dirname(posixpath.dirname(check.path)))
        with (
            held_against(FileCheck(check.path, check.size, check.sha256)) as (local, problems),
            ParquetRows(local) as rows,
        ):
            problems += (f"{check.path}: {problem}" for problem in _content_problems(check, rows))
    except BroetchenError as error:
        return [*problems, str(error)]
    return problems


def _content_problems(check: TraceCheck, rows: ParquetRows) -> Iterator[str]:
    is_text = check.tokens is None
    tokens = read = 0
    sources = set[tuple[str, int]]()
    own = trace_schema([], is_text=is_text)
    for table in rows.between(0, len(rows)):
        kinds = [table.schema.field(name).type if name in table.column_names else None for name in own.names]
        if table.column_names != [*own.names, *check.columns] or kinds != own.types:
            yield "has other columns than a trace of its dataset"
            return
        if sum(table[name].null_count for name in own.names):
            yield f"a row after row {read:,} does not say where its record comes from"
            return
        if not np.array_equal(table[RECORD].to_numpy(), np.arange(read, read + len(table))):
            yield f"its records do not follow each other after row {read:,}"
            return
        first, last = (table[name].to_numpy() for name in range_columns(is_text=is_text))
        if len(first) and (min(first.min(), table["row"].to_numpy().min()) < 0 or (last <= first).any()):
            yield f"a row after row {read:,} tells of no part of a document"
            return
        read, tokens = read + len(table), tokens + int((last - first).sum())
        places = table.select(_PLACE[:2]).group_by(list(_PLACE[:2])).aggregate([]).to_pylist()
        sources |= {(place["file"], place["row_group"]) for place in places}
    if read != check.records:
        yield f"{read:,} records, and its shard has {check.records:,}"
    if check.tokens is not None and tokens != check.tokens:
        yield f"{tokens:,} tokens, and its shard has {check.tokens:,}"
    if check.sources is not None and (foreign := sources.difference(check.sources)):
        shown = listed((f"{file} row group {group}" for file, group in sorted(foreign)), most=3)
        yield f"tells of rows that its shard cannot have: {shown}"
