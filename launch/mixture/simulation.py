"""Draws from a mixture as MaxText would: the real shards, through Grain's own mixing, by the weights of the file."""

from __future__ import annotations

import contextlib
import functools
import itertools
import posixpath
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import grain.python as grain
import pyarrow as pa

from launch.mixture.datasets import Mixture
from launch.mixture.outlook import drawn
from launch.mixture.weights import grain_integers
from transforms.arrayrecord.example import decode_ids, decode_text
from transforms.arrayrecord.records import FEATURE
from transforms.dataset.manifest import ShardEntry, tokenizer_of
from transforms.encoding.pool import token_counts
from transforms.errors import BroetchenError, one_line
from transforms.files import storage
from transforms.files.untrusted import check_regular

_BATCH_RECORDS = 256


@dataclass(frozen=True)
class Simulation:
    """The result of a simulation.

    Attributes:
        records, tokens: that were drawn, by component.
        wanted_records: how many were to be drawn; more than came where the mixture ended before.
        shuffled: whether the records of a component came in random order, as in training.
    """

    records: Mapping[str, int]
    tokens: Mapping[str, int]
    wanted_records: int
    shuffled: bool

    @property
    def drawn(self) -> int:
        """The records of all components."""
        return sum(self.records.values())

    def share(self, name: str) -> float:
        """A component's share of the tokens."""
        return self.tokens[name] / sum(self.tokens.values())


def simulate(
    mixture: Mixture,
    weights: Mapping[str, float],
    records: int,
    *,
    epochs: int = 1,
    seed: int = 0,
    advance: Callable[[int], object] = lambda count: None,
) -> Simulation:
    """Draws records from the train splits.

    Local shards are drawn from in random order, like MaxText's (`enable_data_shuffling`, on by default). Remote ones
    are copied first, as many as are needed, and drawn from in their order, so that not all have to be copied.

    Args:
        mixture: the datasets.
        weights: as the mixture file has them, by name.
        records: how many to draw.
        epochs: how often a component is read at most (`num_epoch`).
        seed: of the order (`data_shuffle_seed`).
        advance: is told how many more records have been drawn.

    Raises:
        BroetchenError: a shard is missing or damaged.
    """
    shuffled = all(storage.is_local(component.folder) for component in mixture.components)
    names = sorted(weights)
    needed = dict(zip(names, drawn(list(map(grain_integers(weights).__getitem__, names)), records), strict=True))
    counted: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        datasets = {}
        for component in mixture.components:
            shards = mixture.manifests[component.name].splits["train"].shards
            wanted = shards if shuffled else list(_first_shards(shards, needed[component.name]))
            source = stack.enter_context(_source(component.folder, wanted))
            dataset = grain.MapDataset.source(source)
            dataset = dataset.shuffle(seed=seed) if shuffled else dataset
            datasets[component.name] = (
                dataset.repeat(epochs).to_iter_dataset().map(functools.partial(_named, component.name))
            )
        count = _token_counter(mixture)
        total = sum(weights.values())
        mixed = iter(grain.IterDataset.mix(datasets, {name: weight / total for name, weight in weights.items()}))
        try:
            for batch in itertools.batched(itertools.islice(mixed, records), _BATCH_RECORDS):
                counted.update(name for name, _ in batch)
                for (name, _), record_tokens in zip(batch, count([record for _, record in batch]), strict=True):
                    tokens[name] += record_tokens
                advance(len(batch))
        except (ValueError, RuntimeError, IndexError) as error:
            raise BroetchenError(
                f"a shard cannot be read: {one_line(error)}; broetchen verify finds out which"
            ) from error
    names = [component.name for component in mixture.components]
    return Simulation(
        {name: counted[name] for name in names}, {name: tokens[name] for name in names}, records, shuffled
    )


def _named(name: str, record: bytes) -> tuple[str, bytes]:
    return name, record


def _first_shards(shards: Sequence[ShardEntry], records: int) -> Iterator[ShardEntry]:
    """As many shards as hold `records` records, and one at least."""
    for shard in shards:
        yield shard
        records -= shard.records
        if records <= 0:
            return


@contextlib.contextmanager
def _source(folder: str, shards: Sequence[ShardEntry]) -> Iterator[grain.ArrayRecordDataSource]:
    """Grain's source over shards, which have as many records as their manifest says."""
    with contextlib.ExitStack() as stack:
        places = [posixpath.join(folder, shard.file) for shard in shards]
        for place in places:
            check_regular(place)
        paths = [stack.enter_context(storage.local_copy(place)) for place in places]
        try:
            source = stack.enter_context(grain.ArrayRecordDataSource(paths))
            records = len(source)
        except (ValueError, RuntimeError) as error:
            raise BroetchenError(
                f"{folder}: a shard cannot be opened: {one_line(error)}; broetchen verify finds out which"
            ) from error
        if records != (expected := sum(shard.records for shard in shards)):
            raise BroetchenError(
                f"{folder}: its shards have {records:,} records, and its manifest says {expected:,}; "
                "broetchen verify finds out which shard it is"
            )
        yield source


def _token_counter(mixture: Mixture) -> Callable[[Sequence[bytes]], list[int]]:
    """A function that counts the tokens of records, as the manifests do: in `text` format, without any BOS or EOS."""
    if mixture.records.format == "tokens":
        return lambda records: [len(decode_ids(record, FEATURE)) for record in records]
    first = mixture.components[0]
    tokenizer = tokenizer_of(first.folder, mixture.manifests[first.name])

    def text_tokens(records: Sequence[bytes]) -> list[int]:
        texts = [decode_text(record, FEATURE).decode() for record in records]
        counts: list[int] = token_counts(tokenizer, "auto", pa.array(texts, pa.large_string())).tolist()
        return counts

    return text_tokens
