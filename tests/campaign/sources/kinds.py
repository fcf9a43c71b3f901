"""Kinds of the hostile campaign: odd names, patterns, columns, lengths of documents, and much text in few bytes."""

from __future__ import annotations

import datetime
import glob
import os
import random
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from beam_pipelines.config.mix import load_config
from tests.campaign.hostile_build import build_and_check, build_by_steps, verify_by_steps, write_config
from tests.campaign.hostile_case import CaseKind, Outcome, Wrong, forget_peak, outcome_of
from tests.campaign.hostile_parquet import documents, write_sound
from transforms.dataset.manifest import find_manifests
from transforms.errors import BroetchenError
from transforms.files.listing import expand
from transforms.parquet.columns import unite_schemas
from transforms.parquet.texts import read_texts

_LETTERS = [*"ab1[]*?{}!~#%@&'\"$ ,;=+\\üß-_.", "[1]", "[!a]", "**", "..a", "%20", "日本", "\n", "\t"]


def _name(chance: random.Random) -> str:
    while True:
        name = "".join(chance.choices(_LETTERS, k=chance.randrange(1, 8)))
        if name not in {".", ".."} and not name.startswith("."):
            return name


def names(chance: random.Random, folder: Path) -> Outcome:
    """Folders and files of any name; beside them files that a pattern does not take, and folders that it matches."""
    odd = folder / _name(chance) / _name(chance)
    for number in range(chance.randrange(1, 4)):
        write_sound(chance, odd / "a" / f"{_name(chance)}{number}.parquet")
    (odd / "a" / "._0.parquet").write_bytes(b"\x00\x05\x16\x07")
    (odd / "a" / "0.parquet.crc").write_bytes(b"crc")
    has_folder = chance.random() < 0.05
    if has_folder:
        (odd / "a" / "folder.parquet").mkdir()
    # Folders that the odd name matches, if it is taken for a pattern.
    for other in ("1", "a", "b"):
        (odd.parent / other).mkdir(exist_ok=True)

    def work() -> Outcome:
        try:
            outcome = build_and_check(write_config(odd), by_beam=chance.random() < 0.05)
        except BroetchenError as error:
            if not has_folder:
                raise Wrong(str(error)) from error
            raise
        left = [path for path in odd.rglob(".*") if path.is_file() and path.name != "._0.parquet"]
        if left:
            raise Wrong(f"left behind: {left}")
        return outcome

    return outcome_of(work)


