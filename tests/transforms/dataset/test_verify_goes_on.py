"""`verify` goes on where it was stopped, and its findings then are those of a run that reads everything again."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest

from beam_pipelines.jobs import verify as job
from beam_pipelines.jobs.verify import Verification, verify
from tests.transforms.dataset.built_outputs import GROUPS, build_output
from transforms.dataset import verify as reading
from transforms.dataset.inventory import output_digest
from transforms.dataset.manifest import find_manifests
from transforms.dataset.verify import ShardCheck, VerifyShards, shard_checks
from transforms.errors import BroetchenError
from transforms.progress import memory as memories
from transforms.progress.memory import Memory

THREADS = ["--direct_running_mode=in_memory"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One content under two names, so that texts of eval stand in train, as warnings tell."""
    return build_output(tmp_path_factory.mktemp("built"), {"0": GROUPS[:5], "1": GROUPS[:5]}, tokens=1400)


@pytest.fixture
def output(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BROETCHEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(memories, "_SETTLED_S", -1.0)  # its files have just been written
    shutil.copytree(built.parent, tmp_path / "copy")
    return tmp_path / "copy" / "out"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of shards as they are read."""
    names: list[str] = []
    read_back = reading._read_back

    def noted(check: ShardCheck, *arguments: object) -> list[str]:
        names.append(check.file)
        return read_back(check, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(reading, "_read_back", noted)
    return names


def stop_halfway(output: Path) -> list[str]:
    """Leaves what a run leaves that was killed when it had read every other shard of train; names these."""
    manifests = find_manifests(str(output))
    checks = [check for folder, manifest in manifests.items() for check in shard_checks(folder, manifest, "auto")]
    train = [check for check in checks if check.split == "train"]
    done = [check for check in checks if check.split == "eval"] + train[::2]
    memory = job._memory(str(output), output_digest(manifests), fresh=False)
    with beam.Pipeline() as pipeline:
        _ = pipeline | beam.Create(done) | VerifyShards(memory=memory)
    assert len(train) > 4
    return sorted(check.file for check in done)


def all_shards(output: Path) -> list[str]:
    return sorted(path.name for path in (output / "a").glob("*.arecord"))


def resumed(output: Path, *, fresh: bool = False) -> Verification:
    return verify(str(output), remember=True, fresh=fresh, beam_arguments=THREADS)


def test_only_what_was_not_read_is_read(output: Path, read: list[str], tmp_path: Path) -> None:
    whole = verify(str(output), beam_arguments=THREADS)
    assert any("stand in train" in warning for warning in whole.warnings)
    done = stop_halfway(output)
    read.clear()
    found = resumed(output)
    assert sorted(read) == sorted(set(all_shards(output)) - set(done))
    assert (found.manifests, found.digest, found.warnings) == (whole.manifests, whole.digest, whole.warnings)
    assert f"what a disk has changed by itself in {len(done)} shards" in found.blind[0]
    # At its end it forgets: the next one reads everything.
    assert not list((tmp_path / "cache" / "verify").iterdir())
    read.clear()
    assert "by itself" not in " ".join(resumed(output).blind)
    assert sorted(read) == all_shards(output)


@pytest.mark.slow
def test_fresh_reads_everything(output: Path, read: list[str]) -> None:
    stop_halfway(output)
    read.clear()
    resumed(output, fresh=True)
    assert sorted(read) == all_shards(output)


@pytest.mark.slow
def test_python_remembers_nothing(output: Path, read: list[str], tmp_path: Path) -> None:
    stop_halfway(output)
    read.clear()
    verify(str(output), beam_arguments=THREADS)
    assert sorted(read) == all_shards(output)


def test_nothing_lies_in_the_output(output: Path) -> None:
    before = sorted(output.rglob("*"))
    stop_halfway(output)
    assert sorted(output.rglob("*")) == before


def flip(path: Path) -> None:
    """Another byte in the middle: the same size, and the time of the last write set back."""
    before, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    time.sleep(0.02)
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def put_another_shard_there(path: Path) -> None:
    before, other = path.stat(), path.with_name(path.name.replace("00000-of", "00002-of"))
    time.sleep(0.02)
    shutil.copy(other, path.with_name("x"))
    os.utime(path.with_name("x"), ns=(before.st_atime_ns, before.st_mtime_ns))
    path.with_name("x").replace(path)


@pytest.mark.parametrize("change", [flip, put_another_shard_there])
def test_a_shard_that_was_sound_and_has_changed_is_found(output: Path, change: Callable[[Path], None]) -> None:
    done = stop_halfway(output)
    damaged = next(name for name in done if name.startswith("train-00000"))
    change(output / "a" / damaged)
    with pytest.raises(BroetchenError, match=rf"{damaged}: sha256 "):
        resumed(output)


@pytest.mark.slow
def test_what_has_a_problem_is_read_again(output: Path, read: list[str]) -> None:
    flip(output / "a" / next(name for name in all_shards(output) if name.startswith("train-00000")))
    done = stop_halfway(output)
    for _ in range(2):
        read.clear()
        with pytest.raises(BroetchenError, match=r"train-00000-of-\d+\.arecord: sha256 "):
            resumed(output)
        assert any(name.startswith("train-00000") for name in read)
    assert len(done) > 1


def test_another_manifest_makes_it_void(output: Path, read: list[str]) -> None:
    stop_halfway(output)
    manifest = output / "a" / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    read.clear()
    resumed(output)
    assert sorted(read) == all_shards(output)


def test_another_eval_is_compared_again(output: Path, read: list[str]) -> None:
    """The texts that a shard of train shares with eval depend on eval, whose texts a memory does not hold."""
    manifests = find_manifests(str(output))
    ((folder, manifest),) = manifests.items()
    train = next(check for check in shard_checks(folder, manifest, "auto") if check.split == "train")
    keys = {
        reading._memory_key(train, held)
        for held in (
            {},
            {(folder, "documents"): np.array([1, 2], np.uint64)},
            {(folder, "documents"): np.array([1, 3], np.uint64)},
            {("other", "documents"): np.array([1, 2], np.uint64)},
        )
    }
    assert len(keys) == 4


def test_a_memory_goes_by_pickle_without_what_it_has_read(tmp_path: Path) -> None:
    assert Memory(str(tmp_path)).__reduce__() == (Memory, (str(tmp_path),))


def test_without_a_home_nothing_is_remembered(
    output: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As of a user whom a container does not know."""
    monkeypatch.setenv("BROETCHEN_CACHE", "~no-such-user-here/cache")
    assert verify(str(output), beam_arguments=THREADS, remember=True).manifests
    assert "a run that is stopped begins again: BROETCHEN_CACHE=~no-such-user-here/cache: " in caplog.text
