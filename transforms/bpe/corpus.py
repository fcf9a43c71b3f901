"""The parts of a text corpus: datasets that a build has written as text, or parquet files, found and read."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.dataset.manifest import Manifest, manifest_path, read_manifest
from transforms.dataset.reader import ShardReader
from transforms.errors import BroetchenError, UsageError
from transforms.files import storage
from transforms.files.listing import list_files
from transforms.files.untrusted import check_regular
from transforms.parquet.footer import read_footer
from transforms.parquet.row_filter import RowFilter
from transforms.parquet.source_files import expand_sources
from transforms.parquet.texts import read_texts
from transforms.patterns import fixed_folder, is_wild, quoted, unquoted
from transforms.texts import text_buffers

_SUFFIX = ".parquet"


@dataclasses.dataclass(frozen=True)
class TextPart:
    """The documents of one dataset.

    Attributes:
        name: of the dataset.
        paths: the files in the order in which they are read, all parquet (`.parquet` or not) or all ArrayRecord.
        shown: the same files without facts that hold on this machine alone, for manifests.
        text_column: of parquet files; None for ArrayRecord.
        sizes: of the files in bytes.
        text_bytes: about how much text is in it, from the footers; None where only reading would tell.
        rows: which rows of parquet files are wanted, if not all.
    """

    name: str
    paths: tuple[str, ...]
    shown: tuple[str, ...]
    sizes: tuple[int, ...]
    text_column: str | None
    text_bytes: int | None
    rows: RowFilter | None = None

    def batches(self) -> Iterator[tuple[pa.LargeStringArray, Mapping[str, int]]]:
        """Batches of documents, and how many rows were left out of each, by reason.

        Raises:
            BroetchenError: a file is damaged.
        """
        for path, size in zip(self.paths, self.sizes, strict=True):
            if self.text_column is None:
                with ShardReader(path, "text") as shard:
                    for texts in shard.texts():
                        yield texts, {}
            else:
                groups = read_footer(path, size, self.text_column, rows=self.rows).wanted_groups
                for _, batch in read_texts(path, groups, self.text_column, rows=self.rows):
                    yield batch.texts, batch.skipped


def parquet_part(name: str, sources: Mapping[str, str], text_column: str, rows: RowFilter | None = None) -> TextPart:
    """The documents of parquet files.

    Args:
        sources: glob patterns as they are opened, and how each was written.
        rows: which rows are wanted, if not all.

    Raises:
        BroetchenError: a pattern matches nothing; a file is not parquet or has no such column of text.
    """
    found = expand_sources(sources)
    footers = [read_footer(path, size, text_column, rows=rows) for path, size in found]
    shown = [_as_written(path, sources) for path, _ in found]
    return TextPart(
        name,
        tuple(path for path, _ in found),
        tuple(shown),
        tuple(size for _, size in found),
        text_column,
        sum(group.wanted_bytes for footer in footers for group in footer.row_groups),
        rows,
    )


def _as_written(path: str, sources: Mapping[str, str]) -> str:
    """A file's path with the fixed part of the pattern that found it as that was written."""
    for opened, written in sources.items():
        folder = fixed_folder(opened)
        if path.startswith(folder):
            return fixed_folder(written) + path.removeprefix(folder)
    return posixpath.basename(path)


def find_parts(location: str, text_column: str = "text", split: str = "train") -> list[TextPart]:
    """The datasets at a location, in the order of their names.

    Args:
        location: a folder of datasets that were built as text, or one of them; a parquet file or a glob pattern; or a
            folder with parquet files, or with one folder of parquet files for each dataset.
        text_column: of parquet files that no build has written.
        split: of built datasets; those that lack it are left out, and other files where it is not "train".

    Raises:
        BroetchenError: there is nothing, or it is damaged.
        UsageError: it was built as ids.
    """
    is_folder = storage.is_local(location) and os.path.isdir(location)
    if not is_folder and (location.endswith(_SUFFIX) or is_wild(location)):
        if split != "train":
            return []
        return [parquet_part(_name(location), {location: _portable(location)}, text_column)]
    folder = storage.without_slash(location)
    built = _manifests(folder)
    if built:
        parts = [_built_part(path, manifest, split) for path, manifest in built.items()]
        return [part for part in parts if part is not None]
    if split != "train":
        return []
    if list_files(folder, f"*{_SUFFIX}"):
        here = posixpath.join(quoted(folder), f"*{_SUFFIX}")
        return [parquet_part(_name(here), {here: _portable(here)}, text_column)]
    below = [posixpath.dirname(path) for path, _ in list_files(folder, f"*/*{_SUFFIX}")]
    if not below:
        raise BroetchenError(
            f"{location}: no dataset that was built as text, and no parquet files in it or one folder below; name such "
            "a folder, a pattern like corpus/*.parquet, or a mix config (.yaml)"
        )
    return [
        parquet_part(_name(here), {here: f"{quoted(_name(here))}/*{_SUFFIX}"}, text_column)
        for here in (posixpath.join(quoted(one), f"*{_SUFFIX}") for one in dict.fromkeys(below))
    ]


