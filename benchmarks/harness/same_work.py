"""Reads the output of the contenders, and checks that they did the same work.

The plain loop's files, in order, are the corpus as one stream of ids, and where the plain loop encodes otherwise than
`tokenizers`, DataTrove's are. Held against it:

* DataTrove's files hold that stream;
* ``build``'s shards hold its first ``budget`` ids;
* the Beam pipeline, which keeps no order, wrote the same records, each as often as the plain loop did.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from array_record.python.array_record_module import ArrayRecordReader
from maxtext.input_pipeline.protos import example_pb2

RECORDS_AT_ONCE = 4096
IDS_AT_ONCE = 1 << 22

Ids = npt.NDArray[np.uint32]
# Ids in order, piece by piece, each with the serialized records that it comes from, where there are records.
Content = Iterator[tuple[Ids, Sequence[bytes]]]
# Of each parquet file, by its name, the tokens of its row groups in turn, EOS included.
RowGroupTokens = Mapping[str, Sequence[int]]


class WrongWork(RuntimeError):
    """A contender wrote something else than the reference."""


def array_records(paths: Sequence[Path]) -> Content:
    """The records of ArrayRecord files, in order; each a ``tf.train.Example`` with ids in its feature ``text``."""
    for path in paths:
        reader = ArrayRecordReader(str(path))
        try:
            for start in range(0, reader.num_records(), RECORDS_AT_ONCE):
                records = reader.read(start, min(start + RECORDS_AT_ONCE, reader.num_records()))
                yield np.concatenate([_ids(record) for record in records]), records
        finally:
            reader.close()


def _ids(record: bytes) -> Ids:
    features = example_pb2.Example.FromString(record).features.feature
    return np.array(features["text"].int64_list.value, dtype=np.uint32)


def datatrove_files(folder: Path) -> Content:
    """DataTrove's ``.ds`` files in the order of their tasks; the metadata beside each names the bytes of an id."""
    for path in sorted(folder.glob("*.ds")):
        token_size = path.with_name(f"{path.name}.metadata").read_text().splitlines()[0].rpartition("|")[2]
        ids = np.memmap(path, dtype=f"<u{token_size}", mode="r")
        for start in range(0, len(ids), IDS_AT_ONCE):
            yield ids[start : start + IDS_AT_ONCE].astype(np.uint32), ()


def datatrove_row_groups(folder: Path, files: Sequence[Path]) -> RowGroupTokens:
    """The tokens of each row group, from DataTrove's indices of where documents end; each file was a task of its own.

    Raises:
        WrongWork: documents are missing.
    """
    counts = {}
    for path, index in zip(files, sorted(folder.glob("*.ds.index")), strict=True):
        ends = np.fromfile(index, "<u8").astype(np.int64)
        metadata = pq.read_metadata(path)
        last = np.cumsum([metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]) - 1
        if last[-1] != len(ends) - 1:
            raise WrongWork(f"datatrove: wrote {len(ends)} of the {last[-1] + 1} documents of {path.name}")
        counts[path.name] = np.diff(ends[last], prepend=0).tolist()
    return counts


@dataclass(frozen=True)
class Work:
    """The ids that a contender wrote.

    Attributes:
        tokens: number of ids.
        digest: SHA-256 of the ids as little-endian uint32.
        prefix_digest: the same of the first ``prefix`` ids.
        records_digest: the sum of the records' digests, which no order changes.
    """

    tokens: int
    digest: str
    prefix_digest: str
    records_digest: int


def read_work(content: Content, prefix: int = 0) -> Work:
    """Read a contender's output."""
    whole, first = hashlib.sha256(), hashlib.sha256()
    tokens = records_digest = 0
    for ids, records in content:
        whole.update(ids.astype("<u4"))
        if tokens < prefix:
            first.update(ids[: prefix - tokens].astype("<u4"))
        tokens += len(ids)
        for record in records:
            records_digest += int.from_bytes(hashlib.blake2b(record, digest_size=16).digest(), "little")
    return Work(tokens, whole.hexdigest(), first.hexdigest(), records_digest % (1 << 128))


@dataclass(frozen=True)
class Reference:
    """The work that the others are compared with, and the budget that follows from it.

    Attributes:
        work: all that the first contender wrote; its prefix is the budget.
        budget: tokens that ``build`` is to write.
        needed_bytes: stored bytes of the text column in the row groups that hold the whole corpus.
        budget_needed_bytes: of those that hold the first ``budget`` ids.
    """

    work: Work
    budget: int
    needed_bytes: int
    budget_needed_bytes: int


def make_reference(
    content: Content, counts: RowGroupTokens, row_groups: Sequence[tuple[Path, int, int]], budget_share: float
) -> Reference:
    """The reference from the first contender's output and counts and the corpus' row groups (file, index, bytes)."""
    budget = max(1, int(sum(map(sum, counts.values())) * budget_share))
    needed = budget_needed = before = 0
    for path, row_group, size in row_groups:
        needed += size
        budget_needed += size if before < budget else 0
        before += counts[path.name][row_group]
    return Reference(read_work(content, prefix=budget), budget, needed, budget_needed)


def check(name: str, work: Work, stated_tokens: int | None, reference: Reference) -> None:
    """Compare a contender's work with the tokens that it states itself, if it does, and with the reference.

    Raises:
        WrongWork: it differs.
    """
    if stated_tokens not in (None, work.tokens):
        raise WrongWork(f"{name}: its files hold {work.tokens} tokens, it says {stated_tokens}")
    wanted = reference.budget if name == "build" else reference.work.tokens
    if work.tokens != wanted:
        raise WrongWork(f"{name}: wrote {work.tokens} tokens instead of {wanted}")
    if name == "build":
        same = work.digest == reference.work.prefix_digest
    elif name == "beam":
        same = work.records_digest == reference.work.records_digest
    else:
        same = work.digest == reference.work.digest
    if not same:
        raise WrongWork(f"{name}: wrote as many tokens as it should, but not the same ones as the first contender")
