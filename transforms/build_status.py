"""How far a build is, from what lies in its output: the same for every runner, and for a build on another machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from transforms import files
from transforms.dataset_spec import DatasetSpec
from transforms.json_coder import from_json
from transforms.manifest import read_manifest
from transforms.token_budget import ShardCount

# Until a shard of the dataset is finished, what a token takes in a file; only a progress bar hangs on it.
_TYPICAL_BYTES_PER_TOKEN = 1.7


@dataclasses.dataclass(frozen=True)
class DatasetStatus:
    """`tokens` counts finished shards and, on a local disk, an estimate of the unfinished; at most the budget."""

    tokens: int
    shards: int
    finished: bool


class StatusReader:
    """Reads the status of one dataset again and again; each finished shard's count is fetched once."""

    def __init__(self, spec: DatasetSpec) -> None:
        self._spec = spec
        self._counts: dict[str, ShardCount] = {}

    def read(self) -> DatasetStatus:
        spec = self._spec
        for path, _ in files.list_files(f"{spec.work_root}/*/shard-*.json"):
            if path not in self._counts:
                self._counts[path] = from_json(ShardCount, files.read_bytes(path))
        if (manifest := read_manifest(spec.folder)) is not None:
            shards = sum(len(split.shards) for split in manifest.splits.values())
            return DatasetStatus(sum(split.tokens for split in manifest.splits.values()), shards, finished=True)
        tokens = sum(count.tokens for count in self._counts.values())
        file_bytes = sum(count.file_bytes for count in self._counts.values())
        rate = file_bytes / tokens if tokens and file_bytes else _TYPICAL_BYTES_PER_TOKEN
        expected = tokens + round(self._unfinished_bytes() / rate)
        return DatasetStatus(min(spec.need, expected), len(self._counts), finished=False)

    def _unfinished_bytes(self) -> int:
        if not files.is_local(self._spec.work_root):
            return 0
        total = 0
        for path in Path(self._spec.work_root).glob("*/.shard-*"):
            try:
                total += path.stat().st_size
            except FileNotFoundError:  # finished meanwhile
                continue
        return total
