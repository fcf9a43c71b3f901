"""The share of each reader of a mixture: every host has several, and each mixes a part of the records of its own.

MaxText deals out the records of ArrayRecord, not files: host `h` of `H` gets each `H`-th record of a component, from
`h` on, and worker `w` of its `W` each `W`-th of these (`_apply_mapdataset_transforms` in
`maxtext/input_pipeline/grain_data_processing.py`, 0.2.5; `multiprocess_prefetch` in
`grain/_src/python/dataset/transformations/process_prefetch.py`, 0.2.18). So the reader of rank `h + H·w` reads each
`H·W`-th record. It mixes them by itself, and ends with the first component of which it has none left. Exact arithmetic,
without I/O.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from launch.mixture.outlook import drawn, last_draw

# How far the records read of a component may be below their mean, in standard deviations: once in 700 cases.
_DEVIATIONS = 3
# The standard deviation of the tokens of documents, in their means: the figure is of texts that are not cut.
_TEXT_DEVIATION = 2


@dataclass(frozen=True)
class Readers:
    """The processes that read: `workers` on each of `hosts` (Grain's worker processes, or 1 for the trainer itself)."""

    hosts: int
    workers: int

    @property
    def count(self) -> int:
        """All of them."""
        return self.hosts * self.workers

    def in_words(self) -> str:
        """How many there are, in words.

        >>> Readers(4, 2).in_words(), Readers(1, 1).in_words(), Readers(1, 2).in_words()
        ('8 readers (4 hosts × 2 workers)', '1 reader (1 host × 1 worker)', '2 readers (1 host × 2 workers)')
        """
        return f"{_number(self.count, 'reader')} ({_number(self.hosts, 'host')} × {_number(self.workers, 'worker')})"


@dataclass(frozen=True)
class Part:
    """A component as readers see it.

    Attributes:
        name: of the component.
        integer: Grain's, for its weight.
        records: that it has.
        tokens: of all of them.
    """

    name: str
    integer: int
    records: int
    tokens: int


@dataclass(frozen=True)
class Reading:
    """The records that one reader reads of each component until one has no more, in the order of the parts.

    Attributes:
        drawn: records of each part.
        ended_by: the number of the part that it asks for a record when there is none left.
    """

    drawn: tuple[int, ...]
    ended_by: int


def readings(parts: Sequence[Part], epochs: int, readers: Readers) -> list[list[Reading]]:
    """The records that the workers of each host read, host by host.

    Args:
        parts: in the order in which Grain draws.
        epochs: how often each component is read at most.
        readers: how many there are.
    """
    integers = [part.integer for part in parts]
    totals = [part.records * epochs for part in parts]
    known: dict[tuple[int, ...], Reading] = {}

    def reading(rank: int) -> Reading:
        available = tuple(len(range(rank, total, readers.count)) for total in totals)
        if available not in known:
            lasts = last_draw(integers, available)
            known[available] = Reading(drawn(integers, min(lasts)), lasts.index(min(lasts)))
        return known[available]

    return [
        [reading(host + readers.hosts * worker) for worker in range(readers.workers)] for host in range(readers.hosts)
    ]


def least_tokens(parts: Sequence[Part], counts: Sequence[int], longest: int | None, dealt_to: int = 1) -> int:
    """About the fewest tokens of some records of each part: three standard deviations below their mean.

    All records of a part have its tokens, to the token. Of some, which are no special ones, it is known what they have
    on average, and how far from that they may be: records of 1 to `longest` tokens differ most where all have the one
    or the other (Bhatia and Davis 2000), and texts are taken to differ by up to twice their mean.

    Args:
        parts: the components.
        counts: how many records of each.
        longest: the most tokens that a record can have; None where there is no limit.
        dealt_to: among how many the records were dealt out, of which one reads these. The only one reads all records
            before it reads one again.

    >>> part = Part("a", 100, 10, 300)
    >>> least_tokens([part], [10], 64), least_tokens([part], [20], 64), least_tokens([part], [20], 64, dealt_to=2)
    (300, 600, 302)
    """
    sure, expected, variance = 0, 0.0, 0.0
    for part, count in zip(parts, counts, strict=True):
        passes, rest = divmod(count, part.records) if dealt_to == 1 else (0, count)
        mean = part.tokens / part.records
        spread = (_TEXT_DEVIATION * mean) ** 2 if longest is None else max(0.0, (longest - mean) * (mean - 1))
        # Of the rest, each record has a token at least; and the more of all are read, the less these can differ.
        sure += passes * part.tokens + rest
        expected += rest * (mean - 1)
        variance += rest * spread * (1 - min(1 / dealt_to, rest / part.records))
    return sure + max(0, math.floor(expected - _DEVIATIONS * math.sqrt(variance)))


def short_of(parts: Sequence[Part], epochs: int, readers: Readers, records: int) -> Iterator[Part]:
    """The parts of which not every reader has `records` records."""
    for part in parts:
        if part.records * epochs < readers.count * records:
            yield part


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
