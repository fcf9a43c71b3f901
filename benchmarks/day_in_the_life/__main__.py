"""The recipe's mix from its vocabulary corpus to its check, on hosts that share a bucket and nothing else.

python -m benchmarks.day_in_the_life [--tokens 2_000_000_000] [--hosts 2]

The hosts are namespaces of this machine (`tests/support/hosts/`), which needs root; their bucket is the tests'
emulator, with its objects on a disk. On them run, one after the other, `vocab`, `train-tokenizer`, `plan`, `build` and
`verify`, of the configs in `mix_configs/` with other sources and fewer tokens. Then the same mix is built here without
a cluster, from the same bucket, and every file of both has to be the same. At 2 billion tokens this takes 15 GB of disk
in `--cache`, of which the sources stay for the next time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from benchmarks.day_in_the_life.meter import measure_on
from benchmarks.day_in_the_life.sources import make_sources
from benchmarks.day_in_the_life.table import Command, Day, markdown, show
from benchmarks.harness.machine import machine, versions
from benchmarks.harness.measure import ContenderFailed, measure_apart
from benchmarks.harness.places import CACHE, ROOT
from tests.support.hosts.cluster import JOBS, Cluster, cluster
from tests.support.hosts.network import Host, why_none
from tests.support.services.gcs_disk import StorageOnDisk
from transforms.files import storage
from transforms.quantities import parse_count

_LONGEST_S = 6 * 3600.0
_RECIPE_TOKENS = 200_000_000_000
# A tokenizer that is trained on less has no vocabulary of the usual size.
_LEAST_VOCABULARY_CORPUS = 5_000_000
_MIX = ROOT / "mix_configs" / "30-50-5-5-10" / "mix.yaml"
_VOCABULARY = ROOT / "mix_configs" / "vocab-corpus.yaml"


def main() -> int:
    """Runs it all and prints the table; returns 1 where a command fails or a file is another."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.day_in_the_life",
        description="Build the recipe's mix on hosts of this machine that share a bucket, from vocab to verify.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--tokens", type=parse_count, default=2_000_000_000, help="of the mix; the recipe has 200B")
    parser.add_argument("--hosts", type=int, default=2, help="hosts with workers")
    parser.add_argument("--processes", type=int, default=1, help="worker processes of each host")
    parser.add_argument("--cache", type=Path, default=CACHE, help="for sources, which stay, outputs and results")
    arguments = parser.parse_args()
    if arguments.hosts < 1 or arguments.processes < 1:
        parser.error("--hosts and --processes are 1 or more")
    if reason := why_none():
        parser.error(reason)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(width=170, highlight=False)
    runs = arguments.cache.absolute() / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    try:
        # A folder of its own, so that two of these do not meet.
        with tempfile.TemporaryDirectory(prefix="day-in-the-life-", dir=runs) as folder:
            day = spend(Path(folder), arguments, console)
    except ContenderFailed as error:
        console.print(str(error), markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("stopped; the hosts are gone, and the sources stay")
        return 130
    show(day, console)
    (runs.parent / "day-in-the-life.json").write_text(json.dumps(asdict(day), indent=1) + "\n")
    (runs.parent / "day-in-the-life.md").write_text(markdown(day))
    console.print(f"also in {runs.parent / 'day-in-the-life.json'} and day-in-the-life.md beside it")
    return int(bool(day.differing))


def spend(folder: Path, arguments: argparse.Namespace, console: Console) -> Day:
    """The day, in an empty folder.

    Raises:
        ContenderFailed: a command ended with an error.
    """
    cache = arguments.cache.absolute()
    mix, vocabulary = configs(arguments.tokens)
    console.print(f"making the sources of {arguments.tokens:,} tokens, or taking those that are there")
    sources = make_sources(ROOT / "samples" / "corpora", cache, tokens_of(mix, vocabulary))
    described = machine()
    objects = folder / "objects"
    objects.mkdir()
    disk = StorageOnDisk(objects)
    commands = []
    with cluster(folder, disk) as there:
        bucket = there.bucket.removeprefix("gs://")
        for dataset, files in sources.items():
            for path in files:
                disk.take(bucket, f"sources/{dataset}/{path.name}", path)
        storage.upload(str(ROOT / "samples" / "tokenizer.json"), f"{there.bucket}/yardstick/tokenizer.json")
        for name, config in (("vocabulary", vocabulary), ("mix", mix)):
            storage.write_bytes(f"{there.bucket}/{name}/{name}.yaml", yaml.safe_dump(config).encode())
        names = [f"worker{number + 1}" for number in range(arguments.hosts)]
        workers = [there.worker(name, arguments.processes) for name in names]
        head = there.serve("head", *names)
        for name, words in lines(there.bucket).items():
            portable = ["--runner=PortableRunner", f"--job_endpoint={head.name}:{JOBS}"]
            words += portable if name in _BY_BEAM else []
            commands.append(measured(there, [head, *workers], name, words))
            console.print(f"{name}: {commands[-1].use.seconds:.0f} s")
            console.print(there.said(f"{name}.out").rstrip(), markup=False)
        console.print("the same mix without the cluster")
        here = [sys.executable, "-m", "beam_pipelines", "build", f"{there.bucket}/mix/mix.yaml", "--quiet"]
        local = measure_apart([*here, "--output", str(folder / "here")], folder / "here.log")
    theirs = {
        name.removeprefix("out/"): hashlib.sha256(disk.get_file(bucket, name)).hexdigest()
        for name in disk.objects[bucket]
        if name.startswith("out/")
    }
    ours = {
        str(path.relative_to(folder / "here")): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (folder / "here").rglob("*")
        if path.is_file()
    }
    return Day(
        tokens=arguments.tokens,
        vocabulary_tokens=vocabulary["total_tokens"],
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        machine=described,
        versions=versions(),
        processes=arguments.processes,
        source_files=sum(map(len, sources.values())),
        source_bytes=sum(path.stat().st_size for files in sources.values() for path in files),
        output_files=len(theirs),
        output_bytes=sum(int(about["size"]) for name, about in disk.objects[bucket].items() if name.startswith("out/")),
        shards=sum(name.endswith(".arecord") for name in theirs),
        commands=commands,
        local=local,
        differing=sorted({name for name, _ in ours.items() ^ theirs.items()}),
    )


_BY_BEAM = ("vocab", "build", "verify")


def lines(bucket: str) -> dict[str, list[str]]:
    """The arguments of each command, by its name."""
    return {
        "vocab": ["vocab", f"{bucket}/vocabulary/vocabulary.yaml", "--output", f"{bucket}/vocab", "--quiet"],
        "train-tokenizer": ["train-tokenizer", f"{bucket}/vocab", "--output", f"{bucket}/mix/tokenizer", "--quiet"],
        "plan": ["plan", f"{bucket}/mix/mix.yaml"],
        "build": ["build", f"{bucket}/mix/mix.yaml", "--output", f"{bucket}/out", "--quiet"],
        # With a folder that all hosts share, in which texts of eval are held against those of train.
        "verify": ["verify", f"{bucket}/out", "--temp_location", f"{bucket}/temporary"],
    }


def configs(tokens: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The recipe's mix and its vocabulary corpus, cut to a part of their tokens, with the bucket's sources."""
    mix, vocabulary = (yaml.safe_load(path.read_text()) for path in (_MIX, _VOCABULARY))
    mix["tokenizer"]["path"] = "./tokenizer/tokenizer.json"
    vocabulary["tokenizer"] = {"path": "../yardstick/tokenizer.json"}
    vocabulary["total_tokens"] = max(
        parse_count(vocabulary["total_tokens"]) * tokens // _RECIPE_TOKENS, _LEAST_VOCABULARY_CORPUS
    )
    mix["total_tokens"] = tokens
    for config in (mix, vocabulary):
        for name, dataset in config["datasets"].items():
            dataset["source"] = f"../sources/{name}/*.parquet"
            if "eval_tokens" in dataset:
                dataset["eval_tokens"] = parse_count(dataset["eval_tokens"]) * tokens // _RECIPE_TOKENS
    return mix, vocabulary


def tokens_of(*mixes: dict[str, Any]) -> dict[str, int]:
    """The most tokens that one of the mixes takes of each dataset."""
    found: dict[str, int] = {}
    for mix in mixes:
        for name, dataset in mix["datasets"].items():
            share = int(dataset["share"].removesuffix("%"))
            wanted = mix["total_tokens"] * share // 100 + dataset.get("eval_tokens", 0)
            found[name] = max(found.get(name, 0), wanted)
    return found


def measured(there: Cluster, hosts: list[Host], name: str, words: list[str]) -> Command:
    """Runs a command on the first host.

    Raises:
        ContenderFailed: it ended with an error.
    """
    code, use = measure_on(hosts, lambda: there.run(hosts[0], *words, log=f"{name}.out"), _LONGEST_S)
    if code:
        raise ContenderFailed(f"broetchen {' '.join(words)} ended with {code}:\n{there.said(f'{name}.out')[-4000:]}")
    return Command(name, use)


if __name__ == "__main__":
    sys.exit(main())
