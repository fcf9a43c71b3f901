"""Holds a manifest against itself: sums, budgets, and the ranges of the source that it says its rows come from."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

import xxhash

from transforms.budget import repeats
from transforms.dataset.manifest import Manifest, ShardEntry, SourceEntry, SplitEntry
from transforms.errors import listed
from transforms.megatron.index import index_path
from transforms.quantities import format_share

# The hash that `transforms.texts.combined_hash` makes of no texts at all.
_NO_TEXTS = xxhash.xxh3_64_hexdigest(b"")
_MANY_TOKENS = 256


def manifest_problems(folder: str, manifest: Manifest) -> list[str]:
    """The contradictions within a manifest."""
    return [
        *(f"{folder}: {problem}" for name in manifest.splits for problem in _split_problems(name, manifest)),
        *(f"{folder}{problem}" for problem in _budget_problems(manifest)),
        *(f"{folder}: {problem}" for problem in _row_problems(manifest)),
        *(f"{folder}: {problem}" for problem in _left_out_problems(manifest)),
        *(f"{folder}: {problem}" for problem in _source_problems(manifest)),
        *(f"{folder}: {problem}" for problem in _shared_shards(manifest, of_one_text=False)),
    ]


def manifest_warnings(folder: str, manifest: Manifest) -> list[str]:
    """Warnings of a sound manifest that hardly anybody wants: the same content twice."""
    found = [*_repeated_sources(manifest), *_shared_shards(manifest, of_one_text=True)]
    return [f"{folder}: {warning}" for warning in found]


def unchecked_of(folder: str, manifest: Manifest) -> list[str]:
    """The facts that a manifest of an older version does not say, so that they cannot be checked."""
    found = []
    if manifest.format_version == 1:
        found.append(f"{folder}: where row groups begin, and what their texts are: format version 1 does not say it")
    splits = manifest.splits.values()
    if not manifest.holds_ids and any(split.documents_with_special_strings is None for split in splits):
        found.append(
            f"{folder}: how many documents hold the string of a special token: an earlier version of Brötchen did not "
            "count them"
        )
    return found


def _split_problems(name: str, manifest: Manifest) -> Iterator[str]:
    split = manifest.splits[name]
    total = sum(entry.tokens for entry in split.shards)
    if total != split.tokens or (split.passes is None and total + split.missing != split.budget):
        yield f"{name} adds up to {total:,} tokens, and the manifest says {split.tokens:,} of {split.budget:,}"
    if split.passes is not None:
        yield from _pass_problems(name, split, split.passes, manifest.max_repeats or 1)
    for part in ("documents", "records", "bytes"):
        summed = sum(getattr(entry, part) for entry in split.shards)
        if summed != getattr(split, part):
            yield f"{name} adds up to {summed:,} {part}, and the manifest says {getattr(split, part):,}"
    yield from _special_problems(name, split)
    if manifest.record_format != "tokens":
        for entry in split.shards:
            if entry.documents != entry.records:
                yield (
                    f"{entry.file}: {entry.documents:,} documents in {entry.records:,} records; in format "
                    f"{manifest.record_format} each is one"
                )
    for entry in split.shards:
        beside, expected = [file.file for file in entry.beside], files_beside(manifest, entry.file)
        if manifest.record_format == "megatron" and beside != expected:
            yield f"{entry.file}: has {listed(beside) or 'nothing'} beside it in the manifest, not {listed(expected)}"


def files_beside(manifest: Manifest, shard: str) -> list[str]:
    """The files that belong to a shard of a dataset, apart from its trace."""
    return [index_path(shard)] if manifest.record_format == "megatron" else []


def _special_problems(name: str, split: SplitEntry) -> Iterator[str]:
    counts = [entry.documents_with_special_strings for entry in split.shards]
    said = split.documents_with_special_strings
    if said is None and all(count is None for count in counts):
        return
    found = sum(count or 0 for count in counts)
    if None in counts or found != said:
        shown = "nothing" if said is None else f"{said:,}"
        yield (
            f"{name} adds up to {found:,} documents with the string of a special token, and the manifest says {shown}"
        )


def _pass_problems(name: str, split: SplitEntry, passes: float, max_repeats: float) -> Iterator[str]:
    said = f"{name} is said to be read {passes:g} times"
    if name != repeats.REPEATED:
        yield f"{said}, and only {repeats.REPEATED} can be"
    elif not 0 < split.tokens < split.to_read or passes != repeats.passes(split.budget, split.missing, split.tokens):
        yield f"{said}, and has {split.tokens:,} tokens for {split.to_read:,} that are to be read"
    elif split.missing != repeats.beyond(split.budget, split.tokens, max_repeats):
        yield (
            f"{said} and to lack {split.missing:,} of {split.budget:,} tokens, and its config allows {max_repeats:g} "
            "times"
        )


def _budget_problems(manifest: Manifest) -> Iterator[str]:
    dataset = manifest.config["dataset"]
    budgets = {name: split.budget for name, split in manifest.splits.items()}
    configured = {"train": dataset["tokens"]} | ({"eval": dataset["eval_tokens"]} if dataset.get("eval_tokens") else {})
    if budgets != configured:
        yield f": the manifest's budgets are {budgets}, and its config's {configured}"
    if dataset.get("eval_position") == "start" and [*budgets][:1] == ["train"]:
        yield ": its eval split is at the start of the stream by its config, and the manifest has train first"
    if dataset["on_shortfall"] != "keep" and any(split.missing for split in manifest.splits.values()):
        yield ": tokens are missing, and its config does not keep a short source"


def source_documents(manifest: Manifest) -> range | None:
    """How many documents of the source a dataset takes; None where its manifest cannot tell.

    A document that ends one split and begins the next counts in both; one that was put back may be in none.
    """
    adds = manifest.tokenizer.bos_id is not None or manifest.tokenizer.eos_id is not None
    if manifest.holds_ids and not adds:
        return None  # One without tokens counts in some shards, and not in others.
    splits = manifest.splits.values()
    counted, put_back = sum(split.documents for split in splits), sum(split.documents_put_back for split in splits)
    return range(max(0, counted - max(0, len(splits) - 1)), counted + put_back + 1)


def _row_problems(manifest: Manifest) -> Iterator[str]:
    possible = source_documents(manifest)
    if manifest.rows is None or possible is None:
        return
    documents = manifest.rows - sum(manifest.skipped.values()) - manifest.filtered
    if documents not in possible:
        yield (
            f"of {manifest.rows:,} rows of the source {documents:,} are documents by the manifest, and its splits hold "
            f"{possible.start:,} to {possible.stop - 1:,}"
        )


def _left_out_problems(manifest: Manifest) -> Iterator[str]:
    """Whether the row groups have left out as many rows as the dataset; earlier versions do not say it."""
    told = sum((Counter(rows) for entry in manifest.source for rows in entry.left_out), Counter[str]())
    for reason, rows in told.items():
        if reason in manifest.skipped and rows != manifest.skipped[reason]:
            yield f"its row groups have left out {rows:,} rows ({reason}), and it says {manifest.skipped[reason]:,}"
    left_out = sum(manifest.skipped.values()) + manifest.filtered
    if told and sum(told.values()) != left_out:
        yield f"its row groups have left out {sum(told.values()):,} rows, and it says {left_out:,}"


def _source_problems(manifest: Manifest) -> Iterator[str]:
    for path, times in Counter(entry.path for entry in manifest.source).items():
        if times > 1:
            yield f"{path} stands {times} times in its source"
    for entry in manifest.source:
        twice = [group for group, times in Counter(entry.row_groups).items() if times > 1]
        if twice:
            yield f"{entry.path}: row groups {listed(twice)} stand in it more than once"
    yield from _range_problems(manifest)


def _range_problems(manifest: Manifest) -> Iterator[str]:
    """Whether the ranges that row groups take in the stream of the dataset can be those of one reading."""
    ranges = stream_order(manifest.source)
    if not ranges:
        return
    if unknown := [entry.path for entry in manifest.source if entry.row_groups and not entry.starts]:
        yield f"{listed(unknown)}: has no starts, and other sources have some"
        return
    if ranges[0].start != 0:
        yield f"no row group begins at 0; the first, {ranges[0]}, at {ranges[0].start:,}"
    total = stream_length(manifest)
    if ranges[-1].start > total:
        yield f"{ranges[-1]} begins at {ranges[-1].start:,}, and the dataset ends at {total:,}"
    # A row group without documents takes no place; one whose documents have no tokens, neither.
    there = [place for place in ranges if place.text != _NO_TEXTS]
    if source_documents(manifest) is not None:
        for one, other in itertools.pairwise(there):
            if one.start == other.start:
                yield f"{one} and {other} overlap: both begin at {one.start:,}"
    if manifest.config["dataset"].get("order") == "sequential":
        for one, other in itertools.pairwise(there):
            if one.start < other.start and (one.entry, one.group) > (other.entry, other.group):
                yield f"{other} begins behind {one}, which is not the order of the source"
                return


@dataclasses.dataclass(frozen=True, order=True)
class SourceRange:
    """Where a row group begins in the stream of a dataset.

    Attributes:
        entry: the number of its file in the manifest's source.
        text: hash of its texts.
    """

    start: int
    entry: int
    group: int
    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path} row group {self.group}"


def stream_order(source: Sequence[SourceEntry]) -> list[SourceRange]:
    """The row groups whose places are known, as they follow each other; of one place, those without texts first."""
    found = (
        SourceRange(start, number, group, entry.path, text)
        for number, entry in enumerate(source)
        for start, group, text in zip(
            entry.starts, entry.row_groups, entry.texts or [""] * len(entry.row_groups), strict=False
        )
    )
    return sorted(found, key=lambda one: (one.start, one.text != _NO_TEXTS, one))


def stream_length(manifest: Manifest) -> int:
    """Where the stream of a dataset ends, in the unit of `SourceEntry.starts`."""
    if manifest.holds_ids:
        return sum(split.tokens for split in manifest.splits.values())
    possible = source_documents(manifest)
    assert possible is not None
    return possible.stop - 1


def _repeated_sources(manifest: Manifest) -> Iterator[str]:
    """Files of one content under two names. Such a corpus can be built, and its texts are in the dataset twice."""
    by_content: dict[tuple[str, int], list[SourceEntry]] = defaultdict(list)
    for entry in manifest.source:
        by_content[entry.footer_sha256, entry.size].append(entry)
    for entries in by_content.values():
        for one, other in itertools.pairwise(entries):
            shared = sorted(set(one.row_groups) & set(other.row_groups))
            texts, others = _texts_of(one), _texts_of(other)
            differing = [
                group for group in shared if group in texts and group in others and texts[group] != others[group]
            ]
            if differing:
                yield (
                    f"{one.path} and {other.path} have one footer, and other texts in row groups {listed(differing)}: "
                    "one of them was changed in place"
                )
            else:
                share = len(shared) / max(1, len(set(one.row_groups) | set(other.row_groups)))
                yield (
                    f"{one.path} and {other.path} are one content under two names, with {len(shared):,} row groups "
                    f"({format_share(share)}) of both in the dataset"
                )


def _texts_of(entry: SourceEntry) -> Mapping[int, str]:
    return dict(zip(entry.row_groups, entry.texts, strict=False))


def _shared_shards(manifest: Manifest, *, of_one_text: bool) -> Iterator[str]:
    """Shards of one checksum: of row groups that hold the same texts, or, which cannot be, of others."""
    unit = "tokens" if manifest.holds_ids else "records"
    places, position = defaultdict[str, list[tuple[int, ShardEntry]]](list), 0
    for split in manifest.splits.values():
        for entry in split.shards:
            places[entry.sha256].append((position, entry))
            position += getattr(entry, unit)
    ranges = stream_order(manifest.source)
    for shards in places.values():
        for (start, one), (other_start, other) in itertools.pairwise(shards):
            texts, others = (
                _texts_within(ranges, begin, begin + getattr(entry, unit))
                for begin, entry in ((start, one), (other_start, other))
            )
            # Other texts can give the same ids where a tokenizer normalizes, but hardly that many.
            certain = unit == "records" or one.tokens >= _MANY_TOKENS
            differ = certain and texts is not None and others is not None and texts != others
            if differ and not of_one_text:
                yield f"{one.file} and {other.file} are one shard twice, and the row groups of their places are others"
            elif of_one_text and not differ:
                share = (one.tokens + other.tokens) / max(1, sum(split.tokens for split in manifest.splits.values()))
                yield f"{one.file} and {other.file} are one shard twice ({format_share(share)} of the dataset's tokens)"


def _texts_within(ranges: Sequence[SourceRange], begin: int, end: int) -> list[str] | None:
    """The hashes of the texts of the row groups of a part of the stream; None where it is not one of whole row groups.

    The last row group is none of those: the dataset may end in it.
    """
    starts = {found.start for found in ranges}
    if begin not in starts or end not in starts:
        return None
    return [found.text for found in ranges if begin <= found.start < end and found.text != _NO_TEXTS]
