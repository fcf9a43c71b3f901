"""One small dataset, whose build can be stopped between any two of its steps, and taken up again."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from beam_pipelines.config.mix import load_config
from beam_pipelines.jobs.specs import dataset_specs, keep_tokenizer, load_config_tokenizer
from tests.support.corpora import write_parquet
from tests.support.killed_builds import tree
from tests.support.small_tokenizers import added_token, byte_level
from transforms.arrayrecord.records import Format, holds_ids
from transforms.budget.token_budget import ShardCount, cut_dataset
from transforms.building.cut import PublishPlan, plan_publication, shard_that_lacks_rows, work_folder
from transforms.building.datasets import find_finished, tokenize_again
from transforms.building.grow import check_old_files
from transforms.building.publish import PublishedShard, clear_work, finish_dataset, publish_shard
from transforms.building.rows import ShardRows, tell_rows
from transforms.building.shard import build_shard
from transforms.building.work_folder import WorkFolder
from transforms.dataset.manifest import Manifest
from transforms.recipe.plan import DatasetPlan, plan_dataset, read_source
from transforms.recipe.spec import DatasetSpec

# A byte is a token, and each row group a shard. As ids, with EOS, the five shards have 8, 7, 8, 10 and 5 tokens, and as
# text 6, 6, 6, 8 and 4.
CORPUS = (
    (("aaaa", None, "bb"), ("cccccc", "")),
    (("d", "eeeee"), ("ffffff", "gg"), ("hhhh", None)),
)
EOS, BOS = 256, 257
VOCABULARY = 258
# Shards 0 and 1 whole and the first document and a piece of the next for train; the rest of it and a piece for eval.
BUDGETS: Mapping[Format, Mapping[str, int]] = {
    "tokens": {"train": 18, "eval": 7},
    "text": {"train": 14, "eval": 6},
    "parquet": {"train": 14, "eval": 6},
    "megatron": {"train": 18, "eval": 7},
}


@dataclasses.dataclass(frozen=True)
class Build:
    """The steps of `BuildDatasets` for one dataset, in this process and without a pipeline, which would take seconds.

    A method runs all the steps before its own as well: what an earlier run has finished of them, they find.
    """

    spec: DatasetSpec
    plan: DatasetPlan

    @property
    def work(self) -> WorkFolder:
        return work_folder(self.spec, self.plan)

    @property
    def folder(self) -> Path:
        return Path(self.spec.folder)

    def changed(self, **changes: Any) -> Build:
        """The same build by another spec, under the same fingerprint."""
        return dataclasses.replace(self, spec=dataclasses.replace(self.spec, **changes))

    def tokenize(self) -> tuple[ShardCount, ...]:
        """As many shards as the budgets take; of text all, as a build has some in reserve."""
        self.work.take_back()
        self.work.write_budgets(self.spec.budgets)
        old = check_old_files(self.spec, self.plan)
        counts: list[ShardCount] = []
        for ordinal in range(len(self.plan.shards)):
            missing = None
            if not self.spec.records.is_text:
                missing = self.spec.need - sum(count.tokens for count in counts)
                if missing <= 0:
                    break
            task = dataclasses.replace(self.plan.task(ordinal, missing), old=old.get(ordinal))
            counts.append(build_shard(self.spec, task))
        while (lacking := shard_that_lacks_rows(self.spec, self.plan, counts)) is not None:
            counts[lacking] = tokenize_again(self.spec, self.plan, counts[lacking])
        return tuple(counts)

    def publish_plan(self) -> PublishPlan:
        counts = self.tokenize()
        return plan_publication(self.spec, self.plan, cut_dataset(counts, self.spec.budgets))

    def publish(self) -> tuple[PublishPlan, list[PublishedShard], list[ShardRows]]:
        publish_plan = self.publish_plan()
        return publish_plan, *self.place(publish_plan)

    def place(self, publish_plan: PublishPlan) -> tuple[list[PublishedShard], list[ShardRows]]:
        """Puts all of it under its final names."""
        published = [publish_shard(self.spec, task) for task in publish_plan.tasks]
        told = [tell_rows(self.spec, task) for task in publish_plan.rows]
        return [shard for shard in published if shard], [rows for rows in told if rows]

    def finish(
        self, publish_plan: PublishPlan, published: Sequence[PublishedShard], told: Sequence[ShardRows]
    ) -> Manifest:
        return finish_dataset(self.spec, self.plan, publish_plan.sums, published, told)

    def run(self) -> Manifest:
        """All of it, unless the dataset is finished."""
        manifest = find_finished(self.spec, self.plan) or self.finish(*self.publish())
        clear_work(self.spec)
        return manifest


def plan_build(
    source: Path,
    tokenizer: Path,
    output: str,
    written: Format = "tokens",
    dataset: Mapping[str, Any] | None = None,
    **others: Any,
) -> Build:
    """A build of `source/a/*.parquet`; `dataset` and `others` are further keys of its config."""
    budgets = BUDGETS[written]
    content: dict[str, Any] = {
        "name": "small",
        "tokenizer": {"path": str(tokenizer), "bos_token": "<|bos|>", "eos_token": "<|eos|>"},
        "records": {"format": written, "max_tokens": 4, "add_eos": holds_ids(written)},
        "shards": {"target_size": 1},
        "on_bad_rows": "quarantine",
        "datasets": {
            "a": {
                "source": "a/*.parquet",
                "tokens": budgets["train"],
                "eval_tokens": budgets["eval"],
                **(dataset or {}),
            }
        },
    }
    (source / "mix.yaml").write_text(yaml.safe_dump(content | others))
    config = load_config(str(source / "mix.yaml"))
    loaded = load_config_tokenizer(config)
    keep_tokenizer(loaded, output)
    (spec,) = dataset_specs(config, ["a"], loaded, output=output, engine="tokenizers", overwrite=False)
    return Build(spec, plan_dataset(spec, read_source(spec)))


@contextlib.contextmanager
def _without_syncing() -> Iterator[None]:
    """Spares waiting for the disk, which takes most of a small build's time: here no power fails."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source and its tokenizer."""
    folder = tmp_path_factory.mktemp("small")
    for number, row_groups in enumerate(CORPUS):
        write_parquet(folder / "a" / f"{number}.parquet", row_groups)
    tokenizer = byte_level(added_tokens=[added_token(EOS, "<|eos|>"), added_token(BOS, "<|bos|>")])
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


