"""The ledger of counts: nothing is counted twice, and nothing is taken from it that is not so."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from beam_pipelines.config.mix import MixConfig, load_config
from beam_pipelines.jobs.count import count
from beam_pipelines.jobs.plan import plan
from tests.support.command import kill_session, started_command
from tests.support.corpora import TOKENIZER, documents_of, write_parquet
from tests.support.small_tokenizers import byte_level
from tests.system.test_count import ROWS, expected, write_config
from transforms.counting.ledger import Counted, CountLedger
from transforms.counting.text_count import TextCount
from transforms.errors import BroetchenError
from transforms.parquet.footer import SourceFile, read_footer
from transforms.tokenizer.spec import TokenizerSpec


def no_config(path: str) -> MixConfig:
    raise AssertionError(f"{path} is no config")


def spoil_pages(path: Path) -> None:
    """Overwrites all of a parquet file but its footer: it cannot be read any more, and looks as before."""
    data = path.read_bytes()
    end = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    path.write_bytes(data[:4] + b"\xff" * (end - 4) + data[end:])


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    rng = random.Random(5)
    for number in range(3):
        write_parquet(tmp_path / "a" / f"{number}.parquet", [rng.sample(ROWS, 5) for _ in range(4)])
    return tmp_path


def counted(folder: Path, *, ledger: str | None = "ledger", tokenizer: Path = TOKENIZER, column: str = "text") -> Any:
    """The count of all files."""
    pattern = f"{folder}/a/*.parquet"
    where = ledger if ledger is None or "://" in ledger else f"{folder}/{ledger}"
    return count([pattern], no_config, tokenizer=str(tokenizer), text_column=column, ledger=where)[pattern]


def entries(folder: Path) -> list[Path]:
    return sorted((folder / "ledger").rglob("*.json"))


@pytest.mark.slow
def test_what_was_counted_is_not_read_again(corpus: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = counted(corpus)
    assert first == expected(documents_of((corpus / "a").glob("*.parquet")), 60)
    assert len(entries(corpus)) == 3
    for path in (corpus / "a").iterdir():
        spoil_pages(path)
    with pytest.raises(BroetchenError, match="cannot be read"):
        counted(corpus, ledger=None)
    caplog.clear()
    assert counted(corpus) == first
    assert not caplog.records
    # A ledger and its sources may be moved: neither's folder counts.
    shutil.move(corpus / "a", corpus / "moved" / "a")
    shutil.move(corpus / "ledger", corpus / "moved" / "ledger")
    assert counted(corpus / "moved") == first


def test_a_source_that_changed_is_counted_anew_and_only_that(corpus: Path) -> None:
    counted(corpus)
    write_parquet(corpus / "a" / "1.parquet", [["something", "else"], ["again"]])
    now = expected(documents_of((corpus / "a").glob("*.parquet")), 43)
    for number in (0, 2):
        spoil_pages(corpus / "a" / f"{number}.parquet")
    assert counted(corpus) == now
    assert len(entries(corpus)) == 4


@pytest.mark.slow
def test_another_tokenizer_or_column_is_counted_anew(corpus: Path) -> None:
    write_parquet(corpus / "a" / "0.parquet", [ROWS])
    for number in (1, 2):
        (corpus / "a" / f"{number}.parquet").unlink()
    first = counted(corpus)
    small = corpus / "tokenizer.json"
    small.write_text(json.dumps(byte_level()))
    by_bytes = counted(corpus, tokenizer=small)
    assert by_bytes.tokens == by_bytes.text_bytes == first.text_bytes
    with pytest.raises(BroetchenError, match="is int64, not text"):
        counted(corpus, column="id")
    assert counted(corpus) == first
    config = write_config(corpus, tokenizer={"path": str(TOKENIZER), "special_tokens": "token"})
    as_tokens = count([str(config)], load_config, ledger=f"{corpus}/ledger")["a"]
    assert as_tokens.tokens < first.tokens
    assert len(entries(corpus)) == 3


Change = Callable[[Path, list[Path]], None]


def truncate(path: Path, others: list[Path]) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def exchange(path: Path, others: list[Path]) -> None:
    path.write_bytes(others[0].read_bytes())


def not_an_entry(path: Path, others: list[Path]) -> None:
    path.write_text("[1, 2]")


def not_text(path: Path, others: list[Path]) -> None:
    path.write_bytes(b"\xff\xfe\x00")


def link(path: Path, others: list[Path]) -> None:
    """Replaces a file by a link to one that is just as sound."""
    path.rename(path.with_suffix(".elsewhere"))
    path.symlink_to(path.with_suffix(".elsewhere"))


def fifo(path: Path, others: list[Path]) -> None:
    path.unlink()
    os.mkfifo(path)


def sparse(path: Path, others: list[Path]) -> None:
    with path.open("r+b") as file:
        file.truncate(300 << 20)


def nested_too_deep(path: Path, others: list[Path]) -> None:
    path.write_bytes(b"[" * 100_000)


def nested(depth: int) -> Any:
    found: Any = 0
    for _ in range(depth):
        found = [found]
    return found


def overflow(entry: dict[str, Any]) -> None:
    """Documents whose tokens are as many as there are, in 64 bits."""
    group = entry["row_groups"][0]
    group.update(documents=4, skipped=group["skipped"] - 4, tokens=0)
    group["lengths"] = {"lengths": [2**62], "counts": [4]}


def edit(change: Callable[[dict[str, Any]], None], *, sign: bool) -> Change:
    """Changes an entry's content; with a checksum that is right again if `sign`."""

    def apply(path: Path, others: list[Path]) -> None:
        entry = json.loads(path.read_bytes())
        change(entry)
        if sign:
            body = {key: entry.get(key) for key in ("counted", "row_groups")}
            text = json.dumps(body, sort_keys=True, separators=(",", ":"))
            entry["sha256"] = hashlib.sha256(text.encode()).hexdigest()
        path.write_text(json.dumps(entry))

    return apply


