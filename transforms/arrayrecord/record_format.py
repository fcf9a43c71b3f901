"""The formats of records and of their files, as configs and manifests name them. Nothing else is imported."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

Format = Literal["tokens", "text", "parquet", "megatron"]

MOST_TOKENS = 2**31 - 1
"""The most tokens of a record: the largest limit of a config, and the most in Megatron's format."""

# The feature of `tf.train.Example` that holds a record's ids or text; MaxText's default column.
FEATURE = "text"


@dataclasses.dataclass(frozen=True)
class RecordSpec:
    """How documents become records; `bos_id` and `eos_id` are None where none is added.

    Attributes:
        max_tokens: of a record of ids; `MOST_TOKENS` in Megatron's format, where a record is a document.
        vocab_size: of the tokenizer; in Megatron's format it decides how many bytes an id takes.
    """

    format: Format
    max_tokens: int
    bos_id: int | None
    eos_id: int | None
    vocab_size: int = 0

    @property
    def is_text(self) -> bool:
        """Whether text is written, and the budget counts the tokens of that text."""
        return not holds_ids(self.format)

    @property
    def extension(self) -> str:
        """The extension of the shard files."""
        return file_extension(self.format)

    @property
    def extensions(self) -> tuple[str, ...]:
        """The extensions of all files of a dataset's splits."""
        return file_extensions(self.format)


def holds_ids(record_format: Format) -> bool:
    """Whether shards in a format hold ids; those of the others hold text."""
    return record_format in ("tokens", "megatron")


def file_extension(record_format: Format) -> str:
    """The extension of shard files in a format; in Megatron's, of the ids, which have an index beside them."""
    return _EXTENSIONS[record_format]


def file_extensions(record_format: Format) -> tuple[str, ...]:
    """The extensions of all files of a dataset's splits in a format: of shards, and of the indices beside them."""
    extension = file_extension(record_format)
    return (extension, "idx") if record_format == "megatron" else (extension,)


_EXTENSIONS: Mapping[Format, str] = {
    "tokens": "arecord",
    "text": "arecord",
    "parquet": "parquet",
    "megatron": "bin",
}
