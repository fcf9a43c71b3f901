"""How full a trainer's sequences become: records packed by Grain's own first-fit packing, as MaxText packs them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import grain.python as grain
import numpy as np
import numpy.typing as npt
from grain.experimental import FirstFitPackIterDataset

_FEATURE = "record"


@dataclasses.dataclass(frozen=True)
class Packing:
    """Records in sequences of `length` tokens.

    Attributes:
        sequences: that were filled.
        records, tokens: that are in them.
    """

    length: int
    sequences: int
    records: int
    tokens: int

    @property
    def padding(self) -> float:
        """The part of all positions that holds no token, 0 to 1."""
        return 1 - self.tokens / (self.sequences * self.length) if self.sequences else 0.0

    @property
    def padding_alone(self) -> float:
        """The same with a record a sequence, as without packing."""
        return 1 - self.tokens / (self.records * self.length) if self.records else 0.0

    def sequences_for(self, tokens: int) -> int:
        """How many sequences so many tokens fill, about."""
        return round(tokens / (self.length * (1 - self.padding)))


def pack_first_fit(record_tokens: Sequence[int], length: int, bins: int, *, whole: bool = True) -> Packing:
    """Packs records in random order, as MaxText does by default (`grain_packing_type: first_fit`).

    A record goes into the first of `bins` open sequences that has room for it; when none has, all of them are given
    out and begun again (Grain's `FirstFitPackIterDataset`). MaxText has as many bins as a host loads sequences for a
    step, and shuffles with the seed `data_shuffle_seed`, which is 0 unless it is set.

    Args:
        record_tokens: tokens of each record, each at most `length`.
        length: MaxText's `max_target_length`.
        bins: how many sequences are open at a time.
        whole: whether these are all records. If they are a sample, the last sequences, which are not full only because
            the sample ends, are left out where there are others.

    Raises:
        ValueError: a record is longer than a sequence, at which MaxText stops.

    >>> pack_first_fit([3, 5, 3, 5], length=8, bins=4)
    Packing(length=8, sequences=2, records=4, tokens=16)
    """
    if max(record_tokens, default=0) > length:
        raise ValueError(f"a record of {max(record_tokens):,} tokens does not fit into a sequence of {length:,}")
    if not record_tokens:
        return Packing(length, 0, 0, 0)
    records = (
        grain.MapDataset.source(record_tokens)
        .shuffle(seed=0)
        # Nothing has to be waited for, so that threads would only cost time.
        .to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
        .map(lambda tokens: {_FEATURE: np.ones(tokens, np.int8)})
    )
    packed = FirstFitPackIterDataset(
        records, length_struct={_FEATURE: length}, num_packing_bins=bins, shuffle_bins=False
    )
    filled = [_filled(sequence[f"{_FEATURE}_segment_ids"]) for sequence in packed]
    if not whole and len(filled) > bins:
        filled = filled[: -(len(filled) % bins or bins)]
    return Packing(length, len(filled), sum(records for records, _ in filled), sum(tokens for _, tokens in filled))


def _filled(segments: npt.NDArray[np.integer]) -> tuple[int, int]:
    """The records and tokens of a sequence, whose segments are numbered from 1; 0 is padding."""
    return int(segments.max()), int(np.count_nonzero(segments))
