"""What becomes of a provisional shard that is not what its count says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from beam_pipelines.config.mix import load_config
from beam_pipelines.jobs.specs import dataset_specs, keep_tokenizer, load_config_tokenizer
from tests.support.corpora import TOKENIZER
from transforms.arrayrecord.example import encode_ids
from transforms.arrayrecord.writer import ShardWriter
from transforms.budget.token_budget import ShardCount, ShardSlice
from transforms.building.cut import PublishTask
from transforms.building.publish import publish_shard
from transforms.building.work_folder import WorkFolder
from transforms.errors import BroetchenError
from transforms.recipe.spec import DatasetSpec


@pytest.fixture
def spec(tmp_path: Path) -> DatasetSpec:
    (tmp_path / "mix.yaml").write_text(
        f"name: test\ntokenizer: {{path: {TOKENIZER}}}\ndatasets: {{a: {{tokens: 5, source: a.parquet}}}}\n"
    )
    config = load_config(str(tmp_path / "mix.yaml"))
    tokenizer = load_config_tokenizer(config)
    output = str(tmp_path / "out")
    keep_tokenizer(tokenizer, output)
    (found,) = dataset_specs(config, ["a"], tokenizer, output=output, engine="tokenizers", overwrite=False)
    return found


@pytest.mark.parametrize("held", [0, 4, 6])
def test_a_cut_takes_what_it_says_or_nothing(spec: DatasetSpec, tmp_path: Path, held: int) -> None:
    """A file that was cut short reads as one with fewer records, or none, and says nothing of it."""
    folder = tmp_path / "work"
    work = WorkFolder(str(folder), "arecord")
    with ShardWriter(work.shard(0)) as writer:
        writer.write_many(encode_ids(np.arange(held, dtype=np.uint32), np.arange(0, held + 1, 2)))
    written = writer.close()
    count = ShardCount(0, tokens=6, documents=1, records=3, file_bytes=written.bytes, sha256=written.sha256)
    work.finish(count, np.array([6], np.uint32))
    task = PublishTask("a", str(folder), "arecord", "train", 0, 1, count, ShardSlice(0, skip=0, take=5))
    if held == 6:
        assert publish_shard(spec, task).tokens == 5
        return
    with pytest.raises(
        BroetchenError, match=rf"gives {held} of 5 tokens, so it was damaged .* delete the folder {folder}"
    ):
        publish_shard(spec, task)
    assert not list((tmp_path / "out").rglob("*.arecord"))
    assert not [path for path in folder.iterdir() if ".tmp-" in path.name or path.name.startswith("train")]
