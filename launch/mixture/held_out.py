"""Overlaps between datasets of a mixture: one holds out row groups that another trains on, of the same files.

A manifest says of each row group where it begins in the dataset's stream, in tokens or, of text, in documents, and the
splits are parts of that stream. So two datasets of which a file is the same are compared row group by row group.
Copies of texts in other files are not found: `verify` looks for those.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from transforms.dataset.consistency import stream_length, stream_order
from transforms.dataset.manifest import Manifest

# Keys of a dataset's config that decide the documents of a row group.
_DOCUMENTS = ("text_column", "filters", "exclude")

Group = tuple[int, str, int]
"""A row group: the size of its file, the hash of that file's footer, and its number in the file."""


@dataclasses.dataclass(frozen=True)
class Overlap:
    """Documents that a dataset holds out and another one trains on.

    Attributes:
        held_out, trained: the names of the two.
        amount: how much of it, in `unit` of the first; where that is not `sure`, at most.
        path: one of the source files, of `files`.
    """

    held_out: str
    trained: str
    amount: int
    unit: str
    sure: bool
    path: str
    files: int

    def __str__(self) -> str:
        source = f"{self.path} and {self.files - 1:,} more files" if self.files > 1 else self.path
        amount = f"{self.amount:,} {self.unit}"
        stand = (
            f"{amount} that {self.held_out} holds out stand"
            if self.sure
            else (f"up to {amount} that {self.held_out} holds out may stand")
        )
        return f"{stand} in the train split of {self.trained}, of one source ({source})"


@dataclasses.dataclass(frozen=True)
class _Part:
    """The part of a row group in a split: from `first` to `last` of its tokens or documents, or `all` of it.

    `last` is excluded.
    """

    path: str
    first: int
    last: int
    all: bool


def held_out_in_train(manifests: Mapping[str, Manifest]) -> list[Overlap]:
    """The overlaps of each pair of datasets, of which one holds out row groups that the other trains on.

    Manifests of format version 1 do not tell enough to find any.

    Args:
        manifests: by the names of the datasets.
    """
    held = {name: _parts(manifest, "eval") for name, manifest in manifests.items()}
    trained = {name: _parts(manifest, "train") for name, manifest in manifests.items()}
    pairs = ((name, other) for name in manifests for other in manifests if name != other)
    return [
        found
        for name, other in pairs
        if (found := _overlap(name, manifests[name], held[name], other, manifests[other], trained[other]))
    ]


def _overlap(
    name: str,
    manifest: Manifest,
    held: Mapping[Group, _Part],
    other: str,
    other_manifest: Manifest,
    trained: Mapping[Group, _Part],
) -> Overlap | None:
    comparable = _stream(manifest) == _stream(other_manifest)
    same_documents = _documents(manifest) == _documents(other_manifest)
    sure = doubtful = 0
    paths: list[str] = []
    for group in held.keys() & trained.keys():
        one, there = held[group], trained[group]
        shared = min(one.last, there.last) - max(one.first, there.first) if comparable else one.last - one.first
        if shared <= 0:
            continue
        paths.append(one.path)
        if comparable or (there.all and same_documents):
            sure += shared
        else:
            doubtful += shared
    # Of text it is not sure which document a split begins with.
    doubt = (
        0 if _unit(manifest) == "tokens" else max(_doubtful_documents(manifest), _doubtful_documents(other_manifest))
    )
    if sure + doubtful <= doubt:
        return None
    certain = sure > doubt
    return Overlap(
        name, other, sure if certain else sure + doubtful, _unit(manifest), certain, min(paths), len(set(paths))
    )


def _unit(manifest: Manifest) -> str:
    return "tokens" if manifest.holds_ids else "documents"


def _doubtful_documents(manifest: Manifest) -> int:
    return len(manifest.splits) - 1 + sum(split.documents_put_back for split in manifest.splits.values())


def _documents(manifest: Manifest) -> tuple[object, ...]:
    return tuple(manifest.config["dataset"].get(key) for key in _DOCUMENTS)


def _stream(manifest: Manifest) -> tuple[object, ...]:
    """Two datasets that have this alike have the same token, or document, at the same place of a row group."""
    if _unit(manifest) == "documents":
        return "documents", _documents(manifest)
    tokenizer = manifest.tokenizer
    ids = tokenizer.sha256, tokenizer.special_tokens, tokenizer.bos_id, tokenizer.eos_id
    return "tokens", _documents(manifest), *ids


def _parts(manifest: Manifest, split: str) -> dict[Group, _Part]:
    return dict(_each_part(manifest, split))


def _each_part(manifest: Manifest, split: str) -> Iterator[tuple[Group, _Part]]:
    """The row groups of which a split has something, and what."""
    begin, end = _place(manifest, split)
    if begin == end:
        return
    # Of several that begin at one place, the last takes something.
    order = stream_order(manifest.source)
    stops = [one.start for one in order[1:]] + [stream_length(manifest)]
    for one, stop in zip(order, stops, strict=False):
        first, last = max(one.start, begin), min(stop, end)
        if first < last:
            entry = manifest.source[one.entry]
            # Of the last one it is not known how much of it is not in the dataset.
            whole = (first, last) == (one.start, stop) and one is not order[-1]
            yield (
                (entry.size, entry.footer_sha256, one.group),
                _Part(one.path, first - one.start, last - one.start, whole),
            )


def _place(manifest: Manifest, wanted: str) -> tuple[int, int]:
    """The part of the stream that a split takes; of text, about."""
    position = 0
    for name, split in manifest.splits.items():
        size = split.tokens if _unit(manifest) == "tokens" else split.documents
        if name == wanted:
            return position, position + size
        position += size
    return 0, 0
