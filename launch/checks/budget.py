"""The figures of a run before it starts: data, time and cost. Pure arithmetic; assumptions are named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from launch.checks.checked_job import CheckedJob
from launch.checks.exact_order import ExactOrder
from launch.checks.steps import data_steps, train_loading, trained_tokens
from launch.config.prices import Price
from launch.mixture.outlook import outlook
from launch.mixture.readers import Readers
from transforms.arrayrecord.index import index_bytes, read_seconds
from transforms.dataset.manifest import Manifest

UTILIZATION = Fraction(2, 5)
"""The part of a chip's best that training is assumed to reach. Small models and short runs mostly reach less."""

# Decoders that are Llama's in their parameters: projections without bias, gated MLPs, two norms a layer.
_LIKE_LLAMA = frozenset({"llama2", "mistral", "default"})


@dataclass(frozen=True)
class DatasetBudget:
    """The part of one dataset that is read.

    Attributes:
        name: of the dataset.
        records: that its train split has.
        a_reader: records of it that the reader with the fewest has, all epochs together; None in an exact order, in
            which readers take sequences in turns.
        tokens: of it that all steps read.
        passes: how often that is all of it.
    """

    name: str
    records: int
    a_reader: int | None
    tokens: int
    passes: float


@dataclass(frozen=True)
class DataBudget:
    """The data that a run reads.

    Attributes:
        datasets: the part read of each, in the order of the mixture.
        data_steps: that the data has at least; None in an exact order, which is for just these steps.
        tokens: that all steps read, of full sequences.
        readers: the processes that read.
        index_bytes: of memory that indexes of ArrayRecord take on one host; 0 in an exact order.
        index_processes: that hold one there: the workers and the trainer.
        step_records: records a step, on all hosts.
        host_reads: records a second that the readers of one host can read at random, each with a core of its own; None
            in an exact order, of which that was not measured.
    """

    datasets: tuple[DatasetBudget, ...]
    data_steps: int | None
    tokens: int
    readers: Readers
    index_bytes: int
    index_processes: int
    step_records: int
    host_reads: float | None


@dataclass(frozen=True)
class Budget:
    """The totals of a run.

    Attributes:
        data: that it reads.
        steps: of the run.
        parameters: of the model; None where they cannot be counted from the settings.
        step_seconds: that a step takes at `UTILIZATION`; None where the chips or the parameters are not known.
        hosts: machines that train.
        price: of an hour; None where it is not known, or nothing is paid.
    """

    data: DataBudget
    steps: int
    parameters: int | None
    step_seconds: float | None
    hosts: int
    price: Price | None

    @property
    def tokens_a_second(self) -> float | None:
        """On all chips."""
        return None if self.step_seconds is None else self.data.tokens / self.steps / self.step_seconds

    @property
    def hours(self) -> float | None:
        """The time of all steps, without that to start, to evaluate and to write checkpoints."""
        return None if self.step_seconds is None else self.steps * self.step_seconds / 3600

    @property
    def needed_reads(self) -> float | None:
        """Records a second that one host needs."""
        return None if self.step_seconds is None else self.data.step_records / self.hosts / self.step_seconds

    @property
    def total_price(self) -> Decimal | None:
        """The price of all hours, in US dollars."""
        return None if self.price is None or self.hours is None else self.price.per_hour * Decimal(self.hours)


@dataclass(frozen=True)
class DryRun:
    """A run as planned: its figures, and a script that does the same by hand."""

    budget: Budget
    script: str


def budget(checked: CheckedJob, *, peak_tflops: float | None, price: Price | None) -> Budget:
    """The figures of a checked run.

    Args:
        checked: the run.
        peak_tflops: of all its chips at their best, in bfloat16; None where that is not known.
        price: of an hour of all of them.
    """
    settings = checked.settings
    counted = parameters(settings)
    flops = None if counted is None else flops_a_token(settings, counted)
    step_tokens = settings["global_batch_size_to_train_on"] * settings["max_target_length"]
    step_seconds = None
    if flops is not None and peak_tflops:
        step_seconds = float(step_tokens * flops / (Fraction(peak_tflops) * 10**12 * UTILIZATION))
    data = _drawn(checked) if checked.order is None else _in_order(checked, checked.order)
    return Budget(data, settings["steps"], counted, step_seconds, checked.hosts, price)


