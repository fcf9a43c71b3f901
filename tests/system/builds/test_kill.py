"""Builds that are killed at any moment and run again: the same bytes, no work done twice, never half a dataset."""

from __future__ import annotations

import random
import shutil
import uuid
from pathlib import Path

import pytest

from beam_pipelines.config.mix import load_config
from beam_pipelines.jobs.build import build
from tests.support.command import run_command
from tests.support.killed_builds import (
    DATASETS,
    SHARDS,
    Moment,
    State,
    check_nothing_is_half_there,
    killed_at,
    tree,
    write_mix,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A config without traces, or with them or in another format where a test asks for it."""
    kind = getattr(request, "param", "plain")
    return write_mix(
        tmp_path_factory.mktemp("killed"),
        {"a": 400_000, "b": 300_000},
        trace=kind == "traced",
        record_format="megatron" if kind == "megatron" else "tokens",
    )


@pytest.fixture(scope="module")
def undisturbed(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a build that nobody killed, by the engine that the killed ones do not use."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    build(load_config(str(config)), str(output), engine="gigatoken", quiet=True)
    return output


@pytest.fixture(scope="module")
def reference(undisturbed: Path) -> dict[str, str]:
    return tree(undisturbed)


# In the order of a build, since each run goes on where the one before was killed.
MOMENTS: list[Moment[State]] = [
    Moment(None, 0, 1.0),
    Moment(State.tokenizer, 1, 0.01),
    Moment(None, 0, 2.5),
    Moment(State.begun, 1, 0.1),
    Moment(State.shards, 3, 0.1),
    Moment(State.shards, 9, 0.1),
    Moment(State.shards, 1, 0.1),
    Moment(State.publications, 1, 0.03),
    Moment(State.published, 1, 0.01),
    Moment(State.manifests, 1, 0.03),
]


@pytest.mark.parametrize("config", ["traced", "megatron"], indirect=True, scope="module")
def test_killed_at_ten_random_moments(config: Path, reference: dict[str, str], tmp_path: Path) -> None:
    state = State(tmp_path / "out")
    command = ("build", config, "--output", state.output, "--engine", "tokenizers")
    killed = 0
    finished: dict[tuple[str, int], tuple[int, int]] = {}
    for at_work in killed_at(MOMENTS, state, random.Random(20), *command):
        killed += at_work
        check_nothing_is_half_there(state.output, reference)
        now = state.finished_shards()
        # A shard that was finished is there as it was, unless its dataset is finished and its work cleared away.
        assert {shard: now[shard] for shard in finished if shard in now} == {
            shard: file for shard, file in finished.items() if shard in now
        }
        for dataset, ordinal in finished.keys() - now.keys():
            assert (state.output / dataset / "manifest.json").exists(), (dataset, ordinal)
        finished |= now
    assert killed >= len(MOMENTS) - 2
    assert len(finished) > 20
    assert run_command("build", config, "--output", state.output).returncode == 0
    assert tree(state.output) == reference
    shards = [path for path in state.output.glob("*/train-*") if path.suffix in SHARDS]
    published = {(path.stat().st_ino, path.stat().st_mtime_ns) for path in shards}
    # Of each dataset, one shard is rewritten at the end of each split and the rest renamed.
    assert len(published & set(finished.values())) >= len(published) - 2 * len(DATASETS)


def test_killed_with_its_worker_processes(config: Path, reference: dict[str, str], tmp_path: Path) -> None:
    state = State(tmp_path / "out")
    workers = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    command: list[str | Path] = ["build", config, "--output", state.output, "--engine=tokenizers", *workers]
    moments = [Moment(State.shards, 5, 0), Moment(State.published, 3, 0)]
    finished: dict[tuple[str, int], tuple[int, int]] = {}
    for at_work in killed_at(moments, state, random.Random(), *command):
        assert at_work
        check_nothing_is_half_there(state.output, reference)
        now = state.finished_shards()
        assert finished.items() <= now.items()
        finished = now
    result = run_command("build", config, "--output", state.output, *workers)
    assert result.returncode == 0, result.stderr
    assert tree(state.output) == reference


def test_what_killed_builds_leave_is_cleared_away(
    config: Path, undisturbed: Path, reference: dict[str, str], tmp_path: Path
) -> None:
    """As if one was killed while it cleared up after dataset a, and another while it published dataset b.

    In a bucket, where a rename is a copy and a deletion, a manifest can be there and its temporary file as well.
    """
    output = tmp_path / "out"
    shutil.copytree(undisturbed, output)
    (output / "b" / "manifest.json").unlink()
    unique = uuid.uuid4().hex
    (tokenizer,) = output.glob("tokenizer-*")
    left = [
        output / "a" / ".broetchen" / "0123456789abcdef" / "shard-00000-0123456789ab.arecord",
        output / "a" / f".manifest.json.tmp-{unique}",
        output / "b" / f".manifest.json.tmp-{unique}",
        output / "b" / "train-00000-of-00099.arecord",
        tokenizer / f".tokenizer.json.tmp-{unique}",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half of it")
    build(load_config(str(config)), str(output), quiet=True)
    assert tree(output) == reference
