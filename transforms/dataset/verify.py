"""Holds finished datasets against their manifests, record by record, with Grain's own reader."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import posixpath
from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
import pyarrow as pa

from transforms.arrayrecord.example import decode_ids, decode_text
from transforms.arrayrecord.records import FEATURE, Format, file_extension
from transforms.coders import register_json_coder
from transforms.dataset.manifest import Manifest, ShardEntry, tokenizer_of
from transforms.dataset.reader import ShardReader
from transforms.encoding.pool import expected_engine, token_counts
from transforms.errors import BroetchenError, one_line
from transforms.files import storage
from transforms.files.errors import explained
from transforms.tokenizer.spec import ChosenEngine, Engine, TokenizerSpec

_BATCH_RECORDS = 256
_MOST_PROBLEMS = 5


@register_json_coder
@dataclasses.dataclass(frozen=True)
class ShardCheck:
    """One shard file, and what is true of it and of each of its records if the dataset is sound."""

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

    @property
    def path(self) -> str:
        return posixpath.join(self.folder, self.file)

    def expected_engine(self) -> ChosenEngine | None:
        """What will probably encode the shard's text; None where it holds ids, or its tokenizer cannot be loaded."""
        with contextlib.suppress(BroetchenError):
            return None if self.format == "tokens" else expected_engine(self.tokenizer, self.engine)
        return None


def shard_checks(folder: str, manifest: Manifest, engine: Engine) -> Iterator[ShardCheck]:
    """What to check of each shard of a dataset."""
    records, spec = manifest.config["records"], tokenizer_of(folder, manifest)
    for split in manifest.splits.values():
        for entry in split.shards:
            yield ShardCheck(
                folder=folder,
                file=entry.file,
                tokens=entry.tokens,
                records=entry.records,
                size=entry.bytes,
                sha256=entry.sha256,
                format=records["format"],
                text_column=manifest.config["dataset"]["text_column"],
                max_tokens=records["max_tokens"],
                vocab_size=manifest.tokenizer.vocab_size,
                tokenizer=spec,
                engine=engine,
            )


def dataset_problems(folder: str, manifest: Manifest) -> list[str]:
    """What is wrong with a dataset as its manifest and its list of files show it, before any record is read."""
    problems = []
    dataset = manifest.config["dataset"]
    extension = file_extension(manifest.config["records"]["format"])
    entries: list[ShardEntry] = []
    for name, split in manifest.splits.items():
        entries += split.shards
        where = f"{folder}: {name}"
        total = sum(entry.tokens for entry in split.shards)
        if total != split.tokens or total + split.missing != split.budget:
            problems.append(
                f"{where} adds up to {total:,} tokens, and the manifest says {split.tokens:,} of {split.budget:,}"
            )
        for part in ("documents", "records", "bytes"):
            found = sum(getattr(entry, part) for entry in split.shards)
            if found != getattr(split, part):
                problems.append(f"{where} adds up to {found:,} {part}, and the manifest says {getattr(split, part):,}")
        expected = [f"{name}-{index:05d}-of-{len(split.shards):05d}.{extension}" for index in range(len(split.shards))]
        if [entry.file for entry in split.shards] != expected:
            problems.append(f"{where} is not a complete set of shards: the manifest names {len(split.shards)}")
    budgets = {name: split.budget for name, split in manifest.splits.items()}
    configured = {"train": dataset["tokens"]} | ({"eval": dataset["eval_tokens"]} if dataset.get("eval_tokens") else {})
    if budgets != configured:
        problems.append(f"{folder}: the manifest's budgets are {budgets}, and its config's {configured}")
    if dataset["on_shortfall"] != "keep" and any(split.missing for split in manifest.splits.values()):
        problems.append(f"{folder}: tokens are missing, and its config does not keep a short source")
    present = {posixpath.basename(path) for path, _ in storage.list_files(posixpath.join(folder, f"*.{extension}"))}
    named = {entry.file for entry in entries}
    problems += [f"{folder}/{file}: missing" for file in sorted(named - present)]
    problems += [f"{folder}/{file}: not in the manifest" for file in sorted(present - named)]
    return problems


