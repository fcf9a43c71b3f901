"""Parquet footers: all that planning needs of a file (rows and bytes of each row group), for a few kilobytes."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystems import FileSystems

import transforms.files.hub  # noqa: F401 (registers hf:// with Beam)
from transforms.coders import register_json_coder
from transforms.errors import BroetchenError, did_you_mean, listed, one_line
from transforms.files import gcs_objects, storage
from transforms.files.errors import explain_file_errors
from transforms.parquet.columns import encode_schema
from transforms.parquet.row_filter import FileFilter, RowFilter
from transforms.parquet.source_files import is_on_gcs, open_source

_TAIL_BYTES = 64 << 10
_MAGIC = b"PAR1"
_ENCRYPTED_MAGIC = b"PARE"
_ENCRYPTED = "is encrypted parquet, which cannot be read here; decrypt it first"
# After the footer of a file with encrypted columns: a nonce and a tag
# (https://parquet.apache.org/docs/file-format/data-pages/encryption/, "Encrypted Footer", "Plaintext Footer Mode").
_SIGNATURE_BYTES = 28

_SHOWN_CHARACTERS = 100


@dataclasses.dataclass(frozen=True)
class RowGroup:
    """One row group of one file.

    Attributes:
        text_bytes, stored_bytes: the text column's size in bytes, before compression and as it is stored.
        ruled_out: whether statistics show that no row of it passes the dataset's filter; it is then not read.
    """

    rows: int
    text_bytes: int
    stored_bytes: int
    ruled_out: bool = False

    @property
    def wanted_bytes(self) -> int:
        """The text column's size before compression, in bytes; 0 where it is not read."""
        return 0 if self.ruled_out else self.text_bytes


@dataclasses.dataclass(frozen=True)
class SourceVersion:
    """Which content of a file is meant.

    Attributes:
        size: in bytes.
        checksum: the object store's own, where there is one.
        generation: of an object on ``gs://``.
        modified: when a local file was written last, in nanoseconds since 1970: parquet that is not compressed can
            change in letters alone, which its footer does not show.
    """

    size: int
    checksum: str | None = None
    generation: int | None = None
    modified: int | None = None


@register_json_coder
@dataclasses.dataclass(frozen=True)
class SourceFile:
    """A parquet file as its footer describes it.

    Attributes:
        path: as it is opened.
        size: in bytes.
        footer_sha256: of the footer's bytes, which hold the sizes, offsets and statistics of all that is in the file.
            Together with `size` it identifies the content without reading it.
        checksum: the object store's own, where there is one.
        generation: of the object on ``gs://`` that was looked at; its later readers read that one.
        modified: see `SourceVersion`.
        columns: the schema, as `transforms.parquet.columns.encode_schema` has it, where it was asked for.
    """

    path: str
    size: int
    footer_sha256: str
    checksum: str | None
    row_groups: tuple[RowGroup, ...]
    generation: int | None = None
    modified: int | None = None
    columns: str = ""

    @property
    def wanted_groups(self) -> list[int]:
        """The numbers of the row groups that are read: those that statistics do not rule out."""
        return [number for number, group in enumerate(self.row_groups) if not group.ruled_out]

    @property
    def version(self) -> SourceVersion:
        return SourceVersion(self.size, self.checksum, self.generation, self.modified)


def read_footer(
    path: str, size: int, text_column: str, *, with_columns: bool = False, rows: RowFilter | None = None
) -> SourceFile:
    """Reads a file's footer, and nothing else of it.

    Args:
        with_columns: whether to tell the file's schema.
        rows: which rows are wanted, if not all.

    Raises:
        BroetchenError: the file cannot be opened, is not parquet or is cut short, or has no such text column; or its
            rows cannot be filtered so.
    """
    version = _version_now(path, size)
    footer = _read_footer_bytes(path, size, version)
    metadata, schema = _parse_footer(path, footer)
    if problem := text_column_problem(schema, text_column):
        raise BroetchenError(f"{path}: {problem}")
    column = leaf_of(schema, text_column)
    groups = tuple(row_group_facts(metadata, index, column) for index in range(metadata.num_row_groups))
    for index, group in enumerate(groups):
        _check_row_group(path, size - len(footer), index, metadata.row_group(index), group)
    ruled_out = FileFilter(rows, path, schema).ruled_out(_MAGIC + footer) if rows else set()
    groups = tuple(dataclasses.replace(group, ruled_out=index in ruled_out) for index, group in enumerate(groups))
    return SourceFile(
        path=path,
        size=size,
        footer_sha256=hashlib.sha256(footer).hexdigest(),
        checksum=version.checksum,
        row_groups=groups,
        generation=version.generation,
        modified=version.modified,
        columns=encode_schema(schema) if with_columns else "",
    )


def read_schema(path: str, size: int) -> pa.Schema:
    """The columns of a file, by its footer.

    Args:
        size: in bytes.

    Raises:
        BroetchenError: the file cannot be opened, is not parquet or is cut short.
    """
    return _parse_footer(path, _read_footer_bytes(path, size, _version_now(path, size)))[1]


