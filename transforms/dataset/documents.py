"""Documents in the records of a shard: told apart by BOS and EOS, counted, and hashed to be found in other shards."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from transforms.texts import text_hashes

type Ids = npt.NDArray[np.int64]
type Hashes = npt.NDArray[np.uint64]


@dataclasses.dataclass
class DocumentCounter:
    """Counts the documents of which a shard of ids holds at least one token, by the BOS and EOS ids that frame them.

    A record belongs to one document. The first document of a shard may have begun in another, which cut it, and the
    last one may go on elsewhere.

    Args:
        bos_id, eos_id: the ids around a document; None where one is not added. No text may make them.

    >>> counter = DocumentCounter(None, 1)
    >>> [counter.add(np.array(record)) for record in ([5, 6], [7, 1], [8, 1], [9])]
    [None, None, None, None]
    >>> counter.possible
    range(3, 4)
    """

    bos_id: int | None
    eos_id: int | None
    _records: int = 0
    _begun: int = 0
    _ended: int = 0
    _first: tuple[bool, bool] = (False, False)
    _last_ends: bool = False

    def add(self, ids: Ids) -> str | None:
        """Takes the next record, which holds an id, and names the faults of its BOS and EOS."""
        first, last = int(ids[0]), int(ids[-1])
        begins, ends = first == self.bos_id, last == self.eos_id
        if begins and ends and len(ids) == 1:
            begins = False  # counted once
        if not self._records:
            self._first = (begins, len(ids) == 1)
        self._records += 1
        self._begun += begins
        self._ended += ends
        self._last_ends = ends
        one_id = self.bos_id == self.eos_id
        for name, token, edges in (
            ("BOS", self.bos_id, begins + ends if one_id else begins),
            ("EOS", self.eos_id, begins + ends if one_id else ends),
        ):
            if token is not None and np.count_nonzero(ids == token) > edges:
                return f"{name} ({token}) within a document, where no build puts it"
        return None

    @property
    def possible(self) -> range:
        """The numbers of documents that the records can be of: one, mostly; none where BOS and EOS contradict."""
        first_begins, first_alone = self._first
        if not self._records:
            return range(1)
        if self.bos_id is not None and self.bos_id == self.eos_id:
            # Where BOS is EOS they take turns, and a record of this id alone can be either.
            marks = self._begun + self._ended
            whole, cut = -(-marks // 2), 1 + marks // 2
            if first_begins:
                return range(whole, whole + 1)
            return range(whole if first_alone and marks else cut, cut + 1)
        by_bos = self._begun + (not first_begins)
        by_eos = self._ended + (not self._last_ends)
        if self.bos_id is None:
            return range(by_eos, by_eos + 1)
        return range(by_bos, by_bos + (self.eos_id is None or by_bos == by_eos))

    @property
    def in_words(self) -> str:
        """The range `possible` in words, to stand before "documents"."""
        if not self.possible:
            by_bos, by_eos = self._begun + (not self._first[0]), self._ended + (not self._last_ends)
            return f"by BOS {by_bos:,} and by EOS {by_eos:,}"
        return " or ".join(f"{number:,}" for number in self.possible)


class DocumentHasher:
    """XXH3-64 of each document of a shard: of its text, or of its ids from one BOS or EOS to the next.

    Args:
        bos_id, eos_id: the ids around documents of ids. Where there is neither, each record is hashed.
    """

    def __init__(self, bos_id: int | None = None, eos_id: int | None = None) -> None:
        self._bos_id, self._eos_id = bos_id, eos_id
        self._hash, self._pending = xxhash.xxh3_64(), False
        self._found: list[int] = []

    def add_ids(self, ids: Ids, *, goes_on: bool = False) -> None:
        """Takes the next record, or a part of it that does not end it."""
        if self._pending and ids[0] == self._bos_id and not (len(ids) == 1 and self._bos_id == self._eos_id):
            self._finish()
        self._hash.update(np.ascontiguousarray(ids))
        self._pending = True
        if goes_on:
            return
        # Without an EOS it is the next BOS that ends a document, and without either each record stands alone.
        if ids[-1] == self._eos_id if self._eos_id is not None else self._bos_id is None:
            self._finish()

    def add_texts(self, texts: pa.LargeStringArray) -> None:
        """Takes documents."""
        self._found += text_hashes(texts).tolist()

    def _finish(self) -> None:
        self._found.append(self._hash.intdigest())
        self._hash.reset()
        self._pending = False

    def hashes(self) -> Hashes:
        """The hashes of all documents that were taken: uint64 [documents]."""
        if self._pending:
            self._finish()
        return np.array(self._found, np.uint64)


def is_among(wanted: Hashes, held: Hashes) -> npt.NDArray[np.bool_]:
    """Which of `wanted` are among `held`, which ascend: bool [wanted]."""
    if not len(held):
        return np.zeros(len(wanted), np.bool_)
    places = np.searchsorted(held, wanted)
    return held[np.minimum(places, len(held) - 1)] == wanted
