"""A bounded look into a built split: how long its records and documents are, and a few documents.

The part read does not grow with the split: runs of consecutive records, spread evenly over all shards. Small splits are
read whole. A document counts where it begins within a run, and is followed to its end, so that long documents are met
as often as short ones.
"""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from transforms.counting.text_count import Lengths
from transforms.dataset.manifest import Manifest
from transforms.dataset.reader import row_group_ends
from transforms.files import storage
from transforms.sampling.records import Framing, Record, id_records, text_records
from transforms.sampling.runs import Run, at_row_groups, in_few_shards, spread_runs

# A remote shard of records is copied whole, as array_record reads it with a request for each record.
_COPIED_SHARDS = 2
_MOST_RECORDS = 8192
# Text has to be encoded to be counted, which is slower than reading ids.
_MOST_IDS, _MOST_TEXT_TOKENS = 8_000_000, 2_000_000

EXCERPT_TOKENS = 320
"""How many ids of a document's beginning are kept."""


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
    """The sample of a split.

    Attributes:
        records: int64 [records read], the tokens of each record, in the order of the split.
        documents: the tokens of the documents that begin in the runs that were read.
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
    entry, tokenizer = manifest.splits[split], manifest.tokenizer
    framing = Framing(tokenizer.bos_id, tokenizer.eos_id, manifest.max_tokens)
    most_tokens = most_tokens or (_MOST_IDS if manifest.holds_ids else _MOST_TEXT_TOKENS)
    most = max(1, min(most_records, most_tokens * entry.records // max(1, entry.tokens)))
    paths = [posixpath.join(folder, shard.file) for shard in entry.shards]
    collected = _Found(min(most, entry.records), excerpts)
    runs = spread_runs([shard.records for shard in entry.shards], most)
    if not storage.is_local(folder) and entry.records > most:
        runs = in_few_shards([shard.records for shard in entry.shards], most, _COPIED_SHARDS)
    if manifest.record_format == "parquet" and entry.records > most:
        runs = at_row_groups(runs, lambda shard: row_group_ends(paths[shard], manifest.text_column), most)
    for run in runs:
        shard, path = entry.shards[run.shard], paths[run.shard]
        collected.add(
            shard.file,
            run,
            id_records(path, manifest.record_format, shard, run, framing)
            if manifest.holds_ids
            else text_records(path, shard, run, folder, manifest),
        )
    return SplitSample(
        records=np.array(collected.records, np.int64),
        documents=Lengths.of(np.array(collected.documents, np.int64)),
        excerpts=tuple(collected.excerpts),
        whole=entry.records <= most,
        exact=manifest.record_format != "tokens" or framing.exact,
    )


class _Found:
    """The sample so far. Chooses documents for excerpts: the next ones after evenly spread records."""

    def __init__(self, expected_records: int, excerpts: int) -> None:
        self._wanted = [number * expected_records // excerpts for number in range(excerpts)]
        self.records: list[int] = []
        self.documents: list[int] = []
        self.excerpts: list[Excerpt] = []

    def add(self, file: str, run: Run, records: Iterable[Record]) -> None:
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
