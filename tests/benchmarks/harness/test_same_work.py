"""The row groups by DataTrove's output, and the comparison where the plain loop cannot be the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.harness.contenders import comparable
from benchmarks.harness.same_work import WrongWork, datatrove_row_groups


def write_file(folder: Path, number: int, documents: int, ends: list[int]) -> Path:
    path = folder / f"000_{number:05d}.parquet"
    pq.write_table(pa.table({"text": ["x"] * documents}), path, row_group_size=2)
    np.array(ends, "<u8").tofile(folder / f"{number:05d}_unshuffled.ds.index")
    return path


def test_tokens_of_row_groups_follow_from_the_ends_of_documents(tmp_path: Path) -> None:
    files = [write_file(tmp_path, 0, 3, [4, 9, 11]), write_file(tmp_path, 1, 4, [1, 2, 3, 50])]
    assert datatrove_row_groups(tmp_path, files) == {files[0].name: [9, 2], files[1].name: [2, 48]}


def test_documents_that_are_missing_are_found(tmp_path: Path) -> None:
    files = [write_file(tmp_path, 0, 3, [4, 9])]
    with pytest.raises(WrongWork, match="wrote 2 of the 3 documents"):
        datatrove_row_groups(tmp_path, files)


def test_where_the_plain_loop_encodes_otherwise_the_others_are_held_against_datatrove() -> None:
    names = ["build", "beam", "datatrove"]
    assert [one.name for one in comparable(names, plain_loop=True)] == ["loop", "build", "beam", "datatrove"]
    assert [one.name for one in comparable(names, plain_loop=False)] == ["datatrove", "build"]
    assert all(comparable([], plain_loop=known)[0].row_group_tokens for known in (True, False))
