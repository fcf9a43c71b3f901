"""A small mix to build and to kill in the building, and the files of a build in its output at any moment."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from tests.support.command import kill_session, started_command
from tests.support.corpora import SAMPLES, TOKENIZER, write_parquet
from transforms.arrayrecord.records import Format

DATASETS = {"a": "fineweb2_german", "b": "finepdfs_german"}
ROW_GROUPS = 40
POLL_S = 0.001
SHARDS = (".arecord", ".bin")


def write_mix(
    folder: Path, tokens: Mapping[str, int], *, trace: bool = False, record_format: Format = "tokens"
) -> Path:
    """Writes a mix of two datasets, in shards of one small row group each, of `tokens` and 3,000 more for eval.

    Args:
        trace: whether it has traces, with the column `id`.
        record_format: of ids.
    """
    for name, corpus in DATASETS.items():
        paths = sorted((SAMPLES / "corpora" / corpus).glob("*.parquet"))
        rows = [row for path in paths for row in pq.read_table(path)["text"].to_pylist()]
        groups = [rows[group::ROW_GROUPS] for group in range(ROW_GROUPS)]
        for file in range(4):
            write_parquet(folder / name / f"{file}.parquet", groups[file::4])
    content = {
        "name": "killed",
        "tokenizer": {"path": str(TOKENIZER), "eos_token": "<|eos|>"},
        "records": {"format": record_format, "max_tokens": 512, "add_eos": True, "trace": trace},
        "shards": {"target_size": "16KiB"},
        "datasets": {
            name: {
                "source": f"{name}/*.parquet",
                "tokens": tokens[name],
                "eval_tokens": 3_000,
                "trace_columns": ["id"] if trace else [],
            }
            for name in DATASETS
        },
    }
    path = folder / "mix.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def tree(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder`, and every empty folder, hidden ones too."""
    return {
        str(path.relative_to(folder)): _sha256(path) if path.is_file() else "empty"
        for path in sorted(folder.rglob("*"))
        if path.is_file() or not any(path.iterdir())
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclasses.dataclass(frozen=True)
class State:
    """The state of a build: the number of files of each kind in its output."""

    output: Path

    def tokenizer(self) -> int:
        return len(list(self.output.glob("tokenizer-*/*")))

    def begun(self) -> int:
        return len(list(self.output.glob("*/.broetchen/*/.shard-*")))

    def shards(self) -> int:
        return len(list(self.output.glob("*/.broetchen/*/shard-*.json")))

    def publications(self) -> int:
        return len(list(self.output.glob("*/.broetchen/*/publication-*.json")))

    def published(self) -> int:
        return sum(path.suffix in SHARDS for path in self.output.glob("*/*"))

    def manifests(self) -> int:
        return len(list(self.output.glob("*/manifest.json")))

    def finished_shards(self) -> dict[tuple[str, int], tuple[int, int]]:
        """(dataset, ordinal) of each finished shard, with the inode and the time of writing of its file."""
        found = {}
        for count in self.output.glob("*/.broetchen/*/shard-*.json"):
            ordinal, work = int(count.stem.removeprefix("shard-")), count.parent
            attempt = json.loads(count.read_bytes())["attempt"]
            places = [work / f"{count.stem}-{attempt}{suffix}" for suffix in SHARDS]
            for noted in work.glob("publication-*.json"):
                names = json.loads(noted.read_bytes())["names"]
                places += [Path(names[str(ordinal)])] if str(ordinal) in names else []
            there = [place for place in places if place.exists()]
            if not there and (work.parent.parent / "manifest.json").exists():
                continue  # The dataset is finished, and its work was being cleared away.
            (place,) = there
            found[work.parent.parent.name, ordinal] = (place.stat().st_ino, place.stat().st_mtime_ns)
        return found


def check_nothing_is_half_there(output: Path, reference: Mapping[str, str]) -> None:
    """Each file with a final name is whole, and a dataset with a manifest has all of its files."""
    final = {
        name: digest
        for name, digest in tree(output).items()
        if digest != "empty" and not any(part.startswith(".") for part in Path(name).parts)
    }
    assert final.items() <= reference.items()
    for name in DATASETS:
        if f"{name}/manifest.json" in final:
            assert {file for file in reference if file.startswith(f"{name}/")} <= final.keys()


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], poll_s: float = POLL_S) -> None:
    while process.poll() is None and not condition():
        time.sleep(poll_s)


@dataclasses.dataclass(frozen=True)
class Moment[T]:
    """When to kill: once `measure` has grown by `more` since the start, and a random part of `delay_s` later."""

    measure: Callable[[T], int] | None
    more: int
    delay_s: float


def killed_at[T](
    moments: Iterable[Moment[T]],
    state: T,
    chance: random.Random,
    *command: str | Path,
    poll_s: float = POLL_S,
) -> Iterator[bool]:
    """Starts the command and kills it, at each of the moments in turn.

    Args:
        state: what the moments measure.
        command: its arguments.
        poll_s: seconds from one look at the state to the next.

    Yields:
        each time whether it was still at work: on a quick machine it may end before its moment comes.
    """
    for moment in moments:
        with started_command(*command) as process:
            if moment.measure is not None:
                measure, wanted = moment.measure, moment.measure(state) + moment.more
                wait_for(lambda: measure(state) >= wanted, process, poll_s)  # noqa: B023
            time.sleep(chance.uniform(0, moment.delay_s))
            at_work = process.poll() is None
            kill_session(process)
        yield at_work