def _read_footer_bytes(path: str, size: int, version: SourceVersion) -> bytes:
    with open_source(path, version.generation) as handle:
        tail = _read_tail(handle, size, _TAIL_BYTES)
        if size >= 12 and tail[-4:] == _ENCRYPTED_MAGIC:
            raise BroetchenError(f"{path}: {_ENCRYPTED}")
        if size < 12 or tail[-4:] != _MAGIC:
            raise BroetchenError(f"{path}: not a parquet file, or cut short ({size:,} bytes); fetch it again")
        footer_size = int.from_bytes(tail[-8:-4], "little") + 8
        if footer_size > size - 4:
            raise BroetchenError(f"{path}: the parquet footer is damaged (it claims {footer_size:,} bytes of {size:,})")
        if footer_size > len(tail):
            tail = _read_tail(handle, size, footer_size)
    return tail[-footer_size:]


def _parse_footer(path: str, footer: bytes) -> tuple[pq.FileMetaData, pa.Schema]:
    try:
        metadata = pq.read_metadata(pa.BufferReader(_MAGIC + footer))
        schema = metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError) as error:
        raise BroetchenError(f"{path}: the parquet footer cannot be read: {one_line(error)}") from error
    if len(footer) - 8 - metadata.serialized_size == _SIGNATURE_BYTES:
        # To look at the metadata of a column that is encrypted would abort the process (pyarrow 25).
        raise BroetchenError(f"{path}: {_ENCRYPTED}")
    return metadata, schema


def _version_now(path: str, size: int) -> SourceVersion:
    if storage.is_local(path):
        with explain_file_errors(path, "looked up"):
            return SourceVersion(size, modified=os.stat(path).st_mtime_ns)
    with explain_file_errors(path, "looked up"):
        if not is_on_gcs(path):
            return SourceVersion(size, str(FileSystems.checksum(path)))
        generation, mark = gcs_objects.look(path)
    if mark.bytes != size:
        raise BroetchenError(
            f"{path}: has changed since it was listed ({size:,} bytes then, {mark.bytes:,} now); run it again"
        )
    return SourceVersion(size, mark.crc32c, generation)


def _check_row_group(path: str, end: int, index: int, group: pq.RowGroupMetaData, facts: RowGroup) -> None:
    first, last = row_group_extent(group)
    # A row group without rows has no pages, and pyarrow writes 0 for where they begin.
    outside = facts.rows > 0 and first < len(_MAGIC)
    if min(facts.rows, facts.text_bytes, facts.stored_bytes) < 0 or outside or last > end:
        raise BroetchenError(
            f"{path}: the parquet footer is damaged (row group {index} lies at {first:,} to {last:,} of {end:,} bytes, "
            f"with {facts.rows:,} rows); fetch it again"
        )


def _read_tail(handle: Any, size: int, wanted: int) -> bytes:
    handle.seek(max(0, size - wanted))
    data: bytes = handle.read(wanted)
    return data


def text_column_problem(schema: pa.Schema, text_column: str) -> str | None:
    """Why a file of these columns cannot have its documents in `text_column`; None where it can."""
    if text_column not in schema.names:
        near = did_you_mean(text_column[:_SHOWN_CHARACTERS], schema.names)
        return (
            f"no column {text_column[:_SHOWN_CHARACTERS]!r}; {f'{near} ' if near else ''}the file has "
            f"{listed(schema.names, 20) or 'no columns'}: set text_column to one of them"
        )
    if schema.names.count(text_column) > 1:
        return (
            f"has {schema.names.count(text_column)} columns {text_column[:_SHOWN_CHARACTERS]!r}, and nothing "
            "tells which one is meant; rename all but one"
        )
    kind = schema.field(text_column).type
    if _is_text(kind):
        return None
    others = [name for name in schema.names if schema.names.count(name) == 1 and _is_text(schema.field(name).type)]
    return (
        f"column {text_column!r} is {kind}, not text; set text_column to a column of text"
        f"{f', of which the file has {listed(others, 20)}' if others else ''}"
    )


def _is_text(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return _is_string(value) or _is_binary(value)


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def row_group_facts(metadata: pq.FileMetaData, index: int, column: int) -> RowGroup:
    """The facts of row group `index` that planning needs; the text is in the column with the number `column`."""
    group = metadata.row_group(index)
    chunk = group.column(column)
    return RowGroup(group.num_rows, chunk.total_uncompressed_size, chunk.total_compressed_size)


def leaf_of(schema: pa.Schema, column: str) -> int:
    """The number of a column that is not nested, as columns are stored: of nested ones each leaf is one.

    By its path it could be taken for another: `a.b` is also the field `b` of the column `a`.

    >>> leaf_of(pa.schema([("a", pa.struct({"b": pa.int8(), "c": pa.int8()})), ("a.b", pa.string())]), "a.b")
    2
    """
    return sum(_leaves(field.type) for field in list(schema)[: schema.get_field_index(column)])


def _leaves(kind: pa.DataType) -> int:
    if isinstance(kind, pa.BaseExtensionType):
        return _leaves(kind.storage_type)
    return sum(_leaves(kind.field(index).type) for index in range(kind.num_fields)) if kind.num_fields else 1


def column_extent(column: pq.ColumnChunkMetaData) -> tuple[int, int]:
    """Where a column chunk lies in its file, as (start, end) in bytes."""
    start = column.data_page_offset
    if column.has_dictionary_page and column.dictionary_page_offset:
        start = min(start, column.dictionary_page_offset)
    return start, start + column.total_compressed_size


def row_group_extent(group: pq.RowGroupMetaData) -> tuple[int, int]:
    """Where all of a row group lies in its file, as (start, end) in bytes."""
    chunks = [column_extent(group.column(column)) for column in range(group.num_columns)]
    return min(start for start, _ in chunks), max(end for _, end in chunks)
