"""Takes over the shards that a dataset of another size has finished (`build --grow`): links or copies, checked.

A shard that is taken over lies in the unfinished work like one that was tokenized, so that a build goes on in the same
way, and after a kill as well. The fate of each row of its source is not known. So one that is to be
cut, or in which the dataset ends, is tokenized all the same (`transforms.building.cut.shard_that_lacks_rows`).

On a local disk a file is a hard link to the old one, and its content is read and compared by SHA-256. In a bucket it
is the store's own copy, of which the size is compared with the manifest, and the CRC32C with the old object's.
"""

from __future__ import annotations

import logging
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pyarrow as pa

from transforms.budget.token_budget import TAKEN_OVER, ShardCount
from transforms.building.trace import chosen_fields
from transforms.building.work_folder import WorkFolder, new_attempt
from transforms.checksums import FileMark
from transforms.dataset.manifest import Manifest, SplitEntry, read_manifest
from transforms.dataset.reader import ShardReader
from transforms.dataset.trace import trace_schema
from transforms.encoding.special_strings import SpecialDocuments
from transforms.errors import BroetchenError, UsageError
from transforms.files import storage
from transforms.files.untrusted import check_regular
from transforms.parquet.columns import decode_schema
from transforms.parquet.shard import read_columns
from transforms.recipe.old_shards import differences, rows_are_told, source_differences, whole_shards
from transforms.recipe.plan import DatasetPlan
from transforms.recipe.shard_plan import OldFile, OldShard, ShardTask
from transforms.recipe.spec import DatasetSpec

_LOGGER = logging.getLogger(__name__)

_INSTEAD = "build it without --grow, or name another output"


def check_old_output(specs: Iterable[DatasetSpec]) -> None:
    """Checks, before anything is planned, whether datasets can be grown from those of an old output, by their configs.

    Warns of datasets that the old output does not have, and of eval tokens of it that are to be trained on.

    Raises:
        UsageError: there is none at all, or they are of another tokenizer or config, or the old output is also the new
            one, or below it, or above it; the message has a line for each dataset.
        BroetchenError: a manifest is damaged.
    """
    grown = [spec for spec in specs if spec.grow is not None]
    for spec in grown:
        _check_apart(spec.grow or "", spec.output)
    manifests = {spec.name: _old_manifest(spec) for spec in grown}
    # A finished dataset no longer needs the old output, which its owner may have deleted.
    unfinished = [spec for spec in grown if read_manifest(spec.folder) is None]
    if unfinished and not any(manifests.values()):
        names = ", ".join(manifests)
        raise UsageError(f"--grow {grown[0].grow}: holds no finished dataset {names}; check the path, or {_INSTEAD}")
    wrong = [
        _unusable(spec, found) for spec in grown if (old := manifests[spec.name]) and (found := differences(old, spec))
    ]
    if wrong:
        raise UsageError("\n".join(wrong))
    for spec in grown:
        if (manifest := manifests[spec.name]) is None and spec in unfinished:
            _LOGGER.warning("dataset %s: %s does not have it, so it is built from nothing", spec.name, spec.grow)
        elif manifest is not None and (shared := held_out_tokens(manifest.splits, spec.budgets)):
            _LOGGER.warning(
                "dataset %s: %s of the %s eval tokens of %s will be train tokens, so what is trained on them cannot be "
                "measured by the old eval split; eval_position: start keeps the first tokens out for ever",
                spec.name,
                f"{shared:,}",
                f"{manifest.splits['eval'].tokens:,}",
                spec.old_folder,
            )


def _check_apart(old: str, new: str) -> None:
    places = [f"{(os.path.realpath(path) if storage.is_local(path) else path).rstrip('/')}/" for path in (old, new)]
    if places[0].startswith(places[1]) or places[1].startswith(places[0]):
        raise UsageError(
            f"--grow {old}: is not apart from --output {new}; choose an --output elsewhere, since the old one stays"
        )


def _old_manifest(spec: DatasetSpec) -> Manifest | None:
    return None if spec.old_folder is None else read_manifest(spec.old_folder)


def _unusable(spec: DatasetSpec, found: Sequence[str]) -> str:
    return f"{spec.old_folder}: cannot be grown: {'; '.join(found)}; {_INSTEAD}"


def held_out_tokens(old: Mapping[str, SplitEntry], budgets: Mapping[str, int]) -> int:
    """How many tokens of an old dataset's eval split are in the train split of one with these budgets.

    In text formats about as many, where documents were put back.

    Args:
        old: the splits of the old dataset, in the order of the stream.
        budgets: tokens by split of the new one, likewise.
    """
    held, trained = (
        dict(_intervals(sizes)) for sizes in ({name: split.tokens for name, split in old.items()}, budgets)
    )
    (start, end), (begin, stop) = held.get("eval", (0, 0)), trained.get("train", (0, 0))
    return max(0, min(end, stop) - max(start, begin))


def _intervals(sizes: Mapping[str, int]) -> Iterator[tuple[str, tuple[int, int]]]:
    position = 0
    for name, size in sizes.items():
        yield name, (position, position + size)
        position += size


