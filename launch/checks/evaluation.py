"""Whether an evaluation can go well: MaxText's count of its steps, and the sequences evaluated. Pure functions.

MaxText reads the eval splits once, in batches of the *training*, gradient accumulation included
(`get_local_batch_size` in `maxtext/input_pipeline/data_processing_utils.py`, 0.2.5), and evaluates the first
`micro_batch_size_to_eval_on` sequences of each (`loss_fn` in `maxtext/trainers/pre_train/train.py`). A host whose data
has ended leaves the loop, and the others wait for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from launch.checks.steps import data_steps, eval_loading
from launch.config.finding import Finding
from launch.mixture.datasets import Mixture, Shares


def evaluation_findings(
    settings: Mapping[str, Any], mixture: Mixture, shares: Shares, hosts: int, *, evaluates: bool
) -> Iterator[Finding]:
    """All that is found about the evaluation.

    Args:
        settings: all of MaxText's.
        mixture, shares: the data; where `evaluates`, each dataset has an eval split.
        hosts: processes of JAX.
        evaluates: whether the config asks for evaluation.
    """
    yield from interval_findings(settings, evaluates=evaluates)
    if evaluates:
        yield from _steps(settings, mixture, shares, hosts)
        yield from left_out_findings(settings)


def interval_findings(settings: Mapping[str, Any], *, evaluates: bool) -> Iterator[Finding]:
    """Whether `data.eval` and `eval_interval` say the same."""
    interval = settings["eval_interval"]
    if evaluates and interval <= 0:
        yield Finding("eval_interval", "is missing, and `data.eval` is true; add `eval_interval: 500`")
    if not evaluates and interval > 0:
        yield Finding("eval_interval", f"{interval} evaluates on nothing; write `eval: true` into `data`")


def _steps(settings: Mapping[str, Any], mixture: Mixture, shares: Shares, hosts: int) -> Iterator[Finding]:
    loading, steps = eval_loading(settings, mixture, shares, hosts), settings["eval_steps"]
    data = data_steps(loading)
    ends = next(component for component in mixture.components if component.name == data.ends)
    batch = settings["global_batch_size_to_load"]
    has = (
        f"MaxText evaluates in batches of the training, {batch} sequences of {loading.length}, and "
        f"{loading.readers.in_words()} {'has' if loading.readers.count == 1 else 'have'} {data.steps} of them when "
        f"the mixture ends, with {ends.name} ({ends.eval_records} records)"
    )
    more = "build the datasets with more eval_tokens"
    if steps <= 0:
        if hosts > 1:
            advice = f"add `eval_steps: {data.steps}`, or {more}" if data.steps else more
            yield Finding(
                "eval_steps",
                f"is missing, and each of {hosts} hosts evaluates until its own data ends, while those that have more "
                f"wait for it forever: {has}; {advice}",
            )
        return
    if steps <= data.steps:
        return
    if settings["generate_padding_batch_eval"] and data.steps:
        yield Finding(
            "eval_steps", f"{steps} are more than the eval splits have, and the others are empty: {has}", False
        )
        return
    advice = f"write {data.steps} or fewer" if data.steps else "write fewer grain_worker_count_eval"
    yield Finding("eval_steps", f"{steps} are more than the eval splits have: {has}; {advice}, or {more}")


def left_out_findings(settings: Mapping[str, Any]) -> Iterator[Finding]:
    """The rows of each batch that are read and not evaluated."""
    batch, evaluated = settings["global_batch_size_to_load"], settings["micro_batch_size_to_eval_on"]
    if evaluated < batch:
        needed = settings["per_device_batch_size"] * settings["gradient_accumulation_steps"]
        yield Finding(
            "eval_per_device_batch_size",
            f"MaxText reads {batch} sequences for a step of the evaluation, and evaluates the first {evaluated} of "
            f"them; {needed:g} evaluates all, where the memory is enough for as many",
            fatal=False,
        )
