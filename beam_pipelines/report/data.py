"""The data of a report on an output: manifests, a bounded look into the train splits, their packing, file times."""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tokenizers import Tokenizer

from transforms.arrayrecord.records import file_extension
from transforms.card.order import in_config_order
from transforms.dataset.manifest import Manifest, SplitEntry, find_manifests, tokenizer_of
from transforms.encoding.pool import tokenizer_file
from transforms.errors import BroetchenError, UsageError
from transforms.files.listing import look_through
from transforms.sampling.packing import Packing, pack_first_fit
from transforms.sampling.split_sample import SplitSample, sample_split

TRAIN = "train"
LEAST_SECONDS = 10.0
"""Between the first shard and the last, for a rate that means something."""

DEFAULT_BATCH = 32
"""Sequences that are packed at a time unless the caller says otherwise."""

# Most of the time goes into waiting where an output is remote.
_THREADS = 4
# Grain packs some ten thousand records a second.
_PACKED_RECORDS = 4096
_OTHER_BATCHES = (8, 32, 128)
# Of all sequences that are open while records are packed; each takes some ten bytes.
_MOST_POSITIONS = 1 << 26
# Of a sequence, where no dataset's records have a length.
_USUAL_LENGTH = 2048


@dataclasses.dataclass(frozen=True)
class WrittenFile:
    """A shard, its tokens, and when it was last written: seconds since 1970."""

    dataset: str
    tokens: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class DatasetReport:
    """One dataset.

    Attributes:
        sample: of the train split.
        packing: of the train split's records; None where `obstacle` says why they cannot be packed.
        trimmed: the part of the tokens that is beyond `length` in documents of text, which MaxText leaves out by
            default (`use_truncation`); 0 for records of ids.
        written: the shards of all splits whose time is known, by time.
    """

    folder: str
    manifest: Manifest
    sample: SplitSample
    packing: Packing | None
    trimmed: float
    obstacle: str | None
    written: tuple[WrittenFile, ...]

    @property
    def name(self) -> str:
        return self.manifest.dataset

    @property
    def train(self) -> SplitEntry:
        return self.manifest.splits[TRAIN]


@dataclasses.dataclass(frozen=True)
class OutputReport:
    """All datasets of an output, in the order of the config.

    Attributes:
        length: tokens of a sequence in training (`max_target_length`).
        batch: sequences that are packed at a time.
        mixed: how all datasets together are packed, by sequences packed at a time; empty where one of them cannot be.
        tokenizers: by the sha256 that manifests name; without those that are not there any more.
    """

    output: str
    datasets: tuple[DatasetReport, ...]
    length: int
    batch: int
    mixed: Mapping[int, Packing]
    tokenizers: Mapping[str, Tokenizer]

    def total(self, part: Callable[[SplitEntry], int], split: str | None = None) -> int:
        """A number of all splits of this name, or of all splits, added up."""
        return sum(
            part(entry)
            for dataset in self.datasets
            for name, entry in dataset.manifest.splits.items()
            if split in (None, name)
        )

    def share(self, dataset: DatasetReport, part: Callable[[SplitEntry], int]) -> float:
        """A dataset's share of the train splits, 0 to 1."""
        return part(dataset.train) / max(1, self.total(part, TRAIN))

    @property
    def written(self) -> list[WrittenFile]:
        """The shards of all datasets, by the time they were last written."""
        return sorted((file for dataset in self.datasets for file in dataset.written), key=lambda file: file.seconds)


def read_report(
    output: str,
    *,
    length: int | None = None,
    batch: int = DEFAULT_BATCH,
    advance: Callable[[int, int], object] = lambda done, total: None,
) -> OutputReport:
    """Reads the data of a report on the datasets of an output, or on one dataset. Bounded in memory and in time.

    Args:
        output: local or remote.
        length: of a sequence in training; by default the longest `records.max_tokens` of the datasets, where one that
            has none counts as 2,048.
        batch: sequences that are packed at a time: those that a host of the trainer loads for a step.
        advance: is told how much more is done, and of how much in all.

    Raises:
        BroetchenError: there is no finished dataset, or a shard is missing or damaged.
        UsageError: the tokenizer of a dataset of text cannot be loaded.
    """
    manifests = in_config_order(output, find_manifests(output))
    if without := [folder for folder, manifest in manifests.items() if TRAIN not in manifest.splits]:
        raise BroetchenError(f"{without[0]}: its manifest has no {TRAIN} split, so that there is nothing to report on")
    lengths = (manifest.config["records"].get("max_tokens", _USUAL_LENGTH) for manifest in manifests.values())
    chosen = length or max(lengths)

    steps = len(manifests) + 1
    advance(0, steps)

    def read(folder: str) -> DatasetReport:
        found = _read_dataset(folder, manifests[folder], chosen, batch)
        advance(1, steps)
        return found

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="report") as pool:
        datasets = list(pool.map(read, manifests))
    mixed = {bins: _pack_mixture(datasets, chosen, bins) for bins in sorted({*_OTHER_BATCHES, batch})}
    advance(1, steps)
    return OutputReport(
        output=output,
        datasets=tuple(datasets),
        length=chosen,
        batch=batch,
        mixed={bins: packing for bins, packing in mixed.items() if packing is not None},
        tokenizers=_tokenizers(manifests),
    )


