"""Whether a run can go well: MaxText's settings against the data and its tokenizer. Pure functions, without I/O.

What MaxText does with each combination was read from its input pipeline, 0.2.5
(`maxtext/input_pipeline/grain_data_processing.py`, `maxtext/input_pipeline/data_processing_utils.py`,
`maxtext/input_pipeline/grain_tokenizer.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from launch.maxtext.tokenizer import TrainingTokenizer
from launch.mixture.datasets import Mixture, Shares
from launch.mixture.held_out import held_out_in_train
from launch.mixture.outlook import outlook
from launch.mixture.repeats import beyond_their_configs, beyond_what_is_worthwhile

# Packing that puts whole records into sequences: it cannot take one that is longer.
_WHOLE_RECORDS = ("first_fit", "best_fit")


@dataclass(frozen=True)
class Finding:
    """Something about a parameter. Where it is not `fatal`, the run goes well, but perhaps not as meant."""

    key: str
    what: str
    fatal: bool = True


def findings(
    written: Mapping[str, Any],
    settings: Mapping[str, Any],
    mixture: Mixture,
    shares: Shares,
    tokenizer: TrainingTokenizer,
    *,
    evaluates: bool,
) -> Iterator[Finding]:
    """All that is found about a run.

    Args:
        written: the parameters that the config has.
        settings: all of MaxText's, as it reads the command.
        mixture, shares, tokenizer: the data.
        evaluates: whether the config asks for evaluation.
    """
    yield from common_findings(written, settings, mixture)
    if mixture.records.format == "tokens":
        yield from _token_records(settings, mixture)
    else:
        yield from _text_records(settings, tokenizer)
    yield from _ignored(settings, mixture, tokenizer)
    if "steps" in written:
        yield from _data_end(settings, mixture, shares)
        yield from _repeats(settings, mixture, shares)
    yield from _evaluation(settings, mixture, evaluates)


def common_findings(written: Mapping[str, Any], settings: Mapping[str, Any], mixture: Mixture) -> Iterator[Finding]:
    """What is found about a run, whatever way its datasets are read."""
    for key, example in (("steps", "1000"), ("per_device_batch_size", "32")):
        if key not in written:
            what = f"is missing, and MaxText's {settings[key]} is hardly meant; add `{key}: {example}`"
            yield Finding(key, what)
    yield from _vocabulary(settings, mixture)
    for overlap in held_out_in_train(mixture.manifests):
        yield Finding("data.outputs", str(overlap), fatal=False)
    yield from _checkpoints(settings)


def _vocabulary(settings: Mapping[str, Any], mixture: Mixture) -> Iterator[Finding]:
    size = settings["vocab_size"]
    if size < mixture.vocab_size:
        yield Finding(
            "vocab_size",
            f"{size} is smaller than the tokenizer's {mixture.vocab_size}, so that some ids have no embedding; write "
            f"{mixture.vocab_size} or more",
        )


def _token_records(settings: Mapping[str, Any], mixture: Mixture) -> Iterator[Finding]:
    records = mixture.records
    for split in ("train", "eval"):
        if settings[f"tokenize_{split}_data"]:
            yield Finding(
                f"tokenize_{split}_data", "true cannot go with records of ids (`records.format: tokens`); remove it"
            )
    for key, has in (("add_bos", records.add_bos), ("add_eos", records.add_eos)):
        if settings[key]:
            state = "they have it already" if has else f"build the datasets with `records.{key}: true` instead"
            yield Finding(key, f"true does not go with records of ids, to which MaxText adds nothing; {state}")
    longest, length = records.max_tokens or 0, settings["max_target_length"]
    if longest > length:
        if not settings["packing"]:
            what = "so that MaxText cuts them off"
        elif settings["grain_packing_type"] in _WHOLE_RECORDS:
            what = "which MaxText cannot pack, so that the training would stop"
        else:
            return
        yield Finding(
            "max_target_length",
            f"{length} is shorter than records may be (`records.max_tokens` is {longest}), {what}; write at least "
            f"{longest}, or build the datasets with max_tokens {length}",
        )


def _text_records(settings: Mapping[str, Any], tokenizer: TrainingTokenizer) -> Iterator[Finding]:
    for split in ("train", "eval"):
        if not settings[f"tokenize_{split}_data"]:
            yield Finding(
                f"tokenize_{split}_data", "false cannot go with records of text (`records.format: text`); remove it"
            )
    for key, token_id, name in (("add_bos", tokenizer.bos_id, "bos_token"), ("add_eos", tokenizer.eos_id, "eos_token")):
        if settings[key] and token_id is None:
            yield Finding(
                key,
                f"true has no effect, as no tokenizer_config.json in {tokenizer.folder} says what the {name} is; put "
                f'one there, such as {{"{name}": "<|{name[:3]}|>"}}, or name another copy of the tokenizer as '
                f"`tokenizer`, or write {key}: false",
            )
    if settings["use_truncation"]:
        yield Finding(
            "use_truncation",
            f"true cuts texts off after {settings['max_target_length']} tokens, and the rest is never trained on",
            fatal=False,
        )


def _ignored(settings: Mapping[str, Any], mixture: Mixture, tokenizer: TrainingTokenizer) -> Iterator[Finding]:
    """On the token whose targets MaxText leaves out of the loss."""
    records, text = mixture.records, mixture.records.format == "text"
    eos = (tokenizer.eos_id if settings["add_eos"] else None) if text else records.eos_id
    reason = (
        f"MaxText takes {tokenizer.ignored_token} (id {tokenizer.ignored_id}) for padding and ignores it in the loss"
    )
    if eos == tokenizer.ignored_id:
        yield Finding(
            "tokenizer",
            f"{reason}: the model would never learn to end a text; name another pad_token in tokenizer_config.json, "
            "and a copy of the tokenizer with it as `tokenizer`",
        )
    elif not tokenizer.ignored_is_special:
        yield Finding(
            "tokenizer",
            f"{reason}, though texts have it; name a pad_token in tokenizer_config.json",
            fatal=False,
        )


def _data_end(settings: Mapping[str, Any], mixture: Mixture, shares: Shares) -> Iterator[Finding]:
    if settings["reuse_example_batch"]:
        return
    steps, batch, length = settings["steps"], settings["global_batch_size_to_train_on"], settings["max_target_length"]
    expected = outlook(mixture.components, shares, settings["num_epoch"])
    last = expected.tokens // (batch * length)
    if steps > last:
        yield Finding(
            "steps",
            f"{steps} are more than the data has: a step takes {batch} × {length} tokens, and the training ends with "
            f"{expected.first.name} after some {last} steps; write {last} or fewer, or add `num_epoch: "
            f"{expected.epochs_needed(steps * batch * length)}`, or give {expected.first.name} a smaller share",
        )


def _repeats(settings: Mapping[str, Any], mixture: Mixture, shares: Shares) -> Iterator[Finding]:
    if settings["reuse_example_batch"]:
        return
    tokens = settings["steps"] * settings["global_batch_size_to_train_on"] * settings["max_target_length"]
    found = outlook(mixture.components, shares, settings["num_epoch"])
    if too_often := beyond_their_configs(found, tokens):
        yield Finding(
            "num_epoch",
            f"{'; '.join(too_often)}; write fewer `steps`, give it a smaller share, or build it from more files",
        )
    elif many := beyond_what_is_worthwhile(found, tokens):
        yield Finding("num_epoch", "; ".join(many), fatal=False)


def evaluation_findings(settings: Mapping[str, Any], *, evaluates: bool) -> Iterator[Finding]:
    """Whether `data.eval` and `eval_interval` say the same."""
    interval = settings["eval_interval"]
    if evaluates and interval <= 0:
        yield Finding("eval_interval", "is missing, and `data.eval` is true; add `eval_interval: 500`")
    if not evaluates and interval > 0:
        yield Finding("eval_interval", f"{interval} evaluates on nothing; write `eval: true` into `data`")


def _evaluation(settings: Mapping[str, Any], mixture: Mixture, evaluates: bool) -> Iterator[Finding]:
    yield from evaluation_findings(settings, evaluates=evaluates)
    if not evaluates:
        return
    batch = settings["global_batch_size_to_eval_on"] * settings["max_target_length"]
    tokens, steps = sum(one.eval_tokens for one in mixture.components), settings["eval_steps"]
    if steps * batch > tokens:  # 0 or -1 steps are all that there are
        yield Finding(
            "eval_steps",
            f"{steps} are more than the eval splits have: {tokens} tokens, by {batch} a step, are {tokens // batch}",
            fatal=False,
        )


def _checkpoints(settings: Mapping[str, Any]) -> Iterator[Finding]:
    if not settings["enable_checkpointing"]:
        yield Finding("enable_checkpointing", "false leaves nothing to go on from, or to export", fatal=False)
    elif settings["checkpoint_period"] >= settings["steps"]:
        yield Finding(
            "checkpoint_period",
            f"{settings['checkpoint_period']} is beyond the {settings['steps']} steps, which count from 0: a run that "
            "is interrupted starts from nothing",
            fatal=False,
        )
