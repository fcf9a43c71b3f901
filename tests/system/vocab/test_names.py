"""Names of columns and files as people have them: with dots, slashes, blanks, and what a URL or a query would read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.command import run_command
from tests.support.corpora import TOKENIZER
from tests.system.vocab.test_columns import TEXTS, vocab, write_files

NAMES = ["a.b", "a", "C#", "FLC K/L", "n_[^]-x", "x:y", "'", '"', "ä", "list.element", "", " "]


def test_columns_of_any_name_are_copied(tmp_path: Path) -> None:
    """`a.b` stands beside a struct `a` with a field `b`, whose path in the file is the same."""
    columns: dict[str, Any] = {name: pa.array([f"{name} {row}" for row in range(4)]) for name in NAMES}
    columns["a"] = pa.array([{"b": row} for row in range(4)])
    write_files(tmp_path, [pa.table({"text": TEXTS, **columns})])
    assert vocab(tmp_path) == [
        {"text": text} | {name: column[row].as_py() for name, column in columns.items()}
        for row, text in enumerate(TEXTS)
    ]


@pytest.mark.parametrize("column", NAMES[:-2])
@pytest.mark.parametrize("command", ["build", "vocab"])
def test_the_text_may_have_any_name(tmp_path: Path, column: str, command: str) -> None:
    others: dict[str, Any] = {"text": pa.array([[{"b": 1}]] * 4), "b": pa.array(range(4))}
    write_files(tmp_path, [pa.table({**others, column: TEXTS})])
    shown = column.replace("'", "''")
    (tmp_path / "mix.yaml").write_text(
        f"name: names\ntokenizer: {{path: {TOKENIZER}}}\n"
        f"datasets:\n  a: {{source: 'a/*.parquet', tokens: 900, on_shortfall: keep, text_column: '{shown}'}}\n"
    )
    done = run_command(command, tmp_path / "mix.yaml", "--output", tmp_path / "out", "--quiet")
    assert done.returncode == 0, done.stderr
    if command == "vocab":
        (file,) = (tmp_path / "out" / "a").glob("train-*.parquet")
        assert pq.read_table(file)[column].to_pylist() == TEXTS


def test_columns_that_one_file_lacks_may_be_null_in_all(tmp_path: Path) -> None:
    """Though the file that has them says that they are not."""
    first = pa.schema([pa.field("text", pa.string(), False), pa.field("x", pa.int32(), False)])
    second = pa.schema([pa.field("text", pa.string()), pa.field("y", pa.int32(), False)])
    write_files(
        tmp_path,
        [pa.table([TEXTS[:2], [1, 2]], schema=first), pa.table([TEXTS[2:], [3, 4]], schema=second)],
    )
    assert [(row["x"], row["y"]) for row in vocab(tmp_path)] == [(1, None), (2, None), (None, 3), (None, 4)]
