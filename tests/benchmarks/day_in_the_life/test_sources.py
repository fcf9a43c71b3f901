"""Sources of a day: enough of each dataset, in the shape of the published files."""

from __future__ import annotations

import pyarrow as pa
import pytest

from beam_pipelines.config.mix import MixConfig
from benchmarks.day_in_the_life.__main__ import configs, tokens_of
from benchmarks.day_in_the_life.sources import as_published, files_of


@pytest.mark.parametrize("tokens", [1_000_000, 2_000_000_000])
def test_the_configs_are_the_recipe_in_small(tokens: int) -> None:
    mix, vocabulary = configs(tokens)
    found = MixConfig.model_validate(mix)
    assert sum(budget.train for budget in found.budgets().values()) == tokens
    assert mix["shards"] == {"target_size": "512MiB", "compression": "zstd", "group_size": 1}
    assert MixConfig.model_validate(vocabulary).records.format == "text"
    wanted = tokens_of(mix, vocabulary)
    # Half of the mix, and 10M of 200B held out; of the smaller mix the vocabulary's corpus takes more.
    assert wanted["finepdfs_german"] == max(tokens // 2 + tokens // 20_000, 2_500_000)


def test_files_hold_what_is_wanted_of_them() -> None:
    assert [files_of(tokens) for tokens in (1, 15_000_000, 150_000_000)] == [1, 1, 10]


def test_rows_get_the_columns_of_fineweb() -> None:
    rows = {"text": ["Brötchen", "Brot"], "id": ["a", "b"], "url": ["u", "v"], "language": ["de", "de"]}
    table = as_published(pa.table(rows), seed=3)
    assert table.num_rows == 2
    assert {name: table[name].to_pylist() for name in rows} == rows
    assert table["token_count"].to_pylist() == [2, 1]  # of 9 bytes and of 4
    assert table.equals(as_published(pa.table(rows), seed=3))
    assert not table.equals(as_published(pa.table(rows), seed=4))