def is_portable(pattern: str) -> bool:
    """Whether a path as somebody wrote it means the same on every machine, or at least next to the same config."""
    return not (storage.is_local(pattern) and posixpath.isabs(pattern))


def _portable(pattern: str) -> str:
    """A pattern without the folders above it, which for local files are this machine's."""
    return posixpath.basename(pattern) if storage.is_local(pattern) else pattern


def _name(location: str) -> str:
    """A name for the files at a location: the last part of its path that has no wildcard."""
    parts = [part for part in location.split("/") if part and not is_wild(part)]
    return unquoted(parts[-1]).removesuffix(_SUFFIX) if parts else "corpus"


def _manifests(folder: str) -> dict[str, Manifest]:
    beside = [posixpath.dirname(path) for path, _ in list_files(folder, "*/manifest.json")]
    folders = [folder] if storage.exists(manifest_path(folder)) else beside
    return {one: manifest for one in folders if (manifest := read_manifest(one))}


def _built_part(folder: str, manifest: Manifest, split: str) -> TextPart | None:
    written = manifest.record_format
    if manifest.holds_ids:
        raise UsageError(
            f"{folder}: was built as ids, which hold no text; build it with records.format: text, or name its source"
        )
    if split not in manifest.splits:
        return None
    shards = manifest.splits[split].shards
    paths = tuple(posixpath.join(folder, shard.file) for shard in shards)
    for path in paths:
        check_regular(path)
    sizes = tuple(shard.bytes for shard in shards)
    shown = tuple(f"{manifest.dataset}/{shard.file}" for shard in shards)
    if written == "text":
        return TextPart(manifest.dataset, paths, shown, sizes, None, None)
    column = manifest.text_column
    footers = [read_footer(path, size, column) for path, size in zip(paths, sizes, strict=True)]
    text_bytes = sum(group.text_bytes for footer in footers for group in footer.row_groups)
    return TextPart(manifest.dataset, paths, shown, sizes, column, text_bytes)


def spread_sample(parts: Iterable[TextPart], sample_bytes: int) -> list[str]:
    """Texts from the beginnings of all parts in turn, `sample_bytes` of UTF-8 or a little more where there are so many.

    Raises:
        BroetchenError: a file is damaged.
    """
    sample: list[str] = []
    size = 0
    streams = [part.batches() for part in parts]
    for batches in itertools.zip_longest(*streams):
        for batch in batches:
            if batch is not None and size < sample_bytes:
                sample += batch[0].to_pylist()
                size += int(pc.sum(pc.binary_length(batch[0])).as_py() or 0)
        if size >= sample_bytes:
            break
    return sample


@dataclasses.dataclass(frozen=True)
class PartCount:
    """The size of the part that was read: documents, and bytes of UTF-8."""

    documents: int
    bytes: int


class TextStream:
    """The documents of some parts, one part after another.

    Args:
        parts: the datasets.
        limits: the most bytes to take of each part, by name; documents are taken in order, and the first that does not
            fit ends its part. None takes all.
    """

    def __init__(self, parts: Sequence[TextPart], limits: Mapping[str, int] | None = None) -> None:
        self._parts, self._limits = parts, limits
        self._texts, self._lengths = hashlib.sha256(), hashlib.sha256()
        self._counts = {part.name: PartCount(0, 0) for part in parts}
        self.skipped: Counter[str] = Counter()

    def __iter__(self) -> Iterator[pa.LargeStringArray]:
        for part in self._parts:
            yield from self._part(part)

    def _part(self, part: TextPart) -> Iterator[pa.LargeStringArray]:
        left = None if self._limits is None else self._limits[part.name]
        for texts, skipped in part.batches():
            self.skipped.update(skipped)
            lengths = pc.binary_length(texts).to_numpy()
            fitting = len(texts) if left is None else int(np.cumsum(lengths).searchsorted(left, side="right"))
            if fitting:
                taken, size = texts.slice(0, fitting), int(lengths[:fitting].sum())
                self._count(part.name, taken, lengths[:fitting], size)
                left = None if left is None else left - size
                yield taken
            if fitting < len(texts):
                return

    def _count(self, name: str, texts: pa.LargeStringArray, lengths: np.ndarray, size: int) -> None:
        data, offsets = text_buffers(texts)
        self._texts.update(data[offsets[0] : offsets[-1]])
        self._lengths.update(lengths.astype("<i8").tobytes())
        count = self._counts[name]
        self._counts[name] = PartCount(count.documents + len(texts), count.bytes + size)

    @property
    def counts(self) -> Mapping[str, PartCount]:
        """The sizes so far of each part."""
        return self._counts

    @property
    def total(self) -> PartCount:
        """The size so far of all parts."""
        counts = self._counts.values()
        return PartCount(sum(count.documents for count in counts), sum(count.bytes for count in counts))

    @property
    def sha256(self) -> str:
        """The hash of the documents read so far in their order, however they lie in files and batches.

        It is the SHA-256 of two digests: of all texts one after another, and of their lengths in bytes as little-endian
        int64.
        """
        return hashlib.sha256(self._texts.digest() + self._lengths.digest()).hexdigest()
