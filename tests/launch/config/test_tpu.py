"""The config's section `tpu_vm`, slices and their prices, and how buckets are mounted."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from launch.config.accelerators import parse_accelerator
from launch.config.prices import list_price
from launch.config.training import load_training_config
from launch.tpu import gcsfuse
from launch.tpu.vm import TpuVm
from tests.support.services.tpu_cloud import SECTION, config_file
from transforms.errors import UsageError

CORPUS = "gs://corpus/mix"


@pytest.mark.parametrize(
    ("name", "on_a_vm", "in_a_cluster"),
    [("v4-8", 1, 1), ("v4-32", 4, 4), ("v5p-16", 2, 2), ("v5litepod-8", 1, 2), ("v6e-8", 1, 2), ("v6e-16", 4, 4)],
)
def test_machines_of_a_slice(tmp_path: Path, name: str, on_a_vm: int, in_a_cluster: int) -> None:
    """A TPU VM of eight v5e or v6e chips is one machine; xpk's nodes have four chips each."""
    xpk = {"accelerator": name, "zone": "us-west4-a", "cluster": "c", "num_slices": 3}
    path = config_file(tmp_path, CORPUS, tpu_vm=SECTION | {"accelerator": name}, xpk=xpk)
    config = load_training_config(path)
    assert config.tpu_vm is not None
    assert config.xpk is not None
    assert (config.tpu_vm.hosts(), config.xpk.hosts()) == (on_a_vm, 3 * in_a_cluster)


def test_no_section(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="add one, such as tpu_vm:"):
        TpuVm(load_training_config(config_file(tmp_path, CORPUS, tpu_vm=None)))


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("accelerator", "v5e-8", "did you mean v5litepod-8"),
        ("accelerator", "v6e-8; rm -rf /", "no TPU slice that is known here"),
        ("accelerator", "v4-9", "has 2 TensorCores in a chip"),
        ("zone", "europe; x", "no zone of Google Cloud"),
        ("project", "$(touch CANARY)", "no id of a project"),
        ("name", "Nano", "no name for it"),
        ("network", "--flag x", "no network"),
        ("service_account", "me", "no service account"),
        ("price_per_hour", "free", "no price"),
        ("price_per_hour", -1, "no price"),
        ("give_up_after", "soon", "no duration"),
        ("cache_size", "5 potatoes", "not a size"),
        ("cache_folder", "/a b", "no absolute path"),
        ("max_restarts", -1, "write at least 0"),
    ],
)
def test_a_section_that_is_wrong(tmp_path: Path, key: str, value: Any, what: str) -> None:
    path = config_file(tmp_path, CORPUS, tpu_vm=SECTION | {key: value})
    with pytest.raises(UsageError) as refused:
        load_training_config(path)
    assert f"tpu_vm.{key}" in str(refused.value)
    assert what in str(refused.value)


@pytest.mark.parametrize(
    ("name", "chips", "zone", "price", "image"),
    [
        ("v4-8", 4, "us-central2-b", "12.88", "tpu-ubuntu2204-base"),
        ("v4-32", 16, "us-central2-b", "51.52", "tpu-ubuntu2204-base"),
        ("v5litepod-16", 16, "us-west4-a", "19.20", "v2-alpha-tpuv5-lite"),
        ("v5p-8", 4, "us-east5-a", "16.80", "v2-alpha-tpuv5"),
        ("v6e-8", 8, "us-east1-d", "21.60", "v2-alpha-tpuv6e"),
        ("v6e-256", 256, "asia-northeast1-b", "829.44", "v2-alpha-tpuv6e"),
    ],
)
def test_slices_and_their_prices(name: str, chips: int, zone: str, price: str, image: str) -> None:
    accelerator = parse_accelerator(name)
    assert (accelerator.chips, accelerator.generation.runtime_version) == (chips, image)
    found = list_price(accelerator, zone, spot=False)
    assert found is not None
    assert found.per_hour == Decimal(price)
    assert list_price(accelerator, "moon-north1-a", spot=False) is None


@pytest.mark.parametrize(("data", "cached"), [(0, False), (2**20, True), (2**30, True), (2**30 + 1, False)])
def test_files_are_cached_where_all_fit(data: int, cached: bool) -> None:
    config = yaml.safe_load(
        gcsfuse.mount_config("corpus", cache_folder="/var/cache/x", cache_bytes=2**30, data_bytes=data)
    )
    assert ("file-cache" in config) is cached
    assert config.get("cache-dir") == ("/var/cache/x/corpus" if cached else None)
    assert config["metadata-cache"]["ttl-secs"] == -1
    assert ("file-cache" in gcsfuse.mount_options(cache_bytes=2**30, data_bytes=data)) is cached
