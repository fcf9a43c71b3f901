"""The findings about a run, from MaxText's settings and the data, without MaxText."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.checks.findings import findings
from launch.config.finding import Finding
from launch.maxtext.tokenizer import TrainingTokenizer
from launch.mixture.datasets import Component, Mixture, Records

WRITTEN = {"steps": 10, "per_device_batch_size": 8}
SETTINGS = {
    "steps": 10,
    "per_device_batch_size": 8,
    "global_batch_size_to_load": 8,
    "global_batch_size_to_train_on": 8,
    "global_batch_size_to_load_eval": 8,
    "global_batch_size_to_eval_on": 8,
    "micro_batch_size_to_eval_on": 8,
    "gradient_accumulation_steps": 1,
    "expansion_factor_real_data": -1.0,
    "grain_worker_count": 1,
    "grain_worker_count_eval": 1,
    "generate_padding_batch_eval": False,
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
BIG = {"global_batch_size_to_load": 40, "global_batch_size_to_train_on": 40}
NO_LOSS = "MaxText takes ! (id {}) for padding and ignores it in the loss"


def word(token: int, *, special: bool = False, eos: int | None = 1) -> TrainingTokenizer:
    """A tokenizer of which MaxText ignores a token."""
    return TrainingTokenizer("/mix/tokenizer", None, eos, token, "!", special)


def found(
    settings: Mapping[str, Any] | None = None,
    records: Records = IDS,
    tokenizer: TrainingTokenizer = TOKENIZER,
    *,
    written: Mapping[str, Any] = WRITTEN,
    components: tuple[Component, ...] = COMPONENTS,
    evaluates: bool = False,
    hosts: int = 1,
) -> dict[str, Finding]:
    mixture = Mixture(components, True, {}, records, "sha", 1000, "/mix/tokenizer/tokenizer.json")
    everything = SETTINGS | dict(settings or {})
    listed = list(findings(written, everything, mixture, SHARES, tokenizer, hosts=hosts, evaluates=evaluates))
    assert len({finding.key for finding in listed}) == len(listed)
    return {finding.key: finding for finding in listed}


def only(everything: Mapping[str, Finding], key: str, *, fatal: bool) -> str:
    """The message of the only finding, which is about this parameter."""
    (finding,) = everything.values()
    assert (finding.key, finding.fatal) == (key, fatal)
    return finding.what


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
        (TEXTS | {"tokenize_eval_data": False}, TEXT, "tokenize_eval_data", "false cannot go with records of text"),
        (TEXTS | {"add_bos": True}, TEXT, "add_bos", "true has no effect, as no tokenizer_config.json in"),
        ({"steps": 21}, IDS, "steps", "21 are more than the data has: a step takes 8 × 64 tokens"),
        ({"eval_interval": 5}, IDS, "eval_interval", "5 evaluates on nothing"),
    ],
)  # fmt: skip
def test_what_cannot_go_well(settings, records, key, said):
    assert said in only(found(settings, records), key, fatal=True)


def test_all_is_found_at_once():
    settings = {"vocab_size": 1, "add_eos": True, "steps": 50, "checkpoint_period": 50, "eval_steps": 100}
    everything = found(settings, tokenizer=word(0), written={"steps": 50}, evaluates=True)
    assert {key: finding.fatal for key, finding in everything.items()} == {
        "per_device_batch_size": True,
        "vocab_size": True,
        "add_eos": True,
        "tokenizer": False,
        "steps": True,
        "eval_interval": True,
        "eval_steps": True,
        "checkpoint_period": False,
    }


@pytest.mark.parametrize(
    ("packing", "how", "said"),
    [
        (True, "first_fit", "which MaxText cannot pack, so that the training would stop"),
        (True, "best_fit", "which MaxText cannot pack, so that the training would stop"),
        (True, "concat_then_split", None),
        (False, "first_fit", "so that MaxText cuts them off"),
        (False, "concat_then_split", "so that MaxText cuts them off"),
    ],
)
def test_a_sequence_has_room_for_the_longest_record(packing: bool, how: str, said: str | None) -> None:
    packed = {"packing": packing, "grain_packing_type": how}
    assert found(packed | {"max_target_length": 64}) == {}
    everything = found(packed | {"max_target_length": 63})
    if said is None:
        assert everything == {}
    else:
        what = only(everything, "max_target_length", fatal=True)
        assert f"63 is shorter than records may be (`records.max_tokens` is 64), {said}; write at least 64" in what
        assert "build the datasets with max_tokens 63" in what
    # Texts are cut into sequences.
    assert found(TEXTS | packed | {"max_target_length": 63}, TEXT) == {}


@pytest.mark.parametrize("key", ["add_bos", "add_eos"])
def test_ids_have_what_they_were_built_with(key: str) -> None:
    """Token 0 may be a BOS or EOS like any other."""
    there = Records("tokens", 64, bos_id=0, eos_id=0)
    assert "nothing; they have it already" in only(found({key: True}, there, word(2, special=True)), key, fatal=True)
    neither = Records("tokens", 64, bos_id=None, eos_id=None)
    said = f"nothing; build the datasets with `records.{key}: true` instead"
    assert said in only(found({key: True}, neither), key, fatal=True)


@pytest.mark.parametrize(("key", "name", "example"), [("add_bos", "bos_token", "bos"), ("add_eos", "eos_token", "eos")])
def test_texts_get_what_the_tokenizer_names(key: str, name: str, example: str) -> None:
    asked = TEXTS | {"add_bos": False, "add_eos": False, key: True}
    named: dict[str, Any] = {"add_bos": {"bos_id": 0}, "add_eos": {"eos_id": 0}}
    nothing = TrainingTokenizer("/mix/tokenizer", None, None, 2, "<|pad|>", True)
    # A token that is not asked for need not be named, and token 0 is a name like any other.
    assert found(asked, TEXT, dataclasses.replace(nothing, **named[key])) == {}
    what = only(found(asked, TEXT, nothing), key, fatal=True)
    assert f"no tokenizer_config.json in /mix/tokenizer says what the {name} is" in what
    assert f'such as {{"{name}": "<|{example}|>"}}' in what
    assert f"or write {key}: false" in what
    other = named["add_bos" if key == "add_eos" else "add_eos"]
    assert list(found(asked, TEXT, dataclasses.replace(nothing, **other))) == [key]


def test_truncated_texts_are_trained_on_in_part() -> None:
    """Unpacked, each text is a sequence; packed, nobody knows how many there are."""
    said = (
        "true cuts texts off after 64 tokens, and the rest is never trained on; the shares are those of whole texts, "
        "so that datasets of long ones get less"
    )
    cut = TEXTS | {"use_truncation": True}
    assert only(found(cut | {"packing": False}, TEXT), "use_truncation", fatal=False) == said
    packed = found(cut, TEXT)
    assert {key: finding.fatal for key, finding in packed.items()} == {"use_truncation": False, "steps": True}
    assert packed["steps"].what.startswith("10 may be more than the data has, as it is not known how much of each text")


@pytest.mark.parametrize(
    ("batch", "length", "epochs", "last", "more"),
    [
        (8, 64, 1, 20, 2),  # of 10,000 tokens, 272 are in the last one, and padding
        (5, 100, 1, 20, 2),
        (5, 100, 2, 40, 3),
        (1, 10_000, 1, 1, 2),
    ],
)
def test_the_last_step_that_the_data_has(batch: int, length: int, epochs: int, last: int, more: int) -> None:
    settings = {
        "global_batch_size_to_load": batch,
        "global_batch_size_to_train_on": batch,
        "max_target_length": length,
        "num_epoch": epochs,
        "checkpoint_period": 0,
    }
    assert found(settings | {"steps": last}) == {}
    what = only(found(settings | {"steps": last + 1}), "steps", fatal=True)
    # Both end at once but for the order of drawing, in which English comes first.
    assert what == (
        f"{last + 1} are more than the data has: a step takes {batch} × {length} tokens, and the training ends with "
        f"english after some {last} steps; write {last} or fewer, or add `num_epoch: {more}`, or give english a "
        "smaller share"
    )
    # A batch that is used again and again never ends.
    assert found(settings | {"steps": last + 1, "reuse_example_batch": 1}) == {}


@pytest.mark.parametrize(
    ("evaluates", "interval", "said"),
    [
        (True, -1, "is missing, and `data.eval` is true; add `eval_interval: 500`"),
        (True, 0, "is missing, and `data.eval` is true; add `eval_interval: 500`"),
        (True, 1, None),
        (False, -1, None),
        (False, 0, None),
        (False, 1, "1 evaluates on nothing; write `eval: true` into `data`"),
    ],
)
def test_evaluation_has_to_be_asked_for_twice(evaluates: bool, interval: int, said: str | None) -> None:
    everything = found({"eval_interval": interval}, evaluates=evaluates)
    if said is None:
        assert everything == {}
    else:
        assert only(everything, "eval_interval", fatal=True) == said


@pytest.mark.parametrize(
    ("steps", "batch", "length", "has"),
    [
        (1, 8, 64, None),
        (2, 8, 64, None),  # of 1,000 tokens, 488 are in the second one, and padding
        (10, 1, 100, None),
        (3, 8, 64, 2),
        (3, 5, 100, 2),
        (12, 1, 91, 11),
        # All that there is, whatever a batch takes.
        (0, 100, 100, None),
        (-1, 100, 100, None),
    ],
)
def test_no_more_eval_steps_than_the_eval_splits_have(steps: int, batch: int, length: int, has: int | None) -> None:
    settings = {
        "eval_interval": 5,
        "eval_steps": steps,
        "global_batch_size_to_load": batch,
        "global_batch_size_to_train_on": batch,
        "micro_batch_size_to_eval_on": batch,
        "max_target_length": length,
        "reuse_example_batch": 1,
    }
    everything = found(settings, evaluates=True)
    if has is None:
        assert everything == {}
    else:
        assert only(everything, "eval_steps", fatal=True) == (
            f"{steps} are more than the eval splits have: MaxText evaluates in batches of the training, {batch} "
            f"sequences of {length}, and 1 reader (1 host × 1 worker) has {has} of them when the mixture ends, with "
            f"german (20 records); write {has} or fewer, or build the datasets with more eval_tokens"
        )
    # Nothing is evaluated: nothing is too much.
    assert found(settings | {"eval_interval": -1}) == {}


def test_hosts_evaluate_as_many_steps() -> None:
    """Each of several hosts ends by itself, so that the steps have to be said; and no host has fewer."""
    asked = {"eval_interval": 5, "reuse_example_batch": 1}
    one = found(asked, evaluates=True)
    assert one == {}
    what = only(found(asked, evaluates=True, hosts=2), "eval_steps", fatal=True)
    assert what == (
        "is missing, and each of 2 hosts evaluates until its own data ends, while those that have more wait for it "
        "forever: MaxText evaluates in batches of the training, 8 sequences of 64, and 2 readers (2 hosts × 1 worker) "
        "have 1 of them when the mixture ends, with german (20 records); add `eval_steps: 1`, or build the datasets "
        "with more eval_tokens"
    )
    assert found(asked | {"eval_steps": 1}, evaluates=True, hosts=2) == {}
    assert "3 are more than" in only(
        found(asked | {"eval_steps": 3}, evaluates=True, hosts=2), "eval_steps", fatal=True
    )
    # Where hosts go on with padding, nothing hangs.
    padded = found(asked | {"eval_steps": 3, "generate_padding_batch_eval": True}, evaluates=True, hosts=2)
    assert "and the others are empty" in only(padded, "eval_steps", fatal=False)


def test_a_host_without_a_record_evaluates_nothing() -> None:
    components = (
        dataclasses.replace(COMPONENTS[0], eval_records=20),
        dataclasses.replace(COMPONENTS[1], eval_records=1),
    )
    asked = {"eval_interval": 5, "eval_steps": 1, "reuse_example_batch": 1, "generate_padding_batch_eval": True}
    everything = found(asked | {"grain_worker_count_eval": 0}, components=components, evaluates=True, hosts=64)
    assert "64 readers (64 hosts × 1 worker) have 0 of them" in only(everything, "eval_steps", fatal=True)


def test_what_is_read_for_an_evaluation_and_left_out() -> None:
    settings = {
        "eval_interval": 5,
        "gradient_accumulation_steps": 4,
        "per_device_batch_size": 2,
        "reuse_example_batch": 1,
    }
    what = only(
        found(settings | {"micro_batch_size_to_eval_on": 2}, evaluates=True), "eval_per_device_batch_size", fatal=False
    )
    assert what.startswith(
        "MaxText reads 8 sequences for a step of the evaluation, and evaluates the first 2 of them; 8 "
    )


def test_each_record_is_a_sequence_without_packing() -> None:
    """300 records are 38 batches of 8, the last of 4; of the tokens there are but for 20."""
    unpacked = {"packing": False, "checkpoint_period": 1}
    assert found(unpacked | {"steps": 38}) == {}
    what = only(found(unpacked | {"steps": 39}), "steps", fatal=True)
    assert what.startswith("39 are more than the data has: a step takes 8 records, and the training ends with english")


def test_every_reader_needs_records_of_every_dataset() -> None:
    """A batch of each of 32 readers is 64 or 320 sequences, by what a host takes; there are 200 and 100 records."""
    settings = {"grain_worker_count": 8, "steps": 1, "checkpoint_period": 0}
    assert found(settings, hosts=4) == {}
    what = only(found(settings | BIG, hosts=4), "grain_worker_count", fatal=False)
    assert what == (
        "8 makes 32 readers (4 hosts × 8 workers), among which too few records are dealt out: english 100, german 200. "
        "Each reader mixes its own part, which ends with the first dataset that it has no more of, and fills up its "
        "last batch with padding; take a smaller number, or datasets of at least 320 records"
    )
    assert "english 200." in only(found(settings | BIG | {"num_epoch": 2}, hosts=4), "grain_worker_count", fatal=False)


@pytest.mark.parametrize("key", ["grain_worker_count", "grain_worker_count_eval"])
def test_nobody_chooses_workers_later(key: str) -> None:
    asked = {key: -1, "eval_interval": 5}
    assert "write a number, such as 2" in only(found(asked, evaluates=True), key, fatal=True)
    # The parameters of an evaluation do not matter where there is none.
    assert list(found({key: -1})) == ([] if key == "grain_worker_count_eval" else [key])


@pytest.mark.parametrize("steps", [0, -1])
def test_a_training_has_a_step(steps: int) -> None:
    assert only({"steps": found({"steps": steps})["steps"]}, "steps", fatal=True) == (
        f"{steps} trains nothing; write 1 or more"
    )


def test_the_steps_have_one_with_a_checkpoint() -> None:
    """MaxText writes one at each step that the period divides, and counts steps from 0: of ten, the last is step 9."""
    assert found({"checkpoint_period": 9}) == {}
    for period in (10, 11):
        what = only(found({"checkpoint_period": period}), "checkpoint_period", fatal=False)
        assert f"{period} is beyond the 10 steps, which count from 0: a run that is interrupted starts from" in what
    # Without any checkpoint their period is no matter.
    what = only(found({"enable_checkpointing": False, "checkpoint_period": 11}), "enable_checkpointing", fatal=False)
    assert what == "false leaves nothing to go on from, or to export"


def test_what_maxtext_has_no_sensible_default_for_has_to_be_said() -> None:
    # MaxText's default is far more than there is data for, which is not said: nobody has asked for it.
    settings = {"steps": 150_001, "per_device_batch_size": 12}
    steps = "is missing, and MaxText's 150001 is hardly meant; add `steps: 1000`"
    batch = "is missing, and MaxText's 12 is hardly meant; add `per_device_batch_size: 32`"
    assert only(found(settings, written={"per_device_batch_size": 12}), "steps", fatal=True) == steps
    assert only(found(written={"steps": 10}), "per_device_batch_size", fatal=True) == batch.replace("12", "8")
    assert [one.what for one in found(settings, written={}).values()] == [steps, batch]


@pytest.mark.parametrize("token", [0, 1])
@pytest.mark.parametrize("special", [True, False])
def test_a_model_learns_to_end_texts(token: int, special: bool) -> None:
    """Where the token that MaxText ignores is what ends the documents, 0 or not."""
    ids = found(records=Records("tokens", 64, None, token), tokenizer=word(token, special=special, eos=None))
    texts = found(TEXTS, TEXT, word(token, special=special, eos=token))
    for everything in (ids, texts):
        what = only(everything, "tokenizer", fatal=True)
        assert what.startswith(f"{NO_LOSS.format(token)}: the model would never learn to end a text; name another")


@pytest.mark.parametrize(
    ("settings", "records", "eos"),
    [
        ({}, Records("tokens", 64, None, 1), 0),  # it is the data's EOS that counts, not the tokenizer's
        ({}, Records("tokens", 64, None, None), 0),
        (TEXTS, TEXT, 1),
        (TEXTS | {"add_eos": False}, TEXT, 0),
    ],
)
def test_a_token_that_ends_no_text_may_be_ignored(settings: Mapping[str, Any], records: Records, eos: int) -> None:
    """It may not be ignored where texts have it."""
    assert found(settings, records, word(0, special=True, eos=eos)) == {}
    what = only(found(settings, records, word(0, eos=eos)), "tokenizer", fatal=False)
    assert what == f"{NO_LOSS.format(0)}, though texts have it; name a pad_token in tokenizer_config.json"


@given(st.integers(1, 60), st.integers(1, 4), st.integers(1, 8), st.sampled_from([16, 64]))
def test_steps_and_epochs_that_are_named_are_enough(steps, epochs, batch, length):
    settings = {
        "steps": steps,
        "num_epoch": epochs,
        "global_batch_size_to_load": batch,
        "global_batch_size_to_train_on": batch,
        "max_target_length": max(length, 64),
        "checkpoint_period": 1,
    }
    finding = found(settings).get("steps")
    if finding is None:
        # Steps that fit into fewer epochs fit into more.
        assert "steps" not in found(settings | {"num_epoch": epochs + 1})
        return
    fewer = int(finding.what.partition("write ")[2].split()[0])
    assert fewer < steps
    assert "steps" not in found(settings | {"steps": fewer})
    assert "steps" in found(settings | {"steps": fewer + 1})
    more = int(finding.what.partition("`num_epoch: ")[2].partition("`")[0])
    assert more > epochs
    assert "steps" not in found(settings | {"num_epoch": more})


@pytest.mark.parametrize(
    ("passes", "cap", "said", "fatal"),
    [
        (3.0, None, None, False),
        (4.0, None, None, False),
        (5.0, None, "english is read 5.00 times: beyond 4 passes", False),
        (3.0, 3, None, False),
        (3.0, 2.5, "english is read 3.00 times, and its config allows 2.5 (max_repeats)", True),
        # A problem that no setting solves stands alone.
        (6.0, 5, "english is read 6.00 times, and its config allows 5 (max_repeats)", True),
    ],
)
def test_a_dataset_is_read_no_more_often_than_is_allowed_or_worthwhile(
    passes: float, cap: float | None, said: str | None, fatal: bool
) -> None:
    """Both have half of the tokens that are trained on, and the one that is repeated holds fewer."""
    length, batch, steps = 50, 10, 240
    each = steps * batch * length // 2
    once = round(each / passes)
    components = (
        Component("german", "/mix/german", each, each // 50, 1, each),
        Component("english", "/mix/english", once, once // 50, 1, each, passes=each / once, max_repeats=cap),
    )
    settings = {
        "steps": steps,
        "global_batch_size_to_load": batch,
        "global_batch_size_to_train_on": batch,
        "max_target_length": length,
        "num_epoch": 7,
    }
    mixture = Mixture(components, True, {}, dataclasses.replace(IDS, max_tokens=50), "sha", 1000, "/tokenizer.json")
    shares = mixture.shares()
    assert shares == {"german": Fraction(1, 2), "english": Fraction(1, 2)}
    listed = findings(
        {"steps": steps, "per_device_batch_size": 1},
        SETTINGS | settings,
        mixture,
        shares,
        TOKENIZER,
        hosts=1,
        evaluates=False,
    )
    found = {finding.key: finding for finding in listed}
    assert "steps" not in found
    if said is None:
        assert "num_epoch" not in found
    else:
        assert said in only(found, "num_epoch", fatal=fatal)
        assert ("arXiv:2305.16264" in found["num_epoch"].what) != fatal
