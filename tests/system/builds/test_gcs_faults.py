"""A bucket whose every tenth request fails: the same bytes as from a healthy one, or an error, never short data."""

from __future__ import annotations

import os
import posixpath
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from beam_pipelines.config.mix import load_config
from beam_pipelines.jobs.build import build
from tests.support.command import run_command
from tests.support.corpora import SAMPLES
from tests.support.killed_builds import Moment, killed_at
from tests.support.services.fault_proxy import Fault, FaultProxy, fault_proxy
from tests.system.builds.test_gcs_build import without_places
from transforms.dataset.manifest import read_manifest
from transforms.files import storage
from transforms.files.listing import list_files

pytestmark = pytest.mark.slow

OVERRIDES = {"total_tokens": "20000"}
DEMO = SAMPLES.parent / "mix_configs" / "demo.yaml"


@pytest.fixture
def proxy(gcs_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """Stands between the clients of this test, those in processes that it starts too, and the bucket."""
    with fault_proxy(os.environ["STORAGE_EMULATOR_HOST"], seed=1) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.address)
        monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", proxy.address)
        yield proxy


def test_files_survive_a_tenth_of_faults(proxy: FaultProxy, gcs_prefix: str) -> None:
    content = random.Random(0).randbytes(100_000)
    for number in range(12):
        path = f"{gcs_prefix}/{number}"
        storage.write_bytes(path, content)
        assert storage.read_bytes(path) == content
    assert [size for _, size in list_files(gcs_prefix, "*")] == [len(content)] * 12
    assert set(proxy.faults) == set(Fault)


def upload_demo(prefix: str) -> str:
    """Puts the demo's config, tokenizer and sources into a bucket, and tells where the config is."""
    storage.upload(str(DEMO), f"{prefix}/mix_configs/demo.yaml")
    for path in [SAMPLES / "tokenizer.json", *SAMPLES.glob("corpora/*/*.parquet")]:
        storage.upload(str(path), f"{prefix}/samples/{path.relative_to(SAMPLES)}")
    return f"{prefix}/mix_configs/demo.yaml"


def check_equal(remote: str, local: Path) -> None:
    expected = {str(path.relative_to(local)): path for path in local.rglob("*") if path.is_file()}
    assert [path.removeprefix(f"{remote}/") for path, _ in list_files(remote)] == sorted(expected)
    for name, path in expected.items():
        if path.name == "manifest.json":
            there, here = (read_manifest(posixpath.dirname(one)) for one in (f"{remote}/{name}", str(path)))
            assert there is not None
            assert here is not None
            assert without_places(there) == without_places(here)
        else:
            assert storage.read_bytes(f"{remote}/{name}") == path.read_bytes(), name


def test_a_mix_built_through_faults_equals_the_local_one(proxy: FaultProxy, gcs_prefix: str, tmp_path: Path) -> None:
    local = tmp_path / "out"
    build(load_config(str(DEMO), overrides=OVERRIDES), str(local), quiet=True)
    remote = f"{gcs_prefix}/out"
    build(load_config(upload_demo(gcs_prefix), overrides=OVERRIDES), remote, quiet=True)
    check_equal(remote, local)
    result = run_command("verify", remote, "--quiet")
    assert (result.returncode, result.stderr) == (0, "")
    assert set(proxy.faults) == set(Fault)


def test_a_build_that_is_killed_amid_faults_goes_on(proxy: FaultProxy, gcs_prefix: str, tmp_path: Path) -> None:
    overrides = {"total_tokens": "150000", "shards.target_size": "16KiB"}
    settings = [part for key, value in overrides.items() for part in ("--set", f"{key}={value}")]
    one = ("--dataset", "finepdfs_german")
    local, remote = tmp_path / "out", f"{gcs_prefix}/out"
    build(load_config(str(DEMO), overrides=overrides), str(local), datasets=one[1:], quiet=True)
    config = upload_demo(gcs_prefix)
    command = ("build", config, "--output", remote, *one, *settings)

    def finished(output: str) -> int:
        return len(list_files(output, "*/.broetchen/*/shard-*.json"))

    assert all(killed_at([Moment(finished, 1, 0)], remote, random.Random(), *command, poll_s=0.05))
    assert finished(remote)
    done = run_command(*command)
    assert done.returncode == 0, done.stderr
    check_equal(remote, local)


def test_a_ledger_in_a_bucket_amid_faults(proxy: FaultProxy, gcs_prefix: str) -> None:
    config, ledger = upload_demo(gcs_prefix), f"{gcs_prefix}/ledger"
    first, again = (
        run_command("count", config, "--dataset", "fineweb_english", "--ledger", ledger, "--format", "csv")
        for _ in range(2)
    )
    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    assert first.stdout == again.stdout
    assert list_files(ledger)
