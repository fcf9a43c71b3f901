"""Small parquet corpora and the reference that builds are held against: plain loops over the documents in order."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import tokenizers

SAMPLES = Path(__file__).parents[2] / "samples"
TOKENIZER = SAMPLES / "tokenizer.json"
BOS, EOS = 0, 1

Row = str | bytes | None


def write_parquet(
    path: Path,
    row_groups: Sequence[Sequence[Row]],
    *,
    column: str = "text",
    kind: pa.DataType | None = None,
    compression: str = "zstd",
    write_statistics: bool = True,
) -> None:
    """Writes a file with exactly these row groups."""
    kind = kind or pa.string()
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([("id", pa.int64()), (column, kind)])
    with pq.ParquetWriter(path, schema, compression=compression, write_statistics=write_statistics) as writer:
        for rows in row_groups:
            texts = pa.array(rows, kind)
            writer.write_table(
                pa.table([pa.array(range(len(rows)), pa.int64()), texts], schema), row_group_size=max(1, len(rows))
            )


def documents_of(files: Iterable[Path], column: str = "text") -> list[str]:
    """All documents in order: rows that hold text, of the files by name."""
    rows = [row for path in sorted(files) for row in pq.read_table(path, columns=[column])[column].to_pylist()]
    return [row for row in rows if row]


def reference_ids(
    documents: Iterable[str], *, bos: int | None = None, eos: int | None = EOS, special_tokens: str = "text"
) -> list[list[int]]:
    """The ids of each document by `tokenizers` alone."""
    tokenizer = _reference_tokenizer(special_tokens)
    before, after = ([bos] if bos is not None else []), ([eos] if eos is not None else [])
    encodings = tokenizer.encode_batch(list(documents), add_special_tokens=False)
    return [before + encoding.ids + after for encoding in encodings]


@functools.cache
def _reference_tokenizer(special_tokens: str) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer.from_file(str(TOKENIZER))
    tokenizer.encode_special_tokens = special_tokens == "text"
    return tokenizer
