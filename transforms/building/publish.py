"""Publishes a dataset: whole shards are renamed, those at a cut are rewritten, and the manifest comes last."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from transforms.budget import repeats
from transforms.budget.token_budget import ShardSlice
from transforms.building.cut import PublishTask, SplitSums
from transforms.building.formats import id_format, text_format
from transforms.building.placing import check_in_place, keep_only, manifest_of_build, put_in_place
from transforms.building.quarantine import PublishedQuarantine
from transforms.building.rows import ShardRows
from transforms.building.trace import publish_trace
from transforms.building.work_folder import WorkFolder, new_attempt
from transforms.checksums import FileMark, mark_of
from transforms.coders import register_json_coder
from transforms.dataset.manifest import (
    FileEntry,
    Manifest,
    QuarantineEntry,
    ShardEntry,
    SourceEntry,
    SplitEntry,
    TokenizerEntry,
    TraceEntry,
    write_manifest,
)
from transforms.dataset.quarantine import quarantine_folder
from transforms.dataset.trace import trace_folder, trace_name
from transforms.encoding.pool import tokenizer_file
from transforms.encoding.special_strings import SpecialDocuments
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.files.staged import check_space
from transforms.megatron.index import index_path, lengths_within
from transforms.megatron.writer import write_index
from transforms.parquet.footer import SourceFile
from transforms.recipe.plan import FORMAT_VERSION, DatasetPlan
from transforms.recipe.spec import DatasetSpec


@register_json_coder
@dataclasses.dataclass(frozen=True)
class PublishedShard:
    """A shard file under its final name; `mark`, `trace` and `id_index` are of it and its own files, as written.

    `with_special` counts the documents that hold the string of a special token; None in ids.
    """

    split: str
    index: int
    file: str
    tokens: int
    documents: int
    records: int
    mark: FileMark
    trace: FileMark | None = None
    id_index: FileMark | None = None
    with_special: int | None = None


def publish_shard(spec: DatasetSpec, task: PublishTask) -> PublishedShard | None:
    """Puts one shard file in its final place, under its final name.

    Returns:
        None where the dataset is finished: its manifest tells.

    Raises:
        BroetchenError: the provisional shard is gone or damaged, or the output cannot be written.
    """
    if manifest_of_build(spec.folder, task.fingerprint) is not None:
        return None
    work, count = WorkFolder(task.work_folder, task.extension, task.fingerprint), task.count
    final, shard = posixpath.join(spec.folder, task.file), work.shard(count.ordinal, count.attempt)
    if task.whole:
        put_in_place(shard, final, count.file)
        documents = count.documents if spec.records.is_text else count.documents - count.without_tokens
        return _published(spec, work, task, count.tokens, documents, count.records, count.file, count.with_special)
    # Written in the work folder and renamed, so that an attempt that dies leaves nothing among the dataset's files.
    rewritten = posixpath.join(task.work_folder, f"{task.file}-{new_attempt()}")
    # A remote shard is read from a copy.
    check_space(rewritten, count.file.bytes * (1 if storage.is_local(rewritten) else 2))
    with_special = None
    if task.piece is not None:
        tokens, documents = task.piece.take, documents_within(work.lengths(count), task.piece)
        ids = id_format(spec)
        with ids.writer(rewritten) as records:
            copied = ids.copy(records, shard, task.piece, documents)
            if copied != tokens:
                raise BroetchenError(
                    f"{shard}: gives {copied:,} of {tokens:,} tokens, so it was damaged after it was written; delete "
                    f"the folder {task.work_folder} and build again"
                )
        written = records.close()
    else:
        tokens, documents = (sum(getattr(span, part) for span in task.spans) for part in ("tokens", "documents"))
        texts, special = text_format(spec), SpecialDocuments(spec.tokenizer)
        with texts.writer(rewritten) as writer:
            texts.copy(writer, shard, task.spans, special.add)
        written, with_special = writer.close(), special.count
    put_in_place(rewritten, final, written.mark)
    return _published(spec, work, task, tokens, documents, written.records, written.mark, with_special)


def _published(
    spec: DatasetSpec,
    work: WorkFolder,
    task: PublishTask,
    tokens: int,
    documents: int,
    records: int,
    mark: FileMark,
    with_special: int | None,
) -> PublishedShard:
    """A shard that has its final name, and its index and trace, which now get their own."""
    id_index, trace = _publish_index(spec, work, task), publish_trace(spec, work, task, records)
    return PublishedShard(
        task.split, task.index, task.file, tokens, documents, records, mark, trace, id_index, with_special
    )


def _publish_index(spec: DatasetSpec, work: WorkFolder, task: PublishTask) -> FileMark | None:
    """Writes the index of a shard in Megatron's format beside it; None in other formats. May be repeated."""
    if spec.records.format != "megatron":
        return None
    count, final = task.count, posixpath.join(spec.folder, index_path(task.file))
    if not count.has_rows:
        content = work.old_index(count)
        storage.write_bytes(final, content)
        return mark_of(content)
    skip, take = (task.piece.skip, task.piece.take) if task.piece else (0, count.tokens)
    return write_index(final, lengths_within(work.lengths(count), skip, take), spec.records.vocab_size)


