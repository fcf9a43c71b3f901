"""The main job as one PTransform: names of datasets in, finished datasets out.

    plan ─► tokenize what is surely needed ─► tokenize the rest ─► tokenize what is still missing
         ─► combine the counts ─► cut ─► publish ─► manifest

Each element is a shard or a dataset; the tokens themselves never pass through the pipeline.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

import apache_beam as beam
from apache_beam.pvalue import AsDict, AsList, PCollection, TaggedOutput

from transforms import files
from transforms.dataset_plan import DatasetPlan, PlanDatasets
from transforms.dataset_spec import DatasetSpec
from transforms.errors import BroetchenError
from transforms.json_coder import register_json_coder
from transforms.manifest import Manifest, manifest_path, read_manifest
from transforms.publication import PublishPlan, PublishTask, plan_publication
from transforms.publish import PublishedShard, finish_dataset, publish_shard
from transforms.shard_build import build_shard
from transforms.shard_plan import ShardTask, next_shards, sure_shards
from transforms.token_budget import DatasetCut, MergeShardCounts, ShardCount, TokenBudget, usable_prefix
from transforms.work_files import WorkFolder

# A cut of text gives back a document's tail, and may put back whole documents: have some to go on with.
_TEXT_RESERVE_TOKENS = 4096

_FINISHED, _FAILED, _PLANS = "finished", "failed", "plans"


@register_json_coder
@dataclasses.dataclass(frozen=True)
class BuildResult:
    """A dataset that is finished; `built` is False where an earlier run had finished it."""

    dataset: str
    tokens: int
    built: bool


Specs = Mapping[str, DatasetSpec]


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
    files.delete([manifest_path(spec.folder)])
    return None


def _check_finished(spec: DatasetSpec, plan: DatasetPlan, manifest: Manifest) -> None:
    if manifest.fingerprint != plan.fingerprint:
        raise BroetchenError(
            f"{spec.folder}: holds a dataset of another config, source or tokenizer (fingerprint "
            f"{manifest.fingerprint[:16]}, this build's is {plan.fingerprint[:16]}); "
            "choose another --output, or replace it with --overwrite"
        )
    sizes = dict(files.list_files(f"{spec.folder}/*.{spec.records.extension}"))
    entries = [shard for split in manifest.splits.values() for shard in split.shards]
    if any(sizes.get(f"{spec.folder}/{entry.file}") != entry.bytes for entry in entries):
        raise BroetchenError(
            f"{spec.folder}: shards that its manifest names are gone or cut short; --overwrite rebuilds it"
        )


def _needed(spec: DatasetSpec) -> int:
    return spec.need + (_TEXT_RESERVE_TOKENS if spec.records.is_text else 0)


class _FindFinished(beam.DoFn):
    def __init__(self, specs: Specs) -> None:
        self._specs = specs

    def process(self, element: tuple[str, DatasetPlan]) -> Iterator[tuple[str, DatasetPlan] | TaggedOutput]:
        name, plan = element
        manifest = find_finished(self._specs[name], plan)
        if manifest is None:
            spec = self._specs[name]
            WorkFolder(plan.work_folder, spec.records.extension).write_budgets(spec.budgets)
            yield element
        else:
            # A build that was killed right after it had written the manifest left its work behind.
            files.delete_tree(self._specs[name].work_root)
            tokens = sum(split.tokens for split in manifest.splits.values())
            yield TaggedOutput(_FINISHED, BuildResult(name, tokens, built=False))


class _BuildShard(beam.DoFn):
    def __init__(self, specs: Specs) -> None:
        self._specs = specs

    def process(self, task: ShardTask) -> Iterator[tuple[str, ShardCount]]:
        yield task.dataset, build_shard(self._specs[task.dataset], task)


class _CompleteBudget(beam.DoFn):
    """Tokenizes one shard after another until the budget is met. Mostly the rounds before have left nothing to do."""

    def __init__(self, specs: Specs) -> None:
        self._specs = specs

    def process(
        self, element: tuple[str, DatasetPlan], known: Mapping[str, Sequence[ShardCount]]
    ) -> Iterator[tuple[str, ShardCount]]:
        name, plan = element
        spec = self._specs[name]
        counts = usable_prefix(known.get(name, ()))
        while tasks := next_shards(plan.shards, counts, plan.tokens_per_byte, _needed(spec)):
            ordinal, _ = tasks[0]
            have = sum(count.tokens for count in counts[:ordinal])
            count = build_shard(spec, plan.task(ordinal, _needed(spec) - have))
            counts = (*counts[:ordinal], count)
            yield name, count


class _PlanPublication(beam.DoFn):
    def __init__(self, specs: Specs) -> None:
        self._specs = specs

    def process(
        self, element: tuple[str, DatasetCut], plans: Mapping[str, DatasetPlan]
    ) -> Iterator[PublishTask | TaggedOutput]:
        name, cut = element
        try:
            publication = plan_publication(self._specs[name], plans[name], cut)
        except BroetchenError as error:
            # The other datasets are published all the same; the last step fails the job.
            yield TaggedOutput(_FAILED, str(error))
            return
        yield from publication.tasks
        yield TaggedOutput(_PLANS, (name, publication))


class _PublishShard(beam.DoFn):
    def __init__(self, specs: Specs) -> None:
        self._specs = specs

    def process(self, task: PublishTask) -> Iterator[tuple[str, PublishedShard]]:
        yield task.dataset, publish_shard(self._specs[task.dataset], task)


class _FinishDataset(beam.DoFn):
    def __init__(self, specs: Specs) -> None:
        self._specs = specs

    def process(
        self,
        element: tuple[str, tuple[Iterable[PublishPlan], Iterable[PublishedShard]]],
        plans: Mapping[str, DatasetPlan],
    ) -> Iterator[BuildResult]:
        name, (publications, shards) = element
        (publication,) = publications
        manifest = finish_dataset(self._specs[name], plans[name], publication, shards)
        yield BuildResult(name, sum(split.tokens for split in manifest.splits.values()), built=True)


def _raise_failures(_: object, failures: Sequence[str], results: Sequence[BuildResult]) -> None:
    # The results are asked for so that this runs after everything that can be published is.
    if failures:
        raise BroetchenError("\n".join(sorted(failures)))


class BuildDatasets(beam.PTransform):
    """Builds datasets to their exact budgets: PCollection[str] of names in, PCollection[BuildResult] out.

    Args:
        specs: what each dataset is built from, by name.

    Raises:
        BroetchenError: (when run) a source is missing, damaged or short, or an output cannot be written. A dataset
            that is short does not keep the others from being published; the pipeline fails after them.
    """

    def __init__(self, specs: Specs) -> None:
        super().__init__()
        self._specs = dict(specs)

    def expand(self, names: PCollection[str]) -> PCollection[BuildResult]:
        planned = names | "Plan" >> PlanDatasets(self._specs)
        found = planned | "FindFinished" >> beam.ParDo(_FindFinished(self._specs)).with_outputs(_FINISHED, main=_PLANS)
        plans = found[_PLANS]
        sure = self._build("Sure", plans | "SureShards" >> beam.FlatMapTuple(self._sure_tasks))
        after_sure = AsDict(sure | "CombineSure" >> beam.CombinePerKey(MergeShardCounts()))
        rest = self._build("Rest", plans | "RestOfShards" >> beam.FlatMap(self._next_tasks, after_sure))
        after_rest = AsDict(
            (sure, rest) | "CountsSoFar" >> beam.Flatten() | "CombineRest" >> beam.CombinePerKey(MergeShardCounts())
        )
        missing = plans | "CompleteBudget" >> beam.ParDo(_CompleteBudget(self._specs), after_rest).with_output_types(
            tuple[str, ShardCount]
        )
        cuts = (
            (sure, rest, missing)
            | "AllCounts" >> beam.Flatten()
            | "TokenBudget" >> TokenBudget({name: spec.budgets for name, spec in self._specs.items()})
        )
        publications = cuts | "PlanPublication" >> beam.ParDo(
            _PlanPublication(self._specs), AsDict(plans)
        ).with_outputs(_FAILED, _PLANS, main="tasks")
        published = (
            publications.tasks
            | "SpreadPublication" >> beam.Reshuffle()
            | "Publish" >> beam.ParDo(_PublishShard(self._specs)).with_output_types(tuple[str, PublishedShard])
        )
        built = (
            (publications[_PLANS], published)
            | "ByDataset" >> beam.CoGroupByKey()
            | "Finish" >> beam.ParDo(_FinishDataset(self._specs), AsDict(plans)).with_output_types(BuildResult)
        )
        results = (found[_FINISHED], built) | "Results" >> beam.Flatten()
        _ = (
            names.pipeline
            | "Once" >> beam.Create([None])
            | "FailShort" >> beam.Map(_raise_failures, AsList(publications[_FAILED]), AsList(results))
        )
        return results

    def _build(self, label: str, tasks: PCollection[ShardTask]) -> PCollection[tuple[str, ShardCount]]:
        return (
            tasks
            | f"Spread{label}" >> beam.Reshuffle()
            | f"Tokenize{label}" >> beam.ParDo(_BuildShard(self._specs)).with_output_types(tuple[str, ShardCount])
        )

    def _sure_tasks(self, name: str, plan: DatasetPlan) -> Iterator[ShardTask]:
        for ordinal in sure_shards(plan.shards, plan.tokens_per_byte, _needed(self._specs[name])):
            yield plan.task(ordinal, None)

    def _next_tasks(
        self, element: tuple[str, DatasetPlan], known: Mapping[str, Sequence[ShardCount]]
    ) -> Iterator[ShardTask]:
        name, plan = element
        counts = usable_prefix(known.get(name, ()))
        for ordinal, stop_after in next_shards(plan.shards, counts, plan.tokens_per_byte, _needed(self._specs[name])):
            yield plan.task(ordinal, stop_after)
