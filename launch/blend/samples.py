"""Which tokens of a dataset each of its sequences has: the documents in random order, pass after pass. Without I/O.

A dataset is read as one stream of tokens: all its documents in an order of the first pass, then all of them in another
one, and so on. Sequence number j of the stream begins with token j·L and has L + 1 tokens, of which the last is only a
target: it is the first of the next sequence. So nothing is left out and nothing is padded, whatever the lengths are,
and a sequence may end in the next pass.

The sequences that begin in a pass are shuffled among each other, so that a long document is not read in one go. The
last of them, which reaches into the next pass, comes last: a dataset that is read once gives no token twice.

The shuffles are those of NumPy's `RandomState`, whose streams no version changes (NEP 19).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.integer]

# Documents that are laid out at a time.
_CHUNK = 1 << 22


def available(tokens: int, length: int) -> int:
    """How many sequences a stream of so many tokens has.

    >>> available(tokens=257, length=128), available(tokens=256, length=128), available(0, 128)
    (2, 1, 0)
    """
    return max(0, (tokens - 1) // length)


def begun_in(passes: int, tokens: int, length: int) -> int:
    """How many sequences begin in the first passes over `tokens`."""
    return -(-passes * tokens // length)


def passes_begun(sequences: int, tokens: int, length: int) -> int:
    """The number of passes in which the first sequences begin, 1 or more.

    >>> passes_begun(3, tokens=256, length=128), passes_begun(2, tokens=256, length=128)
    (2, 1)
    """
    return max(0, sequences - 1) * length // tokens + 1


def shuffled(count: int, seed: int, *what: object, shuffle: bool) -> Integers:
    """The numbers from 0 to `count`, in an order that depends on the seed and on the purpose alone.

    Returns:
        int32 or, from 2³¹ on, int64.
    """
    numbers: Integers = np.arange(count, dtype=np.int32 if count < 2**31 else np.int64)
    if shuffle:
        digest = hashlib.sha256("/".join(map(str, (seed, *what))).encode()).digest()
        np.random.RandomState(np.frombuffer(digest, ">u4")).shuffle(numbers)
    return numbers


def sequence_order(
    sequences: int, tokens: int, length: int, seed: int, name: str, *, shuffle: bool
) -> Iterator[Integers]:
    """The numbers of the sequences in their stream, in the order in which a training gets them; a pass at a time.

    The order of fewer sequences is the beginning of that of more.

    Args:
        sequences: how many.
        tokens: of one pass.
        length: of a sequence.
        seed, name: of the order.
        shuffle: whether it is one.
    """
    for number in range(passes_begun(sequences, tokens, length)):
        first, end = begun_in(number, tokens, length), begun_in(number + 1, tokens, length)
        if first == end:
            continue
        inner = shuffled(end - first - 1, seed, name, number, "sequences", shuffle=shuffle)
        found = np.append(inner.astype(np.uint32 if end < 2**32 else np.int64), end - first - 1) + first
        yield found[: sequences - first]


def streamed(sequences: int, tokens: int, length: int) -> int:
    """The number of sequences in a row to lay out of a dataset's stream, so that `sequence_order` finds its own.

    The sequences of all passes that it begins, but for the last one of the last pass unless it is read.
    """
    whole = begun_in(passes_begun(sequences, tokens, length), tokens, length)
    return whole if sequences == whole else whole - 1


def passes_laid_out(sequences: int, tokens: int, length: int) -> int:
    """The number of passes in which the tokens of so many sequences in a row stand, the last target included.

    >>> passes_laid_out(2, tokens=256, length=128), passes_laid_out(1, tokens=256, length=128)
    (2, 1)
    """
    return -(-(sequences * length + 1) // tokens)


def document_orders(documents: int, passes: int, seed: int, name: str, *, shuffle: bool) -> Iterator[Integers]:
    """The numbers of the documents in the order of the stream, a pass at a time.

    Args:
        documents: of the dataset.
        passes: how many.
        seed, name, shuffle: see `sequence_order`.
    """
    for number in range(passes):
        yield shuffled(documents, seed, name, number, "documents", shuffle=shuffle)


def sequence_starts(sizes: Integers, documents: Iterator[Integers], sequences: int, length: int) -> Iterator[Integers]:
    """Where sequences begin: the place of a document in the stream, and the token in it.

    As Megatron's `build_sample_idx` has them, in arrays instead of a loop.

    Args:
        sizes: tokens of each document.
        documents: their order in the stream, in pieces; see `document_orders`.
        sequences: how many; one more is yielded, where the last of them ends.

    Yields:
        int64 arrays of shape (n, 2); `sequences` + 1 rows in all.
    """
    place = token = done = 0
    for order in documents:
        for first in range(0, len(order), _CHUNK):
            own = sizes[order[first : first + _CHUNK]].astype(np.int64)
            ends = token + np.cumsum(own)
            end = min(sequences + 1, -(-int(ends[-1]) // length))
            wanted = np.arange(done, end, dtype=np.int64) * length
            at = np.searchsorted(ends, wanted, side="right")
            yield np.stack([place + at, wanted - (ends[at] - own[at])], axis=1)
            done, place, token = max(done, end), place + len(own), int(ends[-1])