def patterns(chance: random.Random, folder: Path) -> Outcome:
    """A tree with links and hidden files, and a pattern: the files of Python's glob, or an error with the reason."""
    folders = [folder]
    files: list[Path] = []
    # Links lead there alone: in circles Python's own pattern takes forever.
    linked = folder / "z"
    for path in (linked / "1", linked / "a" / "b", linked / ".hidden"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    for _ in range(chance.randrange(2, 14)):
        path = chance.choice(folders) / (
            chance.choice(["", "", "", "."]) + chance.choice("ab1[]") + _name(chance).strip()
        )
        if path.exists() or path.is_symlink():
            continue
        kind = chance.random()
        if kind < 0.4:
            path.mkdir()
            folders.append(path)
        elif kind < 0.8 or not files:
            path.write_bytes(b"x")
            files.append(path)
        else:
            path.symlink_to(chance.choice([*files, linked, linked / "a", folder / "nowhere"]))
    parts = [chance.choice(["*", "?*", "a*", "*1", "[ab]*", "[!a]*", glob.escape(_name(chance))]) for _ in range(3)]
    parts = parts[: chance.randrange(1, 4)]
    if chance.random() < 0.3:
        parts.insert(chance.randrange(len(parts)), "**")
    pattern = "/".join([glob.escape(str(folder)), *parts])

    def work() -> Outcome:
        wanted = sorted(glob.glob(pattern, recursive=True))
        try:
            found = sorted(one.path for one in expand(pattern))
        except BroetchenError as error:
            # Links that lead nowhere, and folders that are called as files are.
            if any(map(os.path.isfile, wanted)) and not any(map(_is_no_file, wanted)):
                raise Wrong(f"{pattern}: {error}, and there are {wanted}") from error
            raise
        files = [path for path in wanted if os.path.isfile(path)]
        if found != files:
            raise Wrong(f"{pattern}: {found}, not {files}")
        return Outcome("built")

    return outcome_of(work)


def _is_no_file(path: str) -> bool:
    return not os.path.exists(path) or (os.path.isdir(path) and "." in os.path.basename(path))


_MOMENT = datetime.datetime(2020, 1, 2, 3, 4, 5)
_COLUMNS: list[tuple[pa.DataType, Callable[[random.Random], Any]]] = [
    (pa.int8(), lambda chance: chance.randrange(-128, 128)),
    (pa.int64(), lambda chance: chance.choice([0, -1, 2**53, 2**53 + 1, 2**63 - 1])),
    (pa.uint64(), lambda chance: chance.choice([0, 2**64 - 1])),
    (pa.float32(), lambda chance: chance.choice([0.5, -2.0])),
    (pa.float64(), lambda chance: chance.random()),
    (pa.bool_(), lambda chance: chance.random() < 0.5),
    (pa.string(), lambda chance: chance.choice(["", "x", "ü" * 50])),
    (pa.large_string(), lambda chance: chance.choice(["", "x"])),
    (pa.string_view(), lambda chance: chance.choice(["", "x" * 20])),
    (pa.binary(), lambda chance: chance.choice([b"", b"\xff"])),
    (pa.binary(2), lambda chance: b"ab"),
    (pa.null(), lambda chance: None),
    (pa.date32(), lambda chance: _MOMENT.date()),
    (pa.timestamp("us"), lambda chance: chance.choice([_MOMENT, datetime.datetime(9999, 12, 31)])),
    (pa.timestamp("ns"), lambda chance: _MOMENT),
    (pa.decimal128(10, 2), lambda chance: Decimal("1.25")),
    (pa.dictionary(pa.int32(), pa.string()), lambda chance: chance.choice("ab")),
    (pa.map_(pa.string(), pa.int64()), lambda chance: [("k", chance.randrange(9))][: chance.randrange(2)]),
]


def _column(chance: random.Random, depth: int = 0) -> tuple[pa.DataType, Callable[[random.Random], Any]]:
    """A type and how to draw a value of it."""
    # Views inside others cannot be written in parts (pyarrow 25).
    columns = [one for one in _COLUMNS if not depth or not pa.types.is_string_view(one[0])]
    if depth < 2 and chance.random() < 0.3:
        if chance.random() < 0.5:
            kind, draw = _column(chance, depth + 1)
            made = chance.choice([pa.list_, pa.large_list])
            return made(kind), lambda chance: [_or_none(chance, draw) for _ in range(chance.randrange(3))]
        fields = {name: _column(chance, depth + 1) for name in chance.sample("abcd", chance.randrange(1, 4))}
        return pa.struct({name: kind for name, (kind, _) in fields.items()}), lambda chance: {
            name: _or_none(chance, draw) for name, (_, draw) in fields.items()
        }
    return chance.choice(columns)


def _or_none(chance: random.Random, draw: Callable[[random.Random], Any]) -> Any:
    return None if chance.random() < 0.2 else draw(chance)


def differing_columns(chance: random.Random, folder: Path) -> Outcome:
    """Files whose other columns differ, as one dataset of parquet: every value as it was, or a refusal."""
    rows: list[dict[str, Any]] = []
    (folder / "a").mkdir()
    usual = {name: _column(chance) for name in "pqr"}
    for number in range(chance.randrange(1, 4)):
        changed = {name: _column(chance) if chance.random() < 0.15 else column for name, column in usual.items()}
        columns = {name: column for name, column in changed.items() if chance.random() < 0.85}
        texts: list[str | None] = [*documents(chance, 12), None, ""]
        chance.shuffle(texts)
        table = pa.table(
            {"text": pa.array(texts, chance.choice([pa.string(), pa.large_string()]))}
            | {name: _array([_or_none(chance, draw) for _ in texts], kind) for name, (kind, draw) in columns.items()}
        )
        pq.write_table(
            table,
            folder / "a" / f"{number}.parquet",
            row_group_size=chance.choice([3, 1000]),
            use_dictionary=chance.choice([True, False]),
            use_deprecated_int96_timestamps=chance.random() < 0.3,
        )
        rows += [row for row in table.to_pylist() if row["text"]]

    def work() -> Outcome:
        records = {"format": "parquet", "add_eos": False}
        shards = {"target_size": chance.choice([200, 4096])}
        try:
            outcome = build_and_check(write_config(folder, records=records, shards=shards))
        except BroetchenError as error:
            if not any(said in str(error) for said in ("cannot be one column", "as other files have it", "INT96")):
                raise Wrong(str(error)) from error
            raise
        ((output, manifest),) = find_manifests(str(folder / "out")).items()
        files = [shard.file for shard in manifest.splits["train"].shards]
        tables = [pq.read_table(Path(output) / file) for file in files]
        if len({table.schema.to_string() for table in tables}) > 1:
            raise Wrong("shards of several schemas")
        found = [row for table in tables for row in table.to_pylist()]
        for row, (one, other) in enumerate(zip(rows, found, strict=True)):
            if not all(_same(one.get(name), value) for name, value in other.items()) or set(one) - set(other):
                raise Wrong(f"row {row}: {other}, not {one}")
        return outcome

    return outcome_of(work)


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """An array of a type that pyarrow does not make inside others, by way of the plain type."""
    try:
        return pa.array(values, kind)
    except pa.ArrowNotImplementedError:
        return pa.array(values)


def _same(expected: Any, found: Any) -> bool:
    """Whether a value is the one of the source; fields that it lacks are null, and a map is a list of its entries."""
    if isinstance(found, dict) and isinstance(expected, tuple):
        return bool(_same(expected, (found["key"], found["value"])))
    if isinstance(found, dict) and isinstance(expected, dict):
        return not set(expected) - set(found) and all(_same(expected.get(name), one) for name, one in found.items())
    if isinstance(found, list) and isinstance(expected, list):
        return len(found) == len(expected) and all(map(_same, expected, found))
    if isinstance(found, bytes) and isinstance(expected, str):
        return expected.encode() == found
    return bool(expected == found)


def uneven_documents(chance: random.Random, folder: Path) -> Outcome:
    """Documents of very different lengths, in any order, in shards of a few kB."""
    lengths = [min(300_000, int(chance.lognormvariate(6, chance.uniform(0.5, 2.5)))) for _ in range(60)]
    if chance.random() < 0.7:
        lengths.sort(reverse=chance.random() < 0.5)
    words = "Brötchen und Kaffee, 12 Stück; the quick brown fox jumps over 3,14 lazy dogs.\n\n"
    texts = [(words * (length // 40 + 1))[chance.randrange(40) :][:length] or "x" for length in lengths]
    for number in range(chance.randrange(1, 4)):
        write_sound(chance, folder / "a" / f"{number}.parquet", texts, pa.string())
    if chance.random() < 0.5:
        return outcome_of(lambda: build_and_check(write_config(folder)))
    config = write_config(folder, datasets={"a": {"tokens": chance.randrange(1, 20_000)}})

    def work() -> Outcome:
        build_by_steps(load_config(str(config)), str(folder / "out"))
        verify_by_steps(str(folder / "out"))
        return Outcome("built")

    return outcome_of(work)


def _much(chance: random.Random) -> tuple[Iterator[dict[str, list[Any]]], dict[str, Any], int]:
    """Batches of rows that take few bytes in a file, how to store them, and the bytes of their text."""
    size = chance.choice([200_000, 2_000_000, 8_000_000])
    rows = min(4000, 2_000_000_000 // size)
    start = "Gemeinsamer Anfang, immer derselbe. " * (size // 36)
    kind = chance.choice(["prefix", "dictionary", "short before long", "another column"])
    if kind == "prefix":
        texts = (f"{start}{row}" for row in range(rows))
        stored = {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}}
        return _batches(texts, rows, 20), stored, rows * len(start) + sum(len(str(row)) for row in range(rows))
    if kind == "dictionary":
        return _batches((start for _ in range(rows)), rows, 20), {}, rows * len(start)
    if kind == "short before long":
        short, rows = 300_000, min(rows, 200)
        texts = ("k" if row < short else start for row in range(short + rows))
        return _batches(texts, short + rows, 10_000), {}, short + rows * len(start)
    batches = ({"text": ["kurz"] * 20, "html": [start] * 20} for _ in range(rows // 20))
    return batches, {}, rows // 20 * 20 * 4


def _batches(texts: Iterator[str], rows: int, at_once: int) -> Iterator[dict[str, list[Any]]]:
    for first in range(0, rows, at_once):
        yield {"text": [next(texts) for _ in range(min(at_once, rows - first))]}


def much_in_few_bytes(chance: random.Random, folder: Path) -> Outcome:
    """Two GB of text, or of another column, in a file of some hundred kB: read in bounded memory, and all of it."""
    batches, stored, text_bytes = _much(chance)
    path = folder / "a.parquet"
    writer: pq.ParquetWriter | None = None
    for batch in batches:
        table = pa.table(batch)
        if writer is None:
            writer = pq.ParquetWriter(path, table.schema, **stored)
        # One row group after another; a writer holds the row group that it writes.
        writer.write_table(table, row_group_size=len(table))
    assert writer is not None
    writer.close()
    forget_peak()
    schema = unite_schemas([(str(path), pq.read_schema(path))], "text") if chance.random() < 0.5 else None
    groups = range(pq.read_metadata(path).num_row_groups)

    def work() -> Outcome:
        found = 0
        for _, batch in read_texts(str(path), groups, "text", schema=schema):
            found += batch.text_bytes
            if batch.table is not None and pc.any(pc.is_null(batch.table["text"])).as_py():
                raise Wrong("a document that is null")
        if found != text_bytes:
            raise Wrong(f"{found:,} bytes of text, not {text_bytes:,}")
        return Outcome("built")

    return outcome_of(work)


def folders_and_braces(chance: random.Random, folder: Path) -> Outcome:
    """Sources that are no patterns of files: each is refused with a pattern to write instead."""
    (folder / "a").mkdir()
    write_sound(chance, folder / "a" / "0.parquet")
    source, said = chance.choice(
        [
            ("a", "write "),
            ("a/", "write "),
            ("a/{0,1}.parquet", "braces"),
            ("nothing/*.parquet", "no file matches"),
            ("a/*.arrow", "no file matches"),
            ("out/*/*.arecord", ""),
        ]
    )

    def work() -> Outcome:
        try:
            build_and_check(write_config(folder, datasets={"a": {"source": source}}))
        except BroetchenError as error:
            if said not in str(error):
                raise Wrong(f"{source}: {error}") from error
            raise
        raise Wrong(f"{source} was built")

    return outcome_of(work)


KINDS = [
    CaseKind("sources: odd names", names, weight=20),
    CaseKind("sources: patterns", patterns, weight=20),
    CaseKind("sources: no pattern", folders_and_braces, weight=4),
    CaseKind("sources: columns that differ", differing_columns, weight=25),
    CaseKind("sources: uneven documents", uneven_documents, weight=8),
    CaseKind("sources: much in few bytes", much_in_few_bytes, weight=1, memory_mib=900, timeout_s=600, heavy=True),
]
