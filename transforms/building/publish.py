"""Publishes a dataset: whole shards are renamed, those at a cut are rewritten, and the manifest comes last."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import posixpath
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from transforms.budget.token_budget import ShardSlice
from transforms.building.cut import PublishPlan, PublishTask
from transforms.building.formats import text_format, token_format
from transforms.building.quarantine import publish_quarantine
from transforms.building.work_folder import WorkFolder
from transforms.coders import register_json_coder
from transforms.dataset.manifest import (
    Manifest,
    QuarantineEntry,
    ShardEntry,
    SourceEntry,
    SplitEntry,
    TokenizerEntry,
    write_manifest,
)
from transforms.encoding.pool import tokenizer_file
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.files.staged import check_space
from transforms.recipe.plan import FORMAT_VERSION, DatasetPlan, byte_deciding_versions
from transforms.recipe.spec import DatasetSpec


@register_json_coder
@dataclasses.dataclass(frozen=True)
class PublishedShard:
    """A shard file under its final name."""

    split: str
    index: int
    file: str
    tokens: int
    documents: int
    records: int
    file_bytes: int
    sha256: str


def publish_shard(spec: DatasetSpec, task: PublishTask) -> PublishedShard:
    """Puts one shard file in its final place, under its final name.

    Raises:
        BroetchenError: the provisional shard is gone or damaged, or the output cannot be written.
    """
    work, count = WorkFolder(task.work_folder, task.extension), task.count
    final = posixpath.join(spec.folder, task.file)
    if task.whole:
        storage.rename(work.shard(count.ordinal), final, size=count.file_bytes)
        return PublishedShard(
            task.split,
            task.index,
            task.file,
            count.tokens,
            count.documents,
            count.records,
            count.file_bytes,
            count.sha256,
        )
    # Written in the work folder and renamed, so that an attempt that dies leaves nothing among the dataset's files.
    rewritten = posixpath.join(task.work_folder, task.file)
    shard = work.shard(count.ordinal)
    # A remote shard is read from a copy.
    check_space(rewritten, count.file_bytes * (1 if storage.is_local(rewritten) else 2))
    if task.piece is not None:
        tokens, documents = task.piece.take, documents_within(work.lengths(count.ordinal), task.piece)
        ids = token_format(spec)
        with ids.writer(rewritten) as records:
            copied = ids.copy(records, shard, task.piece)
            if copied != tokens:
                raise BroetchenError(
                    f"{shard}: gives {copied:,} of {tokens:,} tokens, so it was damaged after it was written; delete "
                    f"the folder {task.work_folder} and build again"
                )
        written = records.close()
    else:
        tokens, documents = (sum(getattr(span, part) for span in task.spans) for part in ("tokens", "documents"))
        texts = text_format(spec)
        with texts.writer(rewritten) as writer:
            texts.copy(writer, shard, task.spans)
        written = writer.close()
    storage.rename(rewritten, final, size=written.bytes)
    return PublishedShard(
        task.split, task.index, task.file, tokens, documents, written.records, written.bytes, written.sha256
    )


def documents_within(lengths: npt.NDArray[np.uint32], piece: ShardSlice) -> int:
    """How many documents have at least one token in `piece`; `lengths` holds the tokens of each document.

    >>> documents_within(np.array([3, 4, 5], np.uint32), ShardSlice(0, skip=2, take=3))
    2
    """
    ends = np.cumsum(lengths)
    starts = ends - lengths
    return int(np.count_nonzero((ends > piece.skip) & (starts < piece.skip + piece.take) & (lengths > 0)))


def finish_dataset(
    spec: DatasetSpec, plan: DatasetPlan, publication: PublishPlan, shards: Iterable[PublishedShard]
) -> Manifest:
    """Writes the manifest once all shards are in place, and removes what unfinished or older builds left.

    Raises:
        BroetchenError: the shards do not add up to the budgets. This cannot happen unless the program is wrong, and
            is checked all the same, before the manifest says that the dataset is whole.
    """
    quarantine = publish_quarantine(spec, WorkFolder(plan.work_folder, spec.records.extension), publication.counts)
    manifest = manifest_of(spec, plan, publication, list(shards), quarantine)
    for name, split in manifest.splits.items():
        if split.tokens + split.missing != split.budget:
            raise BroetchenError(
                f"dataset {spec.name}: {name} holds {split.tokens:,} tokens, not {split.budget - split.missing:,}; "
                "nothing was finished. This is a defect of Brötchen: please report it with the config"
            )
    wanted = {posixpath.join(spec.folder, shard.file) for split in manifest.splits.values() for shard in split.shards}
    found = storage.list_files(posixpath.join(spec.folder, f"*.{spec.records.extension}"))
    storage.delete([path for path, _ in found if path not in wanted])
    storage.delete_temporary(spec.folder)
    write_manifest(spec.folder, manifest)
    storage.delete_tree(spec.work_root)
    return manifest


def manifest_of(
    spec: DatasetSpec,
    plan: DatasetPlan,
    publication: PublishPlan,
    shards: Sequence[PublishedShard],
    quarantine: Sequence[QuarantineEntry],
) -> Manifest:
    """The manifest of a dataset whose shards and left-out rows have been published."""
    tokenizer = tokenizer_file(spec.tokenizer)
    skipped: Counter[str] = Counter()
    used: dict[int, list[int]] = {}
    for count in publication.counts:
        skipped.update(count.skipped)
        for file, group in plan.shards[count.ordinal].row_groups[: count.row_groups]:
            used.setdefault(file, []).append(group)
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
            split: _split_entry(budget, publication, split, [shard for shard in shards if shard.split == split])
            for split, budget in spec.budgets.items()
        },
        skipped=dict(sorted(skipped.items())),
        quarantine=quarantine,
        source=[
            SourceEntry(
                path=spec.shown_path(plan.files[file].path),
                size=plan.files[file].size,
                footer_sha256=plan.files[file].footer_sha256,
                checksum=plan.files[file].checksum,
                row_groups=sorted(groups),
            )
            for file, groups in sorted(used.items())
        ],
        versions={"broetchen": importlib.metadata.version("broetchen"), **byte_deciding_versions(spec)},
    )


def _split_entry(budget: int, publication: PublishPlan, split: str, shards: Sequence[PublishedShard]) -> SplitEntry:
    entries = [
        ShardEntry(
            file=shard.file,
            tokens=shard.tokens,
            documents=shard.documents,
            records=shard.records,
            bytes=shard.file_bytes,
            sha256=shard.sha256,
        )
        for shard in sorted(shards, key=lambda shard: shard.index)
    ]
    return SplitEntry(
        budget=budget,
        tokens=sum(entry.tokens for entry in entries),
        missing=publication.missing[split],
        documents=sum(entry.documents for entry in entries),
        records=sum(entry.records for entry in entries),
        bytes=sum(entry.bytes for entry in entries),
        documents_put_back=publication.put_back.get(split, 0),
        shards=entries,
    )