def shard_problems(check: ShardCheck) -> list[str]:
    """What is wrong with one shard file: its size, checksum, record count, records and tokens. Empty if it is sound."""
    if not storage.exists(check.path):
        return []  # `dataset_problems` has said so
    try:
        with storage.local_copy(check.path) as local:
            return _file_problems(check, local)
    except BroetchenError as error:
        return [str(error)]


def _file_problems(check: ShardCheck, local: str) -> list[str]:
    with explained(check.path, "read"), open(local, "rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
        size = handle.tell()
    problems = []
    if size != check.size:
        problems.append(f"{check.path}: {size:,} bytes, not {check.size:,}")
    if digest != check.sha256:
        problems.append(f"{check.path}: sha256 {digest}, not {check.sha256}")
    tokens = records = 0
    try:
        for found in _records(check, local):
            if isinstance(found, int):
                tokens += found
            elif len(problems) < _MOST_PROBLEMS:
                problems.append(f"{check.path}: record {records}: {found}")
            records += 1
    except (ValueError, RuntimeError, IndexError, BroetchenError) as error:
        reason = one_line(error) or "no reason is given"
        return [*problems, f"{check.path}: cannot be read after record {records}: {reason}"]
    if records != check.records:
        problems.append(f"{check.path}: {records:,} records, not {check.records:,}")
    if tokens != check.tokens:
        problems.append(f"{check.path}: {tokens:,} tokens, not {check.tokens:,}")
    return problems


def _records(check: ShardCheck, local: str) -> Iterator[int | str]:
    """The tokens of each record, or what is wrong with it."""
    if check.format == "parquet":
        yield from _parquet_rows(check, local)
        return
    # Grain takes a second to import, and only this step needs it.
    import grain.python as grain

    with grain.ArrayRecordDataSource([local]) as source:
        for start in range(0, len(source), _BATCH_RECORDS):
            batch = source.__getitems__(range(start, min(len(source), start + _BATCH_RECORDS)))
            yield from _text_records(check, batch) if check.format == "text" else (_ids_record(check, r) for r in batch)


def _ids_record(check: ShardCheck, record: bytes) -> int | str:
    try:
        ids = decode_ids(record, FEATURE)
    except BroetchenError as error:
        return str(error)
    if not 0 < len(ids) <= check.max_tokens:
        return f"{len(ids):,} ids, not 1 to {check.max_tokens:,}"
    if ids.min() < 0 or ids.max() >= check.vocab_size:
        return (
            f"an id outside the vocabulary: {ids.min()} to {ids.max()}, and the vocabulary ends at {check.vocab_size}"
        )
    return len(ids)


def _text_records(check: ShardCheck, batch: Sequence[bytes]) -> Iterator[int | str]:
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
    counts = token_counts(check.tokenizer, check.engine, pa.array(texts, pa.large_string()))
    for index, tokens in enumerate(counts.tolist()):
        yield problems.get(index, tokens)


def _parquet_rows(check: ShardCheck, local: str) -> Iterator[int]:
    with ShardReader(local, check.format, check.text_column) as shard:
        for texts in shard.texts():
            yield from token_counts(check.tokenizer, check.engine, texts).tolist()


class _VerifyShard(beam.DoFn):
    def process(self, check: ShardCheck) -> Iterator[str]:
        yield from shard_problems(check)


class VerifyShards(beam.PTransform[beam.PCollection[ShardCheck], beam.PCollection[str]]):
    """PCollection[ShardCheck] in, PCollection[str] out: a sentence for each thing that is wrong.

    `shard_checks` makes the checks of a built dataset.

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
        ...     problems = pipeline | beam.Create([check]) | VerifyShards()
        ...     shown = problems | beam.Map(lambda problem: print(problem.removeprefix(folder.name)))
        /a.arecord: 3 tokens, not 4
        >>> folder.cleanup()
    """

    def expand(self, checks: beam.PCollection[ShardCheck]) -> beam.PCollection[str]:
        return (
            checks | "SpreadShards" >> beam.Reshuffle() | "Verify" >> beam.ParDo(_VerifyShard()).with_output_types(str)
        )


def raise_problems(problems: Iterable[str]) -> None:
    """Raises one `BroetchenError` of all the problems, if there are any."""
    if lines := sorted(problems):
        raise BroetchenError("\n".join(lines))
