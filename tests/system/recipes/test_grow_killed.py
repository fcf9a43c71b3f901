"""Growing that is killed at any moment and run again, on a disk and in a bucket: the bytes of a fresh build."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from beam_pipelines.config.mix import load_config
from beam_pipelines.jobs.build import build
from tests.support.command import run_command
from tests.support.killed_builds import DATASETS, Moment, State, check_nothing_is_half_there, killed_at, tree, write_mix
from transforms.files import storage
from transforms.files.listing import list_files

pytestmark = pytest.mark.slow

OLD = ("--set", "datasets.a.tokens=150000", "--set", "datasets.b.tokens=120000")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mix(tmp_path_factory.mktemp("grown"), {"a": 400_000, "b": 300_000})


@pytest.fixture(scope="module")
def old(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("old") / "old"
    result = run_command("build", config, "--output", output, *OLD)
    assert result.returncode == 0, result.stderr
    return output


@pytest.fixture(scope="module")
def reference(config: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of a fresh build, by the engine that the killed ones do not use."""
    output = tmp_path_factory.mktemp("fresh") / "out"
    build(load_config(str(config)), str(output), engine="gigatoken", quiet=True)
    return tree(output)


# In the order of a build, since each run goes on where the one before was killed. Shards that are taken over come
# first.
MOMENTS: list[Moment[State]] = [
    Moment(None, 0, 1.0),
    Moment(State.tokenizer, 1, 0.01),
    Moment(None, 0, 2.5),
    Moment(State.shards, 1, 0.01),
    Moment(State.shards, 2, 0.03),
    Moment(State.shards, 4, 0.03),
    Moment(State.shards, 3, 0.1),
    Moment(State.shards, 5, 0.1),
    Moment(State.shards, 3, 0.1),
    Moment(State.publications, 1, 0.03),
    Moment(State.published, 1, 0.01),
    Moment(State.manifests, 1, 0.03),
]


def test_killed_at_twelve_random_moments(config: Path, old: Path, reference: dict[str, str], tmp_path: Path) -> None:
    content = tree(old)
    state, killed = State(tmp_path / "out"), 0
    command = ("build", config, "--output", state.output, "--grow", old, "--engine", "tokenizers")
    for at_work in killed_at(MOMENTS, state, random.Random(18), *command):
        killed += at_work
        check_nothing_is_half_there(state.output, reference)
    assert killed >= 10
    result = run_command(*command)
    assert result.returncode == 0, result.stderr
    assert tree(state.output) == reference
    assert tree(old) == content
    for name in DATASETS:
        shards = list((old / name).glob("train-*"))
        inodes = {path.stat().st_ino for path in (state.output / name).glob("train-*")}
        # All but the one that is cut.
        assert sum(path.stat().st_ino in inodes for path in shards) == len(shards) - 1


def test_killed_in_a_bucket(config: Path, old: Path, reference: dict[str, str], gcs_prefix: str) -> None:
    """Shards are the store's own copies of the old ones, which lie in the bucket; the sources lie on this disk."""
    remote_old, output = f"{gcs_prefix}/old", f"{gcs_prefix}/new"
    for path in old.rglob("*"):
        if path.is_file():
            storage.upload(str(path), f"{remote_old}/{path.relative_to(old)}")
    before = {path: storage.look(path) for path, _ in list_files(remote_old)}
    command = ("build", config, "--output", output, "--grow", remote_old, "--engine", "tokenizers")

    def shards(output: str) -> int:
        return len(list_files(output, "*/.broetchen/*/shard-*.json"))

    def published(output: str) -> int:
        return len(list_files(output, "*/train-*.arecord"))

    grown = [*[(shards, 1), (shards, 2)] * 4, (shards, 3), (shards, 2), (published, 1), (published, 3)]
    moments = [Moment(measure, more, 0.3) for measure, more in grown]
    assert sum(killed_at(moments, output, random.Random(19), *command, poll_s=0.05)) >= 10
    result = run_command(*command)
    assert result.returncode == 0, result.stderr
    found = {path.removeprefix(f"{output}/"): path for path, _ in list_files(output)}
    assert found.keys() == reference.keys()
    for name, there in found.items():
        assert hashlib.sha256(storage.read_bytes(there)).hexdigest() == reference[name], name
    assert {path: storage.look(path) for path, _ in list_files(remote_old)} == before
