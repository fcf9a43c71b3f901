"""Warnings about a source by its footers alone."""

from __future__ import annotations

import dataclasses

import pytest

from tests.support.small_builds import small_build
from transforms.parquet.footer import RowGroup, SourceFile
from transforms.recipe.footer_bound import footer_problem, warn_of_footers
from transforms.recipe.spec import DatasetSpec


def source(text_bytes: int, rows: int) -> list[SourceFile]:
    """A source of two files."""
    groups = (RowGroup(rows - rows // 2, text_bytes - 7, 1), RowGroup(rows // 2, 7, 1))
    return [SourceFile(f"{number}.parquet", 1, "", None, (group,)) for number, group in enumerate(groups)]


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> DatasetSpec:
    """A dataset of ids with EOS, with a budget of 1,000 tokens, and 200 more to be held out."""
    build = small_build(tmp_path_factory.mktemp("small"), "tokens", [["ab"]])
    return dataclasses.replace(build.spec, budgets={"train": 1000, "eval": 200})


def test_a_source_with_fewer_bytes_than_tokens_will_lack_some(spec: DatasetSpec) -> None:
    """Each of 100 rows has an EOS besides."""
    assert footer_problem(spec, source(1099, 100)) == (
        "by its footers the source has 1.1 KiB of text in 100 rows for 1.10K tokens, and a token takes a byte at "
        "least: it will lack 1 or more; name more files, or lower the budget"
    )


def test_a_large_source_with_few_bytes_for_each_token_will_probably_fall_short(spec: DatasetSpec) -> None:
    large = dataclasses.replace(spec, budgets={"train": 100_000_000, "eval": 200})
    for text_bytes, said in ((100_000_100, "1.0 bytes each"), (280 * 10**6, "2.8 bytes each"), (300_000_299, "3.0 ")):
        what = footer_problem(large, source(text_bytes, 100))
        assert what is not None
        assert said in what
        assert what.endswith(
            "and a token mostly takes 3 or more: it will probably fall short; name more files, or lower the budget"
        )
    assert footer_problem(large, source(300_000_300, 100)) is None


def test_of_a_small_source_nothing_is_guessed(spec: DatasetSpec) -> None:
    assert footer_problem(spec, source(1100, 100)) is None
    # Of rows enough, the EOS alone would do.
    assert footer_problem(spec, source(8, 1200)) is None
    large = dataclasses.replace(spec, budgets={"train": (64 << 20) - 1})
    assert footer_problem(large, source((64 << 20) - 1, 2)) is None
    assert footer_problem(large, source(64 << 20, 2)) is not None


def test_what_is_held_out_is_not_repeated(spec: DatasetSpec) -> None:
    fourfold = dataclasses.replace(spec, max_repeats=4)
    assert footer_problem(fourfold, source(350, 100)) is None
    what = footer_problem(fourfold, source(349, 100))
    assert what is not None
    assert "for 350 tokens, repeated as often as max_repeats allows, and a token takes a byte at least" in what


def test_the_warning_names_the_dataset_unless_a_short_source_is_kept(
    spec: DatasetSpec, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_footers(dataclasses.replace(spec, on_shortfall="keep"), source(50, 10))
    assert caplog.messages == []
    warn_of_footers(spec, source(50, 10))
    (message,) = caplog.messages
    assert message.startswith("dataset small: by its footers the source has 50 bytes of text in 10 rows")
