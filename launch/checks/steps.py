"""How many steps the data has, counted as MaxText reads it: per host and worker, by the settings. Pure functions.

MaxText makes batches of the mixed sequences of each reader, in their order, and fills up the last one with padding
(`format_and_batch` in `maxtext/input_pipeline/data_processing_utils.py`, 0.2.5). A step takes one batch of each host; a
host that has none ends by itself, and the others wait for it. Evaluation reads batches of the same size
(`get_local_batch_size`), and may then evaluate fewer of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from launch.config.finding import Finding
from launch.mixture.datasets import Mixture, Shares
from launch.mixture.outlook import Outlook, outlook
from launch.mixture.readers import Part, Readers, Reading, least_tokens, readings, short_of
from launch.mixture.repeats import beyond_their_configs, beyond_what_is_worthwhile
from launch.mixture.weights import eval_integers

# So many are tried before none is named.
_MOST_EPOCHS_TRIED = 100


@dataclass(frozen=True)
class Loading:
    """How a split becomes batches.

    Attributes:
        parts: the components, in the order in which Grain draws from them.
        epochs: how often each is read at most.
        readers: the processes that read.
        rows: sequences in a batch of one host.
        batches_a_step: of each host.
        length: tokens in a sequence.
        packs: whether a sequence holds several records; without, each record, or each piece of a text, is one.
        cuts: whether a record can be more than one sequence (texts that are not cut off).
        cuts_off: whether the end of a text that does not fit into a sequence is left out.
        longest: the most tokens of a record; None for texts.
    """

    parts: tuple[Part, ...]
    epochs: int
    readers: Readers
    rows: int
    batches_a_step: int
    length: int
    packs: bool
    cuts: bool
    cuts_off: bool
    longest: int | None


@dataclass(frozen=True)
class DataSteps:
    """The steps that the data has.

    Attributes:
        steps: at least so many, on every host.
        ends: the name of the component that ends it first.
        records: that all readers read of each component until the end of their own mixtures.
    """

    steps: int
    ends: str
    records: Mapping[str, int]


def train_loading(settings: Mapping[str, Any], mixture: Mixture, found: Outlook, hosts: int) -> Loading:
    """How the train splits are read.

    Args:
        settings: all of MaxText's.
        mixture: the datasets.
        found: the use of them.
        hosts: processes of JAX.
    """
    # Grain draws from named components in the order of their names.
    ordered = sorted(found.components, key=lambda one: one.name)
    parts = [Part(one.name, one.integer, one.component.records, one.component.tokens) for one in ordered]
    return _loading(settings, mixture, parts, settings["num_epoch"], hosts, "train")


def eval_loading(settings: Mapping[str, Any], mixture: Mixture, shares: Shares, hosts: int) -> Loading:
    """How the eval splits are read: once, in the order of the datasets.

    Raises:
        UsageError: a dataset has no eval split, or too small a share of it.
    """
    integers = eval_integers(mixture.components, shares)
    parts = [Part(one.name, integers[one.name], one.eval_records, one.eval_tokens) for one in mixture.components]
    return _loading(settings, mixture, parts, 1, hosts, "eval")


def _loading_hosts(settings: Mapping[str, Any], hosts: int, split: Literal["train", "eval"]) -> int:
    """The hosts that load data: not all do with less than a sequence for each device, or where that is asked for."""
    loaded = settings["global_batch_size_to_load" if split == "train" else "global_batch_size_to_load_eval"]
    used = settings[f"global_batch_size_to_{split}_on"]
    return max(1, hosts * used // loaded) if used < loaded else hosts


def _loading(
    settings: Mapping[str, Any],
    mixture: Mixture,
    parts: Sequence[Part],
    epochs: int,
    hosts: int,
    split: Literal["train", "eval"],
) -> Loading:
    workers = settings["grain_worker_count" if split == "train" else "grain_worker_count_eval"]
    text = mixture.records.format == "text"
    rows = settings["global_batch_size_to_load"] // hosts
    # Where only every n-th host loads, each of these loads n batches a step.
    expansion = max(1, int(settings["expansion_factor_real_data"]))
    return Loading(
        parts=tuple(parts),
        epochs=epochs,
        readers=Readers(_loading_hosts(settings, hosts, split), max(1, workers)),
        rows=max(1, rows // expansion),
        batches_a_step=expansion if split == "train" else 1,
        length=settings["max_target_length"],
        packs=settings["packing"],
        cuts=text and not settings["use_truncation"],
        cuts_off=text and settings["use_truncation"],
        longest=mixture.records.max_tokens,
    )


def data_steps(loading: Loading) -> DataSteps:
    """The steps that the data has by a loading: at least so many steps, and mostly few more.

    More there are as packing leaves room unused, and as records differ by less than is provided for.
    """
    by_host = readings(loading.parts, loading.epochs, loading.readers)
    batches = [_host_batches(loading, host) for host in by_host]
    fewest = batches.index(min(batches))
    counted = [sum(one.drawn[index] for host in by_host for one in host) for index in range(len(loading.parts))]
    return DataSteps(
        steps=batches[fewest] // loading.batches_a_step,
        ends=loading.parts[min(by_host[fewest], key=lambda one: sum(one.drawn)).ended_by].name,
        records={part.name: count for part, count in zip(loading.parts, counted, strict=True)},
    )


def _host_batches(loading: Loading, workers: Sequence[Reading]) -> int:
    """A lower bound on the batches that the workers of a host make; each ends with one that is not full."""
    together = [sum(counts) for counts in zip(*(worker.drawn for worker in workers), strict=True)]
    each = sum(math.ceil(_sequences(loading, worker.drawn, loading.readers.count) / loading.rows) for worker in workers)
    return max(each, math.ceil(_sequences(loading, together, loading.readers.hosts) / loading.rows))


def _sequences(loading: Loading, counts: Sequence[int], dealt_to: int) -> int:
    """A lower bound on the sequences that some records of each part become, of those that were dealt out."""
    records = sum(counts)
    if loading.packs and loading.cuts_off:
        # How long texts are is not known, but on average: they may be one long one and many of a single token.
        return math.ceil(records / loading.length)
    if not loading.packs and not loading.cuts:
        return records
    full = math.ceil(least_tokens(loading.parts, counts, loading.longest, dealt_to) / loading.length)
    return full if loading.packs else max(records, full)


def trained_tokens(settings: Mapping[str, Any], loading: Loading, found: Outlook) -> int:
    """The tokens that all steps read: full sequences, or records as they are where each is a sequence of its own."""
    sequences = settings["steps"] * settings["global_batch_size_to_load"]
    if loading.packs or loading.cuts:
        return int(sequences * loading.length)
    return round(sequences * found.record_tokens)


def step_findings(
    settings: Mapping[str, Any], mixture: Mixture, shares: Shares, hosts: int, *, asked: bool
) -> Iterator[Finding]:
    """The findings about the steps of the training, and the readers.

    Args:
        settings: all of MaxText's.
        mixture, shares: the data.
        hosts: processes of JAX.
        asked: whether the config says how many steps there are to be.
    """
    if settings["reuse_example_batch"] or not asked:
        return
    found = outlook(mixture.components, shares, settings["num_epoch"])
    loading = train_loading(settings, mixture, found, hosts)
    yield from _few_records(loading)
    yield from _data_end(settings, loading)
    tokens = trained_tokens(settings, loading, found)
    if too_often := beyond_their_configs(found, tokens):
        yield Finding(
            "num_epoch",
            f"{'; '.join(too_often)}; write fewer `steps`, give it a smaller share, or build it from more files",
        )
    elif many := beyond_what_is_worthwhile(found, tokens):
        yield Finding("num_epoch", "; ".join(many), fatal=False)


def _few_records(loading: Loading) -> Iterator[Finding]:
    readers = loading.readers
    few = list(short_of(loading.parts, loading.epochs, readers, loading.rows))
    if readers.count > 1 and few:
        named = ", ".join(f"{part.name} {part.records * loading.epochs:,}" for part in few)
        fewer = "fewer hosts" if readers.workers == 1 else "a smaller number"
        yield Finding(
            "grain_worker_count",
            f"{readers.workers} makes {readers.in_words()}, among which too few records are dealt out: {named}. Each "
            "reader mixes its own part, which ends with the first dataset that it has no more of, and fills up its "
            f"last batch with padding; take {fewer}, or datasets of at least {readers.count * loading.rows:,} records",
            fatal=False,
        )


def _data_end(settings: Mapping[str, Any], loading: Loading) -> Iterator[Finding]:
    steps, data = settings["steps"], data_steps(loading)
    if steps <= data.steps:
        return
    batch = settings["global_batch_size_to_load"]
    takes = f"{batch} × {loading.length} tokens" if loading.packs or loading.cuts else f"{batch} records"
    many = f", on the first of {loading.readers.in_words()}" if loading.readers.count > 1 else ""
    if loading.packs and loading.cuts_off:
        known = "as it is not known how much of each text is left by `use_truncation`; leave that out, or write "
        known += "`packing: false`, by which each text is a sequence"
        yield Finding("steps", f"{steps} may be more than the data has, {known}")
        return
    epochs = epochs_for(loading, steps, loading.epochs + 1)
    advice = [f"write {data.steps} or fewer"] if data.steps else []
    advice += [f"add `num_epoch: {epochs}`"] if epochs is not None else []
    yield Finding(
        "steps",
        f"{steps} are more than the data has: a step takes {takes}, and the training ends with {data.ends} after some "
        f"{data.steps} steps{many}; {', or '.join([*advice, f'give {data.ends} a smaller share'])}",
    )


def epochs_for(loading: Loading, steps: int, least: int) -> int | None:
    """A `num_epoch` from `least` on, about the smallest, that has so many steps; None where none is found."""
    epochs = least
    for _ in range(_MOST_EPOCHS_TRIED):
        if data_steps(replace(loading, epochs=epochs)).steps >= steps:
            return epochs
        epochs += max(1, epochs // 20)
    return None
