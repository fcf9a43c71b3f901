"""Counts the tokens of parquet sources and of built records. It only counts: no ids are kept, and none are added."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.pvalue import PCollection, TaggedOutput
from apache_beam.transforms.display import DisplayDataItem

from transforms.arrayrecord.records import holds_ids
from transforms.coders import register_json_coder
from transforms.counting.ledger import Counted, CountLedger
from transforms.counting.text_count import SumTextCounts, TextCount
from transforms.dataset.manifest import Manifest
from transforms.dataset.reader import ShardReader
from transforms.dataset.verify import ShardCheck, shard_checks
from transforms.encoding.pool import choose_engine, encodable, encode_samples, leading_documents, token_counts
from transforms.errors import BroetchenError, listed
from transforms.parquet.footer import SourceFile
from transforms.parquet.read import ReadFooters, TextSource
from transforms.parquet.row_filter import RowFilter
from transforms.parquet.texts import read_texts
from transforms.progress.tally import worker_tally
from transforms.tokenizer.spec import ChosenEngine, Engine, TokenizerSpec

_LOGGER = logging.getLogger(__name__)

# An element is some row groups of one file with this much text: about a second of work, so that the elements of a small
# corpus keep all workers busy to the end, and a killed job loses little of its ledger.
_PART_TEXT_BYTES = 32 << 20
_SAMPLE_TEXT_BYTES = 256 << 10

_TOLD_RECORDS = 256
_KNOWN = "known"


@dataclasses.dataclass(frozen=True)
class CountSpec:
    """A source to count.

    Attributes:
        sources: glob patterns, as they are opened.
        engine: the encoder. Counts do not depend on it.
        rows: which rows are wanted, if not all.
    """

    name: str
    sources: tuple[str, ...]
    text_column: str
    tokenizer: TokenizerSpec
    engine: Engine
    rows: RowFilter | None = None

    def counted(self, source: SourceFile) -> Counted:
        """The key of a file's count: all that the count depends on."""
        return Counted.of(source, self.text_column, self.tokenizer, self.rows)


@register_json_coder
@dataclasses.dataclass(frozen=True)
class _Part:
    """Row groups of one file that are to be counted."""

    dataset: str
    source: SourceFile
    row_groups: tuple[int, ...]


@register_json_coder
@dataclasses.dataclass(frozen=True)
class BuiltShard:
    """A shard of a built dataset that is to be counted.

    Attributes:
        name: under which it is counted.
        documents: of this shard, by the manifest.
        shard: the rest of its entry.
    """

    name: str
    documents: int
    shard: ShardCheck


def lay_out_parts(source: SourceFile, row_groups: Iterable[int], part_text_bytes: int) -> list[tuple[int, ...]]:
    """Cuts row groups into runs of at most `part_text_bytes` by the footer; a larger row group stands alone."""
    parts: list[tuple[int, ...]] = []
    members: list[int] = []
    size = 0
    for group in row_groups:
        text_bytes = source.row_groups[group].wanted_bytes
        if members and size + text_bytes > part_text_bytes:
            parts.append(tuple(members))
            members, size = [], 0
        members.append(group)
        size += text_bytes
    return [*parts, tuple(members)] if members else parts


_choices: dict[tuple[str, TokenizerSpec, Engine], ChosenEngine] = {}
_choices_lock = threading.Lock()


def _engine_for(name: str, tokenizer: TokenizerSpec, asked: Engine, texts: pa.LargeStringArray) -> ChosenEngine:
    """The engine for a dataset in this process: gigatoken where it can, and agrees on the first texts that came by.

    Raises:
        UsageError: gigatoken was asked for by name, and cannot be used or gives other ids.
    """
    if asked == "tokenizers":
        return "tokenizers"
    with _choices_lock:
        key = name, tokenizer, asked
        if key not in _choices:
            samples = encode_samples(tokenizer, [leading_documents(texts, _SAMPLE_TEXT_BYTES)])
            _choices[key], reason = choose_engine(name, tokenizer, asked, samples)
            if reason is not None:
                _LOGGER.warning("%s: encoding with tokenizers, which is slower, since gigatoken %s", name, reason)
        return _choices[key]


def _tokens_of(
    name: str, tokenizer: TokenizerSpec, engine: Engine, texts: pa.LargeStringArray
) -> npt.NDArray[np.int64]:
    """The tokens of each document."""
    return token_counts(tokenizer, _engine_for(name, tokenizer, engine, texts) if len(texts) else engine, texts)


class _LookUp(beam.DoFn):
    """Looks up a file's counts in the ledger; the rest of the file becomes parts."""

    def __init__(self, specs: Mapping[str, CountSpec], ledger: CountLedger | None, tallies: str | None) -> None:
        self._specs, self._ledger, self._tallies = specs, ledger, tallies

    def process(self, element: tuple[str, SourceFile]) -> Iterator[_Part | TaggedOutput[str, tuple[str, TextCount]]]:
        name, source = element
        spec = self._specs[name]
        known: dict[int, TextCount] = {}
        if self._ledger is not None:
            known = self._ledger.find(spec.counted(source), source)
            yield TaggedOutput(_KNOWN, (name, TextCount.sum(known.values())))
        missing = [group for group in range(len(source.row_groups)) if group not in known]
        worker_tally(self._tallies).expect(text_bytes_of(source, missing))
        for members in lay_out_parts(source, missing, _PART_TEXT_BYTES):
            yield _Part(name, source, members)