def documents_within(lengths: npt.NDArray[np.uint32], piece: ShardSlice) -> int:
    """How many documents have at least one token in `piece`; `lengths` holds the tokens of each document.

    >>> documents_within(np.array([3, 4, 5], np.uint32), ShardSlice(0, skip=2, take=3))
    2
    """
    return len(lengths_within(lengths, piece.skip, piece.take))


def finish_dataset(
    spec: DatasetSpec,
    plan: DatasetPlan,
    sums: SplitSums,
    shards: Iterable[PublishedShard],
    rows: Iterable[ShardRows],
) -> Manifest:
    """Writes the manifest once all shards are in place, and removes leftovers of unfinished or older builds.

    Unfinished work is left: a runner may do earlier steps again, and needs it then (`clear_work`).

    Raises:
        BroetchenError: the shards do not add up to the budgets. This cannot happen unless the program is wrong, and
            is checked all the same, before the manifest says that the dataset is whole.
    """
    if (finished := manifest_of_build(spec.folder, plan.fingerprint)) is not None:
        return finished
    shards = list(shards)
    rows = sorted(rows, key=lambda shard: shard.ordinal)
    manifest = manifest_of(spec, plan, sums, shards, rows)
    for name, split in manifest.splits.items():
        expected = sums.once.get(name, split.budget - split.missing)
        if split.tokens != expected:
            raise BroetchenError(
                f"dataset {spec.name}: {name} holds {split.tokens:,} tokens, not {expected:,}; "
                "nothing was finished. This is a defect of Brötchen: please report it with the config"
            )
    marks = {shard.file: shard.mark for shard in shards}
    marks |= {index_path(shard.file): shard.id_index for shard in shards if shard.id_index}
    extensions = tuple(map(".{}".format, spec.records.extensions))
    paths = [path for path in storage.list_marks(spec.folder) if path.endswith(extensions)]
    storage.delete([path for path in paths if posixpath.basename(path) not in marks])
    left_out = {
        posixpath.basename(quarantine.file): quarantine.mark for shard in rows if (quarantine := shard.quarantine)
    }
    traces = {posixpath.basename(trace_name(shard.file)): shard.trace for shard in shards if shard.trace}
    keep_only(quarantine_folder(spec.folder), left_out)
    keep_only(trace_folder(spec.folder), traces)
    storage.delete_temporary(spec.folder)
    check_in_place(spec.folder, marks)
    write_manifest(spec.folder, manifest)
    return manifest


def clear_work(spec: DatasetSpec) -> None:
    """Deletes the unfinished work of a dataset that is finished, and temporary files of killed builds.

    Raises:
        BroetchenError: something cannot be deleted.
    """
    storage.delete_tree(spec.work_root)
    storage.delete_temporary(spec.folder)


