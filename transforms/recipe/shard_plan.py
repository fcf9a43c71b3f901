"""Which row groups form which shard, and which shards to tokenize next. Pure arithmetic on footers and counts.

Shards follow from the footers and the config alone, so that every run cuts them alike. How far to tokenize is decided
in rounds, each from better numbers than the last: first what is surely needed by a sampled ratio of tokens to bytes,
then the rest by the ratio that the first round measured, then, one shard at a time, whatever is still missing. No
round changes what comes out; they only save reading and tokenizing what no one needs.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from transforms.budget.token_budget import ShardCount
from transforms.coders import register_json_coder
from transforms.parquet.footer import RowGroup, SourceFile, SourceVersion
from transforms.tokenizer.spec import ChosenEngine

Order = Literal["sequential", "shuffled"]

# The sampled ratio of tokens to bytes may be off by a quarter; what it says is needed up to here, is.
SURE_SHARE = 0.75
# The measured ratio is good to a few percent over the shards of one round.
ROUND_MARGIN = 0.05


@dataclasses.dataclass(frozen=True, slots=True)
class PlannedShard:
    """Consecutive row groups of a dataset.

    `row_groups` holds (index of the file, index of the row group in it); `text_bytes` is before compression.
    """

    ordinal: int
    row_groups: tuple[tuple[int, int], ...]
    rows: int
    text_bytes: int
    stored_bytes: int


@register_json_coder
@dataclasses.dataclass(frozen=True)
class ShardTask:
    """One shard to tokenize: all of its `rows`, or until it holds `stop_after` tokens.

    Attributes:
        fingerprint: of the dataset.
        row_groups: (path, index of the row group in that file).
        planned: what each was when it was planned, as (version of its file, row group).
        text_bytes: before compression.
        versions: of the libraries that decide bytes, where the build was planned.
        probe: what the engine has to make of the probe (`transforms.encoding.recheck`).
    """

    dataset: str
    work_folder: str
    fingerprint: str
    engine: ChosenEngine
    versions: Mapping[str, str]
    probe: str
    ordinal: int
    row_groups: tuple[tuple[str, int], ...]
    planned: tuple[tuple[SourceVersion, RowGroup], ...]
    rows: int
    text_bytes: int
    stop_after: int | None

    @property
    def source(self) -> str:
        """A hash of the versions of the files; of objects the checksums decide, and not the generations."""
        versions = [(version.size, version.checksum, version.modified) for version, _ in self.planned]
        return hashlib.sha256(repr(versions).encode()).hexdigest()[:16]


def order_row_groups(files: Sequence[SourceFile], order: Order, seed: int) -> list[tuple[int, int]]:
    """The dataset's row groups as (file, row group), in file order, or in a permutation that `seed` decides.

    The permutation sorts by a hash, so that it is the same in every version of every library.
    """
    groups = [(f, g) for f, file in enumerate(files) for g in range(len(file.row_groups))]
    if order == "shuffled":
        groups.sort(key=lambda group: hashlib.sha256(f"{seed}:{group[0]}:{group[1]}".encode()).digest())
    return groups


def lay_out_shards(
    files: Sequence[SourceFile], groups: Iterable[tuple[int, int]], target_text_bytes: int
) -> tuple[PlannedShard, ...]:
    """Cuts the ordered row groups into shards of at most `target_text_bytes`; a larger one stands alone."""
    shards: list[PlannedShard] = []
    members: list[tuple[int, int]] = []
    rows = text_bytes = stored_bytes = 0
    for file, group in groups:
        footer = files[file].row_groups[group]
        if members and text_bytes + footer.text_bytes > target_text_bytes:
            shards.append(PlannedShard(len(shards), tuple(members), rows, text_bytes, stored_bytes))
            members, rows, text_bytes, stored_bytes = [], 0, 0, 0
        members.append((file, group))
        rows += footer.rows
        text_bytes += footer.text_bytes
        stored_bytes += footer.stored_bytes
    if members:
        shards.append(PlannedShard(len(shards), tuple(members), rows, text_bytes, stored_bytes))
    return tuple(shards)


def sure_shards(shards: Sequence[PlannedShard], tokens_per_byte: float, need: int) -> range:
    """Ordinals of the shards that `need` tokens surely take, by a sampled ratio. Perhaps none."""
    expected = 0.0
    for shard in shards:
        expected += shard.text_bytes * tokens_per_byte
        if expected > need * SURE_SHARE:
            return range(shard.ordinal)
    return range(len(shards))


def next_shards(
    shards: Sequence[PlannedShard], counts: Sequence[ShardCount], tokens_per_byte: float, need: int
) -> list[tuple[int, int | None]]:
    """The shards to tokenize after `counts`, so that `need` tokens in all will probably be there.

    Args:
        shards: all shards of the dataset.
        counts: of an unbroken prefix of them (`usable_prefix`); the last may be incomplete, and is then read anew.
        tokens_per_byte: the ratio to expect where `counts` are empty.
        need: tokens wanted in all.

    Returns:
        (ordinal, stop_after) in order; empty where the need is met or no shard is left.
    """
    have = sum(count.tokens for count in counts)
    if have >= need:
        return []
    if counts and not counts[-1].complete:
        counts = counts[:-1]
        have = sum(count.tokens for count in counts)
    read = sum(shard.text_bytes for shard in shards[: len(counts)])
    if have and read:
        tokens_per_byte = have / read
    missing, expected = need - have, 0.0
    tasks: list[tuple[int, int | None]] = []
    for shard in shards[len(counts) :]:
        # What the shards before this one may fall short of the estimate, this one makes good.
        still_missing = missing - expected * (1 - ROUND_MARGIN)
        expected += shard.text_bytes * tokens_per_byte
        if expected >= missing:
            tasks.append((shard.ordinal, max(1, round(still_missing))))
            break
        tasks.append((shard.ordinal, None))
    return tasks
