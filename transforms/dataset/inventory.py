"""The files in a dataset's folder: those that are missing, of another size, left over, or of no finished dataset.

And the digest of an output, which stands for all of its manifests.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from transforms.arrayrecord.records import file_extension, file_extensions
from transforms.dataset.consistency import manifest_problems, manifest_warnings, unchecked_of
from transforms.dataset.findings import Finding, size_problem
from transforms.dataset.manifest import MOST_BYTES, NAME, Manifest, manifest_path, tokenizer_of
from transforms.dataset.quarantine import quarantine_folder, quarantine_problems
from transforms.dataset.trace import trace_folder, trace_problems, trace_sizes
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.files.listing import list_files
from transforms.files.untrusted import check_regular, read_bounded

_WORK, _LOCK = ".broetchen", ".broetchen.lock"
_BELOW = ("_quarantine/", "_trace/")
_SHARD = re.compile(r".*-\d{5,}-of-\d{5,}\.(arecord|parquet|bin)")
_TOKENIZER = re.compile(r"tokenizer-[0-9a-f]{12}")


def dataset_problems(folder: str, manifest: Manifest) -> list[str]:
    """The faults of a dataset as its manifest and its list of files show it, before any record is read."""
    problems = manifest_problems(folder, manifest)
    extension = file_extension(manifest.record_format)
    for name, split in manifest.splits.items():
        expected = [f"{name}-{index:05d}-of-{len(split.shards):05d}.{extension}" for index in range(len(split.shards))]
        if [entry.file for entry in split.shards] != expected:
            problems.append(f"{folder}: {name} is not a complete set of shards: the manifest names {len(split.shards)}")
    present = {posixpath.basename(path) for path, _ in list_files(folder, "*")}
    times = Counter(file for file, _ in _named_files(manifest))
    problems += [
        f"{folder}/{file}: stands {number} times in the manifest" for file, number in times.items() if number > 1
    ]
    problems += [f"{folder}/{file}: missing" for file in sorted(times.keys() - present)]
    endings = tuple(map(".{}".format, file_extensions(manifest.record_format)))
    of_shards = {file for file in present if file.endswith(endings)}
    problems += [f"{folder}/{file}: not in the manifest" for file in sorted(of_shards - times.keys())]
    return problems


def _named_files(manifest: Manifest) -> Iterator[tuple[str, int]]:
    """The files of the splits, with their sizes."""
    for split in manifest.splits.values():
        for entry in split.shards:
            yield entry.file, entry.bytes
            for beside in entry.beside:
                yield beside.file, beside.bytes


def size_problems(folder: str, manifest: Manifest) -> list[str]:
    """Which files of a dataset have another size than its manifest says, or are no regular files. None is opened."""
    sizes = dict(list_files(folder, "*"))
    sizes |= list_files(quarantine_folder(folder), "*")
    sizes |= list_files(trace_folder(folder), "*")
    left_out = ((entry.file, entry.bytes) for entry in manifest.quarantine)
    named = [*_named_files(manifest), *left_out, *trace_sizes(manifest)]
    problems = []
    for path, size in ((posixpath.join(folder, file), size) for file, size in named):
        if path not in sizes:
            continue  # `dataset_problems` has said so
        try:
            check_regular(path, within=folder)
        except BroetchenError as error:
            problems.append(str(error))
            continue
        if sizes[path] != size:
            problems.append(size_problem(path, sizes[path], size))
    return problems


def quick_findings(folder: str, manifest: Manifest) -> Iterator[Finding]:
    """The findings about a dataset by names, sizes and its manifest alone."""
    problems = [*dataset_problems(folder, manifest), *quarantine_problems(folder, manifest)]
    problems += [*trace_problems(folder, manifest), *size_problems(folder, manifest)]
    try:
        tokenizer = tokenizer_of(folder, manifest).path
        if not storage.exists(tokenizer):
            problems.append(f"{tokenizer}: missing")
    except BroetchenError as error:
        problems.append(str(error))
    yield from (Finding("problem", text) for text in problems)
    yield from (Finding("warning", text) for text in manifest_warnings(folder, manifest))
    yield from (Finding("unchecked", text) for text in unchecked_of(folder, manifest))


def leftovers(output: str, manifests: Mapping[str, Manifest]) -> list[str]:
    """The files at an output that belong to no finished dataset there; none of them is read.

    Args:
        output: a folder of datasets, or the one dataset of `manifests`.
        manifests: by folder.
    """
    below: dict[str, list[str]] = {}
    lines = []
    for path, _ in list_files(output):
        folder, _, inside = path.removeprefix(output).lstrip("/").partition("/")
        if output in manifests:
            below.setdefault(output, []).append(posixpath.join(folder, inside) if inside else folder)
        elif inside:
            below.setdefault(posixpath.join(output, folder), []).append(inside)
        elif folder == _LOCK:
            lines.append(f"{path}: a build is at work here, or was killed; what it writes may not be verified yet")
        elif storage.is_temporary(folder):
            lines.append(_killed(path))
    for folder, files in sorted(below.items()):
        manifest = manifests.get(folder)
        lines += _without_manifest(folder, files) if manifest is None else _beside_manifest(folder, files, manifest)
    return lines


def _killed(path: str) -> str:
    return f"{path}: left by a writer that was killed; delete it when no build is at work"


def _beside_manifest(folder: str, files: Sequence[str], manifest: Manifest) -> Iterator[str]:
    endings = tuple(map(".{}".format, file_extensions(manifest.record_format)))
    known = {NAME, *(file for file, _ in _named_files(manifest)), *(entry.file for entry in manifest.quarantine)}
    known |= {file for file, _ in trace_sizes(manifest)}
    if work := [file for file in files if file.startswith(f"{_WORK}/")]:
        yield (
            f"{folder}/{_WORK}: unfinished work ({len(work):,} files) beside a finished dataset; it goes with the next "
            "build here, or delete it"
        )
    for file in files:
        if file in known or file.startswith(f"{_WORK}/"):
            continue
        if storage.is_temporary(posixpath.basename(file)):
            yield _killed(f"{folder}/{file}")
        elif not file.endswith(endings) and not file.startswith(_BELOW):  # which are problems
            yield f"{folder}/{file}: not of the dataset"


def _without_manifest(folder: str, files: Sequence[str]) -> Iterator[str]:
    if any(file.startswith(f"{_WORK}/") for file in files):
        yield f"{folder}: no dataset yet, since it has unfinished work and no {NAME}; run its build again"
    elif shards := sum(_SHARD.fullmatch(file) is not None for file in files):
        yield f"{folder}: no dataset, since its {shards:,} shards have no {NAME}; nothing of it was verified"
    for file in files:
        if posixpath.basename(file) == NAME and "/" in file:
            yield f"{folder}/{file}: a dataset further down, which was not verified; name its folder to do it"
        elif _TOKENIZER.fullmatch(posixpath.basename(folder)) and storage.is_temporary(file):
            yield _killed(f"{folder}/{file}")


def output_digest(folders: Iterable[str]) -> str:
    """One SHA-256 that stands for all the manifests of an output, and so for all that they name by checksum.

    It is the result of `sha256sum */manifest.json | sha256sum` in the output's folder, with names in the order of their
    bytes (`LC_ALL=C`).

    Args:
        folders: of the finished datasets.

    Raises:
        BroetchenError: a manifest cannot be read.
    """
    files = sorted((f"{posixpath.basename(folder)}/{NAME}".encode(), manifest_path(folder)) for folder in folders)
    lines = [
        hashlib.sha256(read_bounded(path, MOST_BYTES)).hexdigest().encode() + b"  " + name + b"\n"
        for name, path in files
    ]
    return hashlib.sha256(b"".join(lines)).hexdigest()
