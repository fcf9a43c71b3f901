"""Whether a run can go well: MaxText's settings against the data and its tokenizer. Pure functions, without I/O.

The effect of each combination was read from MaxText's input pipeline, 0.2.5
(`maxtext/input_pipeline/grain_data_processing.py`, `maxtext/input_pipeline/data_processing_utils.py`,
`maxtext/input_pipeline/grain_tokenizer.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from launch.checks.evaluation import evaluation_findings
from launch.checks.forged_ends import forged_ends
from launch.checks.steps import step_findings
from launch.config.finding import Finding
from launch.maxtext.tokenizer import TrainingTokenizer
from launch.mixture.datasets import Mixture, Shares
from launch.mixture.held_out import held_out_in_train

# Packing that puts whole records into sequences: it cannot take one that is longer.
_WHOLE_RECORDS = ("first_fit", "best_fit")


def findings(
    written: Mapping[str, Any],
    settings: Mapping[str, Any],
    mixture: Mixture,
    shares: Shares,
    tokenizer: TrainingTokenizer,
    *,
    hosts: int,
    evaluates: bool,
    allows_special_strings: bool = False,
) -> Iterator[Finding]:
    """All that is found about a run.

    Args:
        written: the parameters that the config has.
        settings: all of MaxText's, as it reads the command.
        mixture, shares, tokenizer: the data.
        hosts: how many machines train: processes of JAX.
        evaluates: whether the config asks for evaluation.
        allows_special_strings: whether texts may hold strings that MaxText takes for special tokens.
    """
    yield from common_findings(written, settings, mixture, evaluates=evaluates)
    if mixture.records.format == "tokens":
        yield from _token_records(settings, mixture)
    else:
        yield from _text_records(settings, tokenizer)
    for what in forged_ends(mixture, tokenizer, evaluates=evaluates, allowed=allows_special_strings):
        yield Finding("data.special_strings", what, fatal=not allows_special_strings)
    yield from _ignored(settings, mixture, tokenizer)
    if settings["steps"] < 1 or any(True for _ in _workers(settings, evaluates=evaluates)):
        return
    yield from step_findings(settings, mixture, shares, hosts, asked="steps" in written)
    yield from evaluation_findings(settings, mixture, shares, hosts, evaluates=evaluates)


def common_findings(
    written: Mapping[str, Any], settings: Mapping[str, Any], mixture: Mixture, *, evaluates: bool
) -> Iterator[Finding]:
    """The findings about a run, for any way of reading its datasets."""
    for key, example in (("steps", "1000"), ("per_device_batch_size", "32")):
        if key not in written:
            what = f"is missing, and MaxText's {settings[key]} is hardly meant; add `{key}: {example}`"
            yield Finding(key, what)
    if settings["steps"] < 1:
        yield Finding("steps", f"{settings['steps']} trains nothing; write 1 or more")
    yield from _workers(settings, evaluates=evaluates)
    yield from _vocabulary(settings, mixture)
    for overlap in held_out_in_train(mixture.manifests):
        yield Finding("data.outputs", str(overlap), fatal=False)
    yield from _checkpoints(settings)


def _workers(settings: Mapping[str, Any], *, evaluates: bool) -> Iterator[Finding]:
    for key in ("grain_worker_count", *(["grain_worker_count_eval"] if evaluates else [])):
        if settings[key] < 0:
            yield Finding(
                key,
                f"{settings[key]} leaves it to each host how many workers read, so that nobody knows beforehand which "
                "steps have data, and no checkpoint can be gone on from by another number; write a number, such as 2",
            )


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
            f"true cuts texts off after {settings['max_target_length']} tokens, and the rest is never trained on; the "
            "shares are those of whole texts, so that datasets of long ones get less",
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
