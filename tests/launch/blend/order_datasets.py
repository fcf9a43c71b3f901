"""Datasets in Megatron's format as an exact order reads them, made without a build: shards with given documents."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from launch.blend.plan import DatasetPlan, ShardPlan
from tests.support.megatron.pairs import write_pair

EOS = 0


def write_dataset(
    folder: Path, documents: Sequence[Sequence[int]], *, shards: int = 1, split: str = "train", vocab_size: int = 60_000
) -> DatasetPlan:
    """Writes documents into so many shards below `folder`; answers with the plan of a dataset of the folder's name."""
    folder.mkdir(parents=True, exist_ok=True)
    plans = []
    for number in range(shards):
        own = documents[number * len(documents) // shards : (number + 1) * len(documents) // shards]
        stem = f"{split}-{number:05d}-of-{shards:05d}"
        write_pair(folder / stem, own, vocab_size)
        digest = hashlib.sha256((folder / f"{stem}.bin").read_bytes()).hexdigest()
        plans.append(ShardPlan(stem=stem, documents=len(own), sha256=digest))
    return DatasetPlan(
        name=folder.name,
        folder=str(folder),
        located=str(folder),
        tokens=sum(map(len, documents)),
        sequences=1,
        shards=plans,
    )


def numbered_documents(count: int, seed: int, first: int = 1, longest: int = 90) -> list[list[int]]:
    """Documents of random lengths whose ids are counted up over all of them, from `first`; each ends with EOS."""
    lengths = np.random.default_rng(seed).integers(1, longest, count).tolist()
    documents = []
    for length in lengths:
        documents.append([*range(first, first + length - 1), EOS])
        first += length - 1
    return documents
