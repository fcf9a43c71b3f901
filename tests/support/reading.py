"""Reads built datasets as a trainer would: by Grain's source and MaxText's parser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grain.python as grain
import pytest
from maxtext.input_pipeline._mmap_datasource import MMapIndexedDataset
from maxtext.input_pipeline.input_pipeline_utils import ParseFeatures


def _parsed(folder: Path, split: str, *, tokenize: bool) -> Iterator[list[int | bytes]]:
    paths = sorted(str(path) for path in folder.glob(f"{split}-*.arecord"))
    if not paths:
        return
    parse = ParseFeatures(["text"], tokenize=tokenize)
    with grain.ArrayRecordDataSource(paths) as source:
        for index in range(len(source)):
            yield parse.map(source[index])["text"]


def read_ids(folder: Path, split: str) -> list[list[int]]:
    """The ids of each record of a split in `tokens` format."""
    return [[int(token) for token in record] for record in _parsed(folder, split, tokenize=False)]


def read_pairs(folder: Path, split: str) -> list[list[int]]:
    """The ids of each document of a split in `megatron` format, by MaxText's reader, which checks all of an index."""
    found: list[list[int]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMAP_IDX_FULL_VALIDATION", "1")
        for index in sorted(folder.glob(f"{split}-*.idx")):
            pair = MMapIndexedDataset(str(index.with_suffix("")))
            found += [ids.tolist() for ids in pair[:]]
            pair.close()
    return found


def read_texts(folder: Path, split: str) -> list[str]:
    """The text of each record of a split in `text` format."""
    return [record[0].decode() for record in _parsed(folder, split, tokenize=True) if isinstance(record[0], bytes)]