def old_shards(spec: DatasetSpec, plan: DatasetPlan) -> dict[int, OldShard]:
    """The planned shards that the old dataset has whole, by ordinal; none where there is no old dataset.

    Raises:
        BroetchenError: it is not one of the same shards: another config, tokenizer or source.
    """
    manifest = _old_manifest(spec)
    if manifest is None:
        return {}
    found = differences(manifest, spec)
    if not found and not rows_are_told(manifest):
        found = ["rows were left out of it, and its manifest, of an earlier version of Brötchen, does not say where"]
    if found := found or list(source_differences(manifest, spec, plan)):
        raise BroetchenError(_unusable(spec, found))
    return whole_shards(manifest, spec, plan)


def check_old_files(spec: DatasetSpec, plan: DatasetPlan) -> dict[int, OldShard]:
    """Checks by a listing that all files are there, in their sizes, that can be taken over.

    Raises:
        BroetchenError: see `old_shards`; or a file is gone, or has another size.
    """
    old_by_ordinal = old_shards(spec, plan)
    sizes: dict[str, int] = {}
    files = [file for old in old_by_ordinal.values() for file in _files_of(old)]
    for folder in sorted({posixpath.dirname(file.path) for file in files}):
        sizes |= {path: mark.bytes for path, mark in storage.list_marks(folder).items()}
    if spec.with_columns and files:
        _check_columns(files[0], decode_schema(plan.columns))
    if traces := [old.trace for old in old_by_ordinal.values() if old.trace]:
        fields = chosen_fields(spec, plan.columns)
        _check_columns(traces[0], trace_schema(fields, is_text=spec.records.is_text))
    for file in files:
        if sizes.get(file.path) != file.bytes:
            state = f"has {sizes[file.path]:,} bytes" if file.path in sizes else "is gone, or no regular file"
            raise BroetchenError(
                f"{file.path}: {state}, and its manifest says {file.bytes:,} bytes; put it there again, or {_INSTEAD}"
            )
    return old_by_ordinal


def _check_columns(file: OldFile, schema: pa.Schema) -> None:
    """New files may add columns, or widen their types, which the shards and traces of the old ones then have."""
    check_regular(file.path)
    old, new = read_columns(file.path), schema.remove_metadata()
    if old != new:
        names = sorted({field.name for field in {*old} ^ {*new}})
        raise BroetchenError(
            f"{file.path}: has other columns than all files of the source together "
            f"({', '.join(names) or 'their order'}); {_INSTEAD}"
        )


def _files_of(old: OldShard) -> list[OldFile]:
    """All files that are taken over with a shard."""
    return [file for file in (old.file, old.index, old.quarantine, old.trace) if file is not None]


def take_over(spec: DatasetSpec, work: WorkFolder, task: ShardTask, old: OldShard) -> ShardCount:
    """Takes a shard over into the unfinished work, as a finished one. May be repeated.

    Where a manifest of an earlier version does not say how many documents of text hold the string of a special token,
    the shard is read, and they are counted.

    Raises:
        BroetchenError: a file of the old dataset is gone, or not as its manifest says; or it cannot be written here.
    """
    attempt = new_attempt()
    shard = work.shard(task.ordinal, attempt)
    file = _taken(old, old.file, shard)
    with_special = old.with_special
    if with_special is None and spec.records.is_text:
        with_special = _count_special(spec, shard, old.records)
    quarantine = None
    if old.quarantine is not None:
        quarantine = _taken(old, old.quarantine, work.quarantine(task.ordinal, attempt))
    trace = None if old.trace is None else _taken(old, old.trace, work.trace(task.ordinal, attempt))
    if old.index is not None:
        _taken(old, old.index, work.index(task.ordinal, attempt))
    return work.finish(
        ShardCount(
            ordinal=task.ordinal,
            tokens=old.tokens,
            documents=old.documents,
            records=old.records,
            rows=task.rows,
            text_bytes=task.text_bytes,
            skipped=old.skipped,
            attempt=attempt,
            engine=TAKEN_OVER,
            source=task.source,
            file=file,
            row_file=work.write_old_shard(task.ordinal, attempt, old),
            quarantine=quarantine,
            trace=trace,
            with_special=with_special,
        )
    )


def _count_special(spec: DatasetSpec, shard: str, records: int) -> int:
    found = SpecialDocuments(spec.tokenizer)
    with ShardReader(shard, spec.records.format, spec.text_column, expected=records) as reader:
        for texts in reader.texts():
            found.add(texts)
    return found.count


def _taken(old: OldShard, file: OldFile, target: str) -> FileMark:
    """Links or copies a file, and checks it; returns its mark."""
    check_regular(file.path, within=posixpath.dirname(old.manifest))
    mark = _mark(file, target)
    if mark is None:
        storage.delete([target])
        raise BroetchenError(
            f"{file.path}: is not the file that {old.manifest} tells of, by its size or SHA-256; put that one there "
            f"again, or {_INSTEAD}"
        )
    return mark


def _mark(file: OldFile, target: str) -> FileMark | None:
    if storage.is_local(file.path) and not storage.is_local(target):
        # Before it is sent.
        mark = storage.local_mark(file.path)
        if (mark.bytes, mark.sha256) != (file.bytes, file.sha256):
            return None
        storage.duplicate(file.path, target)
        return mark if storage.is_whole(target, mark) else None
    storage.duplicate(file.path, target)
    if storage.is_local(target):
        mark = storage.local_mark(target)
        return mark if (mark.bytes, mark.sha256) == (file.bytes, file.sha256) else None
    found = storage.look(target)
    return FileMark(found.bytes, file.sha256, found.crc32c) if found and found.bytes == file.bytes else None
