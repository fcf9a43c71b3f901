"""Values whose rows are left out: a take-down, or the texts of a test set, as a file lists them."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import threading
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from transforms.errors import BroetchenError, UsageError, listed, one_line
from transforms.files import storage
from transforms.quantities import shown

_KEY = np.dtype("S16")
# Threads that look for one list at once are not to read it each.
_LOCK = threading.Lock()
_ROWS = 1 << 16


@dataclasses.dataclass(frozen=True)
class Exclusion:
    """Which rows are left out.

    Attributes:
        column: of the source, of text or whole numbers; a field is named as in `transforms.parquet.row_filter`.
        path: the file of the values: parquet with a column of that name, or with one column; or text (`.txt`) with one
            in each line.
        sha256: of the file.
    """

    column: str
    path: str
    sha256: str


def file_sha256(path: str) -> str:
    """SHA-256 of a file of values.

    Raises:
        UsageError: it is neither parquet nor text, by its name.
        BroetchenError: it cannot be read.
    """
    if not path.endswith((".parquet", ".txt")):
        raise UsageError(
            f"{path}: is no list of values to exclude; name a .parquet file, or a .txt with one in each line"
        )
    return hashlib.sha256(storage.read_bytes(path)).hexdigest()


def can_be_listed(kind: pa.DataType) -> bool:
    """Whether columns of a type can be looked for in a list: text and whole numbers, which are written in one way."""
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    # A column of type null, as pandas writes one without values, has no value that a list could hold.
    return bool(is_text or pa.types.is_integer(kind) or pa.types.is_null(kind))


def is_listed(column: pa.Array, exclusion: Exclusion) -> pa.BooleanArray:
    """Says which values of a column are listed: [rows]; a null is not.

    Raises:
        BroetchenError: the list cannot be read, or has changed since it was named.
    """
    with _LOCK:
        values = _values(exclusion)
    keys = np.fromiter(_keys(column), _KEY, len(column))
    places = np.minimum(np.searchsorted(values, keys), max(0, len(values) - 1))
    found = values[places] == keys if len(values) else np.zeros(len(keys), np.bool_)
    return pa.array(found & column.is_valid().to_numpy(zero_copy_only=False))


@functools.lru_cache(maxsize=8)
def _values(exclusion: Exclusion) -> NDArray[np.bytes_]:
    """The keys of the values, in order: 16 bytes each, however long the values are."""
    content = storage.read_bytes(exclusion.path)
    if hashlib.sha256(content).hexdigest() != exclusion.sha256:
        raise BroetchenError(
            f"{exclusion.path}: is not the list of values that was named, by its SHA-256; if it has changed since the "
            "build began, run it again"
        )
    return np.unique(np.fromiter((key for column in _columns(exclusion, content) for key in _keys(column)), _KEY))


def _columns(exclusion: Exclusion, content: bytes) -> Iterator[pa.Array]:
    if exclusion.path.endswith(".txt"):
        try:
            lines = [line.removesuffix("\r") for line in content.decode("utf-8-sig").split("\n")]
        except UnicodeDecodeError as error:
            raise BroetchenError(f"{exclusion.path}: is not UTF-8 ({one_line(error)}); write it as such") from error
        yield pa.array([line for line in lines if line], pa.string())
        return
    try:
        with pq.ParquetFile(pa.BufferReader(content)) as file:
            name = _column_of(exclusion, file.schema_arrow)
            for batch in file.iter_batches(_ROWS, columns=[name], use_threads=False):
                column = batch.column(0)
                yield column.filter(column.is_valid())
    except (pa.ArrowException, OSError) as error:
        raise BroetchenError(f"{exclusion.path}: cannot be read as parquet: {one_line(error)}") from error


def _column_of(exclusion: Exclusion, schema: pa.Schema) -> str:
    last = exclusion.column.rpartition(".")[2]
    name = next((name for name in (exclusion.column, last) if schema.names.count(name) == 1), None)
    if name is None and len(schema.names) == 1:
        name = schema.names[0]
    if name is None:
        raise BroetchenError(
            f"{exclusion.path}: has no column {shown(exclusion.column)}, but {listed(schema.names, 20)}; rename "
            "the one of the values, or drop the others"
        )
    kind = schema.field(name).type
    if not can_be_listed(kind.value_type if pa.types.is_dictionary(kind) else kind):
        raise BroetchenError(
            f"{exclusion.path}: column {shown(name)} is {kind}; values to exclude are text or whole numbers"
        )
    return str(name)


def _keys(column: pa.Array) -> Iterator[bytes]:
    """A key of each value, by 128 bits of XXH3 (https://github.com/Cyan4973/xxHash) over it as text; b"" of a null."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    for value in column.cast(pa.large_string()).cast(pa.large_binary()).to_pylist():
        yield b"" if value is None else xxhash.xxh3_128_digest(value)