def text_bytes_of(source: SourceFile, row_groups: Iterable[int]) -> int:
    """Bytes of text in row groups, as the footer says."""
    return sum(source.row_groups[group].wanted_bytes for group in row_groups)


class _CountPart(beam.DoFn):
    def __init__(self, specs: Mapping[str, CountSpec], ledger: CountLedger | None, tallies: str | None) -> None:
        self._specs, self._ledger, self._tallies = specs, ledger, tallies

    def process(self, part: _Part) -> Iterator[tuple[str, TextCount]]:
        spec = self._specs[part.dataset]
        with worker_tally(self._tallies).element(text_bytes_of(part.source, part.row_groups)) as counted:
            counts = count_row_groups(spec, part.source, part.row_groups, counted)
        if self._ledger is not None:
            self._ledger.add(spec.counted(part.source), counts)
        yield part.dataset, TextCount.sum(counts.values())


def count_row_groups(
    spec: CountSpec,
    source: SourceFile,
    row_groups: Sequence[int],
    counted: Callable[[int], None] = lambda text_bytes: None,
) -> dict[int, TextCount]:
    """Counts row groups of one file, each for itself. Memory is bounded by one batch of text.

    Row groups that the filter rules out are not read. `counted` is told of the bytes of each batch of text.

    Raises:
        BroetchenError: the file is damaged.
        UsageError: the engine cannot be used.
    """
    lengths: dict[int, list[npt.NDArray[np.int64]]] = {group: [np.empty(0, np.int64)] for group in row_groups}
    text_bytes: dict[int, int] = defaultdict(int)
    skipped: dict[int, int] = defaultdict(int)
    filtered = {group: source.row_groups[group].rows for group in row_groups if source.row_groups[group].ruled_out}
    read = [group for group in row_groups if group not in filtered]
    for group, read_batch in read_texts(source.path, read, spec.text_column, rows=spec.rows) if read else ():
        batch = encodable(spec.tokenizer, read_batch)
        lengths[group].append(_tokens_of(spec.name, spec.tokenizer, spec.engine, batch.texts))
        text_bytes[group] += batch.text_bytes
        counted(batch.text_bytes)
        skipped[group] += sum(batch.skipped.values())
        filtered[group] = filtered.get(group, 0) + batch.filtered
    return {
        group: TextCount.of(np.concatenate(lengths[group]), text_bytes[group], skipped[group], filtered.get(group, 0))
        for group in row_groups
    }


@beam.typehints.with_input_types(str)
@beam.typehints.with_output_types(tuple[str, TextCount])
class CountTokens(beam.PTransform[PCollection[str], PCollection[tuple[str, TextCount]]]):
    """Names of sources in, (name, TextCount) of all of each out.

    Files are expanded, footers read and row groups counted in parallel. Only counts pass through the pipeline.

    Example:
        >>> from transforms.tokenizer.file import load_tokenizer
        >>> path = "samples/tokenizer.json"
        >>> spec = CountSpec(
        ...     "edu", ("samples/corpora/fineweb_edu_english/*.parquet",), text_column="text", engine="auto",
        ...     tokenizer=TokenizerSpec(path, load_tokenizer(path).sha256, None, None, special_tokens="text"),
        ... )
        >>> with beam.Pipeline() as pipeline:
        ...     counts = pipeline | beam.Create(["edu"]) | CountTokens({"edu": spec})
        ...     shown = counts | beam.MapTuple(lambda name, count: print(f"{name}: {count.tokens:,} subtokens"))
        edu: 288,258 subtokens

    Args:
        specs: the sources to count, by name.
        ledger: where counts are looked up and written down; None counts everything.
        tallies: a folder that workers share, where they note how many bytes of text they have counted; None for none.

    Raises:
        BroetchenError: (when run) a pattern matches nothing, or a file is damaged or has no such column.
        UsageError: (when run) the engine that was asked for cannot be used.
    """

    def __init__(
        self, specs: Mapping[str, CountSpec], ledger: CountLedger | None = None, tallies: str | None = None
    ) -> None:
        super().__init__()
        self._specs, self._ledger, self._tallies = dict(specs), ledger, tallies

    def expand(self, names: PCollection[str]) -> PCollection[tuple[str, TextCount]]:
        look_up = beam.ParDo(_LookUp(self._specs, self._ledger, self._tallies)).with_output_types(
            _Part, **{_KNOWN: tuple[str, TextCount]}
        )
        sources = {
            name: TextSource(name, spec.sources, spec.text_column, rows=spec.rows) for name, spec in self._specs.items()
        }
        looked_up = (
            names
            | "Sources" >> beam.Map(sources.__getitem__).with_output_types(TextSource)
            | "ReadFooters" >> ReadFooters()
            | "LookUp" >> look_up.with_outputs(_KNOWN, main="parts")
        )
        known, count_parts = looked_up[_KNOWN], beam.ParDo(_CountPart(self._specs, self._ledger, self._tallies))
        counted = (
            looked_up["parts"]
            | "SpreadParts" >> beam.Reshuffle()
            | "Count" >> count_parts.with_output_types(tuple[str, TextCount])
        )
        return (known, counted) | beam.Flatten() | "Sum" >> beam.CombinePerKey(SumTextCounts())

    def display_data(self) -> dict[str, Any]:
        """The arguments of this step that the runner's pages show."""
        tokenizers = sorted({spec.tokenizer.path for spec in self._specs.values()})
        return {
            "sources": DisplayDataItem(listed(self._specs), label="Sources"),
            "tokenizers": DisplayDataItem(listed(tokenizers), label="Tokenizers"),
        }


