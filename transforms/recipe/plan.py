"""Plans datasets: footers and a small sample in, shards and a fingerprint out.

The fingerprint names everything that decides the output's bytes. Unfinished work has a key of its own, which leaves out
how much of the source is wanted: a build with another budget takes up the shards that are there.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import itertools
import json
import logging
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import AsDict, DoOutputsTuple, TaggedOutput

from transforms.arrayrecord.records import Format
from transforms.coders import register_json_coder
from transforms.dataset.manifest import NEWEST_FORMAT
from transforms.encoding.pool import choose_engine, reference_share
from transforms.encoding.recheck import probe_digest
from transforms.errors import BroetchenError
from transforms.parquet.columns import choose_columns, decode_schema, encode_schema, unite_schemas
from transforms.parquet.footer import SourceFile, read_footer
from transforms.parquet.read import ReadFooters, TextSource
from transforms.parquet.source_files import expand_sources
from transforms.recipe.blocks import GROUPS_PER_BLOCK, Block, in_blocks
from transforms.recipe.footer_bound import warn_of_footers
from transforms.recipe.ratio import Ratio
from transforms.recipe.sample import take_sample, within_reach
from transforms.recipe.shard_plan import PlannedShard, ShardTask, lay_out_shards, order_row_groups
from transforms.recipe.spec import DatasetSpec
from transforms.tokenizer.spec import ChosenEngine

_LOGGER = logging.getLogger(__name__)
_MOST_TOLD = 3
_HEADS, _PARTS = "heads", "parts"
_FOOTER_THREADS = 16

FORMAT_VERSION = NEWEST_FORMAT
"""Changes whenever the same config, source and tokenizer would give other bytes."""

# A build samples its source as far as it may have to read: no language takes nearly as many bytes for a token.
_REACH_BYTES_PER_TOKEN = 16
# Of what it will fetch, by the bytes that a token usually takes, it fetches so much for its sample besides.
_SAMPLED_SHARE, _BYTES_PER_TOKEN = 0.03, 4
_FETCHED_FOR_A_LOOK = 32 << 20
# Keys of a config's dataset that say how many of its shards are wanted.
_HOW_MUCH = frozenset({"tokens", "eval_tokens", "eval_position", "on_shortfall", "max_repeats"})

# The libraries that write shards; in Megatron's format none does.
_WRITERS: Mapping[Format, str | None] = {
    "tokens": "array_record",
    "text": "array_record",
    "parquet": "pyarrow",
    "megatron": None,
}


@register_json_coder
@dataclasses.dataclass(frozen=True)
class DatasetPlan:
    """How one dataset is built.

    Attributes:
        files: the source, in the order in which it is read.
        shards: all shards that the source makes, more than the budget may need.
        ratio: tokens for each byte of the column before compression, from a sample.
        engine: the one that will encode: it was asked for, or it agreed with the reference on the sample.
        reference_share: of the sample, the share of the bytes that `tokenizers` encodes though gigatoken is the engine.
        uncut_share, kept_share: see `transforms.recipe.sample.Sample`.
        versions: of the libraries that decide bytes, in the process that planned; other processes must have the same.
        columns: the schema of the columns that shards or traces hold, where they hold others than the text, as
            `encode_schema` has it.
        probe: the digest of the probe's ids by `tokenizers` (`transforms.encoding.recheck`).
    """

    dataset: str
    files: tuple[SourceFile, ...]
    shards: tuple[PlannedShard, ...]
    ratio: Ratio
    engine: ChosenEngine
    versions: Mapping[str, str]
    probe: str
    fingerprint: str
    work_folder: str
    columns: str = ""
    reference_share: float = 0.0
    uncut_share: float = 0.0
    kept_share: float = 1.0

    @property
    def available(self) -> tuple[int, int]:
        """(tokens, error) that the whole source is expected to hold."""
        return self.ratio.tokens(sum(shard.text_bytes for shard in self.shards))

    def task(self, ordinal: int, stop_after: int | None) -> ShardTask:
        shard = self.shards[ordinal]
        files = [(self.files[file], group) for file, group in shard.row_groups]
        return ShardTask(
            dataset=self.dataset,
            work_folder=self.work_folder,
            fingerprint=self.fingerprint,
            engine=self.engine,
            versions=self.versions,
            probe=self.probe,
            ordinal=ordinal,
            row_groups=tuple((file.path, group) for file, group in files),
            planned=tuple((file.version, file.row_groups[group]) for file, group in files),
            rows=shard.rows,
            text_bytes=shard.text_bytes,
            stop_after=stop_after,
            columns=self.columns,
        )


@register_json_coder
@dataclasses.dataclass(frozen=True)
class PlanHead:
    """A plan without its files and shards, which travel in parts; see `split_plan`.

    Attributes:
        parts: how many there are.
    """

    plan: DatasetPlan
    parts: int

    def whole(self, parts: Iterable[PlanPart]) -> DatasetPlan:
        """The plan, from all its parts in order.

        Raises:
            ValueError: some of them are not there.
        """
        given = list(parts)
        if len(given) != self.parts:
            raise ValueError(f"dataset {self.plan.dataset}: {len(given)} parts of its plan came, of {self.parts}")
        files = tuple(file for part in given for file in part.files)
        shards = tuple(shard for part in given for shard in part.shards)
        return dataclasses.replace(self.plan, files=files, shards=shards)


@register_json_coder
@dataclasses.dataclass(frozen=True)
class PlanPart:
    """Consecutive files or shards of a plan."""

    files: tuple[SourceFile, ...] = ()
    shards: tuple[PlannedShard, ...] = ()


def split_plan(plan: DatasetPlan) -> tuple[PlanHead, list[PlanPart]]:
    """A plan in pieces of a few megabytes at most, one large file aside."""
    files = _runs(plan.dataset, plan.files)
    shards = _runs(plan.dataset, plan.shards)
    parts = [*(PlanPart(files=run) for run in files), *(PlanPart(shards=run) for run in shards)]
    return PlanHead(dataclasses.replace(plan, files=(), shards=()), len(parts)), parts


def _runs[T: (SourceFile, PlannedShard)](dataset: str, things: Sequence[T]) -> list[tuple[T, ...]]:
    placed = in_blocks(dataset, things, GROUPS_PER_BLOCK, lambda thing: 1 + len(thing.row_groups))
    return [tuple(thing for _, thing in run) for _, run in itertools.groupby(placed, key=lambda one: one[0])]


def _warn_of_doubles(dataset: str, files: Sequence[SourceFile]) -> None:
    """Warns of files that are there twice, by links or as copies: by size and footer, before any text is read."""
    alike: dict[tuple[int, str], list[str]] = {}
    for file in files:
        if file.row_groups:
            alike.setdefault((file.size, file.footer_sha256), []).append(file.path)
    doubles = [paths for paths in alike.values() if len(paths) > 1]
    for paths in doubles[:_MOST_TOLD]:
        _LOGGER.warning(
            "dataset %s: %s and %s are the same file by size and footer, and its documents are taken as often; have "
            "the source name one of them",
            dataset,
            ", ".join(paths[:-1]),
            paths[-1],
        )
    if len(doubles) > _MOST_TOLD:
        _LOGGER.warning("dataset %s: %s more files are there several times", dataset, f"{len(doubles) - _MOST_TOLD:,}")


def byte_deciding_versions(spec: DatasetSpec) -> dict[str, str]:
    """The installed versions of the libraries that may decide bytes: ids by the one, files by the other."""
    libraries = {"tokenizers"}
    if (writer := _WRITERS[spec.records.format]) is not None:
        libraries.add(writer)
    if spec.on_bad_rows == "quarantine" or spec.trace:
        libraries.add("pyarrow")
    return {name: importlib.metadata.version(name) for name in sorted(libraries, reverse=True)}


def check_versions(spec: DatasetSpec, planned: Mapping[str, str]) -> None:
    """Checks that this process has the versions of the libraries that decide bytes with which the build was planned.

    Raises:
        BroetchenError: it has others.
    """
    for name, found in byte_deciding_versions(spec).items():
        if found != planned.get(name):
            raise BroetchenError(
                f"dataset {spec.name}: this worker has {name} {found}, and the build was planned with "
                f"{planned.get(name, 'none')}; install the same versions on all machines, and run it again"
            )


def fingerprint(spec: DatasetSpec, source: Sequence[SourceFile]) -> str:
    """SHA-256 over all that decides the dataset's bytes: config, tokenizer, source, format and library versions."""
    return _digest(spec, source, spec.config)


