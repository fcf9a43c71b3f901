"""Compares row groups of the source with a dataset's documents of them: encoded again by `tokenizers`, id by id."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import posixpath
import random
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from transforms.arrayrecord.records import Format, add_bos_eos, holds_ids, record_bounds
from transforms.coders import register_json_coder
from transforms.dataset.consistency import source_documents, stream_length, stream_order
from transforms.dataset.documents import Hashes
from transforms.dataset.findings import Finding
from transforms.dataset.manifest import Manifest, SourceEntry, tokenizer_of
from transforms.dataset.reader import ShardReader
from transforms.encoding.pool import borrow_encoder, encodable
from transforms.errors import BroetchenError, one_line
from transforms.files import storage
from transforms.files.untrusted import check_regular
from transforms.parquet.footer import SourceFile, read_footer
from transforms.parquet.row_filter import RowFilter
from transforms.parquet.texts import read_texts
from transforms.texts import combined_hash, text_hashes
from transforms.tokenizer.spec import TokenizerSpec

# More documents without a cut than these are not looked for; real datasets have a handful.
_MOST_PUT_BACK = 1000


@dataclasses.dataclass(frozen=True)
class Piece:
    """A shard, and which part of the dataset's stream it holds, in tokens or, of text, in records."""

    path: str
    first: int
    last: int


@register_json_coder
@dataclasses.dataclass(frozen=True)
class SourceCheck:
    """One row group of the source, and the part of the dataset's manifest about it.

    Attributes:
        folder: of the dataset.
        shown: path of the source as the manifest shows it.
        path: the same as it is opened.
        size, footer_sha256, checksum: of the file when the dataset was built.
        start, end: the part of the dataset's stream that it takes; None where the manifest does not say. `end` is that
            of the dataset where nothing follows.
        may_be_empty: whether several row groups begin at `start`: all but one of them hold nothing.
        texts: hash of its texts up to the document in which the dataset ends, or "".
        documents: how many documents of the source the dataset takes, from and to; in text, where they are counted.
        pieces: the shards that hold its part of the stream.
        splits: where each split ends in the stream.
        put_back: documents of each split that its cut left to the next.
        exhausted: whether the dataset takes all of its source.
        rows: which rows of the source the dataset was to take, if not all.
    """

    folder: str
    shown: str
    path: str
    size: int
    footer_sha256: str
    checksum: str | None
    row_group: int
    start: int | None
    end: int
    may_be_empty: bool
    texts: str
    documents: tuple[int, int]
    pieces: tuple[Piece, ...]
    splits: tuple[int, ...]
    put_back: tuple[int, ...]
    exhausted: bool
    format: Format
    text_column: str
    max_tokens: int
    bos_id: int | None
    eos_id: int | None
    tokenizer: TokenizerSpec
    rows: RowFilter | None = None

    @property
    def tokens(self) -> int:
        """About how many are encoded."""
        return 0 if self.start is None else self.end - self.start

    @property
    def where(self) -> str:
        return f"{self.folder}: {self.shown}: row group {self.row_group}"


def choose_row_groups(
    manifests: Mapping[str, Manifest], number: int, seed: int, opened: Callable[[str], str]
) -> tuple[list[SourceCheck], list[Finding]]:
    """Chooses row groups of the sources of datasets: the same ones of the same manifests for the same seed.

    Args:
        manifests: by folder.
        number: how many to choose; all where there are fewer.
        opened: the path by which to open a source that a manifest shows.

    Returns:
        the row groups to check, and those that cannot be.
    """
    listed = [
        (folder, number, place)
        for folder, manifest in sorted(manifests.items())
        for number, entry in enumerate(manifest.source)
        for place in range(len(entry.row_groups))
    ]
    chosen = random.Random(seed).sample(listed, min(number, len(listed)))
    checks: list[SourceCheck] = []
    unchecked: list[Finding] = []
    for folder, members in itertools.groupby(sorted(chosen), key=lambda one: one[0]):
        manifest = manifests[folder]
        try:
            checks += _checks_of(folder, manifest, [(number, place) for _, number, place in members], opened)
        except BroetchenError as error:
            unchecked.append(Finding("unchecked", f"{folder}: not held against its source: {error}"))
            continue
        if any(not entry.starts for entry in manifest.source):
            reason = "its manifest does not say where row groups begin: only whether files have changed is found"
            unchecked.append(Finding("unchecked", f"{folder}: not held against its source: {reason}"))
    return checks, unchecked


