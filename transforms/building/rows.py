"""The source in a manifest: rows, left-out rows and texts, up to the document of the cut and no further.

How far beyond it a build has read, depends on its rounds, its engine and on builds before it. The manifest does not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from transforms.budget.token_budget import ShardCount
from transforms.building.placing import manifest_of_build
from transforms.building.quarantine import PublishedQuarantine, publish_quarantine
from transforms.building.work_folder import WorkFolder
from transforms.coders import register_json_coder
from transforms.recipe.spec import DatasetSpec
from transforms.texts import FILTERED, KINDS, combined_hash


@register_json_coder
@dataclasses.dataclass(frozen=True)
class RowsTask:
    """A shard whose rows are to be told of.

    Attributes:
        before: tokens of the shards before it, or in text formats documents.
        used: tokens of it that the dataset holds, or in text formats documents; None for all of its rows.
        group_rows: rows of each of its row groups.
    """

    dataset: str
    work_folder: str
    extension: str
    fingerprint: str
    count: ShardCount
    before: int
    used: int | None
    group_rows: tuple[int, ...]


@register_json_coder
@dataclasses.dataclass(frozen=True)
class ShardRows:
    """The rows of a shard that the dataset has used.

    Attributes:
        rows: of the source, those that were left out among them.
        skipped: those of them that hold no text, by reason.
        filtered: those of them that the filter left out.
        starts: where each of its row groups begins in the dataset's stream; see `SourceEntry`.
        texts: a hash of the texts of each.
        left_out: rows that were left out of each, by reason.
        quarantine: the file that has the left-out rows.
    """

    ordinal: int
    rows: int
    skipped: Mapping[str, int]
    filtered: int
    starts: tuple[int, ...]
    texts: tuple[str, ...]
    left_out: tuple[Mapping[str, int], ...]
    quarantine: PublishedQuarantine | None


def tell_rows(spec: DatasetSpec, task: RowsTask) -> ShardRows | None:
    """Tells of a shard's rows, and puts those that were left out in their final place.

    Returns:
        None where the dataset is finished: its manifest tells.

    Raises:
        BroetchenError: a file of the shard is gone or damaged, or the output cannot be written.
    """
    if manifest_of_build(spec.folder, task.fingerprint) is not None:
        return None
    work = WorkFolder(task.work_folder, task.extension, task.fingerprint)
    if not task.count.has_rows:
        return _told_by_old(spec, task, work)
    rows = work.rows(task.count)
    used = rows if task.used is None else rows[: _rows_within(rows, task.used, is_text=spec.records.is_text)]
    starts, texts, left_out = _groups(used, task.group_rows, task.before, is_text=spec.records.is_text)
    by_kind = _left_out(used)
    filtered = by_kind.pop(FILTERED, 0)
    quarantine = publish_quarantine(spec, work, task.count, sum(by_kind.values()))
    return ShardRows(task.count.ordinal, len(used), by_kind, filtered, starts, texts, left_out, quarantine)


def _told_by_old(spec: DatasetSpec, task: RowsTask, work: WorkFolder) -> ShardRows:
    """The entry of a shard that was taken over: all of it is used, and none is the last of a dataset."""
    count, old = task.count, work.old_shard(task.count)
    starts = tuple(task.before + start for start in old.starts)
    quarantine = publish_quarantine(spec, work, count, sum(count.skipped.values()))
    return ShardRows(
        count.ordinal, count.rows, dict(count.skipped), old.filtered, starts, old.texts, old.left_out, quarantine
    )


def _left_out(rows: npt.NDArray[np.void]) -> dict[str, int]:
    kinds = np.bincount(rows["kind"], minlength=len(KINDS))
    return {kind: int(rows) for kind, rows in zip(KINDS[1:], kinds[1:], strict=True) if rows}


def _rows_within(rows: npt.NDArray[np.void], used: int, *, is_text: bool) -> int:
    """How many rows there are up to the document with which `used` tokens, or documents, are there."""
    documents = np.flatnonzero(rows["kind"] == 0)
    if is_text:
        return int(documents[used - 1]) + 1
    ends = np.cumsum(rows["tokens"][documents], dtype=np.int64)
    return int(documents[np.searchsorted(ends, used)]) + 1


def _groups(
    rows: npt.NDArray[np.void], group_rows: Sequence[int], before: int, *, is_text: bool
) -> tuple[tuple[int, ...], tuple[str, ...], tuple[dict[str, int], ...]]:
    """Start in the stream, hash of the texts, and left-out rows of each row group that begins before `rows` end."""
    documents = rows["kind"] == 0
    amounts = np.cumsum(documents if is_text else rows["tokens"], dtype=np.int64)
    starts, texts, left_out = [], [], []
    first = 0
    for size in group_rows:
        if first >= len(rows):
            break
        members = slice(first, first + size)
        starts.append(before + (int(amounts[first - 1]) if first else 0))
        texts.append(combined_hash(rows["text"][members][documents[members]]))
        left_out.append(_left_out(rows[members]))
        first += size
    return tuple(starts), tuple(texts), tuple(left_out)
