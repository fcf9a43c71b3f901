"""Plans the files to publish from a dataset's cut, each a whole provisional shard or a part of one."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import posixpath
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from transforms.budget import repeats
from transforms.budget.text_cut import DocumentSpan, TextCut, find_cut, find_last_cut, take_exactly, take_last_exactly
from transforms.budget.token_budget import DatasetCut, ShardCount, ShardSlice, SplitCut, cut_shards
from transforms.building.formats import TextFormat, text_format
from transforms.building.placing import manifest_of_build, remove_other_manifest
from transforms.building.rows import RowsTask
from transforms.building.work_folder import FinalNames, WorkFolder
from transforms.coders import register_json_coder
from transforms.encoding.encoders import Encoder
from transforms.encoding.pool import borrow_encoder
from transforms.errors import BroetchenError
from transforms.recipe.plan import DatasetPlan
from transforms.recipe.spec import DatasetSpec


@register_json_coder
@dataclasses.dataclass(frozen=True)
class PublishTask:
    """One shard file to publish: number `index` of `of` in its split.

    Its content is the whole provisional shard `count`, or the tokens of `piece`, or the documents of `spans`. Where its
    trace has to be written again, `columns` are those of the plan.
    """

    dataset: str
    work_folder: str
    extension: str
    fingerprint: str
    is_text: bool
    split: str
    index: int
    of: int
    count: ShardCount
    piece: ShardSlice | None = None
    spans: tuple[DocumentSpan, ...] = ()
    columns: str = ""

    @property
    def whole(self) -> bool:
        return self.piece is None and not self.spans

    @property
    def end(self) -> int:
        """Tokens of the shard up to where the content ends, or of text documents, one that is cut among them."""
        if self.piece is not None:
            return self.piece.skip + self.piece.take
        if self.spans:
            return max(span.last for span in self.spans)
        return self.count.documents if self.is_text else self.count.tokens

    @property
    def file(self) -> str:
        return f"{self.split}-{self.index:05d}-of-{self.of:05d}.{self.extension}"


@register_json_coder
@dataclasses.dataclass(frozen=True)
class SplitSums:
    """The sums of a cut, by the names of the splits.

    Attributes:
        missing: tokens that the source does not hold.
        put_back: documents that a cut of text has left for the next split.
        once: tokens of those that a training is to read several times, since the source holds no more.
    """

    missing: Mapping[str, int]
    put_back: Mapping[str, int]
    once: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class PublishPlan:
    """The plan of a publication: the tasks, and the sums of the splits.

    `rows` are the shards up to the last one that is used, and those among them that hold nothing. Each task holds the
    count of its shard: they travel one by one, and this as a whole never.
    """

    tasks: tuple[PublishTask, ...]
    rows: tuple[RowsTask, ...]
    sums: SplitSums


def plan_publication(spec: DatasetSpec, plan: DatasetPlan, cut: DatasetCut) -> PublishPlan:
    """Turns the cut of a dataset into the files to publish, and notes their names in the work folder.

    A manifest of another build that lies there is deleted: from now on it would not describe the files beside it.

    Returns:
        a plan of nothing where this very build is finished, as where a runner does a step again after the last.

    Raises:
        BroetchenError: the source is short, and the config does not keep short sources.
    """
    if manifest_of_build(spec.folder, plan.fingerprint) is not None:
        return PublishPlan((), (), SplitSums({}, {}))
    counts = {count.ordinal: count for count in cut.counts}
    contents = _contents(spec, plan, cut.counts, cut.splits)
    missing, once = contents.missing, contents.once
    if any(missing.values()) and spec.on_shortfall == "fail":
        work_folder(spec, plan).write_budgets(spec.budgets, exhausted=True)
        raise BroetchenError(shortfall_message(spec, plan, missing, once))
    tasks = tuple(
        PublishTask(
            spec.name,
            plan.work_folder,
            spec.records.extension,
            plan.fingerprint,
            spec.records.is_text,
            split,
            index,
            len(members),
            counts[ordinal],
            piece,
            spans,
            plan.columns if spec.trace_columns and (piece or spans) else "",
        )
        for split, members in contents.members.items()
        for index, (ordinal, piece, spans) in enumerate(members)
    )
    names = {task.count.ordinal: posixpath.join(spec.folder, task.file) for task in tasks if task.whole}
    work_folder(spec, plan).write_final_names(FinalNames(names))
    remove_other_manifest(spec.folder)
    exhausted = any(missing.values()) or bool(once)
    rows = _rows_tasks(spec, plan, cut.counts, tasks, exhausted=exhausted)
    return PublishPlan(tasks, rows, SplitSums(missing, contents.put_back, once))


def work_folder(spec: DatasetSpec, plan: DatasetPlan) -> WorkFolder:
    """The unfinished work of a dataset's build."""
    return WorkFolder(plan.work_folder, spec.records.extension, plan.fingerprint)