MakeBuild = Callable[..., Build]


@pytest.fixture
def make_build(corpus: Path, tmp_path: Path) -> Iterator[MakeBuild]:
    """Makes builds as `plan_build` does, by default of the corpus and at an output below `tmp_path`."""

    def make(written: Format = "tokens", source: Path = corpus, output: str = "", **others: Any) -> Build:
        return plan_build(source, corpus / "tokenizer.json", output or str(tmp_path / "out"), written, **others)

    with _without_syncing():
        yield make


Stage = Literal["tokenized", "published", "finished"]


@dataclasses.dataclass(frozen=True)
class Stages:
    """A build of ids as it was when it had done each of its steps.

    Attributes:
        kept: a folder for each stage.
        counts: of its shards.
    """

    build: Build
    kept: Path
    counts: Sequence[ShardCount]

    def restore(self, stage: Stage) -> Build:
        """Puts the output into that state again, whatever has become of it."""
        shutil.rmtree(self.build.spec.output)
        shutil.copytree(self.kept / stage, self.build.spec.output)
        return self.build

    def finished(self) -> dict[str, str]:
        """The files of the dataset's folder in the end (see `tree`)."""
        return tree(self.kept / "finished" / "a")


@pytest.fixture(scope="session")
def kept_stages(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    folder = tmp_path_factory.mktemp("stages")
    with _without_syncing():
        build = plan_build(corpus, corpus / "tokenizer.json", str(folder / "out"))
        counts = build.tokenize()
        shutil.copytree(folder / "out", folder / "tokenized")
        build.publish()
        shutil.copytree(folder / "out", folder / "published")
        build.run()
        shutil.copytree(folder / "out", folder / "finished")
    return Stages(build, folder, counts)


@pytest.fixture
def stages(kept_stages: Stages) -> Iterator[Stages]:
    with _without_syncing():
        yield kept_stages
