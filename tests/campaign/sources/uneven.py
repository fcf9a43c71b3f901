"""Sources whose documents are very uneven: does the plan hold, and how much is encoded in vain?

    python -m tests.campaign.sources.uneven --seeds 40

Each draw writes a source with lengths of documents as PDFs have them (log-normal), of texts of several kinds, plans it
and counts it. `plan`'s interval has to hold the count. Then the rounds of a build are played with what each
shard holds; with `--builds` every so many draws are built by the steps of a build.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import random
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import track

from beam_pipelines.config.mix import load_config
from beam_pipelines.jobs.plan import plan
from beam_pipelines.jobs.specs import dataset_specs, keep_tokenizer, load_config_tokenizer
from tests.support.corpora import SAMPLES, TOKENIZER
from transforms.budget.token_budget import ShardCount, merge_counts, usable_prefix
from transforms.building.shard import build_shard
from transforms.encoding.pool import token_counts
from transforms.parquet.texts import read_files
from transforms.recipe.plan import DatasetPlan, plan_dataset, read_source
from transforms.recipe.shard_plan import next_shards
from transforms.recipe.spec import DatasetSpec
from transforms.texts import BATCH_TEXT_BYTES

_MEAN_BYTES = 20_000
_FILES = 4
_ROUNDS = 4


@dataclasses.dataclass(frozen=True)
class Draw:
    """One source and the outcome of its plan.

    Attributes:
        planned, error: tokens that `plan` expects in the source.
        held: tokens that it holds.
        need, encoded: tokens that a build of a part of it wants, and those that its rounds encode.
        allowance: a batch and the document at the cut, in tokens, which a build may always encode besides.
        rounds: that encoded something; those of the last step, one shard after another, each count.
    """

    planned: int
    error: int
    held: int
    need: int
    encoded: int
    allowance: int
    rounds: int

    @property
    def holds(self) -> bool:
        return abs(self.held - self.planned) <= self.error

    @property
    def frugal(self) -> bool:
        return self.encoded <= 1.10 * self.need + self.allowance


@functools.cache
def _pools() -> list[str]:
    return [
        "\n\n".join(pq.read_table(folder)["text"].to_pylist()) for folder in sorted((SAMPLES / "corpora").iterdir())
    ]


def documents(sigma: float, text_bytes: int, seed: int) -> Iterator[str]:
    """Texts of log-normal lengths, about `text_bytes` of them."""
    draw = np.random.default_rng(seed)
    held = 0
    while held < text_bytes:
        length = max(1, min(16 << 20, int(draw.lognormal(np.log(_MEAN_BYTES) - sigma**2 / 2, sigma))))
        pool = _pools()[draw.integers(len(_pools()))]
        start = int(draw.integers(len(pool)))
        document = pool[start : start + length]
        while len(document) < length:
            document += pool[: length - len(document)]
        held += len(document.encode())
        yield document


def write_source(folder: Path, texts: Iterator[str], seed: int, files: int = _FILES, group_rows: int = 100) -> None:
    """Writes texts to files with row groups of `group_rows`, in one of several ways to store them."""
    choose = random.Random(seed)
    every = list(texts)
    share = -(-len(every) // files)
    for number in range(files):
        part = pa.table({"text": every[number * share : (number + 1) * share]})
        pq.write_table(
            part,
            folder / f"{number:03}.parquet",
            row_group_size=group_rows,
            compression="zstd",
            use_dictionary=choose.random() < 0.5,
            data_page_size=choose.choice([64 << 10, 1 << 20]),
        )


def try_plan(folder: Path, part: float, *, build: bool = False) -> Draw:
    """Plans what lies in `folder` and plays, or does, the rounds of a build of a `part` of it."""
    config = folder / "mix.yaml"

    def write_config(tokens: int) -> None:
        config.write_text(
            f"name: uneven\ntokenizer: {{path: {TOKENIZER}}}\nshards: {{target_size: 1MiB}}\n"
            f"datasets:\n  pdfs: {{source: '{folder}/*.parquet', tokens: {tokens}}}\n"
        )

    write_config(1000)
    (outlook,) = plan(load_config(str(config)))
    held = sum(tokens for tokens, _ in _read(folder)[2].values())
    need = max(1, round(held * part))
    write_config(need)
    spec, planned, counted = _read(folder)
    most = max(longest for _, longest in counted.values())
    encoded: list[ShardCount] = []
    known: Sequence[ShardCount] = ()
    rounds = 0
    while tasks := next_shards(planned.shards, known, planned.ratio, spec.need):
        rounds += 1
        for ordinal, stop_after in tasks if rounds <= _ROUNDS else tasks[:1]:
            if rounds > _ROUNDS:
                stop_after = spec.need - sum(count.tokens for count in known[:ordinal])
            if build:
                encoded.append(build_shard(spec, planned.task(ordinal, stop_after)))
            else:
                tokens = counted[ordinal][0]
                kept = tokens if stop_after is None else min(tokens, stop_after)
                encoded.append(ShardCount(ordinal, kept, rows=1, complete=kept == tokens))
        known = usable_prefix(merge_counts(encoded))
    # A shard that was begun again is counted as often.
    return Draw(
        outlook.available,
        outlook.available_error,
        held,
        need,
        sum(count.tokens for count in encoded),
        round(BATCH_TEXT_BYTES * planned.ratio.tokens_per_byte) + most,
        rounds,
    )


def _read(folder: Path) -> tuple[DatasetSpec, DatasetPlan, dict[int, tuple[int, int]]]:
    """The spec and plan of a build, and of each shard the tokens and those of the longest document."""
    mix = load_config(str(folder / "mix.yaml"))
    tokenizer = load_config_tokenizer(mix)
    keep_tokenizer(tokenizer, str(folder / "out"))
    (spec,) = dataset_specs(mix, ["pdfs"], tokenizer, output=str(folder / "out"), engine="auto", overwrite=False)
    planned = plan_dataset(spec, read_source(spec))
    counted: dict[int, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for ordinal in range(len(planned.shards)):
        for _, batch in read_files(planned.task(ordinal, None).row_groups, "text"):
            lengths = token_counts(spec.tokenizer, planned.engine, batch.texts) + (spec.records.eos_id is not None)
            tokens, longest = counted[ordinal]
            counted[ordinal] = tokens + int(lengths.sum()), max(longest, int(lengths.max(initial=0)))
    return spec, planned, counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--sigmas", type=float, nargs="+", default=[1.0, 1.5, 2.0])
    parser.add_argument("--megabytes", type=int, default=120)
    parser.add_argument("--builds", type=int, default=10, help="build every so many draws")
    arguments = parser.parse_args()
    console = Console()
    for sigma in arguments.sigmas:
        draws: list[Draw] = []
        for seed in track(range(arguments.first, arguments.first + arguments.seeds), f"sigma {sigma}", console=console):
            folder = Path(tempfile.mkdtemp(prefix="uneven-"))
            try:
                write_source(folder, documents(sigma, arguments.megabytes * 1_000_000, seed), seed)
                built = seed % arguments.builds == 0
                draws.append(try_plan(folder, random.Random(seed).uniform(0.75, 0.98), build=built))
            finally:
                shutil.rmtree(folder)
        off = [abs(draw.held - draw.planned) / draw.held for draw in draws]
        bound = [draw.error / draw.planned for draw in draws]
        more = [draw.encoded / draw.need for draw in draws]
        rounds = [draw.rounds for draw in draws]
        console.print(
            f"sigma {sigma}: {len(draws)} draws of {min(draw.need for draw in draws):,} tokens and more; "
            f"interval holds {sum(draw.holds for draw in draws)}, "
            f"off by {np.mean(off):.2%} (most {max(off):.2%}) of ±{np.mean(bound):.2%}; "
            f"encoded {np.mean(more):.3f} of the need, most {max(more):.3f}, "
            f"within the bound {sum(draw.frugal for draw in draws)}; rounds {np.mean(rounds):.1f}, most {max(rounds)}"
        )
        for number, draw in enumerate(draws, arguments.first):
            if not (draw.holds and draw.frugal):
                console.print(f"seed {number}: {draw}")


if __name__ == "__main__":
    main()
