"""The bytes of the demo's shards, written down: everybody who builds it again, by any version, gets the same files.

Other tests hold one build against another by the same code, and see nothing where both have changed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import re
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import apache_beam as beam
import pytest

from beam_pipelines.config.mix import load_config
from beam_pipelines.jobs.specs import dataset_specs, keep_tokenizer, load_config_tokenizer
from tests.support.documents import ROOT
from transforms.arrayrecord.records import Format, holds_ids
from transforms.building.datasets import BuildDatasets
from transforms.recipe.plan import FORMAT_VERSION
from transforms.recipe.spec import DatasetSpec

DATASET = "finepdfs_english"
FORMATS: tuple[Format, ...] = get_args(Format)
# Shards in another order than the files', and so small that some are published whole and some in part.
CHANGES = {f"datasets.{DATASET}.order": "shuffled", "shards.target_size": "32KiB"}


@dataclasses.dataclass(frozen=True)
class Golden:
    """The digest of the shards, and the versions of the libraries that they were written with."""

    sha256: str
    versions: Mapping[str, str]


RECORDS = {"array_record": "0.8.6", "tokenizers": "0.23.3"}
NO_WRITER = {"tokenizers": "0.23.3"}
PARQUET = {"pyarrow": "25.0.1", "tokenizers": "0.23.3"}
# Format version 1 had the same shards; its manifests and fingerprints were others.
GOLDEN: dict[tuple[int, Format], Golden] = {
    (2, "tokens"): Golden("735a5b8670ee118086e718c20e76c87eae574c581e063fa5f41e963499f62238", RECORDS),
    (2, "text"): Golden("e770f3b622e3f66f8ba950fb6d04e37cf0249b126fe795ec223f9b26d2696bd3", RECORDS),
    (2, "parquet"): Golden("fb8104968cb1204439cc38425a20c152146baee0141c081665d3b01f00ebdcf0", PARQUET),
    (2, "megatron"): Golden("4647da4a8415526e2e90cd8dc84dd6d7602e20d29080dd383d65fe66bfc79a67", NO_WRITER),
}


def demo_spec(written: Format, output: Path) -> DatasetSpec:
    """A dataset of the demo; its output may lie beside those of other formats."""
    changes = CHANGES | {"records.format": written, "records.add_eos": str(holds_ids(written)).lower()}
    config = load_config(ROOT / "mix_configs" / "demo.yaml", overrides=changes)
    tokenizer = load_config_tokenizer(config)
    keep_tokenizer(tokenizer, str(output))
    (spec,) = dataset_specs(config, [DATASET], tokenizer, output=str(output), engine="tokenizers", overwrite=False)
    return dataclasses.replace(spec, name=written)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset in each format, by one job."""
    folder = tmp_path_factory.mktemp("golden")
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        _ = pipeline | beam.Create([demo_spec(written, folder) for written in FORMATS]) | BuildDatasets()
    return folder


def digest(folder: Path) -> str:
    """The digest that `sha256sum *-of-* | sha256sum` prints in a folder."""
    shards = sorted(folder.glob("*-of-*"))
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in shards]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@pytest.mark.parametrize("written", FORMATS)
def test_the_demo_has_the_bytes_that_are_written_down(output: Path, written: Format) -> None:
    found = digest(output / written)
    golden = GOLDEN.get((FORMAT_VERSION, written))
    if golden is None:
        pytest.fail(f"FORMAT_VERSION is {FORMAT_VERSION}, and no shards of it are written down: add {found} to GOLDEN")
    installed = {library: importlib.metadata.version(library) for library in golden.versions}
    if installed != golden.versions:
        pytest.skip(f"these bytes were written with {golden.versions}, and here is {installed}")
    assert found == golden.sha256, (
        f"The same config, source, tokenizer and libraries give other shards of format {written!r} than before. If "
        "nobody meant them to, this is a defect: a build that is taken up again would mix the two. If they are to be "
        "others from now on, raise FORMAT_VERSION in transforms/recipe/plan.py, so that every fingerprint changes, and "
        f"write this down in GOLDEN for it: {found}"
    )


def test_blocks_of_shards_decide_no_byte(output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here of two shards each, where a dataset of the demo has one block; manifests are compared, which say all."""
    for name in ("transforms.recipe.blocks.SHARDS_PER_BLOCK", "transforms.building.datasets.SHARDS_PER_BLOCK"):
        monkeypatch.setattr(name, 2)
    for name in ("transforms.recipe.plan.GROUPS_PER_BLOCK", "transforms.building.datasets.GROUPS_PER_BLOCK"):
        monkeypatch.setattr(name, 3)
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        _ = pipeline | beam.Create([demo_spec(written, tmp_path) for written in FORMATS]) | BuildDatasets()
    for written in FORMATS:
        manifest = (tmp_path / written / "manifest.json").read_bytes()
        assert manifest == (output / written / "manifest.json").read_bytes()
        assert len(list((tmp_path / written).glob("train-*-of-*"))) > 2


@pytest.mark.parametrize("library", sorted({library for golden in GOLDEN.values() for library in golden.versions}))
def test_they_are_written_down_for_the_versions_that_are_pinned(library: str) -> None:
    """Else the comparison would be left out everywhere, and nobody would miss it."""
    lock = (ROOT / "requirements.lock").read_text()
    (pinned,) = re.findall(rf"^{library.replace('_', '-')}==(\S+)", lock, re.M)
    written = {
        golden.versions[library]
        for (version, _), golden in GOLDEN.items()
        if version == FORMAT_VERSION and library in golden.versions
    }
    assert written == {pinned}, (
        f"requirements.lock has another {library}, which may write other bytes: every fingerprint changes with it. Run "
        "these tests with it, and write its version and the new values down in GOLDEN"
    )
