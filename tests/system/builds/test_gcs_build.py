"""The demo's mix with everything in a bucket: config, tokenizer, sources and output."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from beam_pipelines.config.mix import MixConfig, load_config
from beam_pipelines.jobs.build import build, demo_config
from beam_pipelines.jobs.count import count
from tests.support.command import run_command
from tests.support.corpora import SAMPLES
from transforms.dataset.manifest import Manifest, find_manifests, read_manifest
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.files.listing import list_files

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same mix on this machine."""
    output = tmp_path_factory.mktemp("local") / "out"
    build(demo_config(), str(output), quiet=True)
    return output


@pytest.fixture(scope="module")
def root(gcs_bucket: str) -> str:
    """A folder of the bucket that holds the parts of the repository that the demo needs."""
    root = f"{gcs_bucket}/demo"
    config = SAMPLES.parent / "mix_configs" / "demo.yaml"
    storage.upload(str(config), f"{root}/mix_configs/demo.yaml")
    for path in [SAMPLES / "tokenizer.json", *SAMPLES.glob("corpora/*/*.parquet")]:
        storage.upload(str(path), f"{root}/samples/{path.relative_to(SAMPLES)}")
    return root


@pytest.fixture(scope="module")
def config(root: str) -> MixConfig:
    return load_config(f"{root}/mix_configs/demo.yaml")


@pytest.fixture(scope="module")
def remote(config: MixConfig, root: str) -> str:
    output = f"{root}/out"
    build(config, output, quiet=True)
    return output


def names(folder: str) -> list[str]:
    return [path.removeprefix(f"{folder}/") for path, _ in list_files(folder)]


def test_the_bucket_holds_the_same_files_as_a_folder(local: Path, remote: str) -> None:
    expected = {str(path.relative_to(local)): path for path in local.rglob("*") if path.is_file()}
    assert names(remote) == sorted(expected)
    for name, path in expected.items():
        if path.name != "manifest.json":
            found = storage.read_bytes(f"{remote}/{name}")
            assert hashlib.sha256(found).digest() == hashlib.sha256(path.read_bytes()).digest(), name


def test_pairs_in_a_bucket_are_those_in_a_folder(root: str, tmp_path: Path) -> None:
    changes = {"records.format": "megatron"}
    for output, config in (
        (str(tmp_path), load_config(str(SAMPLES.parent / "mix_configs" / "demo.yaml"), overrides=changes)),
        (f"{root}/pairs", load_config(f"{root}/mix_configs/demo.yaml", overrides=changes)),
    ):
        build(config, output, datasets=["finepdfs_english"], quiet=True)
    expected = {str(path.relative_to(tmp_path)): path for path in tmp_path.rglob("*") if path.is_file()}
    assert names(f"{root}/pairs") == sorted(expected)
    assert len([name for name in expected if name.endswith(".idx")]) > 2
    for name, path in expected.items():
        if path.suffix in (".bin", ".idx"):
            assert storage.read_bytes(f"{root}/pairs/{name}") == path.read_bytes(), name
    result = run_command("verify", f"{root}/pairs", "--quiet")
    assert (result.returncode, result.stderr) == (0, "")


def without_places(manifest: Manifest) -> Manifest:
    """A manifest without the store's own checksums of the sources, which a local disk has none of."""
    source = [entry.model_copy(update={"checksum": None}) for entry in manifest.source]
    return manifest.model_copy(update={"source": source, "fingerprint": ""})


def test_the_manifests_differ_in_the_checksums_of_the_sources_alone(local: Path, remote: str) -> None:
    for folder, manifest in find_manifests(remote).items():
        other = read_manifest(str(local / manifest.dataset))
        assert other is not None
        assert folder == f"{remote}/{manifest.dataset}"
        assert all(entry.checksum for entry in manifest.source)
        assert without_places(manifest) == without_places(other)


def test_the_verify_command_finds_all_of_it_sound(remote: str) -> None:
    result = run_command("verify", remote, "--quiet")
    assert (result.returncode, result.stderr) == (0, "")
    assert len(re.findall(r"^ \w+ .* sound", result.stdout, re.MULTILINE)) == 5


def test_a_second_build_of_a_bucket_does_nothing(config: MixConfig, remote: str, root: str) -> None:
    output = f"{root}/again"
    for name in names(remote):
        storage.write_bytes(f"{output}/{name}", storage.read_bytes(f"{remote}/{name}"))

    def written() -> dict[str, float]:
        return {name: files_updated(f"{output}/{name}") for name in names(output)}

    before = written()
    build(config, output, quiet=True)
    assert written() == before


def files_updated(path: str) -> float:
    from apache_beam.io.filesystems import FileSystems

    (match,) = FileSystems.match([path])
    (metadata,) = match.metadata_list
    return float(metadata.last_updated_in_seconds)


def test_the_work_of_a_failed_build_is_cleared_away_by_the_next(config: MixConfig, remote: str, root: str) -> None:
    output, name = f"{root}/failed", "fineweb_edu_english"
    short = config.model_copy(
        update={
            "total_tokens": None,
            "datasets": {name: config.datasets[name].model_copy(update={"tokens": 10**7, "share": None})},
        }
    )
    with pytest.raises(BroetchenError, match="the source is exhausted"):
        build(short, output, quiet=True)
    assert any(path.startswith(f"{name}/.broetchen/") for path in names(output))
    build(config, output, datasets=[name], quiet=True)
    assert names(f"{output}/{name}") == names(f"{remote}/{name}")


def test_count_of_a_bucket(remote: str) -> None:
    counts = count([remote], load_config)
    assert sum(found.tokens for found in counts.values()) == 410_000


def test_a_damaged_shard_in_the_bucket_is_named(config: MixConfig, remote: str, root: str) -> None:
    name = "fineweb_english"
    for path, _ in [*list_files(f"{remote}/{name}", "*"), *list_files(remote, "tokenizer-*/*")]:
        storage.write_bytes(path.replace("/out/", "/damaged/"), storage.read_bytes(path))
    shard = f"{root}/damaged/{name}/train-00000-of-00001.arecord"
    content = bytearray(storage.read_bytes(shard))
    content[len(content) // 2] ^= 1
    storage.write_bytes(shard, bytes(content))
    result = run_command("verify", f"{root}/damaged")
    assert result.returncode == 1
    assert f"{shard}: sha256" in result.stderr
