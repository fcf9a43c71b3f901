"""Trials with rivals; see `tests.campaign.fault_trials`."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml

from beam_pipelines.jobs.verify import verify
from tests.campaign.fault_bench import FaultBench, check_clean_failure
from tests.campaign.fault_trials import OPERATIONS, WAIT_S, Done, signalled, store_of
from tests.campaign.rivals.steps import Steps, planned
from tests.support.command import COMMAND
from tests.support.corpora import SAMPLES
from tests.support.killed_builds import DATASETS, tree
from tests.support.services.hub_server import COMMIT, HubServer
from transforms.building.publish import clear_work
from transforms.dataset.manifest import read_manifest
from transforms.files import storage
from transforms.files.listing import list_files

_OTHER_TOKENS = {"a": 41_000, "b": 52_000}
_TAKEN_OVER = r"another build (has taken (it )?over|is at work there)|holds a dataset of another config"
_CORPUS = "owner/corpus"


def late_attempt(bench: FaultBench, chance: random.Random, name: str) -> Done:
    """A worker that was taken for dead ends its shard, which holds little, while a build is at work or was killed."""
    output, dataset = f"{chance.choice((str(bench.folder), bench.bucket))}/{name}", chance.choice(sorted(DATASETS))
    with _late_worker(bench, output, dataset, chance.randrange(12)) as late:
        process = bench.fork(output)
        process.poll(chance.uniform(0, bench.seconds))
        late.stdin.close()  # type: ignore[union-attr]
        killed = chance.random() < 0.5
        if killed:
            process.poll(chance.uniform(0, bench.seconds / 4))
            process.kill()
        assert late.wait(WAIT_S) == 0
        code = process.wait()
    assert code == 0 or killed, bench.errors()
    bench.check_half(output)
    bench.rerun(output)
    return Done(f"{store_of(output)}, {'build killed' if killed else 'build goes on'}", signalled(code))


@contextlib.contextmanager
def _late_worker(bench: FaultBench, output: str, dataset: str, ordinal: int) -> Iterator[subprocess.Popen[bytes]]:
    program = [sys.executable, "-m", "tests.campaign.rivals.late_worker"]
    arguments = [str(bench.config), output, dataset, str(ordinal)]
    with subprocess.Popen([*program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as late:
        try:
            assert late.stdout is not None
            assert late.stdout.readline() == b"ready\n"
            yield late
        finally:
            late.kill()


def zeros(bench: FaultBench, chance: random.Random, name: str) -> Done:
    """Work files of a killed build hold zeros, and have the sizes that they had."""
    output = f"{chance.choice((str(bench.folder), bench.bucket))}/{name}"
    process = bench.fork(output)
    process.poll(chance.uniform(bench.seconds / 2, bench.seconds))
    process.kill()
    found = [path for path, size in list_files(output, "*/.broetchen/*/shard-*") if size]
    harmed = [path for path in found if not path.endswith(".json")]
    for path in chance.sample(harmed, min(len(harmed), chance.randint(1, 4))):
        storage.write_bytes(path, bytes(storage.size(path)))
    bench.rerun(output)
    return Done(store_of(output), signalled(process.returncode))


def another_budget(bench: FaultBench, chance: random.Random, name: str) -> Done:
    """Killed between two renames with one budget, once or twice, and then built with another."""
    output, kills = str(bench.folder / name), 0
    other = _other_config(bench)
    for _ in range(chance.randint(1, 2)):
        order = {"pattern": OPERATIONS["shard renamed to its final name"], "number": chance.randint(1, 12)}
        process = bench.fork(output, {"CAMPAIGN_KILL": json.dumps(order)}, config=other)
        kills += signalled(process.wait())
    for manifest in Path(output).glob("*/manifest.json"):  # of a dataset that was finished by then
        shutil.rmtree(manifest.parent)
    bench.rerun(output)
    return Done("between two renames", kills)


def _other_config(bench: FaultBench) -> Path:
    path = bench.config.with_name("other.yaml")
    if not path.exists():
        content = yaml.safe_load(bench.config.read_text())
        for dataset, tokens in _OTHER_TOKENS.items():
            content["datasets"][dataset] |= {"tokens": tokens, "eval_tokens": 5_000}
        path.write_text(yaml.safe_dump(content))
    return path


def two_configs(bench: FaultBench, chance: random.Random, name: str) -> Done:
    """Two builds with other budgets at one output, sometimes after somebody has deleted the lock of the first."""
    output = f"{chance.choice((str(bench.folder), bench.bucket))}/{name}"
    unlocked = chance.random() < 0.6
    with bench.started(output, name="first", config=_other_config(bench)) as first:
        _wait_for(lambda: storage.exists(f"{output}/.broetchen.lock"), first)
        time.sleep(chance.uniform(0, bench.seconds))
        if unlocked:
            with contextlib.suppress(Exception):
                storage.delete([f"{output}/.broetchen.lock"])
        with bench.started(output, name="second") as second:
            codes = {"first": first.wait(WAIT_S), "second": second.wait(WAIT_S)}
    for which, code in codes.items():
        if code:
            check_clean_failure(code, bench.errors_of(which), _TAKEN_OVER)
    finished = _manifests(output)
    assert finished <= {"other", "this"}, finished
    if "other" in finished:
        for dataset in DATASETS:
            storage.delete_tree(f"{output}/{dataset}")
    bench.rerun(output)
    return Done(f"{store_of(output)}, {'lock deleted' if unlocked else 'locked'}", 0)


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None and not condition():
        time.sleep(0.01)


def _manifests(output: str) -> set[str]:
    """The builds whose manifests lie there; each manifest has to tell of the files beside it, none of them mixed."""
    owners = set()
    for dataset in DATASETS:
        manifest = read_manifest(f"{output}/{dataset}")
        if manifest is not None:
            verify(f"{output}/{dataset}")
            owners.add("other" if manifest.splits["train"].budget == _OTHER_TOKENS[dataset] else "this")
    return owners


def replays(bench: FaultBench, chance: random.Random, name: str) -> Done:
    """Steps are done again after later ones, also after the manifest and after the work is gone."""
    output = f"{chance.choice((str(bench.folder), bench.bucket))}/{name}"
    for dataset in sorted(DATASETS):
        spec, plan = planned(str(bench.config), output, dataset)
        steps = Steps.tokenized(spec, plan)
        published, told = steps.publish()
        if chance.random() < 0.5:
            steps.publish()
        steps.finish(published, told)
        for _ in range(chance.randint(1, 5)):
            step = chance.choice(("publish", "finish", "clear"))
            if step == "publish":
                steps.publish()
            elif step == "finish":
                steps.finish([], [])
            else:
                clear_work(spec)
        clear_work(spec)
    bench.check(output)
    bench.rerun(output)
    return Done(store_of(output), 0)


def two_downloads(bench: FaultBench, chance: random.Random, name: str) -> Done:
    """Two downloads into one folder, of which one may be killed; the next ends with the hub's file."""
    repository, to = bench.folder / "hub", bench.folder / name
    if not repository.exists():
        shutil.copytree(SAMPLES / "corpora" / "fineweb2_german", repository / "data")
        for number in range(3):
            (repository / "data" / f"large-{number}.parquet").write_bytes(random.Random(number).randbytes(8 << 20))
    with HubServer({_CORPUS: repository}, latency_s=0.02) as hub:
        config = bench.config.with_name("download.yaml")
        content = yaml.safe_load(bench.config.read_text())
        content["datasets"] = {"a": {"source": f"hf://datasets/{_CORPUS}@{COMMIT}/data/*.parquet", "tokens": 1000}}
        config.write_text(yaml.safe_dump(content))
        command = [str(COMMAND), "download", str(config), "--to", str(to)]
        environment = {**os.environ, "HF_ENDPOINT": hub.address}
        first, second = (
            subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            for _ in range(2)
        )
        kills, killed = 0, chance.random() < 0.5
        if killed:
            time.sleep(chance.uniform(1, 6))
            first.kill()
        errors = [process.communicate(timeout=WAIT_S)[1].decode() for process in (first, second)]
        kills += signalled(first.returncode)
        for process, error in zip((first, second), errors, strict=True):
            assert process.returncode in (0, -9), error
        again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WAIT_S)
        assert again.returncode == 0, again.stderr
        checked = subprocess.run([*command, "--check"], env=environment, capture_output=True, text=True, timeout=WAIT_S)
        assert checked.returncode == 0, checked.stderr
    found = {Path(path).name: digest for path, digest in tree(to).items()}
    assert found == {Path(path).name: digest for path, digest in tree(repository).items()}
    return Done("one killed" if killed else "both go on", kills)