def _drawn(checked: CheckedJob) -> DataBudget:
    """The data that is read from records of ArrayRecord."""
    settings, mixture = checked.settings, checked.mixture
    expected = outlook(mixture.components, checked.shares, settings["num_epoch"])
    loading = train_loading(settings, mixture, expected, checked.hosts)
    tokens = trained_tokens(settings, loading, expected)
    readers = loading.readers
    groups = [_group_size(mixture.manifests[part.name]) for part in expected.components]
    index = sum(
        index_bytes(part.component.records, part.component.shards, group)
        for part, group in zip(expected.components, groups, strict=True)
    )
    # The mean time of a read, by how often each dataset is drawn from.
    drawn = sum(part.integer for part in expected.components)
    seconds = sum(
        part.integer / drawn * read_seconds(part.component.records / max(1, part.component.shards), group)
        for part, group in zip(expected.components, groups, strict=True)
    )
    step_tokens = settings["global_batch_size_to_train_on"] * settings["max_target_length"]
    packed = loading.packs or loading.cuts
    processes = settings["grain_worker_count"] + 1
    return DataBudget(
        datasets=tuple(
            DatasetBudget(
                name=part.name,
                records=part.component.records,
                a_reader=part.component.records * loading.epochs // readers.count,
                tokens=int(tokens * part.share),
                passes=float(expected.epochs_after(part, tokens)),
            )
            for part in expected.components
        ),
        data_steps=data_steps(loading).steps,
        tokens=tokens,
        readers=readers,
        index_bytes=index * processes,
        index_processes=processes,
        step_records=round(step_tokens / expected.record_tokens) if packed else settings["global_batch_size_to_load"],
        host_reads=readers.workers / seconds,
    )


def _in_order(checked: CheckedJob, order: ExactOrder) -> DataBudget:
    """The data that is read in an exact order: sequences, each of them full."""
    settings, plan = checked.settings, order.plan
    records = {one.name: one.records for one in checked.mixture.components}
    workers = max(1, settings["grain_worker_count"])
    return DataBudget(
        datasets=tuple(
            DatasetBudget(
                name=one.name,
                records=records[one.name],
                a_reader=None,
                tokens=one.sequences * plan.length,
                passes=one.sequences * plan.length / one.tokens,
            )
            for one in plan.splits["train"].datasets
        ),
        data_steps=None,
        tokens=plan.splits["train"].sequences * plan.length,
        readers=Readers(checked.hosts, workers),
        index_bytes=0,
        index_processes=settings["grain_worker_count"] + 1,
        step_records=plan.batch,
        host_reads=None,
    )


def parameters(settings: Mapping[str, Any]) -> int | None:
    """The parameters of a model like Llama, by MaxText's settings; None for others, which only MaxText can count."""
    if settings["decoder_block"] not in _LIKE_LLAMA or settings["num_experts"] > 1:
        return None
    width, head = settings["emb_dim"], settings["head_dim"]
    embedding = settings["vocab_size"] * width
    queries, keys = settings["num_query_heads"] * head, settings["num_kv_heads"] * head
    attention = width * (queries + 2 * keys) + queries * width
    mlp = (len(settings["mlp_activations"]) + 1) * width * settings["mlp_dim"]
    tables = 1 if settings["logits_via_embedding"] else 2
    return int(tables * embedding + settings["num_decoder_layers"] * (attention + mlp + 2 * width) + width)


def flops_a_token(settings: Mapping[str, Any], counted: int) -> int:
    """The operations that training on a token takes: 6 for each parameter that multiplies, and causal attention.

    As `calculate_tflops_training_per_device` in `maxtext/utils/maxtext_utils.py` (0.2.5) counts it.
    """
    looked_up = 0 if settings["logits_via_embedding"] else settings["vocab_size"] * settings["emb_dim"]
    norms = (2 * settings["num_decoder_layers"] + 1) * settings["emb_dim"]
    heads = settings["num_query_heads"] * settings["head_dim"]
    attention = 6 * settings["num_decoder_layers"] * settings["max_target_length"] * heads
    return int(6 * (counted - looked_up - norms) + attention)


def _group_size(manifest: Manifest) -> int:
    """Records that are compressed together; of a manifest that does not say so, one."""
    shards = manifest.config.get("shards")
    group = shards.get("group_size") if isinstance(shards, Mapping) else None
    return group if isinstance(group, int) and group > 0 else 1
