"""Lays row groups out in shards, and chooses the shards to tokenize next. Pure arithmetic on footers and counts.

Shards follow from the footers and the config alone, so that every run cuts them alike. How far to tokenize is decided
in rounds, each from better numbers than the last: first the shards that are surely needed by a sampled ratio of tokens
to bytes, then those that are by the ratio that the rounds before have measured, and the rest as soon as little of it
can be in vain. Rounds never change the output; they only save reading and tokenizing text that nobody needs.
"""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from transforms.budget.token_budget import ShardCount
from transforms.coders import register_json_coder
from transforms.dataset.manifest import Order
from transforms.parquet.footer import RowGroup, SourceFile, SourceVersion
from transforms.recipe.ratio import Ratio, expect
from transforms.texts import FILTERED
from transforms.tokenizer.spec import ChosenEngine

MARGIN = 0.05
"""The share of the needed tokens that a round may tokenize in vain, so that no other has to follow."""


@dataclasses.dataclass(frozen=True, slots=True)
class PlannedShard:
    """Consecutive row groups of a dataset.

    Attributes:
        row_groups: (index of the file, index of the row group in it).
        rows: of all of them.
        text_bytes, stored_bytes: of the text column before compression, and as it is stored, in those that are read.
    """

    ordinal: int
    row_groups: tuple[tuple[int, int], ...]
    rows: int
    text_bytes: int
    stored_bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class ShardLimits:
    """The bounds of a shard of more than one row group, by the footers.

    Attributes:
        text_bytes: before compression.
        records: as `records_in` expects them; None where their number does not matter.
        record_bytes: text that makes one more record of a document, on average; None where a document is one record.
    """

    text_bytes: int
    records: int | None = None
    record_bytes: int | None = None

    def records_in(self, rows: int, text_bytes: int) -> int:
        """About how many records so many rows become, and rarely fewer than they do.

        A document takes whole records and a last one, which is shorter: one for each row, and one for each
        `record_bytes` of text.

        >>> ShardLimits(1 << 30, 25_000, 4 * 2048).records_in(rows=1000, text_bytes=3_000_000)
        1367
        """
        return rows if self.record_bytes is None else rows + -(-text_bytes // self.record_bytes)

    def exceeded(self, rows: int, text_bytes: int) -> bool:
        """Whether so much is more than a shard of several row groups may hold."""
        return text_bytes > self.text_bytes or self.too_many(rows, text_bytes)

    def too_many(self, rows: int, text_bytes: int) -> bool:
        """Whether so much makes more records than a shard should hold."""
        return self.records is not None and self.records_in(rows, text_bytes) > self.records


@dataclasses.dataclass(frozen=True)
class OldFile:
    """A file of a finished dataset, by its path, and its size and hash in the dataset's manifest."""

    path: str
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class OldShard:
    """A shard of a finished dataset that is, whole, one that this build has planned.

    Attributes:
        manifest: the path of the manifest that says so.
        file: its file.
        starts: where its row groups begin in it, in tokens, or in text formats documents.
        texts: a hash of the texts of each of them.
        left_out: rows that were left out of each of them, by reason, those that the filter left out among them.
        quarantine: the file of the others, where they are kept and there are any.
        trace: its trace, where the dataset has traces.
        index: its index, in Megatron's format.
        with_special: of its documents, those that hold the string of a special token; None in ids, and where the
            manifest, of an earlier version, does not say it.
    """

    manifest: str
    file: OldFile
    tokens: int
    documents: int
    records: int
    starts: tuple[int, ...]
    texts: tuple[str, ...]
    left_out: tuple[Mapping[str, int], ...]
    quarantine: OldFile | None = None
    trace: OldFile | None = None
    index: OldFile | None = None
    with_special: int | None = None

    @property
    def skipped(self) -> dict[str, int]:
        """All rows without text that were left out of it, by reason."""
        return {reason: rows for reason, rows in self._all_left_out.items() if reason != FILTERED}

    @property
    def filtered(self) -> int:
        """All rows that the filter left out of it."""
        return self._all_left_out[FILTERED]

    @property
    def _all_left_out(self) -> Counter[str]:
        return sum(map(Counter, self.left_out), Counter[str]())


@register_json_coder
@dataclasses.dataclass(frozen=True)
class ShardTask:
    """One shard to tokenize: all of its `rows`, or until it holds `stop_after` tokens.

    Attributes:
        fingerprint: of the dataset.
        row_groups: (path, index of the row group in that file).
        planned: the facts of each when it was planned, as (version of its file, row group).
        text_bytes: before compression, of the row groups that are read.
        versions: of the libraries that decide bytes, where the build was planned.
        probe: the digest of the ids that the engine has to make of the probe (`transforms.encoding.recheck`).
        columns: see `transforms.recipe.plan.DatasetPlan`.
        old: the same shard in a dataset of another size, to be taken over from there.
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
    columns: str = ""
    old: OldShard | None = None

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
    files: Sequence[SourceFile], groups: Iterable[tuple[int, int]], limits: ShardLimits
) -> tuple[PlannedShard, ...]:
    """Cuts the ordered row groups into shards within `limits`, as large as they get; a larger one stands alone.

    Row groups count whether a filter rules them out or not.
    """
    shards: list[PlannedShard] = []
    members: list[tuple[int, int]] = []
    rows = text_bytes = 0

    def end_shard() -> None:
        facts = [files[file].row_groups[group] for file, group in members]
        read = [group for group in facts if not group.ruled_out]
        shards.append(
            PlannedShard(
                len(shards),
                tuple(members),
                sum(group.rows for group in facts),
                sum(group.text_bytes for group in read),
                sum(group.stored_bytes for group in read),
            )
        )

    for file, group in groups:
        footer = files[file].row_groups[group]
        if members and limits.exceeded(rows + footer.rows, text_bytes + footer.text_bytes):
            end_shard()
            members, rows, text_bytes = [], 0, 0
        members.append((file, group))
        rows += footer.rows
        text_bytes += footer.text_bytes
    if members:
        end_shard()
    return tuple(shards)


def next_shards(
    shards: Sequence[PlannedShard], counts: Sequence[ShardCount], sampled: Ratio, need: int
) -> list[tuple[int, int | None]]:
    """The shards of the next round: as many as are needed, or, while that is uncertain, as many as surely are.

    Args:
        shards: all shards of the dataset.
        counts: of an unbroken prefix of them (`usable_prefix`); the last may be incomplete, and is then read again.
        sampled: the ratio to expect where `counts` are empty.
        need: tokens wanted in all.

    Returns:
        (ordinal, stop_after) in order; empty where the need is met or no shard is left. Within the ratio's bounds the
        round tokenizes at most `MARGIN` of the need in vain.
    """
    have = sum(count.tokens for count in counts)
    if have >= need:
        return []
    if counts and not counts[-1].complete:
        counts = counts[:-1]
        have = sum(count.tokens for count in counts)
    missing, rest = need - have, shards[len(counts) :]
    if not rest:
        return []
    sizes = [shard.text_bytes for shard in shards]
    expected, error = expect(sizes, [count.tokens for count in counts], sampled, missing)
    lows = [0.0, *itertools.accumulate(tokens * max(0.0, 1 - error) for tokens in expected)]
    highs = [0.0, *itertools.accumulate(tokens * (1 + error) for tokens in expected)]
    # Up to the shard with which the tokens surely suffice. It stops once it has made good the most that those before it
    # may lack.
    last = next((index for index in range(len(rest)) if lows[index + 1] >= missing), len(rest) - 1)
    if highs[last] - lows[last] > need * MARGIN:
        # To go so far now could tokenize too much in vain. So take only the shards that are needed, but for the margin,
        # even if each holds the most that it may; the next round knows their counts. Where not even the first is sure,
        # take it as far as the missing tokens.
        sure = bisect.bisect_right(highs, missing + need * MARGIN) - 1
        if sure:
            return [(shard.ordinal, None) for shard in rest[:sure]]
        last = 0
    whole = [(shard.ordinal, None) for shard in rest[:last]]
    return [*whole, (rest[last].ordinal, max(1, math.ceil(missing - lows[last])))]
