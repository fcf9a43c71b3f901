"""The first look at sources, before a job starts."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_pipelines.config.first_look import check_sources
from beam_pipelines.config.mix import MixConfig, load_config
from tests.support.corpora import SAMPLES
from transforms.errors import UsageError


def mix(folder: Path, *, column: str = "text") -> MixConfig:
    """A mix of `here`, which is there, and `there`, which only other machines have."""
    pq.write_table(pa.table({"text": ["Guten Morgen"]}), folder / "here.parquet")
    path = folder / "mix.yaml"
    path.write_text(
        f"name: mix\ntokenizer: {{path: {SAMPLES / 'tokenizer.json'}}}\nrecords: {{add_eos: false}}\ndatasets:\n"
        f"  here: {{tokens: 10, source: here.parquet, text_column: {column}}}\n"
        "  there: {tokens: 10, source: elsewhere/*.parquet, text_column: text}\n"
    )
    return load_config(path)


def test_a_source_that_only_the_workers_may_reach_is_left_to_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = mix(tmp_path)
    check_sources(config, ["here", "there"], elsewhere=True)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.messages[0].startswith("dataset there is left to the workers, since this machine does not reach its")
    with pytest.raises(UsageError, match=r"datasets\.there\.source: .* no file matches"):
        check_sources(config, ["here", "there"])


def test_what_this_machine_reaches_is_looked_at_for_other_machines_as_well(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"datasets\.here\.text_column: .* no column 'txt'"):
        check_sources(mix(tmp_path, column="txt"), ["here", "there"], elsewhere=True)