def built_shards(folder: str, manifest: Manifest, engine: Engine) -> Iterator[BuiltShard]:
    """The shards of a built dataset, each to be counted as `<dataset>/<split>`."""
    entries = [(name, entry) for name, split in manifest.splits.items() for entry in split.shards]
    for (split, entry), shard in zip(entries, shard_checks(folder, manifest, engine), strict=True):
        yield BuiltShard(f"{manifest.dataset}/{split}", entry.documents, shard)


def count_shard(built: BuiltShard, tallies: str | None = None) -> TextCount:
    """Counts a built shard by reading all of it.

    Records of ids do not say where documents begin, nor how long their text was: documents are the manifest's, and the
    rest is unknown. How many rows of the source were left out, no shard says.

    Raises:
        BroetchenError: the shard is damaged, or holds other tokens than its manifest says.
    """
    shard = built.shard
    bytes_per_token = shard.size / max(1, shard.tokens)
    with (
        worker_tally(tallies).element(shard.size) as counted,
        ShardReader(shard.path, shard.format, shard.text_column) as reader,
    ):
        if holds_ids(shard.format):
            tokens = told = 0
            for number, ids in enumerate(reader.ids(), 1):
                tokens += len(ids)
                if number % _TOLD_RECORDS == 0:
                    counted(round(tokens * bytes_per_token) - told)
                    told = round(tokens * bytes_per_token)
            count = TextCount(built.documents, tokens, None, None, None, None)
        else:
            lengths, text_bytes = [np.empty(0, np.int64)], 0
            for texts in reader.texts():
                lengths.append(_tokens_of(built.name, shard.tokenizer, shard.engine, texts))
                text_bytes += int(pc.sum(pc.binary_length(texts)).as_py() or 0)
                counted(round(int(lengths[-1].sum()) * bytes_per_token))
            count = dataclasses.replace(
                TextCount.of(np.concatenate(lengths), text_bytes, 0), skipped=None, filtered=None
            )
    if count.tokens != shard.tokens:
        raise BroetchenError(
            f"{shard.path}: holds {count.tokens:,} tokens, and its manifest says {shard.tokens:,}; the file was "
            "changed or is damaged: see what broetchen verify says, and build it again"
        )
    return count


@beam.typehints.with_input_types(BuiltShard)
@beam.typehints.with_output_types(tuple[str, TextCount])
class CountBuiltShards(beam.PTransform[PCollection[BuiltShard], PCollection[tuple[str, TextCount]]]):
    """PCollection[BuiltShard] in, (name, TextCount) out; see `count_shard`.

    `built_shards` names the shards of a built dataset. In the folder `tallies` workers note how many bytes of files
    they have read.

    Example:
        >>> from transforms.tokenizer.file import load_tokenizer
        >>> path = "samples/tokenizer.json"
        >>> shard = ShardCheck(
        ...     "samples/corpora/fineweb_edu_english", "000_00000.parquet", tokens=41_441, records=9, size=57_037,
        ...     sha256="", format="parquet", text_column="text", max_tokens=0, vocab_size=65_536, engine="auto",
        ...     tokenizer=TokenizerSpec(path, load_tokenizer(path).sha256, None, None, special_tokens="text"),
        ... )
        >>> with beam.Pipeline() as pipeline:
        ...     counts = pipeline | beam.Create([BuiltShard("edu/train", 9, shard)]) | CountBuiltShards()
        ...     shown = counts | beam.MapTuple(lambda name, count: print(f"{name}: {count.tokens:,} subtokens"))
        edu/train: 41,441 subtokens
    """

    def __init__(self, tallies: str | None = None) -> None:
        super().__init__()
        self._tallies = tallies

    def expand(self, shards: PCollection[BuiltShard]) -> PCollection[tuple[str, TextCount]]:
        tallies = self._tallies

        def count(shard: BuiltShard) -> tuple[str, TextCount]:
            return shard.name, count_shard(shard, tallies)

        return (
            shards
            | "SpreadShards" >> beam.Reshuffle()
            | "Count" >> beam.Map(count).with_output_types(tuple[str, TextCount])
            | "Sum" >> beam.CombinePerKey(SumTextCounts())
        )