CHANGES: dict[str, tuple[Change, str]] = {
    "cut short": (truncate, "not JSON, or cut short"),
    "not text": (not_text, "not JSON, or cut short"),
    "of another file": (exchange, "another source file or tokenizer"),
    "something else": (not_an_entry, "not an entry of a ledger"),
    "a number": (edit(lambda entry: entry["row_groups"][0].update(tokens=1), sign=False), "checksum is wrong"),
    "of another version": (edit(lambda entry: entry.update(format_version=0), sign=False), "of version 0, not 1"),
    "contradicts itself": (edit(lambda entry: entry["row_groups"][0].update(tokens=1), sign=True), "histogram"),
    "other rows": (edit(lambda entry: entry["row_groups"][0].update(skipped=99), sign=True), "does not count the 5"),
    "unknown bytes": (edit(lambda entry: entry["row_groups"][0].update(text_bytes=None), sign=True), "does not count"),
    "no such row group": (edit(lambda entry: entry["row_groups"][0].update(row_group=9), sign=True), "out of range"),
    "a negative row group": (edit(lambda entry: entry["row_groups"][0].update(row_group=-1), sign=True), "-1 is no"),
    "a link": (link, "not a regular file but a link"),
    "a FIFO": (fifo, "not a regular file but a FIFO"),
    "too large": (sparse, "314,572,800 bytes, more than the 268,435,456 that are read"),
    "nested": (nested_too_deep, "not JSON, or cut short"),
    "nested less": (edit(lambda entry: entry.update(row_groups=nested(900)), sign=False), "checksum is wrong"),
    "of a version that steers": (edit(lambda entry: entry.update(format_version="\x1b[2J"), sign=False), "?[2J, not 1"),
    "of a long version": (edit(lambda entry: entry.update(format_version="x" * 5000), sign=False), "x…, not 1"),
    "a row group that steers": (
        edit(lambda entry: entry["row_groups"][0].update(row_group="\x1b"), sign=True),
        "no row",
    ),
    "row groups by another name": (
        edit(lambda entry: entry.update(row_group=entry.pop("row_groups")), sign=True),
        "not a list of counts",
    ),
    "no row groups": (edit(lambda entry: entry.update(row_groups=None), sign=True), "not a list of counts"),
    "a number for row groups": (edit(lambda entry: entry.update(row_groups=[5]), sign=True), "not a list of counts"),
    "a count that overflows": (edit(overflow, sign=True), "a histogram"),
    "more bytes than there are": (
        edit(lambda entry: entry["row_groups"][0].update(text_bytes=2**70), sign=True),
        "something else than whole numbers",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_entry_that_is_not_sound_is_not_trusted(corpus: Path, change: str, caplog: pytest.LogCaptureFixture) -> None:
    ledger, tokenizer = CountLedger(str(corpus / "ledger")), TokenizerSpec("", "0" * 64, None, None, "text")
    for path in (corpus / "a").iterdir():
        source = read_footer(str(path), path.stat().st_size, "text")
        ledger.add(Counted.of(source, "text", tokenizer), row_group_counts(source))
    first, *others = entries(corpus)
    (source,) = [
        source
        for source in (read_footer(str(p), p.stat().st_size, "text") for p in (corpus / "a").iterdir())
        if Counted.of(source, "text", tokenizer).key == first.parent.name
    ]
    about = Counted.of(source, "text", tokenizer)
    assert ledger.find(about, source) == row_group_counts(source)
    CHANGES[change][0](first, others)
    with caplog.at_level(logging.WARNING):
        assert ledger.find(about, source) == {}
    (record,) = caplog.records
    assert str(first) in record.getMessage()
    assert "counted again" in record.getMessage()
    assert CHANGES[change][1] in record.getMessage()
    assert record.getMessage().isprintable()
    assert len(record.getMessage()) < 500


def row_group_counts(source: SourceFile) -> dict[int, TextCount]:
    """Any counts that a source of this footer may have."""
    return {index: TextCount(0, 0, 0, group.rows) for index, group in enumerate(source.row_groups)}


def test_a_damaged_entry_is_counted_anew_and_replaced(corpus: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = counted(corpus)
    before = {path: path.read_bytes() for path in entries(corpus)}
    truncate(entries(corpus)[1], [])
    assert counted(corpus) == first
    assert any("counted again" in record.getMessage() for record in caplog.records)
    assert {path: path.read_bytes() for path in entries(corpus)} == before


def test_a_ledger_that_knows_some_row_groups(corpus: Path) -> None:
    whole = counted(corpus)
    shortened = entries(corpus)[0]
    edit(lambda entry: entry["row_groups"].__delitem__(slice(1, 3)), sign=True)(shortened, [])
    assert counted(corpus) == whole
    assert [path.name for path in sorted(shortened.parent.iterdir())] == ["00000-00003.json", "00001-00002.json"]


@pytest.mark.slow
def test_a_killed_count_goes_on_where_it_was(tmp_path: Path) -> None:
    rng = random.Random(6)
    for number in range(8):
        rows = [" ".join(rng.choices(["Brötchen", "und", "Käse", "seventeen", "…"], k=400)) for _ in range(120)]
        write_parquet(tmp_path / "a" / f"{number}.parquet", [rows[:60], rows[60:]])
    whole = counted(tmp_path, ledger=None)
    arguments = ["count", f"{tmp_path}/a/*.parquet", "--tokenizer", str(TOKENIZER), "--ledger", f"{tmp_path}/ledger"]
    with started_command(*arguments, "--engine", "tokenizers") as process:
        while not entries(tmp_path) and process.poll() is None:
            time.sleep(0.01)
        kill_session(process)
    known = {json.loads(path.read_bytes())["counted"]["name"] for path in entries(tmp_path)}
    assert known
    for name in known:
        spoil_pages(tmp_path / "a" / name)
    assert counted(tmp_path) == whole


@pytest.mark.slow
def test_a_ledger_filled_by_several_processes(corpus: Path) -> None:
    pattern = f"{corpus}/a/*.parquet"
    workers = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    both = [
        count([pattern], no_config, tokenizer=str(TOKENIZER), ledger=f"{corpus}/ledger", beam_arguments=arguments)
        for arguments in (workers, [])
    ]
    assert both[0] == both[1] == {pattern: expected(documents_of((corpus / "a").glob("*.parquet")), 60)}
    assert len(entries(corpus)) == 3


def test_a_ledger_in_a_bucket(corpus: Path, gcs_prefix: str) -> None:
    first = counted(corpus, ledger=f"{gcs_prefix}/ledger")
    for path in (corpus / "a").iterdir():
        spoil_pages(path)
    assert counted(corpus, ledger=f"{gcs_prefix}/ledger") == first


@pytest.mark.parametrize("add_eos", [False, True])
def test_a_plan_takes_exact_tokens_from_the_ledger(corpus: Path, add_eos: bool) -> None:
    config = load_config(str(write_config(corpus, records={"max_tokens": 8, "add_eos": add_eos})))
    whole = counted(corpus)
    (exact,) = plan(config, ledger=f"{corpus}/ledger")
    assert exact.available_error == 0
    assert exact.available == whole.tokens + (whole.documents if add_eos else 0)
    entries(corpus)[0].unlink()
    (partly,) = plan(config, ledger=f"{corpus}/ledger")
    # So little is unknown here that all of it is sampled.
    assert (partly.available, partly.available_error) == (exact.available, 0)