def manifest_of(
    spec: DatasetSpec,
    plan: DatasetPlan,
    sums: SplitSums,
    shards: Sequence[PublishedShard],
    rows: Sequence[ShardRows],
) -> Manifest:
    """The manifest of a dataset whose shards and left-out rows have been published.

    Args:
        rows: of all shards up to the document of the cut, in order.
    """
    tokenizer = tokenizer_file(spec.tokenizer)
    skipped: Counter[str] = Counter()
    used: dict[int, list[_UsedGroup]] = {}
    for shard in rows:
        skipped.update(shard.skipped)
        groups = plan.shards[shard.ordinal].row_groups
        for (file, group), start, text, left_out in zip(
            groups, shard.starts, shard.texts, shard.left_out, strict=False
        ):
            used.setdefault(file, []).append(_UsedGroup(group, start, text, left_out))
    return Manifest(
        format_version=FORMAT_VERSION,
        mix=spec.mix,
        dataset=spec.name,
        fingerprint=plan.fingerprint,
        config=spec.config,
        tokenizer=TokenizerEntry(
            path=posixpath.relpath(spec.tokenizer.path, spec.folder),
            sha256=tokenizer.sha256,
            vocab_size=tokenizer.vocab_size,
            bos_id=spec.records.bos_id,
            eos_id=spec.records.eos_id,
            special_tokens=spec.tokenizer.special_tokens,
        ),
        splits={
            split: _split_entry(spec, sums, split, [shard for shard in shards if shard.split == split])
            for split in spec.budgets
        },
        rows=sum(shard.rows for shard in rows),
        skipped=dict(sorted(skipped.items())),
        filtered=sum(shard.filtered for shard in rows),
        quarantine=[_quarantine_entry(shard.quarantine) for shard in rows if shard.quarantine],
        source=[_source_entry(spec, plan.files[file], groups) for file, groups in sorted(used.items())],
        # A plan that has come by a coder has lost the order of its mappings.
        versions={
            "broetchen": importlib.metadata.version("broetchen"),
            **dict(sorted(plan.versions.items(), reverse=True)),
        },
    )


def _quarantine_entry(held: PublishedQuarantine) -> QuarantineEntry:
    return QuarantineEntry(file=held.file, rows=held.rows, bytes=held.mark.bytes, sha256=held.mark.sha256)


@dataclasses.dataclass(frozen=True)
class _UsedGroup:
    """A row group, and its part of `ShardRows`."""

    group: int
    start: int
    text: str
    left_out: Mapping[str, int]


def _source_entry(spec: DatasetSpec, file: SourceFile, used: Iterable[_UsedGroup]) -> SourceEntry:
    groups = sorted(used, key=lambda one: one.group)
    left_out = [dict(sorted(one.left_out.items())) for one in groups]
    entry = SourceEntry(
        path=spec.shown_path(file.path),
        size=file.size,
        footer_sha256=file.footer_sha256,
        checksum=file.checksum,
        row_groups=[one.group for one in groups],
        starts=[one.start for one in groups],
        texts=[one.text for one in groups],
    )
    return entry.model_copy(update={"left_out": left_out}) if any(left_out) else entry


def _with_index(entry: ShardEntry, mark: FileMark | None) -> ShardEntry:
    """The manifest's entry for a shard, with its index if it has one."""
    if mark is None:
        return entry
    index = FileEntry(file=index_path(entry.file), bytes=mark.bytes, sha256=mark.sha256)
    return entry.model_copy(update={"beside": [index]})


def _trace_entry(shard: PublishedShard) -> TraceEntry | None:
    if shard.trace is None:
        return None
    return TraceEntry(file=trace_name(shard.file), bytes=shard.trace.bytes, sha256=shard.trace.sha256)


def _split_entry(spec: DatasetSpec, sums: SplitSums, split: str, shards: Sequence[PublishedShard]) -> SplitEntry:
    entries = [
        _with_index(
            ShardEntry(
                file=shard.file,
                tokens=shard.tokens,
                documents=shard.documents,
                records=shard.records,
                bytes=shard.mark.bytes,
                sha256=shard.mark.sha256,
                trace=_trace_entry(shard),
                documents_with_special_strings=shard.with_special,
            ),
            shard.id_index,
        )
        for shard in sorted(shards, key=lambda shard: shard.index)
    ]
    budget, missing, once = spec.budgets[split], sums.missing[split], sums.once.get(split)
    with_special = sum(shard.with_special or 0 for shard in shards) if spec.records.is_text else None
    return SplitEntry(
        budget=budget,
        tokens=sum(entry.tokens for entry in entries),
        missing=missing,
        passes=None if once is None else repeats.passes(budget, missing, once),
        documents=sum(entry.documents for entry in entries),
        records=sum(entry.records for entry in entries),
        bytes=sum(entry.bytes for entry in entries),
        documents_put_back=sums.put_back.get(split, 0),
        documents_with_special_strings=with_special,
        shards=entries,
    )