def _rows_tasks(
    spec: DatasetSpec,
    plan: DatasetPlan,
    counts: Sequence[ShardCount],
    tasks: Sequence[PublishTask],
    *,
    exhausted: bool,
) -> tuple[RowsTask, ...]:
    """All shards where the source is exhausted, else those up to the document of the cut."""
    last, used = max(((task.count.ordinal, task.end) for task in tasks), default=(-1, 0))
    rows_tasks, before = [], 0
    for count in counts:
        if count.ordinal > last and not exhausted:
            break
        rows_tasks.append(
            RowsTask(
                spec.name,
                plan.work_folder,
                spec.records.extension,
                plan.fingerprint,
                count,
                before,
                used if count.ordinal == last and not exhausted else None,
                tuple(plan.files[file].row_groups[group].rows for file, group in plan.shards[count.ordinal].row_groups),
            )
        )
        before += count.documents if spec.records.is_text else count.tokens
    return tuple(rows_tasks)


def shortfall_message(
    spec: DatasetSpec, plan: DatasetPlan, missing: Mapping[str, int], once: Mapping[str, int] | None = None
) -> str:
    """Says how many tokens a short source lacks, and what can be done.

    Args:
        once: tokens of the splits that are repeated, as often as the config allows.
    """
    repeated = {
        split: f", though its {tokens:,} are read {spec.max_repeats:g} times (max_repeats)"
        for split, tokens in (once or {}).items()
    }
    short = ", ".join(
        f"{split} lacks {tokens:,} of {spec.budgets[split]:,} tokens{repeated.get(split, '')}"
        for split, tokens in missing.items()
        if tokens
    )
    return (
        f"dataset {spec.name}: the source is exhausted ({len(plan.files)} files): {short}, "
        f"{sum(missing.values()):,} tokens missing in all; nothing of it was published. "
        f"Add source files, lower the budget,{' filter less,' if spec.rows else ''} or set on_shortfall: keep"
        f"{' or a larger max_repeats' * bool(repeated)}"
    )


type _Content = tuple[int, ShardSlice | None, tuple[DocumentSpan, ...]]


@dataclasses.dataclass(frozen=True)
class _Contents:
    """The content of each split: tokens published, tokens missing, and documents that a cut of text put back.

    `once` is that of `SplitSums`.
    """

    members: Mapping[str, list[_Content]]
    missing: Mapping[str, int]
    put_back: Mapping[str, int]
    once: Mapping[str, int] = dataclasses.field(default_factory=dict)


def _contents(
    spec: DatasetSpec, plan: DatasetPlan, shards: Sequence[ShardCount], splits: Sequence[SplitCut]
) -> _Contents:
    if spec.records.is_text:
        contents = _Contents(*_cut_text(spec, plan, shards))
    else:
        counts = {count.ordinal: count for count in shards}
        members = {split.split: [_slice_content(counts, piece) for piece in split.slices] for split in splits}
        contents = _Contents(members, {split.split: split.missing for split in splits}, {})
    exhausted = any(contents.missing.values()) and len(shards) == len(plan.shards)
    if not exhausted or spec.max_repeats == 1 or (whole := _cut_once(spec, plan, shards)) is None:
        return contents
    members, put_back, once = whole
    missing = {
        split: repeats.beyond(budget, once[split], spec.max_repeats) if split in once else 0
        for split, budget in spec.budgets.items()
    }
    return _Contents(members, missing, put_back, once)