def _checks_of(
    folder: str, manifest: Manifest, chosen: Iterable[tuple[int, int]], opened: Callable[[str], str]
) -> Iterator[SourceCheck]:
    tokenizer = tokenizer_of(folder, manifest)
    starts = [found.start for found in stream_order(manifest.source)]
    shards = list(_pieces(folder, manifest))
    possible = source_documents(manifest) or range(1)
    put_back = tuple(split.documents_put_back for split in manifest.splits.values())
    slack = 1 + min(sum(put_back), _MOST_PUT_BACK)
    comparable = all(entry.starts for entry in manifest.source)
    try:
        rows = RowFilter.of_dataset(manifest.config["dataset"], opened)
    except ValueError as error:
        raise BroetchenError(f"its config has no filter that can be applied ({error})") from error
    if rows is not None and rows.exclude is not None and not storage.exists(rows.exclude.path):
        raise BroetchenError(f"the list of values that it excludes is not there ({rows.exclude.path})")
    for number, place in chosen:
        entry: SourceEntry = manifest.source[number]
        start = entry.starts[place] if comparable else None
        end = next((later for later in starts if start is not None and later > start), stream_length(manifest))
        within = range(start or 0, end) if manifest.holds_ids else range((start or 0) - slack, end + slack)
        yield SourceCheck(
            folder=folder,
            shown=entry.path,
            path=opened(entry.path),
            size=entry.size,
            footer_sha256=entry.footer_sha256,
            checksum=entry.checksum,
            row_group=entry.row_groups[place],
            start=start,
            end=end,
            may_be_empty=start is not None and starts.count(start) > 1,
            texts=entry.texts[place] if entry.texts else "",
            documents=(possible.start, possible.stop - 1),
            pieces=tuple(
                shard
                for shard in shards
                if start is not None and shard.first < within.stop and within.start < shard.last
            ),
            splits=tuple(_split_ends(manifest)),
            put_back=put_back,
            exhausted=any(split.missing or split.passes for split in manifest.splits.values()),
            format=manifest.record_format,
            text_column=manifest.text_column,
            max_tokens=manifest.max_tokens,
            bos_id=manifest.tokenizer.bos_id,
            eos_id=manifest.tokenizer.eos_id,
            tokenizer=tokenizer,
            rows=rows,
        )


def _unit(manifest: Manifest) -> str:
    return "tokens" if manifest.holds_ids else "records"


def _pieces(folder: str, manifest: Manifest) -> Iterator[Piece]:
    position = 0
    for split in manifest.splits.values():
        for entry in split.shards:
            held = getattr(entry, _unit(manifest))
            yield Piece(posixpath.join(folder, entry.file), position, position + held)
            position += held


def _split_ends(manifest: Manifest) -> Iterator[int]:
    return itertools.accumulate(
        sum(getattr(entry, _unit(manifest)) for entry in split.shards) for split in manifest.splits.values()
    )


def source_findings(check: SourceCheck) -> list[Finding]:
    """The findings about one row group: that its file has changed, or that the dataset holds something else.

    A source that has changed is no fault of the dataset, which could not be held against it then: a problem, where the
    texts of the row group are others, and a warning, where they are the same.
    """
    if not storage.exists(check.path):
        missing = (
            f"there is no {check.path}; relative paths start at the mix config, which --config names, and the hub's "
            "files may lie below --source-root"
        )
        return [Finding("problem", f"{check.folder}: {check.shown}: {missing}")]
    try:
        footer = read_footer(check.path, storage.size(check.path), check.text_column)
        changes = list(_changes(check, footer))
        if check.row_group >= len(footer.row_groups):
            return [
                Finding("problem", f"{check.where}: is not there; the file has changed since ({'; '.join(changes)})")
            ]
        if check.start is None:
            return [Finding("problem", f"{check.folder}: {check.shown}: {change}") for change in changes]
        texts, differences = _held_against_tokens(check) if holds_ids(check.format) else _held_against_texts(check)
    except (BroetchenError, ValueError) as error:
        return [Finding("problem", f"{check.where}: not held against the dataset: {one_line(error)}")]
    if check.texts and texts != check.texts:
        changes.append(f"row group {check.row_group} holds other texts than were built from")
        return [Finding("problem", f"{check.folder}: {check.shown}: {change}") for change in changes]
    return [
        *(
            Finding(
                "warning", f"{check.folder}: {check.shown}: {change}; the texts of row group {check.row_group} have not"
            )
            for change in changes
        ),
        *(Finding("problem", f"{check.where}: {difference}") for difference in differences),
    ]


