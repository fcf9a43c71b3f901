"""The specification of a dataset: the resolved config of one dataset, as the pipeline's steps need it."""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Mapping
from typing import Any

from transforms.arrayrecord.records import Format, RecordSpec
from transforms.coders import register_ordered_json_coder
from transforms.dataset.manifest import OnBadRows, Order, Shortfall
from transforms.megatron.index import id_type
from transforms.parquet.row_filter import RowFilter
from transforms.recipe.shard_plan import ShardLimits
from transforms.tokenizer.spec import Engine, TokenizerSpec

# Bytes of a shard file per byte of text, before the footers' sizes decide where shards end. Measured on the sample
# corpora (65,536-entry BPE, group size 1); it affects only the approximate size of shards.
_FILE_BYTES_PER_TEXT_BYTE: Mapping[tuple[Format, str], float] = {
    ("tokens", "zstd"): 0.35,
    ("tokens", "brotli"): 0.35,
    ("tokens", "snappy"): 0.38,
    ("tokens", "none"): 0.46,
    ("text", "zstd"): 0.45,
    ("text", "brotli"): 0.45,
    ("text", "snappy"): 0.65,
    ("text", "none"): 1.0,
    ("parquet", "zstd"): 0.37,
    ("parquet", "brotli"): 0.35,
    ("parquet", "snappy"): 0.55,
    ("parquet", "none"): 1.0,
}
# In Megatron's format, the bytes of an id for each byte of text that it stands for.
_TEXT_BYTES_PER_ID = 4.3

# Bytes of text that a token takes, before any is encoded, by which the records of a shard are foreseen. It is a part of
# the format. Measured are 4.0 to 4.9 (docs/architecture.md); where it is fewer, shards hold more records than they may.
_BYTES_PER_TOKEN = 4


@register_ordered_json_coder
@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """One dataset to build.

    Attributes:
        sources: glob patterns, as they are opened.
        source_roots: pairs (folder as opened, the same as the config writes it): a manifest shows the second.
        budgets: tokens by split, in the order in which the splits lie in the stream.
        target_size: bytes of a shard file, about.
        output: the folder of all datasets; this one's is `output/name`.
        config: the part of the config that decides this dataset's bytes, as plain JSON types. It is a part of the
            fingerprint, and in the manifest; `transforms.dataset.manifest` says which keys its readers need.
            The manifest shows it in this order.
        rows: which rows of the source are wanted, if not all; the others are as if they were not there.
        on_bad_rows: the fate of rows that hold no text: the build fails, or they are left out and counted, or they
            are also written beside the dataset.
        overwrite: whether to replace a dataset that another config left at the output.
        max_records: of an ArrayRecord shard, about; None where there is no limit.
        max_repeats: how often a training may read the train split at most, where the source is smaller than its budget.
        trace: whether a trace lies beside each shard (`transforms.dataset.trace`).
        trace_columns: of the source, that are in it.
        grow: the output of an earlier build, with a smaller or larger dataset of this name, from which the shards are
            taken that both have.
    """

    name: str
    mix: str
    sources: tuple[str, ...]
    source_roots: tuple[tuple[str, str], ...]
    text_column: str
    order: Order
    seed: int
    budgets: Mapping[str, int]
    on_shortfall: Shortfall
    records: RecordSpec
    target_size: int
    group_size: int
    compression: str
    tokenizer: TokenizerSpec
    engine: Engine
    output: str
    config: Mapping[str, Any]
    rows: RowFilter | None = None
    on_bad_rows: OnBadRows = "skip"
    overwrite: bool = False
    max_records: int | None = None
    max_repeats: float = 1.0
    trace: bool = False
    trace_columns: tuple[str, ...] = ()
    grow: str | None = None

    @property
    def with_columns(self) -> bool:
        """Whether shards hold the source's other columns beside the text."""
        return self.records.format == "parquet"

    @property
    def reads_columns(self) -> bool:
        """Whether other columns than the text are read, for shards or for their trace."""
        return self.with_columns or bool(self.trace_columns)

    @property
    def folder(self) -> str:
        return posixpath.join(self.output, self.name)

    @property
    def old_folder(self) -> str | None:
        """The folder of the dataset from which this one is grown."""
        return None if self.grow is None else posixpath.join(self.grow, self.name)

    @property
    def work_root(self) -> str:
        """Where this dataset's unfinished work lies, out of the way of every reader's glob."""
        return posixpath.join(self.folder, ".broetchen")

    @property
    def need(self) -> int:
        """Tokens of all splits."""
        return sum(self.budgets.values())

    @property
    def target_text_bytes(self) -> int:
        """Text that makes a shard of about `target_size`."""
        return max(1, round(self.target_size / self._file_bytes_per_text_byte))

    @property
    def shard_limits(self) -> ShardLimits:
        """Where a shard ends. Parquet is read by row groups, and Megatron's index tells where a document lies: there
        only the text counts."""
        if self.records.format in ("parquet", "megatron"):
            return ShardLimits(self.target_text_bytes)
        long = None if self.records.is_text else _BYTES_PER_TOKEN * self.records.max_tokens
        return ShardLimits(self.target_text_bytes, self.max_records, long)

    def file_bytes(self, text_bytes: int) -> int:
        """About the size of a shard's file with so much text."""
        return round(text_bytes * self._file_bytes_per_text_byte)

    @property
    def _file_bytes_per_text_byte(self) -> float:
        if self.records.format == "megatron":
            return id_type(self.records.vocab_size).itemsize / _TEXT_BYTES_PER_ID
        return _FILE_BYTES_PER_TEXT_BYTE[self.records.format, self.compression.partition(":")[0]]

    def shown_path(self, path: str) -> str:
        """A source path as the config would write it, so that a manifest is the same on every machine."""
        for opened, written in self.source_roots:
            if path.startswith(opened):
                return written + path[len(opened) :]
        return path
