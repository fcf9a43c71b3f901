"""Writes the files of an exact order into a folder: the schedule, and for each dataset the three indices of MaxText.

`blend.json` comes last; a folder without it is no order. A folder that holds the order already is left as it is.
"""

from __future__ import annotations

import contextlib
import functools
import posixpath
import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pydantic

from launch.blend import samples
from launch.blend.lengths import read_lengths
from launch.blend.npy_file import new_npy
from launch.blend.plan import (
    MANIFEST,
    Blend,
    BlendFile,
    BlendPlan,
    DatasetPlan,
    Split,
    SplitPlan,
    index_folder,
    index_hashes,
    schedule_files,
)
from launch.blend.schedule import phased_order, places
from transforms.errors import BroetchenError, one_line
from transforms.files import storage
from transforms.files.untrusted import parse_json, read_bounded

_MOST_BYTES = 256 << 20
_LAST = "order/last.txt"
_DIGEST = re.compile("[0-9a-f]{16}")


def write_blend(plan: BlendPlan, folder: str) -> Blend:
    """Writes an order, unless it is there.

    Memory is some 12 bytes for each document of the largest dataset, and 4 for each of its sequences.

    Args:
        plan: the order.
        folder: its own, local or gs://….

    Raises:
        BroetchenError: an index of a shard cannot be read, or is of another shard; or a file cannot be written.
    """
    if (found := find_blend(folder)) is not None and found.digest == plan.digest() and _is_whole(found, folder):
        return found
    storage.makedirs(folder)
    files = [file for split, of_split in plan.splits.items() for file in _write_split(plan, split, of_split, folder)]
    blend = Blend(digest=plan.digest(), plan=plan, files=files)
    storage.write_bytes(posixpath.join(folder, MANIFEST), (blend.model_dump_json(indent=1) + "\n").encode())
    return blend


def find_blend(folder: str) -> Blend | None:
    """The order that a folder holds; None where it holds none.

    Raises:
        BroetchenError: its `blend.json` cannot be read, or is damaged.
    """
    path = posixpath.join(folder, MANIFEST)
    if not storage.exists(path):
        return None
    try:
        blend = Blend.model_validate(parse_json(read_bounded(path, _MOST_BYTES)), strict=True)
    except ValueError as error:
        what = error.errors()[0]["msg"] if isinstance(error, pydantic.ValidationError) else str(error)
        raise BroetchenError(
            f"{path}: is not what an order's folder has ({one_line(what)}); delete the folder"
        ) from error
    if blend.digest != blend.plan.digest():
        raise BroetchenError(f"{path}: was changed, as its digest is another; delete the folder")
    return blend


def note_order(run: str, folder: str) -> None:
    """Notes that a run follows the order in `folder`, which is below the run's own."""
    storage.write_bytes(posixpath.join(run, _LAST), f"{posixpath.basename(folder)}\n".encode())


def order_folder(run: str, digest: str) -> str:
    """Where below a run's folder an order of its lies."""
    return posixpath.join(run, "order", digest[:16])


def last_order(run: str) -> str | None:
    """The folder of the order that a run followed since its last start; None where it has none.

    Raises:
        BroetchenError: the note cannot be read, or is none.
    """
    path = posixpath.join(run, _LAST)
    if not storage.exists(path):
        return None
    name = read_bounded(path, 100).decode("ascii", "replace").strip()
    if not _DIGEST.fullmatch(name):
        raise BroetchenError(f"{path}: names no order; start the run again, which writes it")
    return order_folder(run, name)


def _is_whole(blend: Blend, folder: str) -> bool:
    paths = [(posixpath.join(folder, one.file), one.bytes) for one in blend.files]
    return all(storage.exists(path) and storage.size(path) == size for path, size in paths)


def _write_split(plan: BlendPlan, split: Split, of_split: SplitPlan, folder: str) -> Iterator[BlendFile]:
    for one, digest in zip(of_split.datasets, index_hashes(of_split, plan.length, plan.seed), strict=True):
        yield from _write_dataset(plan, split, one, digest, folder)
    names, shape = schedule_files(split), (of_split.sequences,)
    with contextlib.ExitStack() as stack:
        numbers, within = (
            stack.enter_context(new_npy(posixpath.join(folder, name), kind, shape))
            for name, kind in zip(names, ("<i2", "<i8"), strict=True)
        )
        for piece, its_places in places(phased_order(of_split.ends(), of_split.shares()), len(of_split.datasets)):
            numbers.append(piece)
            within.append(its_places)
    for name, array in zip(names, (numbers, within), strict=True):
        yield BlendFile(file=name, bytes=array.bytes, sha256=array.sha256)


def _write_dataset(
    plan: BlendPlan, split: Split, dataset: DatasetPlan, digest: str, folder: str
) -> Iterator[BlendFile]:
    sizes = document_sizes(dataset)
    if (found := int(sizes.sum(dtype=np.int64))) != dataset.tokens:
        raise BroetchenError(
            f"{dataset.folder}: the indices of its {split} shards tell of {found:,} tokens, and its manifest of "
            f"{dataset.tokens:,}; see what broetchen verify says"
        )
    length, count, name = plan.length, dataset.sequences, f"{dataset.name}/{split}"
    in_a_row = samples.streamed(count, dataset.tokens, length)
    passes = samples.passes_laid_out(in_a_row, dataset.tokens, length)
    order = functools.partial(samples.document_orders, len(sizes), passes, plan.seed, name, shuffle=plan.shuffle)
    sequences = samples.sequence_order(count, dataset.tokens, length, plan.seed, name, shuffle=plan.shuffle)
    rows = passes * len(sizes)
    below = index_folder(split, dataset.name)
    storage.makedirs(posixpath.join(folder, below))
    arrays: tuple[tuple[str, str, tuple[int, ...], Iterator[npt.NDArray[np.integer]]], ...] = (
        ("document_index", _signed(len(sizes)), (rows,), order()),
        (
            "sample_index",
            _signed(max(rows, int(sizes.max()))),
            (in_a_row + 1, 2),
            samples.sequence_starts(sizes, order(), in_a_row, length),
        ),
        ("shuffle_index", "<u4" if in_a_row < 2**32 - 1 else "<i8", (count,), sequences),
    )
    for what, kind, shape, pieces in arrays:
        file = f"{below}/{digest}-{what}.npy"
        with new_npy(posixpath.join(folder, file), kind, shape) as array:
            for piece in pieces:
                array.append(piece)
        yield BlendFile(file=file, bytes=array.bytes, sha256=array.sha256)


def _signed(most: int) -> str:
    """The type of numbers up to `most`."""
    return "<i4" if most < 2**31 else "<i8"


def document_sizes(one: DatasetPlan) -> npt.NDArray[np.int32]:
    """The tokens of each document of a dataset, in the order of its shards: int32 [documents].

    Raises:
        BroetchenError: an index cannot be read, or has another number of documents than the manifest says.
    """
    found = np.empty(sum(shard.documents for shard in one.shards), np.int32)
    done = 0
    for shard in one.shards:
        path = posixpath.join(one.folder, f"{shard.stem}.bin")
        found[done : done + shard.documents] = read_lengths(path, 0, shard.documents, shard.documents)
        done += shard.documents
    if len(found) and int(found.min()) < 1:
        raise BroetchenError(f"{one.folder}: a document has no tokens; see what broetchen verify says")
    return found
