"""The text of a card."""

from __future__ import annotations

import re

import pytest

from tests.transforms.card.cards import COMMIT, SHA, manifest_of, mix_of, split_of
from transforms.card.mix import CardMix
from transforms.card.readme import DatasetFacts, filters_text, readme_text
from transforms.card.seal import is_sealed
from transforms.dataset.manifest import Manifest


def card(mix: CardMix, *manifests: Manifest) -> str:
    text = readme_text(mix, [DatasetFacts.of(manifest) for manifest in manifests])
    assert is_sealed(text.encode())
    assert not [line for line in text.splitlines() if line != line.rstrip()]
    return text


def rows(text: str, dataset: str) -> list[list[str]]:
    """The cells after its name, of each table's row of a dataset."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [cells[1:] for cells in lines if cells[0] == dataset]


def test_the_numbers_of_two_datasets() -> None:
    text = card(
        mix_of({"german": {}, "english": {}}),
        manifest_of("german", {"train": split_of(2000, shards=2), "eval": split_of(50)}, sources=["a", "b"]),
        manifest_of("english", {"train": split_of(1000)}),
    )
    assert "2 datasets with 3,000 tokens to train on and 50 held out" in text
    assert rows(text, "`german`")[0] == ["2,000", "66.67 %", "200", "50", "410", "3", "4 KiB"]
    assert rows(text, "`english`")[0] == ["1,000", "33.33 %", "100", "0", "200", "1", "2 KiB"]
    assert rows(text, "all")[0] == ["3,000", "100.00 %", "300", "50", "610", "4", "6 KiB"]
    assert "as at most 2,048 token ids; EOS of each document included." in text
    assert f"SHA-256 `{SHA}`" in text


def test_one_dataset_without_held_out_tokens_has_no_sum_and_no_empty_columns() -> None:
    text = card(mix_of({"a": {}}), manifest_of("a", {"train": split_of(100)}))
    assert "1 dataset with 100 tokens to train on, each" in text
    assert "eval" not in text
    assert not rows(text, "all")
    assert "| dataset | sources | files read |" in text
    assert "The mix names no license" in text


def test_what_is_not_there_is_said() -> None:
    text = card(mix_of({"a": {}, "b": {}, "c": {}}), manifest_of("b", {"train": split_of(100)}))
    assert "Of the same mix, and not here: `a`, `c`." in text
    assert 'open_dataset("b")' in text


def test_sources_licenses_languages_and_filters_are_those_of_the_config() -> None:
    hub = f"hf://datasets/OWNER/NAME@{COMMIT}/"
    mix = mix_of(
        {
            "a": {
                "source": [f"{hub}de/*.parquet", "more/x|y.parquet", f"{hub}at/*.parquet"],
                "license": "odc-by",
                "language": ["de", "en"],
                "filters": [["language_score", ">=", 0.9], ["is_truncated", "==", False]],
                "exclude": {"column": "id", "values": "takedown.parquet"},
            },
            "b": {"source": [f"{number}.parquet" for number in range(10)]},
        }
    )
    text = card(mix, *(manifest_of(name, {"train": split_of(100)}) for name in "ab"))
    link = f"[`OWNER/NAME`](https://huggingface.co/datasets/OWNER/NAME/tree/{COMMIT}) at `{COMMIT[:12]}`"
    assert rows(text, "`a`")[1] == [
        f"{link}: `de/*.parquet`, `at/*.parquet`; <code>more&#47;x&#124;y&#46;parquet</code>",
        "1",
        "`odc-by`",
        "`de`, `en`",
        "`language_score >= 0.9 and is_truncated == false; id not in takedown.parquet`",
    ]
    assert rows(text, "`b`")[1][0] == (
        "`0.parquet`, `1.parquet`, `2.parquet`, `3.parquet`; and 6 more, in [mix.yaml](mix.yaml)"
    )
    # Of two datasets one names a license: the head, which stands for both, does not.
    assert "license" not in text.split("---")[1]


def test_short_sources_passes_and_rows_that_were_left_out_are_said() -> None:
    text = card(
        mix_of({"a": {}, "b": {}}),
        manifest_of(
            "a", {"train": split_of(90, missing=10)}, skipped={"null": 3, "empty": 4}, filtered=1200, rows=5000
        ),
        manifest_of("b", {"train": split_of(100, budget=302, missing=0, passes=3.02)}),
    )
    assert (
        "* `a`: train lacks 10 tokens of its budget, since the source ended; 1,200 rows up to its end were filtered "
        "out; 7 rows up to its end were left out, as they hold no text.\n"
    ) in text
    assert "* `b`: train holds all of its source once, for a budget of 302 tokens: 3.02 passes.\n" in text
    # A training takes the shares of the budgets.
    assert [rows(text, f"`{name}`")[0][1] for name in "ab"] == ["22.96 %", "77.04 %"]


def test_a_tokenizer_of_the_hub_is_linked() -> None:
    mix = mix_of({"a": {}}, tokenizer={"path": "OWNER/NAME", "revision": COMMIT})
    text = card(mix, manifest_of("a", {"train": split_of(100)}))
    assert f", from [`OWNER/NAME`](https://huggingface.co/OWNER/NAME/tree/{COMMIT}) at `{COMMIT[:12]}`.\n" in text


@pytest.mark.parametrize(
    ("record_format", "taken"), [("tokens", "ids"), ("text", "text"), ("parquet", "text"), ("megatron", "ids")]
)
def test_it_is_read_in_five_lines(record_format: str, taken: str) -> None:
    mix = mix_of({"a": {}}, record_format)
    text = card(mix, manifest_of("a", {"train": split_of(100)}, record_format=record_format))
    (program,) = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len([line for line in program.splitlines() if line]) == 5
    assert f"record.{taken})" in program
    assert ("load_dataset" in text) == (record_format == "parquet")
    assert ("`.bin` and `.idx`" in text) == (record_format == "megatron")
    assert ("ArrayRecord file" in text) == (record_format in ("tokens", "text"))


def test_what_a_manifest_says_of_its_version_and_tokenizer_is_no_markup() -> None:
    plain = manifest_of("a", {"train": split_of(100)})
    tokenizer = plain.tokenizer.model_copy(update={"path": "../x](http://evil) <script>"})
    odd = plain.model_copy(update={"versions": {"broetchen": "1\n# <script>"}, "tokenizer": tokenizer})
    text = card(mix_of({"a": {}}), odd)
    assert "script" not in text
    assert "Brötchen `unknown`" in text


def test_long_filters_are_cut_short() -> None:
    assert len(filters_text({"filters": [["column", "in", ["value"] * 1000]]})) == 300


def test_filters_in_other_forms() -> None:
    assert filters_text({}) == ""
    either = [[["kind", "in", ["ä", "b"]]], [["n", "!=", 2], ["cut", "==", True]]]
    assert filters_text({"filters": either}) == 'kind in ["ä", "b"] or n != 2 and cut == true'
    assert filters_text({"exclude": {"column": "a", "values": "x.txt", "sha256": "0"}}) == "a not in x.txt"
