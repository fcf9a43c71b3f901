"""How far a build is, from what lies in its output: the same for every runner, and for a build on another machine."""

from __future__ import annotations

import dataclasses
import posixpath
from pathlib import Path
from typing import Literal

from transforms.budget.token_budget import ShardCount
from transforms.building.work_folder import Budgets
from transforms.coders import from_json
from transforms.dataset.manifest import NAME, Manifest, read_manifest
from transforms.errors import BroetchenError, one_line
from transforms.files import storage
from transforms.files.listing import list_files
from transforms.recipe.spec import DatasetSpec

# Until a shard of the dataset is finished, what a token takes in a file; only a progress bar hangs on it.
_TYPICAL_BYTES_PER_TOKEN = 1.7


@dataclasses.dataclass(frozen=True)
class DatasetStatus:
    """`tokens` counts finished shards and, on a local disk, an estimate of the unfinished; at most the budget.

    `taken_over` are those of them that came from another dataset, without any work to speak of (`build --grow`).
    """

    tokens: int
    shards: int
    finished: bool
    taken_over: int = 0


class StatusReader:
    """Reads the status of one dataset again and again; each finished shard's count is fetched once."""

    def __init__(self, spec: DatasetSpec) -> None:
        self._spec = spec
        self._counts: dict[str, ShardCount] = {}

    def read(self) -> DatasetStatus:
        spec = self._spec
        for path, _ in list_files(spec.work_root, "*/shard-*.json"):
            if path not in self._counts:
                self._counts[path] = _read(ShardCount, path)
        taken_over = min(spec.need, sum(count.tokens for count in self._counts.values() if not count.has_rows))
        if (manifest := read_manifest(spec.folder)) is not None:
            done = _finished(manifest)
            return DatasetStatus(done.tokens, done.shards, finished=True, taken_over=taken_over)
        tokens = sum(count.tokens for count in self._counts.values())
        file_bytes = sum(count.file.bytes for count in self._counts.values())
        rate = file_bytes / tokens if tokens and file_bytes else _TYPICAL_BYTES_PER_TOKEN
        expected = tokens + round(self._unfinished_bytes() / rate)
        return DatasetStatus(min(spec.need, expected), len(self._counts), finished=False, taken_over=taken_over)

    def _unfinished_bytes(self) -> int:
        if not storage.is_local(self._spec.work_root):
            return 0
        total = 0
        for path in Path(self._spec.work_root).glob("*/.shard-*"):
            try:
                total += path.stat().st_size
            except FileNotFoundError:  # finished meanwhile
                continue
        return total


State = Literal["tokenizing", "publishing", "finished", "failed: source exhausted"]


@dataclasses.dataclass(frozen=True)
class DatasetProgress:
    """How far one dataset of an output is.

    Attributes:
        wanted: tokens of all its splits; of one that is to be read several times, those there are.
        tokens: of the shards that are finished, at most `wanted`; shards that are being written do not count.
        shards: that are finished.
    """

    dataset: str
    state: State
    wanted: int
    tokens: int
    shards: int


def read_progress(output: str) -> list[DatasetProgress]:
    """How far the datasets of an output are, by name; nothing but the output is looked at.

    A build that has not planned a dataset yet has left nothing of it.

    Raises:
        BroetchenError: neither a finished dataset nor a begun one lies there.
    """
    output = output.rstrip("/") or "/"
    found: dict[str, DatasetProgress] = {}
    for path, _ in list_files(output, "*/.broetchen/*/budgets-*.json"):
        try:
            progress = _unfinished(path)
        except BroetchenError:
            # Work is cleared away when its dataset is finished, which may be right now.
            if read_manifest(path.partition("/.broetchen/")[0]) is None:
                raise
            continue
        known = found.get(progress.dataset)
        # Under two fingerprints, that of an older config is left behind.
        if known is None or known.tokens <= progress.tokens:
            found[progress.dataset] = progress
    for path, _ in list_files(output, f"*/{NAME}"):
        if (manifest := read_manifest(posixpath.dirname(path))) is not None:
            found[manifest.dataset] = _finished(manifest)
    if not found:
        raise BroetchenError(
            f"{output}: no dataset here, neither finished nor begun; check the path, or wait until it is planned"
        )
    return [found[name] for name in sorted(found)]


def _finished(manifest: Manifest) -> DatasetProgress:
    splits = manifest.splits.values()
    return DatasetProgress(
        dataset=manifest.dataset,
        state="finished",
        wanted=sum(split.budget if split.passes is None else split.tokens for split in splits),
        tokens=sum(split.tokens for split in splits),
        shards=sum(len(split.shards) for split in splits),
    )


def _unfinished(budgets_path: str) -> DatasetProgress:
    folder, name = posixpath.split(budgets_path)
    budgets = _read(Budgets, budgets_path)
    wanted = sum(budgets.tokens.values())
    counts = [_read(ShardCount, path) for path, _ in list_files(folder, "shard-*.json")]
    return DatasetProgress(
        dataset=folder.split("/")[-3],
        state=_state(budgets, f"{folder}/{name.replace('budgets', 'publication')}"),
        wanted=wanted,
        tokens=min(wanted, sum(count.tokens for count in counts)),
        shards=len(counts),
    )


def _state(budgets: Budgets, publication: str) -> State:
    if budgets.exhausted:
        return "failed: source exhausted"
    return "publishing" if storage.exists(publication) else "tokenizing"


def _read[T](cls: type[T], path: str) -> T:
    try:
        return from_json(cls, storage.read_bytes(path))
    except ValueError as error:
        raise BroetchenError(f"{path}: damaged ({one_line(error)}); build again, which says what to do") from error