def _changes(check: SourceCheck, found: SourceFile) -> Iterator[str]:
    if found.size != check.size:
        yield f"has changed since it was built from: {found.size:,} bytes, not {check.size:,}"
    if found.footer_sha256 != check.footer_sha256:
        yield f"has changed since it was built from: its footer's sha256 is {found.footer_sha256}"
    elif None not in (found.checksum, check.checksum) and found.checksum != check.checksum:
        yield f"has changed since it was built from: its checksum is {found.checksum}, not {check.checksum}"


class _Records:
    """The ids of a dataset's stream from a place on, record by record.

    Raises:
        BroetchenError: a shard cannot be read.
    """

    def __init__(self, check: SourceCheck, stack: contextlib.ExitStack) -> None:
        self._check = check
        self._records = self._read()
        stack.callback(self._records.close)
        self._rest = np.empty(0, np.int64)
        self._position = check.start or 0

    def _read(self) -> Generator[npt.NDArray[np.int64]]:
        skip = (self._check.start or 0) - self._check.pieces[0].first if self._check.pieces else 0
        for piece in self._check.pieces:
            check_regular(piece.path)
            with ShardReader(piece.path, self._check.format) as shard:
                for ids in shard.ids():
                    if skip >= len(ids):
                        skip -= len(ids)
                        continue
                    if skip:
                        raise BroetchenError(f"it begins within a record of {piece.path}")
                    yield ids

    def take(self, number: int) -> tuple[npt.NDArray[np.int64], list[int]]:
        """The next ids, fewer where the shards end, and the places in the stream where records end among them."""
        parts, ends, wanted = [], [], number
        while wanted:
            if not len(self._rest):
                self._rest = next(self._records, self._rest)
                if not len(self._rest):
                    break
            part, self._rest = self._rest[:wanted], self._rest[wanted:]
            parts.append(part)
            wanted -= len(part)
            self._position += len(part)
            if not len(self._rest):
                ends.append(self._position)
        return np.concatenate([np.empty(0, np.int64), *parts]), ends


def _held_against_tokens(check: SourceCheck) -> tuple[str, list[str]]:
    """The hash of the row group's texts up to the cut, and how its ids differ from those of the dataset."""
    assert check.start is not None
    total = check.splits[-1]
    position, hashes, differences = check.start, [np.empty(0, np.uint64)], list[str]()
    with contextlib.ExitStack() as stack:
        records = _Records(check, stack)
        for texts in filter(len, _source_texts(check)):
            if position >= total and not check.exhausted:
                break
            with borrow_encoder(check.tokenizer, "tokenizers") as encoder:
                encoded = encoder.encode(texts)
            ids, offsets = add_bos_eos(encoded.ids, encoded.offsets, check.bos_id, check.eos_id)
            kept = min(len(ids), total - position)
            documents = len(texts)
            if position + kept == total and not check.exhausted:
                documents = min(documents, int(np.searchsorted(offsets[1:], kept)) + 1)  # up to the one of the cut
            hashes.append(text_hashes(texts)[:documents])
            bounds = {position + int(end) for end in record_bounds(offsets, check.max_tokens)[1:]} | set(check.splits)
            if not differences:
                bounds = {end for end in bounds if position < end <= position + kept}
                differences += _differences(position, ids[:kept], bounds, *records.take(kept))
            position += kept
    if not differences and position != check.end and not (check.may_be_empty and position == check.start):
        differences.append(f"ends at token {position:,} of the dataset, and what follows begins at {check.end:,}")
    return combined_hash(np.concatenate(hashes)), differences


def _differences(
    position: int, ids: npt.NDArray[np.uint32], bounds: set[int], found: npt.NDArray[np.int64], ends: Sequence[int]
) -> Iterator[str]:
    """The first difference of ids, or else of the places where records end."""
    both = min(len(ids), len(found))
    differing = np.flatnonzero(ids[:both] != found[:both])
    if len(differing):
        at = int(differing[0])
        yield (
            f"token {position + at:,} of the dataset is {found[at]}, and by tokenizers {ids[at]}"
            f" ({len(differing):,} of {both:,} differ)"
        )
    elif both < len(ids):
        yield f"the dataset's shards end at token {position + both:,}, before it"
    elif bounds != set(ends):
        yield f"a record ends, or does not end, at token {min(bounds ^ set(ends)):,} of the dataset"


