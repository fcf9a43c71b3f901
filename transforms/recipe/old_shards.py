"""Which shards of a finished dataset are, whole, shards that a build of another size has planned. Pure arithmetic.

Both are parts of one stream of ids, or of documents in text formats. A manifest says where each row group of the source
begins in it, and how much each of its shards holds; so the part of the stream that a planned shard takes is compared
with those of the published ones. A published shard that is a part of a planned one, as at a cut, is equal to none.
"""

from __future__ import annotations

import dataclasses
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from transforms.dataset.manifest import (
    FileEntry,
    Manifest,
    QuarantineEntry,
    ShardEntry,
    SplitEntry,
    TraceEntry,
    manifest_path,
)
from transforms.dataset.quarantine import quarantine_name
from transforms.megatron.index import index_path
from transforms.recipe.plan import FORMAT_VERSION, DatasetPlan, byte_deciding_versions, fingerprint, shard_config
from transforms.recipe.shard_plan import OldFile, OldShard
from transforms.recipe.spec import DatasetSpec

_MOST_SAID = 100

Group = tuple[int, int]
"""A row group: the index of its file in the plan, and its own in that file."""


def differences(manifest: Manifest, spec: DatasetSpec) -> list[str]:
    """The settings that keep a dataset from having the shards of another size of it, the source left aside.

    Returns:
        a line each, which names a key of the config, or a library.
    """
    if manifest.format_version < FORMAT_VERSION:
        return [f"it was built by an older version of Brötchen (format version {manifest.format_version})"]
    tokenizer, records = manifest.tokenizer, spec.records
    then, now = _keys(shard_config(manifest.config)), _keys(shard_config(spec.config))
    if then.get("dataset.order") == now.get("dataset.order") == "sequential":
        then["seed"] = now["seed"] = None
    pairs = [
        ("the tokenizer's sha256", tokenizer.sha256, spec.tokenizer.sha256),
        ("the BOS id of records.add_bos", tokenizer.bos_id, records.bos_id),
        ("the EOS id of records.add_eos", tokenizer.eos_id, records.eos_id),
        *((_shown_key(key, spec.name), then.get(key), now.get(key)) for key in sorted(then.keys() | now.keys())),
        *(
            (f"the version of {name}", manifest.versions.get(name), version)
            for name, version in byte_deciding_versions(spec).items()
        ),
    ]
    return [
        f"{what} is {_value_text(old)} there, and {_value_text(new)} here" for what, old, new in pairs if old != new
    ]


