"""`broetchen verify` as a user sees it: without reading, against the source, and against a digest kept elsewhere."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.command import run_command, started_command, without_hint
from tests.transforms.dataset.built_outputs import GROUPS, build_output, write_mix

THREADS = "--direct_running_mode=in_memory"


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_output(tmp_path_factory.mktemp("verify"), tokens=1500)


def digest_of(said: str) -> str:
    (digest,) = re.findall(r"^digest of the manifests: ([0-9a-f]{64})$", said, re.MULTILINE)
    return str(digest)


def test_quick_looks_at_names_sizes_and_manifests_alone(output: Path, tmp_path: Path) -> None:
    """It tells the digest of coreutils, and the faults that it cannot find: a letter that has changed, for one."""
    result = run_command("verify", output, "--quick")
    assert (result.returncode, without_hint(result.stderr)) == (0, "")
    assert re.search(r"^ a .* in place", result.stdout, re.MULTILINE)
    assert (
        "it cannot find: what is in the files (leave out --quick); shards and manifest replaced together"
        in result.stdout
    )
    sums = subprocess.run(
        "LC_ALL=C; sha256sum */manifest.json | sha256sum",
        shell=True,
        cwd=output,
        capture_output=True,
        text=True,
        check=True,
    )
    assert sums.stdout.split()[0] == digest_of(result.stdout)


@pytest.mark.slow
def test_a_digest_that_was_kept(output: Path) -> None:
    digest = digest_of(run_command("verify", output, "--quick").stdout)
    same = run_command("verify", output, THREADS, "--quiet", "--digest", digest.upper())
    assert (same.returncode, same.stderr) == (0, "")
    assert "replaced together" not in same.stdout
    other = run_command("verify", output, "--quick", "--digest", "0" * 64)
    assert other.returncode == 1
    assert other.stderr == f"broetchen: {output}: the digest of its manifests is {digest}, not {'0' * 64}\n"
    wrong = run_command("verify", output, "--quick", "--digest", "abc")
    assert (wrong.returncode, wrong.stderr) == (
        2,
        "broetchen: --digest abc: not 64 hexadecimal digits, as verify prints them at its end\n",
    )


@pytest.mark.slow
def test_against_the_source_by_a_seed_that_is_told(output: Path) -> None:
    mix = output.parent / "mix.yaml"
    result = run_command("verify", output, THREADS, "--quiet", "--against-source", "4", "--config", mix)
    assert result.returncode == 0
    assert re.fullmatch(r"4 row groups are chosen by --seed \d+\n", result.stderr)
    assert "it cannot find: shards and manifest replaced together" in result.stdout
    assert "the same in other row groups than the 4 that were chosen" in result.stdout
    unknown = run_command("verify", output, THREADS, "--quiet", "--against-source", "4", "--seed", "7")
    assert unknown.returncode == 1
    assert re.search(r"out/a: a/[01]\.parquet: there is no a/[01]\.parquet; relative paths start at", unknown.stderr)
    assert "4 row groups are chosen by --seed 7\n" in unknown.stderr


def test_options_that_do_not_go_together(output: Path) -> None:
    for arguments, said in (
        (["--seed", "3"], "--seed 3: goes with --against-source N; add it, or leave this out"),
        (
            ["--quick", "--against-source", "1"],
            "--quick reads nothing, and --against-source reads the source: give one",
        ),
    ):
        result = run_command("verify", output, *arguments)
        assert result.returncode == 2
        assert said in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("stopped_by", [signal.SIGKILL, signal.SIGINT], ids=lambda one: one.name)
def test_one_that_was_stopped_goes_on(stopped_by: signal.Signals, tmp_path: Path) -> None:
    """All of its processes get the signal, as by the system's hand for want of memory, or by Ctrl-C."""
    config = write_mix(tmp_path, {f"{number}": GROUPS for number in range(40)}, tokens=60_000)
    built = run_command("build", config, "--output", tmp_path / "out", "--quiet")
    assert built.returncode == 0, built.stderr
    shards = len(list((tmp_path / "out").rglob("*.arecord")))
    time.sleep(11)  # Of a shard that was written in these seconds, nothing is remembered.
    cache = tmp_path / "cache"
    environment = {**os.environ, "BROETCHEN_CACHE": str(cache)}

    def remembered() -> int:
        return sum(path.read_bytes().count(b"\n") for path in cache.rglob("*.jsonl"))

    with started_command("verify", tmp_path / "out", environment=environment) as process:
        while not remembered():
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, stopped_by)
        assert process.wait(60) in (-signal.SIGKILL, 130)
    kept = remembered()
    assert 0 < kept < shards
    done = run_command("verify", tmp_path / "out", environment=environment)
    assert done.returncode == 0, done.stderr
    assert f"a run that was stopped has found {kept:,} of {shards:,} shards sound" in done.stderr
    assert f"what a disk has changed by itself in {kept:,} shards" in done.stdout
    assert not remembered()
