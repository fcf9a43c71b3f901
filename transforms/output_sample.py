"""A bounded look into a built split: how long its records and documents are, and a few documents.

What is read does not grow with the split: runs of consecutive records, spread evenly over all shards. Small splits are
read whole. A document counts where it begins within a run, and is followed to its end, so that long documents are met
as often as short ones.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import posixpath
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from transforms import files
from transforms.array_record_reader import RecordReader
from transforms.encoder_pool import borrow_encoder
from transforms.errors import BroetchenError
from transforms.example_codec import decode_ids, decode_text
from transforms.manifest import Manifest, ShardEntry
from transforms.parquet_footer import read_footer
from transforms.parquet_texts import read_texts
from transforms.record_spec import FEATURE
from transforms.text_batch import text_batches
from transforms.text_count import Lengths
from transforms.verify import tokenizer_of

_RUNS = 8
# A remote shard of records is copied whole, as array_record reads it with a request for each record.
_COPIED_SHARDS = 2
_MOST_RECORDS = 8192
# Text has to be encoded to be counted, which is slower than reading ids.
_MOST_IDS, _MOST_TEXT_TOKENS = 8_000_000, 2_000_000
# A document that goes on for so many records after the end of a run is not followed any further.
_FOLLOWED_RECORDS = 4096

EXCERPT_TOKENS = 320
"""How many ids of a document's beginning are kept."""


@dataclasses.dataclass(frozen=True)
class Run:
    """Records `first` to `last` of a shard, the last excluded."""

    shard: int
    first: int
    last: int


@dataclasses.dataclass(frozen=True)
class Excerpt:
    """The beginning of a document.

    Attributes:
        file, record: the shard, and the first of its records that the document is in.
        tokens: of the whole document.
        ids: its first ids, at most `EXCERPT_TOKENS`, as they are in the record, or as its text encodes to.
    """

    file: str
    record: int
    tokens: int
    ids: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class SplitSample:
    """What was found in a split.

    Attributes:
        records: int64 [records read], the tokens of each record, in the order of the split.
        documents: the tokens of the documents that begin in what was read.
        excerpts: the beginnings of some of them, from places spread over the split.
        whole: whether everything was read.
        exact: whether records tell where documents end: by BOS, EOS, or since each is a document. Otherwise a record
            that is full counts as going on in the next, which is wrong for a document that fills it just so.
    """

    records: npt.NDArray[np.int64]
    documents: Lengths
    excerpts: tuple[Excerpt, ...]
    whole: bool
    exact: bool


def spread_runs(shard_records: Sequence[int], most: int, runs: int = _RUNS) -> list[Run]:
    """At most `most` records of shards with so many records: all of them, or `runs` stretches that lie evenly spread.

    A stretch that goes over the end of a shard is two runs.

    >>> spread_runs([2, 3], most=5)
    [Run(shard=0, first=0, last=2), Run(shard=1, first=0, last=3)]
    >>> spread_runs([100, 102, 98], most=12, runs=3)
    [Run(shard=0, first=48, last=52), Run(shard=1, first=48, last=52), Run(shard=2, first=46, last=50)]
    """
    total = sum(shard_records)
    if total <= most:
        return [Run(shard, 0, records) for shard, records in enumerate(shard_records) if records]
    runs = max(1, min(runs, most))
    size = most // runs
    ends = list(itertools.accumulate(shard_records))
    spread = []
    for number in range(runs):
        start = (2 * number + 1) * total // (2 * runs) - size // 2
        stop = start + size
        while start < stop:
            shard = bisect.bisect_right(ends, start)
            begin, end = ends[shard] - shard_records[shard], min(stop, ends[shard])
            spread.append(Run(shard, start - begin, end - begin))
            start = end
    return spread