def work_key(spec: DatasetSpec, source: Sequence[SourceFile]) -> str:
    """SHA-256 over all that decides the bytes of provisional shards, and not how many of them a budget takes."""
    return _digest(spec, source, shard_config(spec.config))


def shard_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a dataset's config that decides the bytes of provisional shards."""
    dataset = {key: value for key, value in config.get("dataset", {}).items() if key not in _HOW_MUCH}
    return {**config, "dataset": dataset}


def _digest(spec: DatasetSpec, source: Sequence[SourceFile], config: Mapping[str, Any]) -> str:
    parts = {
        "format": FORMAT_VERSION,
        "versions": byte_deciding_versions(spec),
        "config": config,
        "tokenizer": spec.tokenizer.sha256,
        "source": [(spec.shown_path(file.path), file.size, file.footer_sha256, file.checksum) for file in source],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def read_source(spec: DatasetSpec) -> list[SourceFile]:
    """The footers of a dataset's files, in the order of their paths, read several at a time.

    Raises:
        BroetchenError: a source is missing or damaged.
    """
    read = functools.partial(read_footer, text_column=spec.text_column, with_columns=spec.reads_columns, rows=spec.rows)
    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        return list(pool.map(lambda file: read(*file), expand_sources(spec.sources)))


def plan_dataset(
    spec: DatasetSpec, source: Iterable[SourceFile], *, known: Mapping[tuple[str, int], int] | None = None
) -> DatasetPlan:
    """Plans one dataset from its footers and a sample of its text.

    Args:
        known: tokens of row groups that were counted, by (path, row group), for a look at the whole source: the others
            are sampled, all over it. None where the plan is for a build, which needs no more than its budget takes.

    Raises:
        BroetchenError: the source has no text, or none that can be read; or its files' columns cannot be united.
        UsageError: the engine that was asked for cannot be used.
    """
    ordered = tuple(sorted(source, key=lambda file: file.path))
    columns = _united_columns(spec, ordered)
    ordered = tuple(dataclasses.replace(file, columns="") for file in ordered)
    _warn_of_doubles(spec.name, ordered)
    groups = order_row_groups(ordered, spec.order, spec.seed)
    shards = lay_out_shards(ordered, groups, spec.shard_limits)
    if known is None:
        warn_of_footers(spec, ordered)
        # Only a sample of the whole source tells how much of it passes a filter.
        sampled = groups if spec.rows else within_reach(ordered, groups, _REACH_BYTES_PER_TOKEN * spec.need)
        stored = sum(shard.stored_bytes for shard in shards)
        needed = min(stored, _BYTES_PER_TOKEN * spec.need * stored / max(1, sum(shard.text_bytes for shard in shards)))
        fetched = _SAMPLED_SHARE * needed
    else:
        sampled = [(file, group) for file, group in groups if (ordered[file].path, group) not in known] or groups
        fetched = _FETCHED_FOR_A_LOOK
    sample = take_sample(spec, ordered, sampled, groups, fetched_bytes=fetched)
    named = f"dataset {spec.name}"
    engine, reason = choose_engine(named, spec.tokenizer, spec.engine, [(sample.texts, sample.encoded)])
    if reason is not None:
        _LOGGER.warning("%s: encoding with tokenizers, which is slower, since gigatoken %s", named, reason)
    return DatasetPlan(
        dataset=spec.name,
        files=ordered,
        shards=shards,
        ratio=sample.ratio,
        engine=engine,
        versions=byte_deciding_versions(spec),
        probe=probe_digest(spec.tokenizer, "tokenizers"),
        fingerprint=fingerprint(spec, ordered),
        work_folder=posixpath.join(spec.work_root, work_key(spec, ordered)[:16]),
        columns=columns,
        reference_share=reference_share(spec.tokenizer, sample.texts) if engine == "gigatoken" else 0.0,
        uncut_share=sample.uncut_share,
        kept_share=sample.kept_share,
    )


def _united_columns(spec: DatasetSpec, source: Sequence[SourceFile]) -> str:
    if not spec.reads_columns:
        return ""
    schemas = [(file.path, decode_schema(file.columns)) for file in source]
    if spec.trace_columns:
        chosen = choose_columns(schemas, [*spec.trace_columns, spec.text_column], spec.text_column)
        schemas = schemas if spec.with_columns else chosen
    return encode_schema(unite_schemas(schemas, spec.text_column))


def _source_of(name: str, spec: DatasetSpec) -> TextSource:
    return TextSource(name, spec.sources, spec.text_column, spec.reads_columns, spec.rows)


class _PlanDataset(beam.DoFn):
    def process(
        self, element: tuple[str, Iterable[SourceFile]], specs: Mapping[str, DatasetSpec]
    ) -> Iterator[tuple[str, PlanHead] | TaggedOutput[str, tuple[Block, PlanPart]]]:
        name, source = element
        head, parts = split_plan(plan_dataset(specs[name], source))
        for number, part in enumerate(parts):
            yield TaggedOutput(_PARTS, ((name, number), part))
        yield name, head


@beam.typehints.with_input_types(tuple[str, DatasetSpec])
class PlanDatasets(beam.PTransform[beam.PCollection[tuple[str, DatasetSpec]], DoOutputsTuple]):
    """(name, DatasetSpec) in, plans out. Files are expanded and footers read in parallel.

    The names must differ. Plans grow with their sources and so come in parts, by the outputs `heads`, of
    (name, PlanHead), and `parts`, of ((name, number), PlanPart).

    Example:
        >>> from transforms.arrayrecord.records import RecordSpec
        >>> from transforms.tokenizer.spec import TokenizerSpec
        >>> from transforms.tokenizer.file import load_tokenizer
        >>> path = "samples/tokenizer.json"
        >>> tokenizer = TokenizerSpec(path, load_tokenizer(path).sha256, None, "<|eos|>", special_tokens="text")
        >>> spec = DatasetSpec(
        ...     name="english", mix="example", sources=("samples/corpora/fineweb_english/*.parquet",), source_roots=(),
        ...     text_column="text", order="sequential", seed=0, budgets={"train": 1000, "eval": 100},
        ...     on_shortfall="fail", records=RecordSpec("tokens", max_tokens=256, bos_id=None, eos_id=1),
        ...     target_size=64 << 10, group_size=1, compression="zstd", tokenizer=tokenizer, engine="auto",
        ...     output="out", config={},
        ... )
        >>> with beam.Pipeline() as pipeline:
        ...     plans = pipeline | beam.Create([("english", spec)]) | PlanDatasets()
        ...     parts = plans.parts | beam.MapTuple(lambda key, part: print(key, len(part.files), len(part.shards) > 5))
        ('english', 0) 2 False
        ('english', 1) 0 True

    Raises:
        BroetchenError: (when run) a source is missing or damaged, or holds no text.
        UsageError: (when run) the engine that was asked for cannot be used.
    """

    def expand(self, named: beam.PCollection[tuple[str, DatasetSpec]]) -> DoOutputsTuple:
        plan = beam.ParDo(_PlanDataset(), AsDict(named)).with_output_types(
            tuple[str, PlanHead], **{_PARTS: tuple[Block, PlanPart]}
        )
        return (
            named
            | "Sources" >> beam.MapTuple(_source_of).with_output_types(TextSource)
            | "ReadFooters" >> ReadFooters()
            | "ByDataset" >> beam.GroupByKey()
            | "Plan" >> plan.with_outputs(_PARTS, main=_HEADS)
        )