class _Texts:
    """The documents of a dataset by their places in its stream, of which a few are held at a time.

    Raises:
        BroetchenError: a shard cannot be read.
    """

    def __init__(self, check: SourceCheck, stack: contextlib.ExitStack) -> None:
        self._check = check
        self._held: dict[int, str] = {}
        self._next = check.pieces[0].first if check.pieces else 0
        self._texts = self._read(check.pieces)
        stack.callback(self._texts.close)

    def _read(self, pieces: Sequence[Piece]) -> Generator[str]:
        for piece in pieces:
            check_regular(piece.path)
            with ShardReader(piece.path, self._check.format, self._check.text_column) as shard:
                for texts in shard.texts():
                    yield from texts.to_pylist()

    def between(self, first: int, last: int) -> dict[int, str]:
        """The documents there are at places `first` to `last`, the last included; `first` may not go back."""
        while self._next <= last and (text := next(self._texts, None)) is not None:
            if self._next >= first:
                self._held[self._next] = text
            self._next += 1
        self._held = {place: text for place, text in self._held.items() if place >= first}
        return self._held


def _held_against_texts(check: SourceCheck) -> tuple[str, list[str]]:
    """The hash of the row group's texts up to the cut, and which of its documents the dataset has otherwise."""
    assert check.start is not None
    hashes = np.concatenate([np.empty(0, np.uint64), *(text_hashes(texts) for texts in _source_texts(check))])
    documents = _documents_used(check, hashes)
    differences: list[str] = []
    slack, place, absent = min(sum(check.put_back), _MOST_PUT_BACK), check.start, 0
    with contextlib.ExitStack() as stack:
        dataset = _Texts(check, stack)
        for text in itertools.islice(_document_texts(check), documents):
            # Documents that were put back, and one cut in two, move a document by as many places: those put back stand
            # after it, or before it where the split was cut off the end of the source.
            there = dataset.between(place - slack - 1, place + slack + 1)
            sure = place < check.splits[0] and not slack
            fits = there.get(place) == text if sure else text in there.values()
            if not fits and not _is_cut(check, text, there):
                absent += 1
                if absent > sum(check.put_back):
                    differences.append(
                        f"document {place - check.start:,} of it is not in the dataset at place {place:,}"
                    )
                    break
            place += 1
    return combined_hash(hashes[:documents]), differences


def _source_texts(check: SourceCheck) -> Iterator[pa.LargeStringArray]:
    for _, batch in read_texts(check.path, [check.row_group], check.text_column, rows=check.rows, ahead=False):
        yield encodable(check.tokenizer, batch).texts


def _document_texts(check: SourceCheck) -> Iterator[str]:
    for texts in _source_texts(check):
        yield from texts.to_pylist()


def _documents_used(check: SourceCheck, hashes: Hashes) -> int:
    """How many documents of a row group are in the dataset: those up to the one in which it ends.

    How many those are is not sure where documents were cut or put back, but their hash tells.
    """
    assert check.start is not None
    first, last = (min(max(0, number - check.start), len(hashes)) for number in check.documents)
    if check.texts:
        for number in range(max(first, last - _MOST_PUT_BACK), last + 1):
            if combined_hash(hashes[:number]) == check.texts:
                return number
    return last


def _is_cut(check: SourceCheck, text: str, there: Mapping[int, str]) -> bool:
    """Whether a document is one in which a split ends: its beginning is there, and its rest begins the next split."""
    for split, end in enumerate(check.splits):
        begun = there.get(end - 1)
        if begun is None or len(begun) >= len(text) or begun not in text:
            continue
        if not text.startswith(begun):
            return split > 0  # The rest of a document that the split before has cut, cut again.
        following = there.get(end + check.put_back[split])
        rest = text[len(begun) :]
        if following is None or rest.startswith(following):
            return True
    return False


class _VerifyRowGroup(beam.DoFn):
    def process(self, check: SourceCheck) -> Iterator[Finding]:
        yield from source_findings(check)


@beam.typehints.with_input_types(SourceCheck)
@beam.typehints.with_output_types(Finding)
class VerifyAgainstSource(beam.PTransform[beam.PCollection[SourceCheck], beam.PCollection[Finding]]):
    """PCollection[SourceCheck] in, PCollection[Finding] out: how datasets differ from their sources.

    `choose_row_groups` chooses the row groups.

    Example:
        >>> with beam.Pipeline() as pipeline:
        ...     findings = pipeline | beam.Create([]).with_output_types(SourceCheck) | VerifyAgainstSource()
    """

    def expand(self, checks: beam.PCollection[SourceCheck]) -> beam.PCollection[Finding]:
        return (
            checks
            | "SpreadRowGroups" >> beam.Reshuffle()
            | "Compare" >> beam.ParDo(_VerifyRowGroup()).with_output_types(Finding)
        )