@dataclasses.dataclass(frozen=True)
class Framing:
    """How records of ids tell where documents begin; see `SplitSample.exact`."""

    bos_id: int | None
    eos_id: int | None
    max_tokens: int

    @property
    def exact(self) -> bool:
        """Whether they tell for certain."""
        return self.bos_id is not None or self.eos_id is not None

    def begins(self, previous: npt.NDArray[np.int64] | None, ids: npt.NDArray[np.int64]) -> bool:
        """Whether a document begins with a record.

        Args:
            previous: int64 [tokens], the ids of the record before it in the shard; None where it is the first.
            ids: int64 [tokens], its own.
        """
        if previous is None or not len(previous):
            return True
        if self.eos_id is not None:
            return bool(previous[-1] == self.eos_id)
        if self.bos_id is not None:
            return bool(len(ids) and ids[0] == self.bos_id)
        return len(previous) < self.max_tokens


def sample_split(
    folder: str,
    manifest: Manifest,
    split: str,
    *,
    excerpts: int = 3,
    most_records: int = _MOST_RECORDS,
    most_tokens: int | None = None,
) -> SplitSample:
    """Looks into a split of a built dataset.

    Args:
        folder: of the dataset, local or remote; of a remote one no more than two shards of records are copied, one
            after the other, to the folder for temporary files.
        excerpts: how many documents to keep the beginning of.
        most_records, most_tokens: about how much to read; a split of no more is read whole.

    Raises:
        BroetchenError: a shard is missing or damaged, or has not as many records as the manifest says.
        UsageError: the tokenizer, by which text is counted, cannot be loaded.
    """
    entry, records = manifest.splits[split], manifest.config["records"]
    tokenizer, is_ids = manifest.tokenizer, records["format"] == "tokens"
    framing = Framing(tokenizer.bos_id, tokenizer.eos_id, records["max_tokens"])
    most_tokens = most_tokens or (_MOST_IDS if is_ids else _MOST_TEXT_TOKENS)
    most = max(1, min(most_records, most_tokens * entry.records // max(1, entry.tokens)))
    found = _Found(min(most, entry.records), excerpts)
    runs = spread_runs([shard.records for shard in entry.shards], most)
    if not files.is_local(folder) and entry.records > most:
        runs = _in_few_shards([shard.records for shard in entry.shards], most)
    if records["format"] == "parquet" and entry.records > most:
        runs = _at_row_groups(runs, folder, manifest, split, most)
    for run in runs:
        shard = entry.shards[run.shard]
        path = posixpath.join(folder, shard.file)
        read = _id_records(path, shard, run, framing) if is_ids else _text_records(path, shard, run, folder, manifest)
        found.add(shard.file, run, read)
    return SplitSample(
        records=np.array(found.records, np.int64),
        documents=Lengths.of(np.array(found.documents, np.int64)),
        excerpts=tuple(found.excerpts),
        whole=entry.records <= most,
        exact=not is_ids or framing.exact,
    )


def _in_few_shards(shard_records: Sequence[int], most: int) -> list[Run]:
    """Runs of at most `most` records in all, from the middles of as many shards as may be copied."""
    shards = sorted({run.shard for run in spread_runs(shard_records, _COPIED_SHARDS, _COPIED_SHARDS)})
    size = most // len(shards) or 1
    firsts = [max(0, (shard_records[shard] - size) // 2) for shard in shards]
    return [
        Run(shard, first, min(shard_records[shard], first + size)) for shard, first in zip(shards, firsts, strict=True)
    ]


@dataclasses.dataclass(frozen=True)
class _Record:
    """A record of a shard: its number there, its ids, and whether a document begins with it."""

    number: int
    ids: npt.NDArray[np.integer]
    begins: bool


class _Found:
    """What runs have brought so far. Chooses documents for excerpts: the next ones after evenly spread records."""

    def __init__(self, expected_records: int, excerpts: int) -> None:
        self._wanted = [number * expected_records // excerpts for number in range(excerpts)]
        self.records: list[int] = []
        self.documents: list[int] = []
        self.excerpts: list[Excerpt] = []

    def add(self, file: str, run: Run, records: Iterable[_Record]) -> None:
        """Takes the records of a run, and those after it until its last document ends."""
        tokens, excerpt = 0, None

        def end_document() -> None:
            if tokens:
                self.documents.append(tokens)
                if excerpt is not None:
                    self.excerpts.append(dataclasses.replace(excerpt, tokens=tokens))

        for record in records:
            if record.begins:
                end_document()
                tokens, excerpt = 0, None
            if record.number >= run.last and not tokens:
                return
            if record.begins and len(self.excerpts) < len(self._wanted) and self._is_wanted():
                excerpt = Excerpt(file, record.number, 0, tuple(record.ids[:EXCERPT_TOKENS].tolist()))
            if record.begins or tokens:
                tokens += len(record.ids)
            if record.number < run.last:
                self.records.append(len(record.ids))
        end_document()

    def _is_wanted(self) -> bool:
        return len(self.records) >= self._wanted[len(self.excerpts)]


def _id_records(path: str, shard: ShardEntry, run: Run, framing: Framing) -> Iterator[_Record]:
    with RecordReader(path) as reader:
        _check_records(path, len(reader), shard)
        start, end = max(0, run.first - 1), min(len(reader), run.last + _FOLLOWED_RECORDS)
        previous = None
        for number, record in enumerate(reader.between(start, end), start):
            ids = decode_ids(record, FEATURE)
            if number >= run.first:
                yield _Record(number, ids, framing.begins(previous, ids))
            previous = ids


def _text_records(path: str, shard: ShardEntry, run: Run, folder: str, manifest: Manifest) -> Iterator[_Record]:
    tokenizer, number = tokenizer_of(folder, manifest), run.first
    if manifest.config["records"]["format"] == "parquet":
        batches = _parquet_texts(path, shard, run, manifest.config["dataset"]["text_column"])
    else:
        batches = _record_texts(path, shard, run)
    for texts in batches:
        with borrow_encoder(tokenizer, "auto") as encoder:
            encoded = encoder.encode(texts)
        for start, end in itertools.pairwise(encoded.offsets.tolist()):
            yield _Record(number, encoded.ids[start:end], begins=True)
            number += 1


def _record_texts(path: str, shard: ShardEntry, run: Run) -> Iterator[pa.LargeStringArray]:
    with RecordReader(path) as reader:
        _check_records(path, len(reader), shard)
        yield from text_batches(decode_text(record, FEATURE) for record in reader.between(run.first, run.last))


def _at_row_groups(runs: Sequence[Run], folder: str, manifest: Manifest, split: str, most: int) -> list[Run]:
    """Runs that begin where the row groups begin in which `runs` do: what is before a row cannot be passed over."""
    shards, text_column = manifest.splits[split].shards, manifest.config["dataset"]["text_column"]
    groups: set[Run] = set()
    for run in runs:
        ends = _row_group_ends(posixpath.join(folder, shards[run.shard].file), text_column)
        group = bisect.bisect_right(ends, run.first)
        if group < len(ends):
            groups.add(Run(run.shard, ends[group - 1] if group else 0, ends[group]))
    size = most // max(1, len(groups))
    return [
        Run(run.shard, run.first, min(run.last, run.first + size))
        for run in sorted(groups, key=lambda run: (run.shard, run.first))
    ]


def _row_group_ends(path: str, text_column: str) -> list[int]:
    groups = read_footer(path, files.size(path), text_column).row_groups
    return list(itertools.accumulate(group.rows for group in groups))


def _parquet_texts(path: str, shard: ShardEntry, run: Run, text_column: str) -> Iterator[pa.LargeStringArray]:
    """The documents from `run.first`, which begins a row group, to the end of the row group of the run's last."""
    ends = _row_group_ends(path, text_column)
    _check_records(path, ends[-1] if ends else 0, shard)
    groups = range(bisect.bisect_right(ends, run.first), bisect.bisect_left(ends, run.last) + 1)
    for _, batch in read_texts(path, groups, text_column):
        yield batch.texts


def _check_records(path: str, found: int, shard: ShardEntry) -> None:
    if found != shard.records:
        raise BroetchenError(
            f"{path}: holds {found:,} records, and its manifest says {shard.records:,}; the file was changed or is "
            "damaged: see what broetchen verify says, and build it again"
        )
