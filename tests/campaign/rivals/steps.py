"""The steps of a build, one by one in this process, for what befalls a build between two of them."""

from __future__ import annotations

import dataclasses

from beam_pipelines.config.mix import load_config
from beam_pipelines.jobs.specs import dataset_specs, keep_tokenizer, load_config_tokenizer
from transforms.budget.token_budget import ShardCount, cut_dataset
from transforms.building.cut import PublishPlan, plan_publication, work_folder
from transforms.building.publish import PublishedShard, finish_dataset, publish_shard
from transforms.building.rows import ShardRows, tell_rows
from transforms.building.shard import build_shard
from transforms.recipe.plan import DatasetPlan, plan_dataset, read_source
from transforms.recipe.spec import DatasetSpec


def planned(config: str, output: str, dataset: str) -> tuple[DatasetSpec, DatasetPlan]:
    """The spec and the plan of a dataset."""
    mix = load_config(config)
    tokenizer = load_config_tokenizer(mix)
    keep_tokenizer(tokenizer, output)
    (spec,) = dataset_specs(mix, [dataset], tokenizer, output=output, engine="tokenizers", overwrite=False)
    return spec, plan_dataset(spec, read_source(spec))


@dataclasses.dataclass(frozen=True)
class Steps:
    """A dataset that was tokenized, and is to be published."""

    spec: DatasetSpec
    plan: DatasetPlan
    publish_plan: PublishPlan

    @classmethod
    def tokenized(cls, spec: DatasetSpec, plan: DatasetPlan) -> Steps:
        """Runs the steps up to there."""
        work_folder(spec, plan).write_budgets(spec.budgets)
        counts: list[ShardCount] = []
        for ordinal in range(len(plan.shards)):
            missing = spec.need - sum(count.tokens for count in counts)
            if missing > 0:
                counts.append(build_shard(spec, plan.task(ordinal, missing)))
        return cls(spec, plan, plan_publication(spec, plan, cut_dataset(counts, spec.budgets)))

    def publish(self) -> tuple[list[PublishedShard], list[ShardRows]]:
        published = [publish_shard(self.spec, task) for task in self.publish_plan.tasks]
        told = [tell_rows(self.spec, task) for task in self.publish_plan.rows]
        return [shard for shard in published if shard], [rows for rows in told if rows]

    def finish(self, published: list[PublishedShard], told: list[ShardRows]) -> None:
        finish_dataset(self.spec, self.plan, self.publish_plan.sums, published, told)
