"""Which dataset each sequence of a training comes from, by exact shares. Pure arithmetic, in integers, without I/O.

After any n sequences a dataset of share s has had ⌊s·n⌋ or ⌈s·n⌉ of them, so that it is less than one sequence off. So
its sequence number j, from 0, comes at the earliest as number ⌊j/s⌋ of all, and at the latest as number ⌈(j+1)/s⌉ - 1.
An order that keeps all of these windows exists for any shares that add up to 1, and it is found by always taking, of
the datasets whose window is open, the one whose window closes first (S. K. Baruah, N. K. Cohen, C. G. Plaxton and D. A.
Varvel, *Proportionate Progress: A Notion of Fairness in Resource Allocation*, Algorithmica 15, 1996; one processor).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

MOST_DATASETS = 2**15 - 1
"""MaxText numbers datasets in 16 bits."""

# Numbers that are made at a time.
_CHUNK = 1 << 20
# Shares like 30 % and 70 % come back to where they began after few sequences; longer periods are not kept.
_LONGEST_PERIOD = 1 << 20

Numbers = npt.NDArray[np.int16]
Places = npt.NDArray[np.int64]


def order(sequences: int, shares: Sequence[Fraction]) -> Iterator[Numbers]:
    """The number of the dataset of each sequence, in pieces of up to a million.

    The order of fewer sequences is the beginning of that of more.

    Args:
        sequences: how many.
        shares: of each dataset, 0 or more; they add up to 1.

    Yields:
        int16 arrays, of `sequences` numbers in all.

    Raises:
        ValueError: shares do not add up to 1, are negative, or are too many.

    >>> next(order(10, [Fraction(1, 2), Fraction(3, 10), Fraction(1, 5)])).tolist()
    [0, 1, 0, 2, 0, 1, 0, 1, 0, 2]
    """
    if sum(shares) != 1 or min(shares) < 0 or len(shares) > MOST_DATASETS:
        raise ValueError(f"{len(shares)} shares are no parts of a whole")
    period = math.lcm(*(share.denominator for share in shares))
    if period > min(sequences, _LONGEST_PERIOD):
        yield from _earliest_deadlines(sequences, shares, period)
        return
    once = np.concatenate(list(_earliest_deadlines(period, shares, period)))
    piece = np.tile(once, max(1, _CHUNK // period))
    for first in range(0, sequences, len(piece)):
        yield piece[: sequences - first]


def _earliest_deadlines(sequences: int, shares: Sequence[Fraction], whole: int) -> Iterator[Numbers]:
    """The same, sequence by sequence; `whole` times a share is an integer."""
    parts = [int(share * whole) for share in shares]
    had = [0] * len(parts)
    # Datasets whose window is open, by its end; and the others, by its beginning.
    opened = [(-(-whole // part) - 1, number) for number, part in enumerate(parts) if part]
    waiting: list[tuple[int, int]] = []
    heapq.heapify(opened)
    pop, push, replace = heapq.heappop, heapq.heappush, heapq.heapreplace
    for first in range(0, sequences, _CHUNK):
        piece = []
        for place in range(first, min(sequences, first + _CHUNK)):
            while waiting and waiting[0][0] <= place:
                number = pop(waiting)[1]
                push(opened, (-(-(had[number] + 1) * whole // parts[number]) - 1, number))
            number = opened[0][1]
            piece.append(number)
            had[number] = done = had[number] + 1
            part = parts[number]
            opens = done * whole // part
            if opens <= place + 1:
                replace(opened, (-(-(done + 1) * whole // part) - 1, number))
            else:
                pop(opened)
                push(waiting, (opens, number))
        yield np.array(piece, np.int16)


def phase_ends(sequences: int, untils: Sequence[Fraction]) -> list[int]:
    """After how many sequences each phase ends, rounded; the last one with the training.

    Args:
        sequences: of the whole training.
        untils: where each phase ends, as a part of the training; they grow, and the last is 1.

    >>> phase_ends(10, [Fraction(1, 4), Fraction(1)])
    [3, 10]
    """
    return [math.floor(sequences * until + Fraction(1, 2)) for until in untils]


def phased_order(ends: Sequence[int], shares: Sequence[Sequence[Fraction]]) -> Iterator[Numbers]:
    """The order of phases that follow each other, each exact in itself: `order` for each.

    Args:
        ends: see `phase_ends`.
        shares: of each phase, for all datasets; 0 where it has none of one.
    """
    begin = 0
    for end, of_phase in zip(ends, shares, strict=True):
        yield from order(end - begin, of_phase)
        begin = end


def most(ends: Sequence[int], shares: Sequence[Sequence[Fraction]]) -> list[int]:
    """The most sequences that each dataset can have in `phased_order`: ⌈s·n⌉ of each phase.

    >>> most([3, 10], [[Fraction(1, 2), Fraction(1, 2)], [Fraction(1), Fraction(0)]])
    [9, 2]
    """
    totals = [0] * len(shares[0])
    begin = 0
    for end, of_phase in zip(ends, shares, strict=True):
        for number, share in enumerate(of_phase):
            totals[number] += math.ceil((end - begin) * share)
        begin = end
    return totals


def last_sequence(ends: Sequence[int], shares: Sequence[Sequence[Fraction]], dataset: int, available: int) -> int:
    """After how many sequences of the training, at the most, a dataset has surely had no more than `available`."""
    begin = had = 0
    for end, of_phase in zip(ends, shares, strict=True):
        share, length = of_phase[dataset], end - begin
        if had + math.ceil(length * share) > available:
            # The largest n with ⌈s·n⌉ no more than the rest.
            return begin + min(length, math.floor((available - had) / share))
        had += math.ceil(length * share)
        begin = end
    return ends[-1]


def places(pieces: Iterator[Numbers], datasets: int) -> Iterator[tuple[Numbers, Places]]:
    """Adds to each piece of an order the number that each sequence has in its dataset, from 0.

    >>> [found.tolist() for found in next(places(iter([np.array([0, 1, 0], np.int16)]), 2))]
    [[0, 1, 0], [0, 0, 1]]
    """
    had = [0] * datasets
    for piece in pieces:
        within = np.empty(len(piece), np.int64)
        for number in np.unique(piece).tolist():
            at = np.flatnonzero(piece == number)
            within[at] = np.arange(had[number], had[number] + len(at))
            had[number] += len(at)
        yield piece, within
