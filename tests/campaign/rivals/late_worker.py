"""A worker that was taken for dead: tokenizes a little of one shard, and writes its count once it is told to.

    python -m tests.campaign.rivals.late_worker CONFIG OUTPUT DATASET ORDINAL

Says "ready" when its shard is in place, and goes on when its standard input ends.
"""

from __future__ import annotations

import sys

from tests.campaign.rivals.steps import planned
from transforms.budget.token_budget import ShardCount
from transforms.building.shard import build_shard
from transforms.building.work_folder import WorkFolder
from transforms.parquet import texts


def main() -> None:
    config, output, dataset, ordinal = sys.argv[1:]
    spec, plan = planned(config, output, dataset)
    finish = WorkFolder.finish

    def late(self: WorkFolder, count: ShardCount) -> ShardCount:
        print("ready", flush=True)
        sys.stdin.read()
        return finish(self, count)

    WorkFolder.finish = late  # type: ignore[method-assign]
    # Shards are so small here that they are read at once otherwise.
    texts._MAX_BATCH_ROWS = 1
    build_shard(spec, plan.task(int(ordinal), 1))


if __name__ == "__main__":
    main()
