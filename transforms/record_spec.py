"""What a record of a shard is: its format, and how documents become records of it."""

from __future__ import annotations

import dataclasses
from typing import Literal

Format = Literal["tokens", "text", "parquet"]

# The feature of `tf.train.Example` that holds a record's ids or text; MaxText's default column.
FEATURE = "text"


@dataclasses.dataclass(frozen=True)
class RecordSpec:
    """How documents become records; `bos_id` and `eos_id` are None where none is added."""

    format: Format
    max_tokens: int
    bos_id: int | None
    eos_id: int | None

    @property
    def is_text(self) -> bool:
        """Whether text is written, and the budget counts what the text encodes to."""
        return self.format != "tokens"

    @property
    def extension(self) -> str:
        """Of the shard files."""
        return file_extension(self.format)


def file_extension(record_format: Format) -> str:
    """The extension of shard files in a format."""
    return "parquet" if record_format == "parquet" else "arecord"
