"""The main job as one PTransform: names of datasets in, finished datasets out.

    plan ─► tokenize shards that are surely needed, in rounds ─► tokenize those still missing
         ─► combine the counts ─► cut ─► publish ─► manifest ─► card

Each element is a shard, or a few lines about a dataset; data of all its shards travels in blocks
(`transforms.recipe.blocks`). The tokens themselves never pass through the pipeline.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import apache_beam as beam
from apache_beam.pvalue import AsDict, AsList, AsMultiMap, PCollection, TaggedOutput

from transforms.budget.repeats import expected_passes
from transforms.budget.token_budget import (
    TAKEN_OVER,
    MergeShardCounts,
    ShardCount,
    cut_dataset,
    merge_counts,
    usable_prefix,
)
from transforms.building.cut import (
    PublishTask,
    SplitSums,
    missing_text,
    plan_publication,
    shard_that_lacks_rows,
    work_folder,
)
from transforms.building.grow import check_old_files, old_shards
from transforms.building.placing import manifest_of_build, remove_other_manifest
from transforms.building.publish import PublishedShard, clear_work, finish_dataset, publish_shard
from transforms.building.rows import RowsTask, ShardRows, tell_rows
from transforms.building.shard import build_shard
from transforms.building.work_folder import WorkFolder
from transforms.card.mix import CardMix
from transforms.card.write import remove_card, write_card
from transforms.coders import register_json_coder
from transforms.dataset.manifest import FileEntry, Manifest, QuarantineEntry, ShardEntry, read_manifest
from transforms.dataset.quarantine import quarantine_folder
from transforms.dataset.trace import trace_folder, trace_sizes
from transforms.encoding.recheck import engine_version
from transforms.errors import BroetchenError, UsageError
from transforms.files.listing import list_files
from transforms.locks.output import check_token
from transforms.quantities import format_estimate, format_short
from transforms.recipe.blocks import GROUPS_PER_BLOCK, SHARDS_PER_BLOCK, Block, in_blocks, of_blocks, shard_block
from transforms.recipe.differences import config_differences, other_dataset, source_differences, version_differences
from transforms.recipe.plan import FORMAT_VERSION, DatasetPlan, PlanDatasets, PlanHead, PlanPart
from transforms.recipe.shard_plan import ShardTask, next_shards
from transforms.recipe.spec import DatasetSpec

# A cut of text gives back a document's tail, and may put back whole documents: have some to go on with.
_TEXT_RESERVE_TOKENS = 4096

# The first goes as far as the sample is sure, the next one mostly to the end, and the others are for uneven sources.
_ROUNDS = 4
_MOST_ERROR = 0.25

_FINISHED = "finished"
_FAILED = "failed"
_HEADS = "heads"
_ROWS = "rows"
_SUMS = "sums"

_LOGGER = logging.getLogger(__name__)


@register_json_coder
@dataclasses.dataclass(frozen=True)
class BuildResult:
    """A dataset that is finished; `built` is False where an earlier run had finished it."""

    dataset: str
    tokens: int
    built: bool


Specs = Mapping[str, DatasetSpec]
Parts = Mapping[Block, Iterable[PlanPart]]
Counts = Mapping[Block, Iterable[ShardCount]]


def find_finished(spec: DatasetSpec, plan: DatasetPlan) -> Manifest | None:
    """The manifest of an earlier build of the same dataset, if it is finished and all its files are there.

    Raises:
        BroetchenError: another config's dataset lies there, or a damaged one, and the spec does not say to overwrite
            it.
    """
    try:
        manifest = read_manifest(spec.folder)
        if manifest is not None:
            _check_finished(spec, plan, manifest)
        return manifest
    except BroetchenError:
        if not spec.overwrite:
            raise
    remove_card(spec.output)
    remove_other_manifest(spec.folder)
    return None


def _check_finished(spec: DatasetSpec, plan: DatasetPlan, manifest: Manifest) -> None:
    if manifest.format_version < FORMAT_VERSION:
        raise BroetchenError(
            f"{spec.folder}: was built by an older version of Brötchen (format version {manifest.format_version}, now "
            f"{FORMAT_VERSION}), and can be read, verified and trained on as it is; to build it again choose another "
            "--output, or replace it with --overwrite"
        )
    if manifest.fingerprint != plan.fingerprint:
        differences = [
            *config_differences(spec, manifest),
            *source_differences(spec, plan.files, manifest),
            *version_differences(plan.versions, manifest),
        ]
        # Such as files that are new in the source, behind those that the dataset took.
        unknown = f"its fingerprint is {manifest.fingerprint[:16]} and this build's {plan.fingerprint[:16]}"
        raise other_dataset(spec, differences or [unknown])
    if spec.on_bad_rows == "fail" and any(manifest.skipped.values()):
        raise BroetchenError(
            f"{spec.folder}: {sum(manifest.skipped.values()):,} rows of its source were left out, and "
            "now on_bad_rows is fail; build it at another --output to see the first one, or set on_bad_rows: skip"
        )
    sizes = {path: size for name in spec.records.extensions for path, size in list_files(spec.folder, f"*.{name}")}
    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    entries: list[FileEntry | ShardEntry | QuarantineEntry] = [*manifest.quarantine, *shards]
    entries += [file for shard in shards for file in shard.beside]
    traces = list(trace_sizes(manifest))
    expected = [*((entry.file, entry.bytes) for entry in entries), *traces]
    if manifest.quarantine:
        sizes |= list_files(quarantine_folder(spec.folder), "*")
    if traces:
        sizes |= list_files(trace_folder(spec.folder), "*")
    if any(sizes.get(f"{spec.folder}/{file}") != size for file, size in expected):
        raise BroetchenError(
            f"{spec.folder}: files that its manifest names are gone or cut short; --overwrite rebuilds it"
        )


def with_trusted_engine(spec: DatasetSpec, plan: DatasetPlan, work: WorkFolder) -> DatasetPlan:
    """The plan, by the reference instead of an engine that an earlier run has found to err.

    Raises:
        UsageError: the config or the command asks for that very engine.
    """
    reason = work.distrusted(engine_version(plan.engine))
    if reason is None:
        return plan
    if spec.engine == plan.engine:
        raise UsageError(f"dataset {spec.name}: --engine {spec.engine} was found to err: {reason}; take --engine auto")
    _LOGGER.warning("dataset %s: encoding with tokenizers, which is slower, since %s", spec.name, reason)
    return dataclasses.replace(plan, engine="tokenizers")


def _warn_of_shortfall(spec: DatasetSpec, plan: DatasetPlan) -> None:
    available, error = plan.available
    if spec.max_repeats > 1:
        _warn_of_repeats(spec, available, error)
        return
    missing = spec.need - available
    # A sample of a row group or two says too little to warn by its error alone.
    says_little = error > _MOST_ERROR * available
    if spec.on_shortfall == "fail" and missing + (0 if says_little else error) > 0:
        sure = missing > error
        _LOGGER.warning(
            "dataset %s: its source holds %s tokens by a sample, and %s are wanted: it %s %s",
            spec.name,
            format_estimate(available, error),
            f"{spec.need:,}",
            "will lack" if sure else "may fall short by up to",
            format_estimate(missing, error) if sure and error else format_short(missing + error),
        )


def _warn_of_repeats(spec: DatasetSpec, available: int, error: int) -> None:
    found = expected_passes(spec.budgets, available, error)
    # As above, a sample that says little is taken at its word.
    if (found.most if error <= _MOST_ERROR * available else found.expected) <= 1:
        return
    _LOGGER.warning(
        "dataset %s: its source holds %s tokens by a sample, and %s are wanted: it %s written once, for a training to "
        "read %s times%s",
        spec.name,
        format_estimate(available, error),
        f"{spec.need:,}",
        "will be" if found.least > 1 else "may be",
        found,
        "" if found.most <= spec.max_repeats else f"; max_repeats allows {spec.max_repeats:g}",
    )


def _needed(spec: DatasetSpec) -> int:
    return spec.need + (_TEXT_RESERVE_TOKENS if spec.records.is_text else 0)


class _FindFinished(beam.DoFn):
    def process(
        self, element: tuple[str, PlanHead], specs: Specs, parts: Parts
    ) -> Iterator[tuple[str, PlanHead] | TaggedOutput[str, BuildResult]]:
        name, head = element
        spec, plan = specs[name], head.whole(of_blocks(name, parts))
        manifest = find_finished(spec, plan)
        if manifest is None:
            work = work_folder(spec, plan)
            work.take_back()
            work.write_budgets(spec.budgets)
            _warn_of_shortfall(spec, plan)
            check_old_files(spec, plan)
            yield name, dataclasses.replace(head, plan=with_trusted_engine(spec, head.plan, work))
        else:
            tokens = sum(split.tokens for split in manifest.splits.values())
            yield TaggedOutput(_FINISHED, BuildResult(name, tokens, built=False))


class _NextShards(beam.DoFn):
    def process(self, element: tuple[str, PlanHead], specs: Specs, parts: Parts, known: Counts) -> Iterator[ShardTask]:
        name, head = element
        spec, plan = specs[name], head.whole(of_blocks(name, parts))
        counts = usable_prefix(merge_counts(of_blocks(name, known)))
        if wanted := next_shards(plan.shards, counts, plan.ratio, _needed(spec)):
            old = old_shards(spec, plan)
            for ordinal, stop_after in wanted:
                yield dataclasses.replace(plan.task(ordinal, stop_after), old=old.get(ordinal))


class _BuildShard(beam.DoFn):
    def process(self, task: ShardTask, specs: Specs) -> Iterator[tuple[Block, ShardCount]]:
        yield shard_block(task.dataset, task.ordinal), build_shard(specs[task.dataset], task)


class _CompleteBudget(beam.DoFn):
    """Tokenizes one shard after another until the budget is met. Mostly the rounds before have left nothing to do.

    Of a dataset that is grown from another, also the shards that were taken over and turn out to have to be cut.
    """

    def process(
        self,
        element: tuple[str, PlanHead],
        specs: Specs,
        parts: Parts,
        known: Counts,
    ) -> Iterator[tuple[Block, ShardCount]]:
        name, head = element
        spec, plan = specs[name], head.whole(of_blocks(name, parts))
        counts = usable_prefix(merge_counts(of_blocks(name, known)))
        need, old = _needed(spec), old_shards(spec, plan)
        while True:
            while tasks := next_shards(plan.shards, counts, plan.ratio, need):
                ordinal, _ = tasks[0]
                have = sum(count.tokens for count in counts[:ordinal])
                task = plan.task(ordinal, need - have)
                count = build_shard(spec, dataclasses.replace(task, old=old.get(ordinal)))
                counts = (*counts[:ordinal], count)
                yield shard_block(name, ordinal), count
            if not spec.records.is_text and all(count.has_rows for count in counts):
                return
            # A runner may do this step again, after the last.
            if manifest_of_build(spec.folder, plan.fingerprint) is not None:
                return
            if (lacking := shard_that_lacks_rows(spec, plan, counts)) is not None:
                count = tokenize_again(spec, plan, counts[lacking])
                counts = (*counts[:lacking], count, *counts[lacking + 1 :])
                yield shard_block(name, lacking), count
                continue
            if not spec.records.is_text:
                return
            exhausted = len(counts) == len(plan.shards) and counts[-1].complete
            if exhausted or not missing_text(spec, plan, counts):
                return
            # Documents without a cut took up the reserve: read on behind them.
            need = sum(count.tokens for count in counts) + _TEXT_RESERVE_TOKENS


def tokenize_again(spec: DatasetSpec, plan: DatasetPlan, taken: ShardCount) -> ShardCount:
    """Tokenizes a shard that was taken over, so that the fate of its rows is known.

    Raises:
        BroetchenError: it is another one now.
    """
    count = build_shard(spec, plan.task(taken.ordinal, None), with_rows=True)
    if count.file.sha256 != taken.file.sha256:
        reason = (
            f"dataset {spec.name}: shard {taken.ordinal} of the plan, taken over by --grow, is not what its source "
            "gives now; see what broetchen verify --against-source says of the old dataset; run again, this takes over "
            "nothing"
        )
        work_folder(spec, plan).distrust(TAKEN_OVER, reason)
        raise BroetchenError(reason)
    return count


class _PlanPublication(beam.DoFn):
    def __init__(self, token: str | None) -> None:
        self._token = token

    def process(
        self,
        element: tuple[str, PlanHead],
        specs: Specs,
        parts: Parts,
        counted: Mapping[Block, Iterable[Sequence[ShardCount]]],
    ) -> Iterator[
        tuple[Block, PublishTask]
        | TaggedOutput[str, str]
        | TaggedOutput[str, tuple[Block, RowsTask]]
        | TaggedOutput[str, tuple[str, SplitSums]]
    ]:
        name, head = element
        spec, plan = specs[name], head.whole(of_blocks(name, parts))
        _check_lock(spec, self._token)
        counts = [count for block in of_blocks(name, counted) for count in block]
        try:
            publish_plan = plan_publication(spec, plan, cut_dataset(counts, spec.budgets))
        except BroetchenError as error:
            # The other datasets are published all the same; the last step fails the job.
            yield TaggedOutput(_FAILED, str(error))
            return
        yield from in_blocks(name, publish_plan.tasks, SHARDS_PER_BLOCK)
        # The account of a shard's rows grows with its row groups.
        for placed in in_blocks(name, publish_plan.rows, GROUPS_PER_BLOCK, lambda task: 1 + len(task.group_rows)):
            yield TaggedOutput(_ROWS, placed)
        yield TaggedOutput(_SUMS, (name, publish_plan.sums))


def _check_lock(spec: DatasetSpec, token: str | None) -> None:
    """Nothing gets a final name once another build has taken the output over."""
    if token is not None:
        check_token(spec.output, token)


class _PublishShard(beam.DoFn):
    def __init__(self, token: str | None) -> None:
        self._token = token

    def process(self, element: tuple[Block, PublishTask], specs: Specs) -> Iterator[tuple[Block, PublishedShard]]:
        block, task = element
        spec = specs[task.dataset]
        _check_lock(spec, self._token)
        if (published := publish_shard(spec, task)) is not None:
            yield block, published


class _TellRows(beam.DoFn):
    def __init__(self, token: str | None) -> None:
        self._token = token

    def process(self, element: tuple[Block, RowsTask], specs: Specs) -> Iterator[tuple[Block, ShardRows]]:
        block, task = element
        spec = specs[task.dataset]
        _check_lock(spec, self._token)
        if (told := tell_rows(spec, task)) is not None:
            yield block, told


class _FinishDataset(beam.DoFn):
    def __init__(self, token: str | None) -> None:
        self._token = token

    def process(
        self,
        element: tuple[str, SplitSums],
        specs: Specs,
        heads: Mapping[str, PlanHead],
        parts: Parts,
        published: Mapping[Block, Iterable[PublishedShard]],
        rows: Mapping[Block, Iterable[ShardRows]],
    ) -> Iterator[BuildResult]:
        name, sums = element
        spec, plan = specs[name], heads[name].whole(of_blocks(name, parts))
        _check_lock(spec, self._token)
        manifest = finish_dataset(spec, plan, sums, of_blocks(name, published), of_blocks(name, rows))
        yield BuildResult(name, sum(split.tokens for split in manifest.splits.values()), built=True)


class _EndBuild(beam.DoFn):
    def __init__(self, token: str | None, card: CardMix | None) -> None:
        self._token, self._card = token, card

    def process(self, _: object, specs: Specs, failures: Sequence[str], results: Sequence[BuildResult]) -> None:
        if self._card is not None:
            for spec in {spec.output: spec for spec in specs.values()}.values():
                _check_lock(spec, self._token)
                write_card(spec.output, self._card)
        # The results are asked for so that this runs after everything that can be published is: until then a runner
        # may do any step again, for which it needs the unfinished work.
        for result in results:
            clear_work(specs[result.dataset])
        if failures:
            raise BroetchenError("\n".join(sorted(failures)))


@beam.typehints.with_input_types(DatasetSpec)
@beam.typehints.with_output_types(BuildResult)
class BuildDatasets(beam.PTransform[PCollection[DatasetSpec], PCollection[BuildResult]]):
    """Builds datasets to their exact budgets: PCollection[DatasetSpec] in, PCollection[BuildResult] out.

    The specs, whose names must differ, reach the steps as a side input, so that the job's graph holds them once.

    Example:
        >>> import tempfile
        >>> from transforms.arrayrecord.records import RecordSpec
        >>> from transforms.tokenizer.spec import TokenizerSpec
        >>> from transforms.tokenizer.file import load_tokenizer
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = "samples/tokenizer.json"
        >>> tokenizer = TokenizerSpec(path, load_tokenizer(path).sha256, None, "<|eos|>", special_tokens="text")
        >>> spec = DatasetSpec(
        ...     name="english", mix="example", sources=("samples/corpora/fineweb_english/*.parquet",), source_roots=(),
        ...     text_column="text", order="sequential", seed=0, budgets={"train": 1000, "eval": 100},
        ...     on_shortfall="fail", records=RecordSpec("tokens", max_tokens=256, bos_id=None, eos_id=1),
        ...     target_size=64 << 10, group_size=1, compression="zstd", tokenizer=tokenizer, engine="auto",
        ...     output=folder.name, config={
        ...         "records": {"format": "tokens", "max_tokens": 256},
        ...         "dataset": {"tokens": 1000, "on_shortfall": "fail", "text_column": "text"},
        ...     },
        ... )
        >>> with beam.Pipeline() as pipeline:
        ...     results = pipeline | beam.Create([spec]) | BuildDatasets() | beam.Map(print)
        BuildResult(dataset='english', tokens=1100, built=True)
        >>> read_manifest(spec.folder).splits["train"].tokens
        1000
        >>> folder.cleanup()

    Args:
        token: of the lock on the output (`transforms.locks.output.HeldLock`), which the last steps check; None where
            there is no lock.
        card: the mix whose card is written beside the datasets at the end; None for none.

    Raises:
        BroetchenError: (when run) a source is missing, damaged or short, or an output cannot be written. A dataset
            that is short does not keep the others from being published; the pipeline fails after them.
    """

    def __init__(self, token: str | None = None, card: CardMix | None = None) -> None:
        super().__init__()
        self._token, self._card = token, card

    def expand(self, datasets: PCollection[DatasetSpec]) -> PCollection[BuildResult]:
        named = datasets | "Named" >> beam.ParDo(_Named()).with_output_types(tuple[str, DatasetSpec])
        specs = AsDict(named)
        planned = named | "Plan" >> PlanDatasets()
        parts = AsMultiMap(planned.parts)
        find_finished = beam.ParDo(_FindFinished(), specs, parts).with_output_types(
            tuple[str, PlanHead], **{_FINISHED: BuildResult}
        )
        found = planned.heads | "FindFinished" >> find_finished.with_outputs(_FINISHED, main=_HEADS)
        heads = found[_HEADS]

        counts: list[PCollection[tuple[Block, ShardCount]]] = []
        known: AsMultiMap | defaultdict[Block, list[ShardCount]] = defaultdict(list)
        for number in range(1, _ROUNDS + 1):
            next_shards_of = beam.ParDo(_NextShards(), specs, parts, known).with_output_types(ShardTask)
            counts.append(
                heads
                | f"Round{number}" >> next_shards_of
                | f"SpreadRound{number}" >> beam.Reshuffle()
                | f"TokenizeRound{number}"
                >> beam.ParDo(_BuildShard(), specs).with_output_types(tuple[Block, ShardCount])
            )
            known = AsMultiMap(counts | f"CountsOfRounds{number}" >> beam.Flatten())
        # Of several datasets that lack something, each is completed by itself.
        spread = heads | "SpreadDatasets" >> beam.Reshuffle()
        missing = spread | "CompleteBudget" >> beam.ParDo(_CompleteBudget(), specs, parts, known).with_output_types(
            tuple[Block, ShardCount]
        )
        counted = (*counts, missing) | "AllCounts" >> beam.Flatten() | "Merge" >> beam.CombinePerKey(MergeShardCounts())
        plan_publications = beam.ParDo(
            _PlanPublication(self._token), specs, parts, AsMultiMap(counted)
        ).with_output_types(
            tuple[Block, PublishTask], **{_FAILED: str, _ROWS: tuple[Block, RowsTask], _SUMS: tuple[str, SplitSums]}
        )
        publications = spread | "PlanPublication" >> plan_publications.with_outputs(_FAILED, _ROWS, _SUMS, main="tasks")
        published = (
            publications.tasks
            | "SpreadPublication" >> beam.Reshuffle()
            | "Publish" >> beam.ParDo(_PublishShard(self._token), specs).with_output_types(tuple[Block, PublishedShard])
        )
        rows = (
            publications[_ROWS]
            | "SpreadRows" >> beam.Reshuffle()
            | "TellRows" >> beam.ParDo(_TellRows(self._token), specs).with_output_types(tuple[Block, ShardRows])
        )
        built = publications[_SUMS] | "Finish" >> beam.ParDo(
            _FinishDataset(self._token), specs, AsDict(heads), parts, AsMultiMap(published), AsMultiMap(rows)
        ).with_output_types(BuildResult)
        results = (found[_FINISHED], built) | "Results" >> beam.Flatten()
        _ = (
            datasets.pipeline
            | "Once" >> beam.Impulse()
            | "End"
            >> beam.ParDo(_EndBuild(self._token, self._card), specs, AsList(publications[_FAILED]), AsList(results))
        )
        return results


class _Named(beam.DoFn):
    def process(self, spec: DatasetSpec) -> Iterator[tuple[str, DatasetSpec]]:
        yield spec.name, spec
