"""What is found about a run, from MaxText's settings and the data, without MaxText."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.maxtext.checks import Finding, findings
from launch.maxtext.tokenizer import TrainingTokenizer
from launch.mixture.datasets import Component, Mixture, Records
from launch.mixture.outlook import outlook

WRITTEN = {"steps": 10, "per_device_batch_size": 8}
SETTINGS = {
    "steps": 10,
    "per_device_batch_size": 8,
    "global_batch_size_to_train_on": 8,
    "global_batch_size_to_eval_on": 8,
    "max_target_length": 64,
    "vocab_size": 1000,
    "num_epoch": 1,
    "tokenize_train_data": False,
    "tokenize_eval_data": False,
    "add_bos": False,
    "add_eos": False,
    "use_truncation": True,
    "packing": True,
    "grain_packing_type": "first_fit",
    "reuse_example_batch": 0,
    "eval_interval": -1,
    "eval_steps": -1,
    "enable_checkpointing": True,
    "checkpoint_period": 5,
}
TEXTS = {"tokenize_train_data": True, "tokenize_eval_data": True, "add_eos": True, "use_truncation": False}
COMPONENTS = (
    Component("german", "/mix/german", 6000, 200, 1, 6000, eval_tokens=600, eval_records=20, eval_shards=1),
    Component("english", "/mix/english", 4000, 100, 1, 4000, eval_tokens=400, eval_records=10, eval_shards=1),
)
SHARES = {"german": Fraction(3, 5), "english": Fraction(2, 5)}
IDS = Records(format="tokens", max_tokens=64, bos_id=None, eos_id=1)
TEXT = Records(format="text", max_tokens=None, bos_id=None, eos_id=None)
TOKENIZER = TrainingTokenizer("/mix/tokenizer", None, 1, 0, "<|pad|>", True)


def found(
    settings: Mapping[str, Any] | None = None,
    records: Records = IDS,
    tokenizer: TrainingTokenizer = TOKENIZER,
    *,
    written: Mapping[str, Any] = WRITTEN,
    components: tuple[Component, ...] = COMPONENTS,
    evaluates: bool = False,
) -> dict[str, Finding]:
    mixture = Mixture(components, True, {}, records, "sha", 1000, "/mix/tokenizer/tokenizer.json")
    everything = SETTINGS | dict(settings or {})
    listed = list(findings(written, everything, mixture, SHARES, tokenizer, evaluates=evaluates))
    assert len({finding.key for finding in listed}) == len(listed)
    return {finding.key: finding for finding in listed}


def test_nothing_is_wrong_with_what_is_right():
    assert found() == {}
    assert found(TEXTS, TEXT) == {}
    assert found({"eval_interval": 5}, evaluates=True) == {}


@pytest.mark.parametrize(
    ("settings", "records", "key", "said"),
    [
        ({"vocab_size": 999}, IDS, "vocab_size", "999 is smaller than the tokenizer's 1000"),
        ({"tokenize_train_data": True}, IDS, "tokenize_train_data", "true cannot go with records of ids"),
        ({"tokenize_eval_data": True}, IDS, "tokenize_eval_data", "true cannot go with records of ids"),
        ({"add_eos": True}, IDS, "add_eos", "to which MaxText adds nothing; they have it already"),
        ({"add_bos": True}, IDS, "add_bos", "build the datasets with `records.add_bos: true` instead"),
        ({"max_target_length": 63}, IDS, "max_target_length", "which MaxText cannot pack, so that the training would"),
        ({"max_target_length": 63, "grain_packing_type": "best_fit"}, IDS, "max_target_length", "cannot pack"),
        ({"max_target_length": 63, "packing": False}, IDS, "max_target_length", "so that MaxText cuts them off"),
        (TEXTS | {"tokenize_train_data": False}, TEXT, "tokenize_train_data", "false cannot go with records of text"),
        (TEXTS | {"add_bos": True}, TEXT, "add_bos", "true has no effect, as no tokenizer_config.json in"),
        ({"steps": 20}, IDS, "steps", "20 are more than the data has: a step takes 8 × 64 tokens"),
        ({"eval_interval": 5}, IDS, "eval_interval", "5 evaluates on nothing"),
    ],
)  # fmt: skip
def test_what_cannot_go_well(settings, records, key, said):
    (finding,) = found(settings, records).values()
    assert (finding.key, finding.fatal) == (key, True)
    assert said in finding.what


def test_records_longer_than_a_sequence_can_be_concatenated():
    assert found({"max_target_length": 32, "grain_packing_type": "concat_then_split"}) == {}


@pytest.mark.parametrize(
    ("settings", "records", "key"),
    [
        (TEXTS | {"use_truncation": True}, TEXT, "use_truncation"),
        ({"checkpoint_period": 11}, IDS, "checkpoint_period"),
        ({"enable_checkpointing": False}, IDS, "enable_checkpointing"),
    ],
)
def test_what_goes_well_but_not_as_meant(settings, records, key):
    (finding,) = found(settings, records).values()
    assert (finding.key, finding.fatal) == (key, False)


def test_evaluation_has_to_be_asked_for_twice():
    assert found(evaluates=True)["eval_interval"].fatal
    finding = found({"eval_interval": 5, "eval_steps": 2}, evaluates=True)["eval_steps"]
    assert "2 are more than the eval splits have: 1000 tokens, by 512 a step, are 1" in finding.what
    assert not finding.fatal


@pytest.mark.parametrize("missing", ["steps", "per_device_batch_size"])
def test_what_maxtext_has_no_sensible_default_for_has_to_be_said(missing):
    assert found(written={key: value for key, value in WRITTEN.items() if key != missing})[missing].fatal


def test_a_token_that_is_taken_for_padding():
    eos = TrainingTokenizer("/mix/tokenizer", None, 1, 1, "<|eos|>", True)
    for finding in (found(tokenizer=eos)["tokenizer"], found(TEXTS, TEXT, eos)["tokenizer"]):
        assert finding.fatal
        assert "the model would never learn to end a text" in finding.what
    # Where no EOS is in the data, nothing is lost.
    assert found(records=Records("tokens", 64, None, None), tokenizer=eos) == {}
    word = TrainingTokenizer("/mix/tokenizer", None, 1, 0, "!", False)
    assert not found(tokenizer=word)["tokenizer"].fatal


@given(st.integers(1, 60), st.integers(1, 4), st.integers(1, 8), st.sampled_from([16, 64]))
def test_steps_and_epochs_that_are_named_are_enough(steps, epochs, batch, length):
    settings = {
        "steps": steps,
        "num_epoch": epochs,
        "global_batch_size_to_train_on": batch,
        "max_target_length": max(length, 64),
        "checkpoint_period": 1,
    }
    finding = found(settings).get("steps")
    expected = outlook(COMPONENTS, SHARES, epochs).tokens // (batch * settings["max_target_length"])
    assert (finding is None) == (steps <= expected)
    if finding is None:
        return
    fewer = int(finding.what.partition("write ")[2].split()[0])
    assert fewer == expected
    assert "steps" not in found(settings | {"steps": fewer})
    more = int(finding.what.partition("`num_epoch: ")[2].partition("`")[0])
    assert more > epochs
