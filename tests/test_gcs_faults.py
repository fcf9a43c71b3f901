"""A bucket whose every tenth request fails: the same bytes as from a healthy one, or an error, never short data."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from beam_pipelines.build_mix import build
from beam_pipelines.mix_config import load_config
from tests.command import run_command
from tests.corpora import SAMPLES
from tests.fault_proxy import Fault, FaultProxy, fault_proxy
from transforms import files

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
        files.write_bytes(path, content)
        assert files.read_bytes(path) == content
    assert [size for _, size in files.list_files(f"{gcs_prefix}/*")] == [len(content)] * 12
    assert set(proxy.faults) == set(Fault)


@pytest.mark.slow
def test_a_mix_built_through_faults_equals_the_local_one(proxy: FaultProxy, gcs_prefix: str, tmp_path: Path) -> None:
    local = tmp_path / "out"
    build(load_config(str(DEMO), overrides=OVERRIDES), str(local), quiet=True)
    files.upload(str(DEMO), f"{gcs_prefix}/mix_configs/demo.yaml")
    for path in [SAMPLES / "tokenizer.json", *SAMPLES.glob("corpora/*/*.parquet")]:
        files.upload(str(path), f"{gcs_prefix}/samples/{path.relative_to(SAMPLES)}")
    remote = f"{gcs_prefix}/out"
    build(load_config(f"{gcs_prefix}/mix_configs/demo.yaml", overrides=OVERRIDES), remote, quiet=True)

    expected = {str(path.relative_to(local)): path for path in local.rglob("*") if path.is_file()}
    assert [path.removeprefix(f"{remote}/") for path, _ in files.list_files(f"{remote}/**")] == sorted(expected)
    for name, path in expected.items():
        # Manifests differ in the store's checksums of the sources; see test_gcs_build.
        if path.name != "manifest.json":
            assert files.read_bytes(f"{remote}/{name}") == path.read_bytes(), name
    result = run_command("verify", remote)
    assert (result.returncode, result.stderr) == (0, "")
    assert set(proxy.faults) == set(Fault)