def _read_dataset(folder: str, manifest: Manifest, length: int, batch: int) -> DatasetReport:
    sample = sample_split(folder, manifest, TRAIN)
    records, obstacle = sample.records, None
    record_format = manifest.record_format
    if record_format == "parquet":
        obstacle = "It is text in parquet, which is for training a tokenizer"
    elif record_format == "megatron":
        obstacle = "It is in Megatron's format, of which trainers read one document after another, without packing"
    elif record_format == "tokens" and manifest.max_tokens > length:
        obstacle = (
            f"Records of up to {manifest.max_tokens:,} ids do not fit into sequences of "
            f"{length:,}, at which MaxText would stop"
        )
    elif length * max(*_OTHER_BATCHES, batch) > _MOST_POSITIONS:
        obstacle = (
            f"Sequences of {length:,} are too long to pack {max(*_OTHER_BATCHES, batch)} at a time here; name shorter "
            "ones by --length"
        )
    fitting = np.minimum(records, length)
    tokens = int(records.sum())
    return DatasetReport(
        folder=folder,
        manifest=manifest,
        sample=sample,
        packing=None if obstacle else pack_first_fit(_some(fitting), length, batch, whole=sample.whole),
        trimmed=1 - float(fitting.sum()) / tokens if tokens and not obstacle else 0.0,
        obstacle=obstacle,
        written=_written(folder, manifest),
    )


def _some(records: np.ndarray, most: int = _PACKED_RECORDS) -> list[int]:
    """At most `most` of the records, evenly spread."""
    if len(records) > most:
        records = records[np.linspace(0, len(records) - 1, most).astype(np.int64)]
    found: list[int] = records.tolist()
    return found


def _pack_mixture(datasets: Sequence[DatasetReport], length: int, bins: int) -> Packing | None:
    """Packs records of all datasets, as many of each as it has in proportion, as one pass over all of them gives."""
    if any(dataset.obstacle for dataset in datasets):
        return None
    datasets = [dataset for dataset in datasets if dataset.train.records]
    total = sum(dataset.train.records for dataset in datasets)
    # No more than the samples have in this proportion.
    records = min([_PACKED_RECORDS, *(len(one.sample.records) * total // one.train.records for one in datasets)])
    mixed: list[int] = []
    for one in datasets:
        mixed += _some(np.minimum(one.sample.records, length), round(records * one.train.records / total))
    return pack_first_fit(mixed, length, bins, whole=all(one.sample.whole for one in datasets) and records == total)


def _written(folder: str, manifest: Manifest) -> tuple[WrittenFile, ...]:
    extension = file_extension(manifest.record_format)
    times = {found.path: found.modified for found in look_through(folder, f"*.{extension}") if found.modified > 0}
    found = [
        WrittenFile(manifest.dataset, shard.tokens, times[path])
        for split in manifest.splits.values()
        for shard in split.shards
        if (path := posixpath.join(folder, shard.file)) in times
    ]
    return tuple(sorted(found, key=lambda file: file.seconds))


def _tokenizers(manifests: Mapping[str, Manifest]) -> dict[str, Tokenizer]:
    found: dict[str, Tokenizer] = {}
    for folder, manifest in manifests.items():
        if manifest.tokenizer.sha256 not in found:
            try:
                loaded = tokenizer_file(tokenizer_of(folder, manifest))
            except (UsageError, BroetchenError):
                # Only the excerpts need it, and ids can be counted without.
                continue
            found[manifest.tokenizer.sha256] = Tokenizer.from_str(loaded.json)
    return found
