"""Whether the shards of a mixture lie where their manifests say, by one listing of each dataset's folder.

MaxText expands a pattern of paths and trains on all files that it finds: one that is missing shortens the run, one too
many is trained on, and one that was cut short stops it in the middle. Names and sizes are compared, nothing is opened;
`broetchen verify` reads the files themselves.
"""

from __future__ import annotations

import fnmatch
import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from launch.mixture.datasets import Component, Mixture
from launch.mixture.file import shard_pattern
from transforms.dataset.manifest import Manifest, SplitEntry
from transforms.errors import BroetchenError, listed, without_controls
from transforms.files import storage
from transforms.files.errors import explain_file_errors

# The names that a build gives to shards, and to the files beside them.
_SHARD = re.compile(r"[^.].*-\d{5,}-of-\d{5,}(\.[A-Za-z0-9_]+)+")
_MOST_SAID = 5
_AT_ONCE = 8


def check_shards(mixture: Mixture, splits: Sequence[str]) -> None:
    """Holds the shards of all datasets against their manifests: their names, their sizes, and that there are no others.

    It takes one listing for each dataset; those of stores are asked for side by side.

    Args:
        mixture: the datasets.
        splits: those that are read. Of another one, shards may be missing or short.

    Raises:
        BroetchenError: a shard is missing, has another size, is no regular file, or is of no dataset; or a folder
            cannot be listed.
    """
    folders = [one.folder for one in mixture.components]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(pool.map(_sizes, folders))
    lines = []
    for component, sizes in zip(mixture.components, found, strict=True):
        manifest = mixture.manifests[component.name]
        if problems := list(shard_problems(manifest, [name for name in splits if name in manifest.splits], sizes)):
            lines.append(f"{_name_and_folder(component)}: {listed(problems, _MOST_SAID)}")
    if lines:
        raise BroetchenError(
            f"{'; '.join(lines)}. Delete what is not of a dataset, copy what is missing or cut short again, or build "
            "that dataset again with --overwrite; broetchen verify looks into the files as well"
        )


def _name_and_folder(component: Component) -> str:
    return without_controls(f"{component.name} ({component.folder})")


def shard_problems(manifest: Manifest, splits: Sequence[str], sizes: Mapping[str, int | None]) -> Iterator[str]:
    """The faults of the shards of a dataset, for each of them.

    Args:
        manifest: of the dataset.
        splits: those that are read.
        sizes: of all entries of its folder, in bytes by name; None for one that is no regular file.
    """
    named = {name: dict(_files_of(split)) for name, split in manifest.splits.items()}
    for split in splits:
        for file, expected in named[split].items():
            if file not in sizes:
                yield f"{file} is missing"
            elif (size := sizes[file]) is None:
                yield f"{file} is a link or a folder, and no file"
            elif size != expected:
                yield f"{file} has {size:,} bytes in the place of {expected:,}"
    known = {file for files in named.values() for file in files}
    patterns = [shard_pattern(split, len(manifest.splits[split].shards)) for split in splits]
    for file in sorted(sizes.keys() - known):
        if any(fnmatch.fnmatchcase(file, pattern) for pattern in patterns):
            yield f"{without_controls(file)} is not of the dataset, and would be trained on"
        elif _SHARD.fullmatch(file):
            yield f"{without_controls(file)} is not of the dataset"


def _files_of(split: SplitEntry) -> Iterator[tuple[str, int]]:
    for shard in split.shards:
        yield shard.file, shard.bytes
        for beside in shard.beside:
            yield beside.file, beside.bytes


def _sizes(folder: str) -> dict[str, int | None]:
    """The sizes of the entries of a folder, by name; None for one that is no regular file."""
    if not storage.is_local(folder):
        return {posixpath.basename(path): mark.bytes for path, mark in storage.list_marks(folder).items()}
    with explain_file_errors(folder, "listed"), os.scandir(folder) as entries:
        return {
            entry.name: entry.stat(follow_symlinks=False).st_size if entry.is_file(follow_symlinks=False) else None
            for entry in entries
        }