class _NoRowsError(Exception):
    """A cut falls into a shard whose rows have no known fate."""

    def __init__(self, ordinal: int) -> None:
        super().__init__(ordinal)
        self.ordinal = ordinal


def _lengths(work: WorkFolder, counts: Mapping[int, ShardCount], ordinal: int) -> npt.NDArray[np.uint32]:
    """Tokens of each document of a shard: uint32 [documents]."""
    if not counts[ordinal].has_rows:
        raise _NoRowsError(ordinal)
    return work.lengths(counts[ordinal])


def shard_that_lacks_rows(spec: DatasetSpec, plan: DatasetPlan, counts: Sequence[ShardCount]) -> int | None:
    """The first shard that was taken over, and that has to be cut, or in which the dataset ends; None without one.

    Args:
        counts: of an unbroken prefix of the shards.
    """
    if all(count.has_rows for count in counts):
        return None
    splits = cut_shards(((count.ordinal, count.tokens) for count in counts), spec.budgets)
    try:
        contents = _contents(spec, plan, counts, splits).members
    except _NoRowsError as found:
        return found.ordinal
    members = [one for of_split in contents.values() for one in of_split]
    last = max((ordinal for ordinal, _, _ in members), default=-1)
    cut = {ordinal for ordinal, piece, spans in members if piece is not None or spans} | {last}
    return next((count.ordinal for count in counts if count.ordinal in cut and not count.has_rows), None)


def _slice_content(counts: Mapping[int, ShardCount], piece: ShardSlice) -> _Content:
    whole = piece.take == counts[piece.ordinal].tokens
    return piece.ordinal, None if whole else piece, ()


def missing_text(spec: DatasetSpec, plan: DatasetPlan, counts: Sequence[ShardCount]) -> int:
    """The tokens that the splits lack when text is cut for them from these shards, past documents without a cut.

    Args:
        counts: of an unbroken prefix of the shards.
    """
    _, missing, _ = _cut_text(spec, plan, counts)
    return sum(missing.values())


def _cut_text(
    spec: DatasetSpec, plan: DatasetPlan, shards: Sequence[ShardCount]
) -> tuple[dict[str, list[_Content]], dict[str, int], dict[str, int]]:
    counts = {count.ordinal: count for count in shards}
    work = work_folder(spec, plan)
    lengths = functools.partial(_lengths, work, counts)

    rest: Sequence[DocumentSpan] = _all_documents(shards)
    contents, missing, put_back = {}, {}, {}
    with borrow_encoder(spec.tokenizer, plan.engine) as encoder:
        cutter = _TextCutter(text_format(spec), lambda ordinal: work.place(counts[ordinal]), encoder)
        for split, budget in spec.budgets.items():
            taken = take_exactly(rest, budget, lengths, cutter.cut)
            rest = taken.rest
            missing[split], put_back[split] = taken.missing, len(taken.put_back)
            contents[split] = _spans_contents(counts, taken.taken)
    return contents, missing, put_back


type _Whole = tuple[dict[str, list[_Content]], dict[str, int], dict[str, int]]


def _cut_once(spec: DatasetSpec, plan: DatasetPlan, shards: Sequence[ShardCount]) -> _Whole | None:
    """Contents of the splits, and documents put back, where all of a source is written once; and the repeated tokens.

    The splits that are held out get their exact tokens, on their side of the train split, which gets all the rest.

    Args:
        shards: counts of all of them.

    Returns:
        None where the source cannot be repeated: it holds nothing but held-out tokens, or in text as much as is
        wanted, without a place where that could be cut off.
    """
    if not spec.records.is_text:
        budgets = repeats.once(spec.budgets, sum(count.tokens for count in shards))
        if budgets is None:
            return None
        counts = {count.ordinal: count for count in shards}
        cut = cut_shards(((count.ordinal, count.tokens) for count in shards), budgets)
        contents = {split.split: [_slice_content(counts, piece) for piece in split.slices] for split in cut}
        return contents, {}, {repeats.REPEATED: budgets[repeats.REPEATED]}
    return _cut_text_once(spec, plan, shards)


