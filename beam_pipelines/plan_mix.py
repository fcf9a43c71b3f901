"""Plans a build without starting it: what would be read and written, from footers and a sample of each source.

python -m beam_pipelines.plan_mix --config CONFIG
"""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from beam_pipelines.dataset_specs import chosen_datasets, dataset_specs, keep_tokenizer, load_config_tokenizer
from beam_pipelines.mix_config import MixConfig
from transforms.dataset_plan import DatasetPlan, plan_dataset
from transforms.dataset_spec import DatasetSpec, Engine
from transforms.parquet_source import expand_sources, read_footer
from transforms.shard_build import build_shard

_FOOTER_THREADS = 16
_MEASURED_TOKENS = 500_000


@dataclasses.dataclass(frozen=True)
class DatasetOutlook:
    """What a build of one dataset would do; all but the sizes of files are estimates.

    Attributes:
        need: tokens of all splits.
        available: tokens that the whole source is expected to hold.
        files, source_bytes: of the whole source.
        row_groups, read_bytes, files_read: what the budget needs; bytes are of the stored text column.
        shards, written_bytes: what is published.
        seconds: of one process, at the rate measured on the sample.
    """

    dataset: str
    engine: str
    need: int
    available: int
    files: int
    source_bytes: int
    files_read: int
    row_groups: int
    read_bytes: int
    shards: int
    written_bytes: int
    seconds: float


def plan(config: MixConfig, *, datasets: Sequence[str] = (), engine: Engine = "auto") -> list[DatasetOutlook]:
    """The outlook of `datasets`, or of all in the config.

    Raises:
        UsageError: the config, the tokenizer or the engine cannot be used.
        BroetchenError: a source is missing or damaged.
    """
    names = chosen_datasets(config, datasets)
    tokenizer = load_config_tokenizer(config)
    with tempfile.TemporaryDirectory(prefix="broetchen-plan-") as scratch:
        specs = dataset_specs(
            config,
            names,
            tokenizer,
            keep_tokenizer(tokenizer, scratch),
            output=scratch,
            engine=engine,
            overwrite=False,
        )
        return [_outlook(spec) for spec in specs.values()]


def _outlook(spec: DatasetSpec) -> DatasetOutlook:
    found = expand_sources(spec.sources)
    with ThreadPoolExecutor(_FOOTER_THREADS) as pool:
        footers = list(pool.map(lambda file: read_footer(file[0], file[1], spec.text_column), found))
    plan = plan_dataset(spec, footers)
    expected = list(itertools.accumulate(shard.text_bytes * plan.tokens_per_byte for shard in plan.shards))
    whole = sum(tokens < spec.need for tokens in expected)
    # Of the shard in which the budget ends, only the row groups up to there are read.
    groups = [group for shard in plan.shards[:whole] for group in shard.row_groups]
    tokens = expected[whole - 1] if whole else 0.0
    for file, group in plan.shards[whole].row_groups if whole < len(plan.shards) else ():
        if tokens >= spec.need:
            break
        groups.append((file, group))
        tokens += plan.files[file].row_groups[group].text_bytes * plan.tokens_per_byte
    available = round(expected[-1])
    rate, bytes_per_token = _measure(spec, plan)
    return DatasetOutlook(
        dataset=spec.name,
        engine=plan.engine,
        need=spec.need,
        available=available,
        files=len(plan.files),
        source_bytes=sum(file.size for file in plan.files),
        files_read=len({file for file, _ in groups}),
        row_groups=len(groups),
        read_bytes=sum(plan.files[file].row_groups[group].stored_bytes for file, group in groups),
        shards=min(len(plan.shards), whole + 1) + len(spec.budgets) - 1,
        written_bytes=round(min(spec.need, available) * bytes_per_token),
        seconds=min(spec.need, available) / rate,
    )


def _measure(spec: DatasetSpec, plan: DatasetPlan) -> tuple[float, float]:
    """Builds the beginning of the first shard: tokens a second, and bytes that a token takes in a shard."""
    started = time.perf_counter()
    count = build_shard(spec, plan.task(0, _MEASURED_TOKENS))
    tokens = max(1, count.tokens)
    return tokens / (time.perf_counter() - started), count.file_bytes / tokens


if __name__ == "__main__":
    from beam_pipelines.cli import module_main

    module_main("plan", "--config")
