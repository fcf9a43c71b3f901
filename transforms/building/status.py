"""How far a build is, by the files in its output: the same for every runner, and for a build on another machine."""

from __future__ import annotations

import contextlib
import dataclasses
import posixpath
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal

from transforms.as_json import from_json
from transforms.budget.shard_count import Budgets, FinalNames, ShardCount
from transforms.card.order import config_order
from transforms.dataset.manifest import NAME, Manifest, manifest_path, read_manifest
from transforms.errors import BroetchenError, one_line
from transforms.files import storage
from transforms.files.listing import list_files, look_through
from transforms.progress.tally import parse_tally

if TYPE_CHECKING:
    from transforms.recipe.spec import DatasetSpec

_REMOTE_THREADS = 32
_COUNT = re.compile(r"shard-\d+\.json")
_TALLY = re.compile(r"shard-(\d+)-([0-9a-f]{12})\.tally")

Phase = Literal["planning", "planned", "encoding", "publishing", "finished"]
"""The work of a build on a dataset; one that is planned waits for the others' plans, or for a worker."""


@dataclasses.dataclass(frozen=True)
class DatasetStatus:
    """How far a running build is with a dataset.

    Attributes:
        tokens: of finished shards, and of those in the making as far as workers have noted; at most the budget.
        shards: that are finished.
        phase: see `Phase`.
        taken_over: of the tokens, those that came from another dataset, without work to speak of (`build --grow`).
        encoded: tokens that were encoded since the first look: those of this build, beyond the budget as well.
        published: files that have their final names while the dataset is published, and how many are to be renamed.
    """

    tokens: int
    shards: int
    phase: Phase
    taken_over: int = 0
    encoded: int = 0
    published: tuple[int, int] = (0, 0)

    @property
    def finished(self) -> bool:
        """Whether its manifest is there."""
        return self.phase == "finished"


class StatusReader:
    """Reads the status of one dataset again and again, from the files of its unfinished work.

    The files at the first look are an earlier build's: only those written after it say how far this one is, and
    which of the work that lies there serves it. Each finished shard's count is fetched once.

    Args:
        spec: of the dataset.
        begun: whether the build may have begun before the first look, as a job that another process has started.
    """

    def __init__(self, spec: DatasetSpec, *, begun: bool = False) -> None:
        self._spec, self._begun = spec, begun
        self._before: set[tuple[str, float]] | None = None
        self._old: dict[str, str | None] = {}
        # The folder of this build's work, once its budgets are written there.
        self._folder: str | None = None
        # By path: the time at which a count was written, and the count.
        self._counts: dict[str, tuple[float, ShardCount]] = {}
        self._names: tuple[str, frozenset[str]] = "", frozenset()
        self._manifest: tuple[str | None, DatasetProgress] | None = None

    def read(self) -> DatasetStatus:
        """The status now.

        Raises:
            BroetchenError: a file is damaged, or has gone while it was read.
        """
        files = look_through(self._spec.work_root, "*/*")
        counts = [(file.path, file.modified) for file in files if _COUNT.fullmatch(posixpath.basename(file.path))]
        paths = [file.path for file in files]
        notes = [path for path in paths if posixpath.basename(path).startswith(("budgets-", "publication-"))]
        if self._before is None:
            self._before = set(counts)
            self._old = {} if self._begun else {path: storage.version(path) for path in notes}
        if self._folder is None:
            budgets = (path for path in notes if posixpath.basename(path).startswith("budgets-") and self._is_new(path))
            self._folder = next(map(posixpath.dirname, budgets), None)
        for path, modified in counts:
            if posixpath.dirname(path) == self._folder and self._counts.get(path, (None,))[0] != modified:
                self._counts[path] = modified, _read(ShardCount, path)
        there = {path for path, _ in counts}
        standing = {count.ordinal: count for path, (_, count) in self._counts.items() if path in there}
        being_written = self._being_written(paths, standing)
        encoded = sum(being_written.values()) + sum(
            count.tokens
            for path, (modified, count) in self._counts.items()
            if count.has_rows and (path, modified) not in self._before
        )
        taken_over = min(self._spec.need, sum(count.tokens for _, count in self._counts.values() if not count.has_rows))
        if (done := self._finished()) is not None:
            return DatasetStatus(done.tokens, done.shards, "finished", taken_over, encoded)
        tokens = sum(count.tokens for count in standing.values()) + sum(
            max(0, written - (standing[ordinal].tokens if ordinal in standing else 0))
            for ordinal, written in being_written.items()
        )
        phase: Phase = "planning" if self._folder is None else "encoding" if encoded else "planned"
        published = (0, 0)
        for path in notes:
            is_publication = posixpath.basename(path).startswith("publication-")
            if is_publication and posixpath.dirname(path) == self._folder and self._is_new(path):
                phase, published = "publishing", self._published(path)
        return DatasetStatus(min(self._spec.need, tokens), len(standing), phase, taken_over, encoded, published)

    def _is_new(self, path: str) -> bool:
        version = storage.version(path)
        return version is None or version != self._old.get(path)

    def _being_written(self, paths: Iterable[str], standing: Mapping[int, ShardCount]) -> dict[int, int]:
        """Tokens of shards that are being written, by ordinal; of several attempts, of the one that has most."""
        written: dict[int, int] = {}
        for path in paths:
            match = _TALLY.fullmatch(posixpath.basename(path))
            if match is None or posixpath.dirname(path) != self._folder:
                continue
            ordinal = int(match[1])
            if ordinal in standing and standing[ordinal].attempt == match[2]:
                continue  # It has just been finished.
            # A file that has gone meanwhile is that of a shard that has just been finished, or given up.
            with contextlib.suppress(BroetchenError):
                tally = parse_tally(storage.read_bytes(path))
                written[ordinal] = max(written.get(ordinal, 0), tally.done if tally else 0)
        return written

    def _published(self, names_file: str) -> tuple[int, int]:
        if self._names[0] != names_file:
            names = _read(FinalNames, names_file).names.values()
            self._names = names_file, frozenset(map(posixpath.basename, names))
        names_there = map(posixpath.basename, storage.list_marks(self._spec.folder))
        return len(self._names[1].intersection(names_there)), len(self._names[1])

    def _finished(self) -> DatasetProgress | None:
        """The progress by the manifest, which is read once."""
        version = storage.version(manifest_path(self._spec.folder))
        if version is not None and self._manifest is not None and self._manifest[0] == version:
            return self._manifest[1]
        manifest = read_manifest(self._spec.folder)
        if manifest is None:
            return None
        self._manifest = version, _finished(manifest)
        return self._manifest[1]


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