def _keys(config: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= _keys(value, f"{above}{key}.")
        elif above + key != "dataset.source":
            found[above + key] = value
    return found


def _shown_key(key: str, dataset: str) -> str:
    if key == "special_tokens":
        return "tokenizer.special_tokens"
    return key.replace("dataset.", f"datasets.{dataset}.", 1) if key.startswith("dataset.") else key


def _value_text(value: Any) -> str:
    said = "not set" if value is None else str(value)
    return said if len(said) <= _MOST_SAID else f"{said[:_MOST_SAID]}…"


def source_differences(manifest: Manifest, spec: DatasetSpec, plan: DatasetPlan) -> Iterator[str]:
    """The differences that keep the source of a dataset from being the beginning of the planned one, a line each."""
    indices = {spec.shown_path(file.path): index for index, file in enumerate(plan.files)}
    for entry in manifest.source:
        if entry.path not in indices:
            yield f"its source has {entry.path}, and this one has not"
            return
        file = plan.files[indices[entry.path]]
        if (entry.size, entry.footer_sha256, entry.checksum) != (file.size, file.footer_sha256, file.checksum):
            yield f"its source {entry.path} has changed since"
            return
    if spec.order == "shuffled":
        if fingerprint(dataclasses.replace(spec, config=manifest.config), plan.files) != manifest.fingerprint:
            yield "with order: shuffled, the list of the source's files has to be the same, and it is another"
        return
    then, now = _told_groups(manifest, spec, plan), _planned_groups(plan)
    for old, new in zip(then, [*now, *[None] * len(then)], strict=False):
        if old != new:
            first = "" if new is None else f", and {spec.shown_path(plan.files[new[0]].path)} comes before it here"
            path = spec.shown_path(plan.files[old[0]].path)
            yield f"its source has row group {old[1]} of {path} elsewhere{first}; new files go behind the old ones"
            return


def rows_are_told(manifest: Manifest) -> bool:
    """Whether a manifest says of which row groups rows were left out; an older one with such rows does not."""
    told = sum(sum(rows.values()) for entry in manifest.source for rows in entry.left_out)
    starts = all(entry.starts and entry.texts for entry in manifest.source if entry.row_groups)
    return starts and told == sum(manifest.skipped.values()) + manifest.filtered


@dataclasses.dataclass(frozen=True)
class _Told:
    """The facts about a row group in a manifest."""

    start: int
    text: str
    left_out: Mapping[str, int]


def _told(manifest: Manifest, spec: DatasetSpec, plan: DatasetPlan) -> dict[Group, _Told]:
    indices = {spec.shown_path(file.path): index for index, file in enumerate(plan.files)}
    return {
        (indices[entry.path], group): _Told(start, text, left_out)
        for entry in manifest.source
        for group, start, text, left_out in zip(
            entry.row_groups,
            entry.starts,
            entry.texts,
            entry.left_out or [{}] * len(entry.row_groups),
            strict=True,
        )
    }


def _planned_groups(plan: DatasetPlan) -> list[Group]:
    """The row groups that have rows; a manifest leaves out others at the end of a shard."""
    return [group for shard in plan.shards for group in shard.row_groups if _rows(plan, group)]


def _rows(plan: DatasetPlan, group: Group) -> int:
    file, index = group
    groups = plan.files[file].row_groups
    return groups[index].rows if index < len(groups) else 0


def _told_groups(manifest: Manifest, spec: DatasetSpec, plan: DatasetPlan) -> list[Group]:
    """The row groups of a dataset that have rows, as they follow each other in its stream."""
    told = _told(manifest, spec, plan)
    place = {group: number for number, group in enumerate(_planned_groups(plan))}
    # Of row groups with one start all but one hold nothing of the dataset; they keep the order of the plan.
    return sorted((group for group in told if group in place), key=lambda group: (told[group].start, place[group]))


def whole_shards(manifest: Manifest, spec: DatasetSpec, plan: DatasetPlan) -> dict[int, OldShard]:
    """The planned shards that a dataset has whole, by ordinal.

    The last of its stream is none: the dataset may end within it.

    Args:
        manifest: of a dataset of which neither `differences` nor `source_differences` finds something, and of which
            `rows_are_told`.
        plan: of this build.
    """
    told, order = _told(manifest, spec, plan), _told_groups(manifest, spec, plan)
    starts = [told[group].start for group in order]
    intervals = sure_intervals(list(manifest.splits.values()), is_text=spec.records.is_text)
    held = {(start, end): entry for entry, start, end in intervals}
    quarantined = {posixpath.basename(entry.file): entry for entry in manifest.quarantine}
    whole: dict[int, OldShard] = {}
    first = 0
    for shard in plan.shards:
        last = first + sum(1 for group in shard.row_groups if _rows(plan, group))
        if last >= len(starts):
            break
        entry = held.get((starts[first], starts[last])) if starts[first] < starts[last] else None
        if entry is not None and _has_its_files(entry, spec):
            groups = shard.row_groups[: 1 + max(i for i, group in enumerate(shard.row_groups) if _rows(plan, group))]
            bad_rows = quarantined.get(quarantine_name(shard.ordinal))
            if old := _old_shard(spec, entry, [told.get(group) for group in groups], starts[first], bad_rows):
                whole[shard.ordinal] = old
        first = last
    return whole


def _has_its_files(entry: ShardEntry, spec: DatasetSpec) -> bool:
    """Whether the files beside a shard are those of a dataset of this build, and no others."""
    index = [index_path(entry.file)] if spec.records.format == "megatron" else []
    return [file.file for file in entry.beside] == index and (entry.trace is not None) == spec.trace


def _old_shard(
    spec: DatasetSpec, entry: ShardEntry, groups: list[_Told | None], start: int, bad_rows: QuarantineEntry | None
) -> OldShard | None:
    """The shard as it is taken over; None where the manifest contradicts itself."""
    known = [group for group in groups if group is not None]
    folder = spec.old_folder
    assert folder is not None
    old = OldShard(
        manifest=manifest_path(folder),
        file=_old_file(folder, entry),
        tokens=entry.tokens,
        documents=entry.documents,
        records=entry.records,
        starts=tuple(group.start - start for group in known),
        texts=tuple(group.text for group in known),
        left_out=tuple(group.left_out for group in known),
        quarantine=OldFile(posixpath.join(folder, bad_rows.file), bad_rows.bytes, bad_rows.sha256)
        if bad_rows
        else None,
        trace=_old_file(folder, entry.trace) if entry.trace else None,
        index=_old_file(folder, entry.beside[0]) if entry.beside else None,
        with_special=entry.documents_with_special_strings if spec.records.is_text else None,
    )
    kept = Counter(bad_rows.rows if bad_rows else {})
    wanted = Counter(old.skipped if spec.on_bad_rows == "quarantine" else {})
    return old if len(known) == len(groups) and kept == wanted else None


def _old_file(folder: str, entry: FileEntry | ShardEntry | QuarantineEntry | TraceEntry) -> OldFile:
    return OldFile(posixpath.join(folder, entry.file), entry.bytes, entry.sha256)


def sure_intervals(splits: Sequence[SplitEntry], *, is_text: bool) -> Iterator[tuple[ShardEntry, int, int]]:
    """Shards with the part of the stream that each holds if it is a whole planned one: (shard, start, end).

    In ids that is exact. In text, a document that was cut counts in both splits, and those that were put back are
    elsewhere: of a shard there may be two intervals, of which at most one is that of a planned shard, if it is whole,
    and none otherwise. For that, shards that hold no more documents than those that are in doubt are left out, and so
    is the last of each split, since the document in which it ends may be cut.

    Args:
        splits: in the order of the stream; of text, those after the second are left out.
    """
    if not is_text:
        position = 0
        for split in splits:
            for entry in split.shards:
                yield entry, position, position + entry.tokens
                position += entry.tokens
        return
    for split, (begin, ahead, doubts) in zip(splits, _text_places(splits), strict=False):
        for documents in ahead:
            position = begin - documents
            for entry in split.shards[:-1]:
                if position >= begin and entry.documents > doubts:
                    yield entry, position, position + entry.documents
                position += entry.documents


def _text_places(splits: Sequence[SplitEntry]) -> Iterator[tuple[int, tuple[int, ...], int]]:
    """For the first two splits: where the part begins that no split before has touched, how many documents may be ahead
    of it in the split, and how many may be missing or counted twice."""
    first, put_back = splits[0], splits[0].documents_put_back
    # Of a source that is written once, documents that the later splits put back stand at the end of the first.
    back_from_later = sum(split.documents_put_back for split in splits[1:]) if first.passes is not None else 0
    yield 0, (0,), put_back + back_from_later
    if len(splits) > 1:
        # All documents but those put back; of the last one the end, if it was cut, leads the second split.
        touched = first.documents + put_back
        yield touched, (put_back, put_back + 1), 1 + splits[1].documents_put_back
