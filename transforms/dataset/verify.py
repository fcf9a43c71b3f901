"""Holds finished datasets against their manifests, record by record, with Grain's own reader."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.pvalue import AsDict, TaggedOutput

from transforms.arrayrecord.example import decode_ids, decode_text
from transforms.arrayrecord.records import FEATURE, Format, holds_ids
from transforms.coders import register_json_coder, to_json
from transforms.dataset.consistency import manifest_warnings, unchecked_of
from transforms.dataset.documents import DocumentCounter, DocumentHasher, Hashes, Ids, is_among
from transforms.dataset.findings import FileCheck, Finding, file_problems, held_against
from transforms.dataset.inventory import dataset_problems
from transforms.dataset.manifest import Manifest, tokenizer_of
from transforms.dataset.quarantine import quarantine_problems
from transforms.dataset.reader import ShardReader
from transforms.dataset.tokenizer import tokenizer_problems, why_not_recounted
from transforms.dataset.trace import TraceCheck, trace_checks, trace_file_problems, trace_problems
from transforms.encoding.pool import expected_engine, token_counts
from transforms.encoding.special_strings import SpecialDocuments
from transforms.errors import BroetchenError, one_line
from transforms.files import storage
from transforms.files.untrusted import check_regular
from transforms.megatron.index import index_path
from transforms.megatron.reader import PairReader
from transforms.progress.memory import Memory, digest_of
from transforms.progress.tally import worker_tally
from transforms.quantities import format_share
from transforms.tokenizer.spec import ChosenEngine, Engine, TokenizerSpec

_BATCH_RECORDS = 256
# A shard of which eval has more is read again: lines of the memory stay below some 200 KB.
_MOST_REMEMBERED_HASHES = 10_000
_MOST_PROBLEMS = 5

_TRAIN, _EVAL = "train", "eval"
_SHARED = "shared"
# (folder, the form in which its documents are compared)
_Texts = tuple[str, str]
# ((held-out texts, folder of the train split), hashes)
_Shared = tuple[tuple[_Texts, str], bytes]


@register_json_coder
@dataclasses.dataclass(frozen=True)
class ShardCheck:
    """One shard file, and the facts about it and each of its records if the dataset is sound.

    Attributes:
        documents: of a shard of ids, as the manifest counts them; None where they cannot be counted again.
        bos_id, eos_id: at the beginning and end of its documents; None where it is not added.
        beside: files that belong to it.
        trace: the check of its trace, if it has one.
        split: that it belongs to.
        with_special: of a shard of text, its documents with the string of a special token; None where the manifest does
            not say.
    """

    folder: str
    file: str
    tokens: int
    records: int
    size: int
    sha256: str
    format: Format
    text_column: str
    max_tokens: int
    vocab_size: int
    tokenizer: TokenizerSpec
    engine: Engine
    documents: int | None = None
    bos_id: int | None = None
    eos_id: int | None = None
    beside: tuple[FileCheck, ...] = ()
    split: str = _TRAIN
    trace: TraceCheck | None = None
    with_special: int | None = None

    @property
    def path(self) -> str:
        return posixpath.join(self.folder, self.file)

    @property
    def files(self) -> tuple[str, ...]:
        """All files that are read to check it."""
        trace = () if self.trace is None else (self.trace.path,)
        return (self.path, *(one.path for one in self.beside), *trace)

    def expected_engine(self) -> ChosenEngine | None:
        """The engine that the text will probably need; None where it holds ids, or its tokenizer cannot be loaded."""
        with contextlib.suppress(BroetchenError):
            return None if holds_ids(self.format) else expected_engine(self.tokenizer, self.engine)
        return None

    @property
    def compared_as(self) -> str:
        """The name of the form in which its documents are compared: as texts, or as ids of the same making."""
        if not holds_ids(self.format):
            return "documents"
        if self.bos_id is None and self.eos_id is None:
            return f"records of {self.tokenizer.sha256} {self.max_tokens}"
        return f"documents of {self.tokenizer.sha256} {self.bos_id} {self.eos_id}"


def shard_checks(folder: str, manifest: Manifest, engine: Engine, *, recount: bool = True) -> Iterator[ShardCheck]:
    """The checks of each shard of a dataset.

    Args:
        recount: whether documents of shards of ids are counted again where BOS or EOS tell them apart; see
            `transforms.dataset.tokenizer.why_not_recounted`.

    Raises:
        BroetchenError: the manifest names a tokenizer that may not be read.
    """
    tokenizer, spec = manifest.tokenizer, tokenizer_of(folder, manifest)
    framed = manifest.holds_ids and (tokenizer.bos_id is not None or tokenizer.eos_id is not None)
    recounted = recount and framed and tokenizer.special_tokens == "text"
    traces = trace_checks(folder, manifest)
    for name, split in manifest.splits.items():
        for entry in split.shards:
            yield ShardCheck(
                folder=folder,
                file=entry.file,
                tokens=entry.tokens,
                records=entry.records,
                size=entry.bytes,
                sha256=entry.sha256,
                format=manifest.record_format,
                text_column=manifest.text_column,
                max_tokens=manifest.max_tokens,
                vocab_size=tokenizer.vocab_size,
                tokenizer=spec,
                engine=engine,
                documents=entry.documents if recounted else None,
                bos_id=tokenizer.bos_id,
                eos_id=tokenizer.eos_id,
                beside=tuple(
                    FileCheck(posixpath.join(folder, file.file), file.bytes, file.sha256) for file in entry.beside
                ),
                split=name,
                trace=traces.get(entry.file),
                with_special=None if manifest.holds_ids else entry.documents_with_special_strings,
            )


def known_problems(folder: str, manifest: Manifest) -> list[str]:
    """The problems of a dataset before any shard is read: of its manifest, its list of files, its tokenizer."""
    return [
        *dataset_problems(folder, manifest),
        *quarantine_problems(folder, manifest),
        *trace_problems(folder, manifest),
        *tokenizer_problems(folder, manifest),
    ]


def known_findings(folder: str, manifest: Manifest) -> Iterator[Finding]:
    """The findings before any shard is read, and the parts of a dataset that reading its shards will not check."""
    yield from (Finding("problem", text) for text in known_problems(folder, manifest))
    yield from (Finding("warning", text) for text in manifest_warnings(folder, manifest))
    yield from (Finding("unchecked", text) for text in unchecked_of(folder, manifest))
    if reason := why_not_recounted(folder, manifest):
        yield Finding("unchecked", f"{folder}: its documents cannot be counted again: {reason}")


def shard_problems(check: ShardCheck) -> list[str]:
    """The problems of one shard file: size, checksum, record count, records and tokens. Empty if it is sound."""
    return _read_back(check, None)


def _read_back(
    check: ShardCheck, hasher: DocumentHasher | None, counted: Callable[[int], None] = lambda tokens: None
) -> list[str]:
    """The problems of a shard; `hasher` takes the documents of the records that are sound.

    `counted` is told of tokens as they are read.
    """
    beside = [problem for one in check.beside for problem in file_problems(one)]
    beside += trace_file_problems(check.trace) if check.trace is not None else []
    if not storage.exists(check.path):
        return beside  # `dataset_problems` has said so
    try:
        with held_against(FileCheck(check.path, check.size, check.sha256)) as (local, problems):
            return [*_content_problems(check, local, problems, hasher, counted), *beside]
    except BroetchenError as error:
        return [str(error), *beside]


def _content_problems(
    check: ShardCheck,
    local: str,
    before: Sequence[str],
    hasher: DocumentHasher | None,
    counted: Callable[[int], None],
) -> list[str]:
    problems = list(before)
    tokens = records = told = 0
    counter = DocumentCounter(check.bos_id, check.eos_id) if check.documents is not None else None
    special = None
    try:
        special = SpecialDocuments(check.tokenizer) if check.with_special is not None else None
        for tokens_or_problem in _records(check, local, counter, hasher, special):
            if isinstance(tokens_or_problem, int):
                tokens += tokens_or_problem
            elif len(problems) < _MOST_PROBLEMS:
                problems.append(f"{check.path}: record {records}: {tokens_or_problem}")
            records += 1
            if records % _BATCH_RECORDS == 0:
                counted(tokens - told)
                told = tokens
    except (ValueError, RuntimeError, IndexError, BroetchenError) as error:
        reason = one_line(error) or "no reason is given"
        return [*problems, f"{check.path}: cannot be read after record {records}: {reason}"]
    if records != check.records:
        problems.append(f"{check.path}: {records:,} records, not {check.records:,}")
    if tokens != check.tokens:
        problems.append(f"{check.path}: {tokens:,} tokens, not {check.tokens:,}")
    if counter and check.documents not in counter.possible:
        problems.append(f"{check.path}: {counter.in_words} documents, not {check.documents:,}")
    if special and special.count != check.with_special:
        problems.append(
            f"{check.path}: {special.count:,} documents hold the string of a special token, not {check.with_special:,}"
        )
    return problems


def _records(
    check: ShardCheck,
    local: str,
    counter: DocumentCounter | None,
    hasher: DocumentHasher | None,
    special: SpecialDocuments | None,
) -> Iterator[int | str]:
    """The tokens of each record, or its fault."""
    if check.format == "parquet":
        yield from _parquet_rows(check, local, hasher, special)
        return
    if check.format == "megatron":
        with PairReader(local, index_path(check.path)) as pair:
            yield from _documents(check, pair, counter, hasher)
        return
    # Grain takes a second to import, and only this step needs it.
    import grain.python as grain

    with grain.ArrayRecordDataSource([local]) as source:
        for start in range(0, len(source), _BATCH_RECORDS):
            batch = source.__getitems__(range(start, min(len(source), start + _BATCH_RECORDS)))
            if check.format == "text":
                yield from _text_records(check, batch, hasher, special)
            else:
                yield from (_ids_record(check, record, counter, hasher) for record in batch)


def _ids_record(
    check: ShardCheck, record: bytes, counter: DocumentCounter | None, hasher: DocumentHasher | None
) -> int | str:
    try:
        ids: Ids = decode_ids(record, FEATURE)
    except BroetchenError as error:
        return str(error)
    return _checked_ids(check, ids, counter, hasher)


def _checked_ids(
    check: ShardCheck, ids: Ids, counter: DocumentCounter | None, hasher: DocumentHasher | None
) -> int | str:
    if not 0 < len(ids) <= check.max_tokens:
        return f"{len(ids):,} ids, not 1 to {check.max_tokens:,}"
    if problem := _unknown_ids(check, ids):
        return problem
    if hasher:
        hasher.add_ids(ids)
    return (counter and counter.add(ids)) or len(ids)


def _unknown_ids(check: ShardCheck, ids: Ids) -> str | None:
    if ids.min() >= 0 and ids.max() < check.vocab_size:
        return None
    return f"an id outside the vocabulary: {ids.min()} to {ids.max()}, and the vocabulary ends at {check.vocab_size}"


def _documents(
    check: ShardCheck, pair: PairReader, counter: DocumentCounter | None, hasher: DocumentHasher | None
) -> Iterator[int | str]:
    """As `_records`, of a pair; a document of any length takes a few MB."""
    tokens, problem, outline = 0, None, _Outline((check.bos_id, check.eos_id))
    for ids, goes_on in pair.parts():
        problem = problem or _unknown_ids(check, ids)
        tokens += len(ids)
        if hasher:
            hasher.add_ids(ids, goes_on=goes_on)
        if counter:
            outline.add(ids, goes_on=goes_on)
        if goes_on:
            continue
        if counter:
            problem = counter.add(outline.ids()) or problem
        yield problem or tokens
        tokens, problem, outline = 0, None, _Outline((check.bos_id, check.eos_id))


class _Outline:
    """The ids of a document of any length that matter to the checks: both ends, and a BOS or EOS between them."""

    def __init__(self, marks: Iterable[int | None]) -> None:
        self._marks = [token for token in marks if token is not None]
        self._first, self._within, self._last = (np.empty(0, np.int64) for _ in range(3))

    def add(self, ids: Ids, *, goes_on: bool) -> None:
        """Takes the next part of the document."""
        if not len(self._first):
            self._first, ids = ids[:1], ids[1:]
        if not goes_on:
            self._last, ids = ids[-1:], ids[:-1]
        if len(self._within) < 2:
            self._within = np.concatenate([self._within, ids[np.isin(ids, self._marks)][:2]])

    def ids(self) -> Ids:
        """A document that is counted alike."""
        return np.concatenate([self._first, self._within, self._last])


def _text_records(
    check: ShardCheck, batch: Sequence[bytes], hasher: DocumentHasher | None, special: SpecialDocuments | None
) -> Iterator[int | str]:
    texts: list[str] = []
    problems: dict[int, str] = {}
    for index, record in enumerate(batch):
        text, problem = "", "an empty text, which no build writes"
        try:
            text = decode_text(record, FEATURE).decode()
        except (BroetchenError, UnicodeDecodeError) as error:
            problem = str(error)
        texts.append(text)
        if not text:
            problems[index] = problem
    documents = pa.array(texts, pa.large_string())
    counts = token_counts(check.tokenizer, check.engine, documents)
    if hasher:
        hasher.add_texts(documents)
    if special:
        special.add(documents)
    for index, tokens in enumerate(counts.tolist()):
        yield problems.get(index, tokens)


def _parquet_rows(
    check: ShardCheck, local: str, hasher: DocumentHasher | None, special: SpecialDocuments | None
) -> Iterator[int]:
    with ShardReader(local, check.format, check.text_column) as shard:
        for texts in shard.texts():
            if hasher:
                hasher.add_texts(texts)
            if special:
                special.add(texts)
            yield from token_counts(check.tokenizer, check.engine, texts).tolist()


def document_hashes(check: ShardCheck) -> Hashes:
    """The hash of each document of a shard, uint64; none where it cannot be read, which `shard_problems` tells."""
    hasher = DocumentHasher(check.bos_id, check.eos_id)
    with contextlib.suppress(BroetchenError):
        check_regular(check.path)
        with ShardReader(check.path, check.format, check.text_column) as shard:
            if holds_ids(check.format):
                for ids in filter(len, shard.ids()):
                    hasher.add_ids(ids)
            else:
                for texts in shard.texts():
                    hasher.add_texts(texts)
    return hasher.hashes()


class _HashEval(beam.DoFn):
    def process(self, check: ShardCheck) -> Iterator[tuple[_Texts, bytes]]:
        if check.split == _EVAL:
            yield (check.folder, check.compared_as), document_hashes(check).tobytes()


def _merged(texts: _Texts, parts: Iterable[bytes]) -> tuple[_Texts, bytes]:
    return texts, np.sort(np.frombuffer(b"".join(parts), np.uint64)).tobytes()


class _VerifyShard(beam.DoFn):
    """Problems, and as `_SHARED` the hashes of eval that stand in a train shard, by the folders of both."""

    def __init__(self, tallies: str | None, memory: Memory | None) -> None:
        self._tallies, self._memory = tallies, memory

    def process(
        self, check: ShardCheck, held_out: Mapping[_Texts, bytes]
    ) -> Iterator[Finding | TaggedOutput[str, _Shared]]:
        comparable = (
            {}
            if check.split != _TRAIN
            else {
                texts: np.frombuffer(hashes, np.uint64)
                for texts, hashes in held_out.items()
                if texts[1] == check.compared_as
            }
        )
        key = _memory_key(check, comparable) if self._memory else ""
        known = self._memory.recall(key, check.files) if self._memory else None
        if known is not None:
            yield from (TaggedOutput(_SHARED, shared) for shared in _shared_of(check, comparable, known))
            return
        seen = self._memory.look(check.files) if self._memory else None
        hasher = DocumentHasher(check.bos_id, check.eos_id) if comparable else None
        with worker_tally(self._tallies).element(check.tokens) as counted:
            problems = _read_back(check, hasher, counted)
        yield from (Finding("problem", text) for text in problems)
        found = np.unique(hasher.hashes()) if hasher else np.empty(0, np.uint64)
        shared = {texts: found[is_among(found, hashes)] for texts, hashes in comparable.items()}
        if self._memory and not problems and sum(map(len, shared.values())) <= _MOST_REMEMBERED_HASHES:
            self._memory.keep(key, seen, [shared[texts].tolist() for texts in sorted(comparable)])
        for texts, hashes in shared.items():
            if len(hashes):
                yield TaggedOutput(_SHARED, ((texts, check.folder), hashes.tobytes()))


def _memory_key(check: ShardCheck, comparable: Mapping[_Texts, Hashes]) -> str:
    """Stands for all that decides the findings about a shard, but for the bytes of its files."""
    parts = [to_json(check), *(f"{texts} {digest_of(comparable[texts])}" for texts in sorted(comparable))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _shared_of(check: ShardCheck, comparable: Mapping[_Texts, Hashes], known: object) -> Iterator[_Shared]:
    """The hashes of eval that an earlier run found in a shard: a list for each eval split to compare with."""
    assert isinstance(known, list)
    for texts, hashes in zip(sorted(comparable), known, strict=True):
        if hashes:
            yield (texts, check.folder), np.array(hashes, np.uint64).tobytes()


def _shared_texts(element: tuple[tuple[_Texts, str], Iterable[bytes]], held_out: Mapping[_Texts, bytes]) -> Finding:
    (texts, train), parts = element
    folder, kind = texts
    held = np.frombuffer(held_out[texts], np.uint64)
    number = int(is_among(held, np.unique(np.frombuffer(b"".join(parts), np.uint64))).sum())
    where = "train as well" if train == folder else f"train of {train}"
    unit, share = kind.partition(" ")[0], number / len(held)
    return Finding(
        "warning", f"{folder}: {number:,} of {len(held):,} {unit} of eval ({format_share(share)}) stand in {where}"
    )


@beam.typehints.with_input_types(ShardCheck)
@beam.typehints.with_output_types(Finding)
class VerifyShards(beam.PTransform[beam.PCollection[ShardCheck], beam.PCollection[Finding]]):
    """PCollection[ShardCheck] in, PCollection[Finding] out: a problem for each thing that is wrong.

    And a warning for each pair of an eval and a train split that have documents in common, of one dataset or of two.
    Documents of ids are told apart by BOS or EOS; where neither is added, records are compared. The hashes of eval
    are held in memory, 8 bytes a document, and train streams by.

    `shard_checks` makes the checks of a built dataset.

    Args:
        tallies: a folder that workers share, where they note how many tokens they have read; None for none.
        memory: of the files that an earlier run, which was stopped, has found sound; None reads all.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from transforms.arrayrecord.example import encode_ids
        >>> from transforms.arrayrecord.writer import ShardWriter
        >>> folder = tempfile.TemporaryDirectory()
        >>> with ShardWriter(f"{folder.name}/a.arecord") as writer:
        ...     writer.write_many(encode_ids(np.array([5, 6, 7], np.uint32), np.array([0, 2, 3])))
        ...     file = writer.close()
        >>> check = ShardCheck(
        ...     folder.name, "a.arecord", tokens=4, records=2, size=file.bytes, sha256=file.sha256, format="tokens",
        ...     text_column="", max_tokens=2, vocab_size=10, engine="auto",
        ...     tokenizer=TokenizerSpec("", "", bos_token=None, eos_token=None, special_tokens="text"),
        ... )
        >>> with beam.Pipeline() as pipeline:
        ...     findings = pipeline | beam.Create([check]) | VerifyShards()
        ...     shown = findings | beam.Map(lambda found: print(found.kind, found.text.removeprefix(folder.name)))
        problem /a.arecord: 3 tokens, not 4
        >>> folder.cleanup()
    """

    def __init__(self, tallies: str | None = None, memory: Memory | None = None) -> None:
        super().__init__()
        self._tallies, self._memory = tallies, memory

    def expand(self, checks: beam.PCollection[ShardCheck]) -> beam.PCollection[Finding]:
        spread = checks | "SpreadShards" >> beam.Reshuffle()
        held_out = AsDict(
            spread
            | "HashEval" >> beam.ParDo(_HashEval()).with_output_types(tuple[_Texts, bytes])
            | "ByDataset" >> beam.GroupByKey()
            | "Sort" >> beam.MapTuple(_merged).with_output_types(tuple[_Texts, bytes])
        )
        verify = beam.ParDo(_VerifyShard(self._tallies, self._memory), held_out).with_output_types(
            Finding, **{_SHARED: _Shared}
        )
        verified = spread | "Verify" >> verify.with_outputs(_SHARED, main="problems")
        shared = (
            verified[_SHARED]
            | "BySplits" >> beam.GroupByKey()
            | "Count" >> beam.Map(_shared_texts, held_out).with_output_types(Finding)
        )
        return (verified["problems"], shared) | beam.Flatten()