def tokens_left(work_root: str) -> int:
    """Tokens of the finished shards that an earlier run has left of a dataset; of several configs, those of the most.

    A count that is damaged, or goes meanwhile, counts as none: it is the build's to say.
    """
    found: dict[str, int] = {}
    paths = [path for path, _ in list_files(work_root, "*/shard-*.json")]
    # A build waits for this, and each file in a bucket is an answer to wait for.
    with ThreadPoolExecutor(1 if storage.is_local(work_root) else _REMOTE_THREADS) as pool:
        for path, tokens in zip(paths, pool.map(_tokens_of, paths), strict=True):
            folder = posixpath.dirname(path)
            found[folder] = found.get(folder, 0) + tokens
    return max(found.values(), default=0)


def _tokens_of(count: str) -> int:
    with contextlib.suppress(BroetchenError):
        return _read(ShardCount, count).tokens
    return 0


def read_progress(output: str) -> list[DatasetProgress]:
    """How far the datasets of an output are, in the order of its config; nothing but the output is looked at.

    A build that has not planned a dataset yet has left nothing of it.

    Raises:
        BroetchenError: neither a finished dataset nor a begun one lies there.
    """
    output = storage.without_slash(output)
    by_dataset: dict[str, DatasetProgress] = {}
    for path, _ in list_files(output, "*/.broetchen/*/budgets-*.json"):
        try:
            progress = _unfinished(path)
        except BroetchenError:
            # Work is cleared away when its dataset is finished, which may be right now.
            if read_manifest(path.partition("/.broetchen/")[0]) is None:
                raise
            continue
        known = by_dataset.get(progress.dataset)
        # Under two fingerprints, that of an older config is left behind.
        if known is None or known.tokens <= progress.tokens:
            by_dataset[progress.dataset] = progress
    for path, _ in list_files(output, f"*/{NAME}"):
        if (manifest := read_manifest(posixpath.dirname(path))) is not None:
            by_dataset[manifest.dataset] = _finished(manifest)
    if not by_dataset:
        raise BroetchenError(
            f"{output}: no dataset here, neither finished nor begun; check the path, or wait until it is planned"
        )
    return [by_dataset[name] for name in sorted(by_dataset, key=config_order(output))]


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


def _state(budgets: Budgets, names_file: str) -> State:
    if budgets.exhausted:
        return "failed: source exhausted"
    return "publishing" if storage.exists(names_file) else "tokenizing"


def _read[T](cls: type[T], path: str) -> T:
    try:
        return from_json(cls, storage.read_bytes(path))
    except ValueError as error:
        raise BroetchenError(f"{path}: damaged ({one_line(error)}); build again, which says what to do") from error
