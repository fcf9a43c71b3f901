"""A sample of a source: pieces of text from row groups all over it, and how many tokens its bytes make by them.

Row groups are chosen as their bytes lie, every so many, and of each the beginning is decoded; pieces of what was
decoded, every so many bytes as well, are encoded. So a long document counts by its bytes, and not as one of many. How
much text a row group holds, its footer says, unless it is stored as a dictionary: then the decoded part does.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from transforms.encoding.pool import borrow_encoder
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.parquet.footer import RowGroup, SourceFile
from transforms.parquet.texts import Beginning, read_beginnings
from transforms.recipe.ratio import Ratio, sampled_ratio
from transforms.recipe.spec import DatasetSpec
from transforms.segments.cuts import cut_is_near
from transforms.segments.encoded import Encoded
from transforms.texts import BATCH_TEXT_BYTES, KINDS, NOT_TEXT, NULL, TextBatch

_LOGGER = logging.getLogger(__name__)

_ROW_GROUPS = 32
_PIECES, _PIECE_BYTES = 128, 2 << 10
_SAMPLE_BYTES = _PIECES * _PIECE_BYTES
# Of each row group, which is about a batch; of all in local files, which may be read further in a tenth of a second.
_DECODED_BYTES, _DECODED_BYTES_LOCAL = BATCH_TEXT_BYTES // 2, 64 << 20
_MOST_ROWS = 1 << 18
# A dictionary takes few bytes to fetch, and only its decoded values tell how much text it stands for.
_DECODED_TIMES_OF_DICTIONARY = 16
_THREADS = 8
# The bytes before each value of a plain page, which hold its length.
_LENGTH_BYTES = 4

Groups = Sequence[tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Sample:
    """Texts of a source with their ids by `tokenizers`, and the estimates that follow from them.

    Attributes:
        ratio: of tokens to the bytes of the column.
        uncut_share: the share of the text with no place near where documents can be cut
            (`transforms.segments.cuts.cut_is_near`).
        kept_share: the share of the text in the row groups that passes the filter, those that it rules out included.
    """

    texts: pa.LargeStringArray
    encoded: Encoded
    ratio: Ratio
    uncut_share: float
    kept_share: float


def take_sample(
    spec: DatasetSpec, source: Sequence[SourceFile], groups: Groups, every: Groups, *, fetched_bytes: float
) -> Sample:
    """Samples the row groups `groups` of a source, as (index of the file, index of the row group in it).

    Row groups that cannot be read are warned of and left out, since the budget may end before it; the first row group
    has to be sound. Where nothing of it is text, the first document in `every` row group is taken.

    Args:
        fetched_bytes: of files that are not local, about as much is read at most, and of one row group at least: pages
            may be as large as row groups are.

    Raises:
        BroetchenError: there is no document at all, or the first row group cannot be read.
    """
    held = sum(source[file].row_groups[group].text_bytes for file, group in groups)
    groups, every = _wanted(source, groups), _wanted(source, every)
    looks, failures = _look_at(spec, source, _choose(source, groups, fetched_bytes))
    if groups and groups[0] in failures:
        raise failures[groups[0]]
    if not any(look.documents for look in looks):
        first_look = _first_with_text(spec, source, every)
        # Rows that pass the filter are rare there: the text found says nothing of row groups where none was seen.
        looks = [*looks, dataclasses.replace(first_look, share=1 / len(every))] if spec.rows else [first_look]
    for failure in failures.values():
        _LOGGER.warning("dataset %s: %s; the plan does without it", spec.name, failure)
    pieces = itertools.chain.from_iterable(look.pieces for look in looks)
    texts = pa.array(list(itertools.chain.from_iterable(pieces)), pa.large_string())
    with borrow_encoder(spec.tokenizer, "tokenizers") as reference:
        encoded = reference.encode(texts)
    added = sum(token is not None for token in (spec.records.bos_id, spec.records.eos_id))
    ratio = _ratio(looks, np.diff(encoded.offsets), texts, added, _text_bytes(source, groups))
    kept_share = _kept_share(looks) * _text_bytes(source, groups) / max(1, held)
    return Sample(texts, encoded, ratio, _uncut_share(looks), kept_share)


def within_reach(source: Sequence[SourceFile], groups: Groups, text_bytes: int) -> Groups:
    """The first row groups, up to the one with which they hold `text_bytes`."""
    held = itertools.accumulate(source[file].row_groups[group].wanted_bytes for file, group in groups)
    return groups[: next((number for number, size in enumerate(held, 1) if size >= text_bytes), len(groups))]


def _wanted(source: Sequence[SourceFile], groups: Groups) -> Groups:
    return [(file, group) for file, group in groups if not source[file].row_groups[group].ruled_out]


def _text_bytes(source: Sequence[SourceFile], groups: Groups) -> int:
    return sum(source[file].row_groups[group].text_bytes for file, group in groups)


def _choose(source: Sequence[SourceFile], groups: Groups, fetched_bytes: float) -> dict[tuple[int, int], float]:
    """The row groups to look at, each with its share of the sample."""
    groups = [(file, group) for file, group in groups if source[file].row_groups[group].rows]
    facts = [source[file].row_groups[group] for file, group in groups]
    remote = [group.stored_bytes for (file, _), group in zip(groups, facts, strict=True) if not _is_local(source[file])]
    count = _ROW_GROUPS
    if remote:
        count = max(1, min(count, int(fetched_bytes // max(1, sum(remote) / len(remote)))))
    sizes = np.array([max(1, group.text_bytes) for group in facts])
    if len(groups) <= count:
        return dict(zip(groups, (sizes / max(1, sizes.sum())).tolist(), strict=True))
    ends = np.cumsum(sizes)
    places = (np.arange(count) + 0.5) * (ends[-1] / count)
    chosen, hits = np.unique(np.searchsorted(ends, places, side="right"), return_counts=True)
    return {groups[number]: hit / count for number, hit in zip(chosen.tolist(), hits.tolist(), strict=True)}


def _is_local(file: SourceFile) -> bool:
    return storage.is_local(file.path)


@dataclasses.dataclass
class _Look:
    """The sample of one row group.

    Attributes:
        share: of the sample that it stands for.
        rows, documents, text_bytes, nulls, not_text: of the part that was decoded.
        filtered_bytes: of the text of rows that the filter left out.
        distinct_bytes: of its texts, each taken once.
        dictionary: see `Beginning`.
        pieces: each of some consecutive documents, or of a part of one.
        cut: whether there is a part of one among them.
        far_from_cuts: the share of the pieces that are parts of documents which cannot be cut near there.
    """

    facts: RowGroup
    share: float
    dictionary: float
    rows: int = 0
    documents: int = 0
    text_bytes: int = 0
    filtered_bytes: int = 0
    distinct_bytes: int = 0
    nulls: int = 0
    not_text: int = 0
    pieces: list[list[str]] = dataclasses.field(default_factory=list)
    cut: bool = False
    far_from_cuts: float = 0.0

    def add(self, batch: TextBatch) -> None:
        self.rows += batch.rows
        self.documents += len(batch.texts)
        self.text_bytes += batch.text_bytes
        self.filtered_bytes += batch.filtered_bytes
        self.nulls += int(np.count_nonzero(batch.kinds == KINDS.index(NULL)))
        self.not_text += int(np.count_nonzero(batch.kinds == KINDS.index(NOT_TEXT)))
        if self.dictionary:
            self.distinct_bytes += int(pc.sum(pc.binary_length(pc.unique(batch.texts))).as_py() or 0)

    @property
    def kept_share(self) -> float:
        """The share of the decoded text that passes the filter."""
        return self.text_bytes / max(1, self.text_bytes + self.filtered_bytes)

    @property
    def whole(self) -> tuple[float, float]:
        """(bytes of text, documents) of the whole row group."""
        if self.rows == self.facts.rows or not self.documents:
            return self.text_bytes, self.documents
        times = self.facts.rows / self.rows
        documents = self.documents * times
        if self.dictionary == 1:
            return self.text_bytes * times, documents
        values = self.facts.text_bytes - _LENGTH_BYTES * (self.rows - self.nulls) * times
        repeated = self.dictionary * (self.text_bytes / max(1, self.distinct_bytes) - 1) if self.dictionary else 0.0
        texts = max(0.0, values) * (1 + repeated) * self.documents / (self.documents + self.not_text) * self.kept_share
        return max(texts, self.text_bytes), documents


def _look_at(
    spec: DatasetSpec, source: Sequence[SourceFile], chosen: dict[tuple[int, int], float]
) -> tuple[list[_Look], dict[tuple[int, int], BroetchenError]]:
    """The sample of each, in the same order, and the reason why the first of a file could not be sampled."""
    by_file: dict[int, list[int]] = defaultdict(list)
    for file, group in chosen:
        by_file[file].append(group)

    looks: dict[tuple[int, int], _Look] = {}
    failures: dict[tuple[int, int], BroetchenError] = {}

    def look(file: int) -> None:
        path = source[file].path
        limit = max(_DECODED_BYTES, _DECODED_BYTES_LOCAL // len(chosen) if _is_local(source[file]) else 0)
        try:
            for beginning in read_beginnings(path, by_file[file], spec.text_column, rows=spec.rows):
                group = beginning.row_group
                facts = source[file].row_groups[group]
                looks[file, group] = _look_at_one(beginning, facts, chosen[file, group], limit)
        except BroetchenError as error:
            failures[next((file, group) for group in by_file[file] if (file, group) not in looks)] = error

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="sample") as pool:
        list(pool.map(look, by_file))
    return [looks[place] for place in chosen if place in looks], failures


def _look_at_one(
    beginning: Beginning, facts: RowGroup, share: float, limit: int, *, most_rows: int = _MOST_ROWS
) -> _Look:
    look = _Look(facts, share, beginning.dictionary)
    if look.dictionary == 1:
        limit *= _DECODED_TIMES_OF_DICTIONARY
    pieces = _Pieces(max(1, round(_PIECES * share)), min(limit, facts.text_bytes))
    for batch in beginning.batches:
        look.add(batch)
        pieces.take(batch.texts)
        if look.text_bytes + look.filtered_bytes >= limit or look.rows >= most_rows:
            break
    look.pieces, look.cut = pieces.taken, pieces.cut
    look.far_from_cuts = pieces.far_from_cuts / max(1, pieces.seen)
    return look


def _first_with_text(spec: DatasetSpec, source: Sequence[SourceFile], groups: Groups) -> _Look:
    for file, run in itertools.groupby(groups, key=lambda group: group[0]):
        beginnings = read_beginnings(source[file].path, [group for _, group in run], spec.text_column, rows=spec.rows)
        for beginning in beginnings:
            facts = source[file].row_groups[beginning.row_group]
            # A filter may leave the last rows alone.
            limit = facts.text_bytes if spec.rows else _DECODED_BYTES
            look = _look_at_one(beginning, facts, 1.0, limit, most_rows=facts.rows)
            if look.documents:
                return look
    if spec.rows:
        raise BroetchenError(f"dataset {spec.name}: its `filters` and `exclude` leave no document; check them")
    raise BroetchenError(f"dataset {spec.name}: column {spec.text_column!r} holds no text in any of its files")


class _Pieces:
    """Takes about `wanted` pieces from a stream of documents, evenly over its bytes, or all of it where it is short."""

    def __init__(self, wanted: int, expected_bytes: int) -> None:
        self.taken: list[list[str]] = []
        self.cut = False
        self.seen = self.far_from_cuts = 0
        self._wanted = wanted
        self._stride = max(_PIECE_BYTES, expected_bytes // wanted)
        # Where the next piece begins, and how many bytes have passed.
        self._next, self._passed = (self._stride - _PIECE_BYTES) // 2, 0

    def take(self, texts: pa.LargeStringArray) -> None:
        lengths = pc.binary_length(texts).to_numpy()
        ends = self._passed + np.cumsum(lengths, dtype=np.int64)
        while len(ends) and self._next < ends[-1]:
            number = int(np.searchsorted(ends, self._next, side="right"))
            longest = _SAMPLE_BYTES if self._stride == _PIECE_BYTES else 2 * _PIECE_BYTES
            if lengths[number] > longest:
                document = texts[number].as_buffer().to_pybytes()
                start = int(ends[number]) - len(document)
                piece, first, end = _cut_out(document, self._next - start)
                self.taken.append([piece])
                self.far_from_cuts += not cut_is_near(np.frombuffer(document, np.uint8), first)
                self.cut, end = True, start + end
            else:
                stop = int(np.searchsorted(ends, self._next + _PIECE_BYTES, side="left")) + 1
                fitting = lengths[number:stop] <= longest
                stop = number + (len(fitting) if fitting.all() else int(fitting.argmin()))
                self.taken.append(texts.slice(number, stop - number).to_pylist())
                end = int(ends[stop - 1])
            self.seen += 1
            self._next = max(end, self._next + self._stride)
            if len(self.taken) > 2 * self._wanted:
                self.taken, self._stride = self.taken[::2], 2 * self._stride
        if len(ends):
            self._passed = int(ends[-1])


def _cut_out(document: bytes, start: int) -> tuple[str, int, int]:
    """About `_PIECE_BYTES` from `start` on, in whole code points, and where it begins and ends."""

    def boundary(place: int) -> int:
        while place < len(document) and document[place] & 0xC0 == 0x80:
            place += 1
        return min(place, len(document))

    first, end = boundary(min(start, len(document) - _PIECE_BYTES)), boundary(start + _PIECE_BYTES)
    return document[first:end].decode(), first, end


def _kept_share(looks: Sequence[_Look]) -> float:
    return sum(look.share * look.kept_share for look in looks) / sum(look.share for look in looks)


def _uncut_share(looks: Sequence[_Look]) -> float:
    return sum(look.share * look.far_from_cuts for look in looks) / sum(look.share for look in looks)


def _ratio(
    looks: Sequence[_Look], tokens: NDArray[np.int64], texts: pa.LargeStringArray, added: int, size: int
) -> Ratio:
    """The ratio by all looks: `tokens` of each of the `texts`, which are the looks' pieces one after another.

    Args:
        added: tokens of each document besides those of its text.
        size: bytes of the whole column.
    """
    lengths = pc.binary_length(texts).to_numpy()
    pieces: list[float] = []
    groups: list[tuple[_Look, float]] = []
    place = 0
    for look in looks:
        seen_tokens = seen_bytes = 0
        for piece in look.pieces:
            part = slice(place, place + len(piece))
            place += len(piece)
            piece_tokens, piece_bytes = int(tokens[part].sum()), int(lengths[part].sum())
            pieces.append(piece_tokens / piece_bytes)
            seen_tokens, seen_bytes = seen_tokens + piece_tokens, seen_bytes + piece_bytes
        text_bytes, documents = look.whole
        groups.append((look, seen_tokens * text_bytes / max(1, seen_bytes) + added * documents))
    shares = sum(look.share for look, _ in groups)
    column = sum(look.facts.text_bytes for look, _ in groups)
    parts = [(look.share / shares * size, expected / max(1, look.facts.text_bytes)) for look, expected in groups]
    mean = sum(part * ratio for part, ratio in parts) / max(1, size)
    # How much text there is for each byte of the column.
    grown = sum(look.whole[0] for look in looks) / max(1, column)
    text_bytes = max(1.0, grown * size)
    cut = any(look.cut for look in looks)
    return sampled_ratio(
        max(mean, 1 / max(1, size)),
        [(round(part), ratio) for part, ratio in parts],
        pieces,
        encoded=min(1 - cut / text_bytes, int(lengths.sum()) / text_bytes),
        decoded=sum(look.text_bytes for look in looks) / text_bytes,
    )
