"""`plan`: figures of footers are exact, and estimates from a sample are near."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from beam_pipelines.config.mix import MixConfig, load_config
from beam_pipelines.jobs.build import build, demo_config
from beam_pipelines.jobs.count import count
from beam_pipelines.jobs.plan import DatasetOutlook, plan
from tests.support.corpora import SAMPLES, reference_ids, write_parquet
from transforms.counting.text_count import TextCount
from transforms.dataset.manifest import Manifest, read_manifest
from transforms.files.scratch import run_folder

NEAR = 0.25

ROWS, GROUPS, FILES = 25, 6, 4


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four files of six row groups of 25 documents, all of as many tokens and bytes, and of different texts."""
    folder = tmp_path_factory.mktemp("layout")
    for file in range(FILES):
        groups = [
            [f"{(file * GROUPS + group) * ROWS + row:05d} Wort" for row in range(ROWS)] for group in range(GROUPS)
        ]
        write_parquet(folder / "a" / f"{file}.parquet", groups)
    return folder


def outlook(layout: Path, tokens: int, eval_tokens: int) -> DatasetOutlook:
    config = MixConfig.model_validate(
        {
            "name": "planned",
            "tokenizer": {"path": str(SAMPLES / "tokenizer.json"), "eos_token": "<|eos|>"},
            "records": {"max_tokens": 64, "add_eos": True},
            "datasets": {"a": {"source": f"{layout}/a/*.parquet", "tokens": tokens, "eval_tokens": eval_tokens}},
        }
    )
    (found,) = plan(config)
    return found


def group_tokens() -> float:
    """Tokens of a row group, by the mean of all: documents differ in their digits, which make two tokens or three."""
    groups = GROUPS * FILES
    return sum(map(len, reference_ids([f"{row:05d} Wort" for row in range(ROWS * groups)]))) / groups


@pytest.mark.parametrize("groups", [1, 5, 6, 7, 17, 24])
def test_footers_tell_exactly_what_is_read(layout: Path, groups: int) -> None:
    """A budget that ends in the middle of a row group needs it, and none after it."""
    tokens = round((groups - 0.5) * group_tokens())
    found = outlook(layout, tokens - 7, 7)
    paths = sorted((layout / "a").glob("*.parquet"))
    stored = [
        pq.read_metadata(path).row_group(group).column(1).total_compressed_size
        for path in paths
        for group in range(GROUPS)
    ]
    assert found.need == tokens
    assert found.files == FILES
    assert found.source_bytes == sum(path.stat().st_size for path in paths)
    assert found.row_groups == groups
    assert found.files_read == -(-groups // GROUPS)
    assert found.read_bytes == sum(stored[:groups])


@pytest.fixture(scope="module")
def config() -> MixConfig:
    return demo_config()


@pytest.fixture(scope="module")
def outlooks(config: MixConfig) -> dict[str, DatasetOutlook]:
    return {found.dataset: found for found in plan(config)}


@pytest.fixture(scope="module")
def counts(config: MixConfig) -> dict[str, TextCount]:
    return count(["demo.yaml"], lambda _: config)


def built(config: MixConfig, output: Path) -> dict[str, Manifest]:
    build(config, str(output), quiet=True)
    found = {name: read_manifest(str(output / name)) for name in config.datasets}
    return {name: manifest for name, manifest in found.items() if manifest is not None}


def check_estimates(outlooks: Mapping[str, DatasetOutlook], manifests: Mapping[str, Manifest]) -> None:
    for name, found in outlooks.items():
        manifest = manifests[name]
        splits = manifest.splits.values()
        assert found.need == sum(split.budget for split in splits)
        assert found.files_read == len(manifest.source)
        assert found.row_groups == pytest.approx(sum(len(entry.row_groups) for entry in manifest.source), abs=1)
        assert found.shards == sum(len(split.shards) for split in splits)
        assert found.written_bytes == pytest.approx(sum(split.bytes for split in splits), rel=NEAR)
        assert found.seconds > 0


@pytest.mark.slow
def test_the_sources_hold_about_what_is_estimated(
    config: MixConfig, outlooks: Mapping[str, DatasetOutlook], counts: Mapping[str, TextCount]
) -> None:
    assert list(outlooks) == list(config.datasets)
    for name, found in outlooks.items():
        # The build adds an EOS to each document.
        assert found.available == pytest.approx(counts[name].tokens + counts[name].documents, rel=NEAR)


def test_a_build_of_the_demo_is_about_what_was_planned(
    config: MixConfig, outlooks: Mapping[str, DatasetOutlook], tmp_path: Path
) -> None:
    check_estimates(outlooks, built(config, tmp_path))


@pytest.mark.slow
def test_a_build_in_large_shards_is_about_what_was_planned(tmp_path: Path) -> None:
    overrides = {"shards.target_size": "1MiB", "total_tokens": "1.2M"}
    config = load_config(str(SAMPLES.parent / "mix_configs" / "demo.yaml"), overrides=overrides)
    check_estimates({found.dataset: found for found in plan(config)}, built(config, tmp_path))


def test_the_engine_that_will_encode_is_named(config: MixConfig, outlooks: Mapping[str, DatasetOutlook]) -> None:
    assert {found.engine for found in outlooks.values()} == {"gigatoken"}
    (found,) = plan(config, datasets=["fineweb_edu_english"], engine="tokenizers")
    assert found.engine == "tokenizers"


def test_a_plan_writes_nothing(config: MixConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    plan(config, datasets=["fineweb_edu_english"])
    # The folder of this process, which goes with it, is empty.
    assert list(tmp_path.rglob("*")) == [Path(run_folder())]


@pytest.mark.parametrize(("max_records", "crowded"), [(24, 7), (40, 0)])
def test_a_plan_tells_the_records_of_shards_and_the_row_groups_that_are_too_many(
    layout: Path, max_records: int, crowded: int
) -> None:
    """Row groups of 25 short documents, each one record: by the footers some 25 records, and a few for the text."""
    config = MixConfig.model_validate(
        {
            "name": "planned",
            "tokenizer": {"path": str(SAMPLES / "tokenizer.json"), "eos_token": "<|eos|>"},
            "records": {"max_tokens": 64},
            "shards": {"max_records": max_records, "group_size": 5},
            "datasets": {"a": {"source": f"{layout}/a/*.parquet", "tokens": round(6.5 * group_tokens()) - 175}},
        }
    )
    (found,) = plan(config)
    assert found.shards == 7
    # The budget ends in the seventh row group.
    assert found.records_per_shard == pytest.approx(25 * 6.5 / 7, rel=0.05)
    assert found.crowded_row_groups == crowded
    assert (found.most_records > max_records) == bool(crowded)
    assert 25 < found.most_records < 40 or not crowded
    # Eight bytes for each group of five records, and what each file takes.
    assert found.index_bytes == pytest.approx(8 * 25 * 6.5 / 5 + 7 * (5 << 10), rel=0.01)


def test_shards_of_parquet_have_no_index(layout: Path) -> None:
    config = MixConfig.model_validate(
        {
            "name": "planned",
            "tokenizer": {"path": str(SAMPLES / "tokenizer.json")},
            "records": {"format": "parquet"},
            "shards": {"max_records": 1},
            "datasets": {"a": {"source": f"{layout}/a/*.parquet", "tokens": 1000}},
        }
    )
    (found,) = plan(config)
    assert (found.shards, found.index_bytes, found.crowded_row_groups) == (1, 0, 0)