def _cut_text_once(spec: DatasetSpec, plan: DatasetPlan, shards: Sequence[ShardCount]) -> _Whole | None:
    counts = {count.ordinal: count for count in shards}
    work = work_folder(spec, plan)
    lengths = functools.partial(_lengths, work, counts)

    names = list(spec.budgets)
    place = names.index(repeats.REPEATED)
    rest: Sequence[DocumentSpan] = _all_documents(shards)
    cuts: dict[str, TextCut] = {}
    with borrow_encoder(spec.tokenizer, plan.engine) as encoder:
        cutter = _TextCutter(text_format(spec), lambda ordinal: work.place(counts[ordinal]), encoder)
        for split in names[:place]:
            cuts[split] = take_exactly(rest, spec.budgets[split], lengths, cutter.cut)
            rest = cuts[split].rest
        for split in reversed(names[place + 1 :]):
            cuts[split] = take_last_exactly(rest, spec.budgets[split], lengths, cutter.cut_last)
            rest = cuts[split].rest
    tokens = sum(span.tokens for span in rest)
    if any(cut.missing for cut in cuts.values()) or not 0 < tokens < spec.budgets[repeats.REPEATED]:
        return None
    contents = {split: _spans_contents(counts, cuts[split].taken if split in cuts else rest) for split in names}
    return contents, {split: len(cut.put_back) for split, cut in cuts.items()}, {repeats.REPEATED: tokens}


def _all_documents(shards: Sequence[ShardCount]) -> list[DocumentSpan]:
    return [DocumentSpan(count.ordinal, 0, count.documents, count.tokens) for count in shards if count.documents]


def _spans_contents(counts: Mapping[int, ShardCount], taken: Sequence[DocumentSpan]) -> list[_Content]:
    return [
        _spans_content(counts[ordinal], tuple(spans))
        for ordinal, spans in itertools.groupby(taken, key=lambda span: span.ordinal)
    ]


def _spans_content(count: ShardCount, spans: tuple[DocumentSpan, ...]) -> _Content:
    whole = spans == (DocumentSpan(count.ordinal, 0, count.documents, count.tokens),)
    return count.ordinal, None, () if whole else spans


class _TextCutter:
    """Cuts single documents of provisional shards, by the encoder that counted them."""

    def __init__(self, texts: TextFormat[Any], place: Callable[[int], str], encoder: Encoder) -> None:
        self._texts, self._place, self._encoder = texts, place, encoder

    def _count(self, text: str) -> int:
        return len(self._encoder.encode(pa.array([text], pa.large_string())).ids)

    def cut(self, span: DocumentSpan, tokens: int) -> tuple[DocumentSpan, DocumentSpan] | None:
        text = self._text(span)
        return self._parts(span, text, find_cut(text, tokens, self._count))

    def cut_last(self, span: DocumentSpan, tokens: int) -> tuple[DocumentSpan, DocumentSpan] | None:
        text = self._text(span)
        return self._parts(span, text, find_last_cut(text, tokens, self._count))

    def _text(self, span: DocumentSpan) -> str:
        return span.part_of(self._texts.text(self._place(span.ordinal), span.first))

    def _parts(self, span: DocumentSpan, text: str, kept: int | None) -> tuple[DocumentSpan, DocumentSpan] | None:
        if kept is None:
            return None
        at = span.start + kept
        return (
            dataclasses.replace(span, tokens=self._count(text[:kept]), stop=at),
            dataclasses.replace(span, tokens=self._count(text[kept:]), start=at),
        )
