"""The cost of planning where the source is huge: the planner's own steps over simulated footers.

python -m benchmarks.plan_scale [ROW_GROUPS] [SHARDS]

Prints one line of JSON. The footers are made up; everything after them is the code of a build: ordering, cutting into
shards, the fingerprint, the plan's coder there and back, the rounds' choice of shards, and a task for each shard.

`travels` has the elements that then travel through the pipeline of a dataset of SHARDS shards, by kind: the largest
one, and the largest block of them, which one answer of a side input holds.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import posixpath
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from apache_beam import coders

from transforms.arrayrecord.records import RecordSpec
from transforms.budget.token_budget import ShardCount, cut_dataset, usable_prefix
from transforms.building.cut import PublishTask, plan_publication
from transforms.building.publish import PublishedShard
from transforms.building.rows import RowsTask, ShardRows
from transforms.checksums import FileMark
from transforms.coders import to_json
from transforms.dataset.manifest import Order
from transforms.parquet.footer import RowGroup, SourceFile
from transforms.recipe.blocks import GROUPS_PER_BLOCK, SHARDS_PER_BLOCK, in_blocks
from transforms.recipe.plan import DatasetPlan, byte_deciding_versions, fingerprint, split_plan
from transforms.recipe.ratio import Ratio
from transforms.recipe.shard_plan import PlannedShard, lay_out_shards, next_shards, order_row_groups
from transforms.recipe.spec import DatasetSpec
from transforms.tokenizer.spec import TokenizerSpec

ROW_GROUPS = 300_000
SHARDS = 166_000
_GROUPS_PER_FILE = 1_000
_ROWS = 1_000
_TOKENS_PER_BYTE = 0.25


@dataclasses.dataclass(frozen=True)
class PlanCost:
    """Costs of one plan.

    Attributes:
        row_groups: in the source.
        shards: that they make.
        tasks: tokenizing tasks that the two rounds handed out.
        plan_bytes: of the encoded plan.
        seconds: by step; the making of the footers is left out.
        peak_bytes: the most memory that the process has held, libraries included.
    """

    row_groups: int
    shards: int
    tasks: int
    plan_bytes: int
    seconds: dict[str, float]
    peak_bytes: int

    @property
    def total_seconds(self) -> float:
        return sum(self.seconds.values())


def simulated_source(row_groups: int) -> tuple[SourceFile, ...]:
    """Files of a thousand row groups each, of sizes that differ, in the order of their paths."""
    files = []
    for start in range(0, row_groups, _GROUPS_PER_FILE):
        groups = tuple(
            RowGroup(_ROWS, 3_000_000 + 7_919 * (index % 251), 1_000_000 + 104_729 * (index % 13))
            for index in range(start, min(start + _GROUPS_PER_FILE, row_groups))
        )
        name = f"{start // _GROUPS_PER_FILE:06d}.parquet"
        mark = hashlib.sha256(name.encode()).hexdigest()
        stored = sum(group.stored_bytes for group in groups)
        files.append(SourceFile(f"gs://corpus/data/{name}", stored, mark, mark[:32], groups))
    return tuple(files)


def simulated_spec(source: tuple[SourceFile, ...], order: Order) -> DatasetSpec:
    """A dataset that takes half of `source`."""
    text_bytes = sum(group.text_bytes for file in source for group in file.row_groups)
    return DatasetSpec(
        name="simulated",
        mix="simulated",
        sources=("gs://corpus/data/*.parquet",),
        source_roots=(("gs://corpus", "gs://corpus"),),
        text_column="text",
        order=order,
        seed=0,
        budgets={"train": round(text_bytes * _TOKENS_PER_BYTE / 2)},
        on_shortfall="fail",
        records=RecordSpec("tokens", 2048, None, None),
        target_size=1 << 20,  # a shard for every row group: the most that there can be
        group_size=1,
        compression="zstd",
        tokenizer=TokenizerSpec("gs://corpus/tokenizer.json", "0" * 64, None, None, "text"),
        engine="auto",
        output="gs://corpus/out",
        config={"seed": 0},
    )


def measure_plan(row_groups: int = ROW_GROUPS, order: Order = "shuffled") -> PlanCost:
    """Plans a simulated dataset, step by step, and measures each.

    Raises:
        ValueError: the plan does not survive its coder, or the rounds do not hand out enough.
    """
    source = simulated_source(row_groups)
    spec = simulated_spec(source, order)
    seconds: dict[str, float] = {}

    def timed(step: str, work: Any) -> Any:
        started = time.perf_counter()
        result = work()
        seconds[step] = time.perf_counter() - started
        return result

    groups = timed("order", lambda: order_row_groups(source, order, spec.seed))
    shards = timed("lay_out", lambda: lay_out_shards(source, groups, spec.shard_limits))
    mark = timed("fingerprint", lambda: fingerprint(spec, source))
    plan = _planned(spec, source, shards, mark)
    coder = coders.registry.get_coder(DatasetPlan)
    encoded = timed("encode", lambda: coder.encode(plan))
    decoded = timed("decode", lambda: coder.decode(encoded))
    if decoded != plan:
        raise ValueError("the plan's coder does not give back the plan that it was given")
    plan = decoded

    def first_round() -> int:
        tasks = next_shards(plan.shards, (), plan.ratio, spec.need)
        return sum(plan.task(ordinal, stop_after).rows > 0 for ordinal, stop_after in tasks)

    sure = timed("first_round", first_round)
    # Fewer tokens than the sample promised, so that the second round has something to do.
    counts = [ShardCount(n, round(shards[n].text_bytes * _TOKENS_PER_BYTE * 0.9)) for n in range(sure)]

    def second_round() -> int:
        known = usable_prefix(counts)
        tasks = next_shards(plan.shards, known, plan.ratio, spec.need)
        return sum(plan.task(ordinal, stop_after).rows > 0 for ordinal, stop_after in tasks)

    rest = timed("second_round", second_round)
    if not sure or not rest:
        raise ValueError("a round hands out no shard")
    return PlanCost(row_groups, len(shards), sure + rest, len(encoded), seconds, _peak_bytes())


def _planned(
    spec: DatasetSpec, source: tuple[SourceFile, ...], shards: tuple[PlannedShard, ...], mark: str
) -> DatasetPlan:
    return DatasetPlan(
        dataset=spec.name,
        files=source,
        shards=shards,
        ratio=Ratio(_TOKENS_PER_BYTE, 0.25),
        engine="tokenizers",
        versions=byte_deciding_versions(spec),
        probe=mark,
        fingerprint=mark,
        work_folder=posixpath.join(spec.work_root, mark[:16]),
    )


@dataclasses.dataclass(frozen=True)
class Travel:
    """Elements of one kind: how many, and as they are encoded the bytes of one and of a block at most."""

    elements: int
    largest_bytes: int
    block_bytes: int


def measure_travels(shards: int = SHARDS) -> dict[str, Travel]:
    """The elements that travel of a dataset whose every row group is a shard.

    Counts and shards say all that they may, of a trace as well. All parts of the plan are encoded; of the other
    elements, which are alike, only a block in the middle.
    """
    source = simulated_source(shards)
    with tempfile.TemporaryDirectory() as folder:
        spec = dataclasses.replace(simulated_spec(source, "shuffled"), output=folder)
        laid_out = lay_out_shards(source, order_row_groups(source, "shuffled", 0), spec.shard_limits)
        plan = _planned(spec, source, laid_out, _digest("plan"))
        counts = [_simulated_count(shard) for shard in laid_out]
        spec = dataclasses.replace(spec, budgets={"train": sum(count.tokens for count in counts) - 1000})
        publish_plan = plan_publication(spec, plan, cut_dataset(counts, spec.budgets))
    head, parts = split_plan(plan)
    encoded = [len(to_json(part)) for part in parts]
    published, told = map(_published, publish_plan.tasks), map(_told, publish_plan.rows)
    return {
        "plan head": _travel([head], 1),
        "plan part": Travel(len(parts), max(encoded), max(encoded)),
        "count": _travel(counts, SHARDS_PER_BLOCK),
        "task to publish": _travel(publish_plan.tasks, 1),
        "published shard": _travel(published, SHARDS_PER_BLOCK, len(publish_plan.tasks)),
        "task to tell rows": _travel(publish_plan.rows, 1),
        "told rows": _travel(told, _alike(publish_plan.rows), len(publish_plan.rows)),
        "sums of splits": _travel([publish_plan.sums], 1),
    }


def _alike(rows: Sequence[RowsTask]) -> int:
    """How many shards share a block of told rows."""
    placed = in_blocks("", rows, GROUPS_PER_BLOCK, lambda task: 1 + len(task.group_rows))
    return max(sum(1 for _ in run) for _, run in itertools.groupby(placed, key=lambda one: one[0]))


def _travel(things: Iterable[Any], of_block: int, elements: int | None = None) -> Travel:
    """The travel of things that are alike: only those of a block in the middle are encoded."""
    held = elements if elements is not None else len(list(things := list(things)))
    start = max(0, (held - of_block) // 2)
    sizes = [len(to_json(thing)) for thing in itertools.islice(things, start, start + of_block)]
    return Travel(held, max(sizes), sum(sizes))


def _digest(of: object) -> str:
    return hashlib.sha256(str(of).encode()).hexdigest()


def _simulated_count(shard: PlannedShard) -> ShardCount:
    number = shard.ordinal
    mark = FileMark(1_300_000, _digest(number), "AAAAAA==")
    return ShardCount(
        number,
        round(shard.text_bytes * _TOKENS_PER_BYTE),
        shard.rows,
        records=shard.rows,
        rows=shard.rows,
        text_bytes=shard.text_bytes,
        skipped={"null": 3, "empty": 12},
        attempt=_digest(number)[:12],
        engine="gigatoken 0.10.0",
        source=_digest(number)[:16],
        file=mark,
        row_file=mark,
        quarantine=mark,
        trace=mark,
    )


def _published(task: PublishTask) -> PublishedShard:
    count = task.count
    return PublishedShard(
        task.split,
        task.index,
        task.file,
        count.tokens,
        count.documents,
        count.records,
        count.file,
        count.file,
        count.file,
    )


def _told(task: RowsTask) -> ShardRows:
    groups = len(task.group_rows)
    left_out = ({"null": 3, "empty": 12, "filtered": 200},) * groups
    starts, texts = (task.before,) * groups, ("0123456789abcdef",) * groups
    return ShardRows(task.count.ordinal, 1000, dict(task.count.skipped), 200, starts, texts, left_out, None)


def _peak_bytes() -> int:
    """The peak of this program alone; getrusage begins with the memory of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


if __name__ == "__main__":
    cost = measure_plan(int(sys.argv[1]) if len(sys.argv) > 1 else ROW_GROUPS)
    travels = measure_travels(int(sys.argv[2]) if len(sys.argv) > 2 else SHARDS)
    shown = {kind: dataclasses.asdict(travel) for kind, travel in travels.items()}
    print(json.dumps(dataclasses.asdict(cost) | {"total_seconds": cost.total_seconds, "travels": shown}))
