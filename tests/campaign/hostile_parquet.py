"""Parquet files that are cut, flipped, mistyped, encrypted, huge, empty, or not the same a moment later."""

from __future__ import annotations

import base64
import datetime
import random
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as encryption

from tests.campaign.hostile_build import build_and_check, write_config
from tests.campaign.hostile_case import CaseKind, Outcome, Wrong, forget_peak, outcome_of

_WORDS = ["Brötchen", "und", "the", " ", "12", "\n", "straße", "fi", "日本", "🙂", "e\u0301", "…", "<|eos|>", "x" * 40]
_NOT_TEXT = [b"\xff\xfe", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xc0\xaf", b"gut \xf0\x9f", b"\xf4\x90\x80\x80", b"\x80"]


def documents(chance: random.Random, most: int = 40) -> list[str]:
    """Some short documents, a few of which come twice."""
    texts = ["".join(chance.choices(_WORDS, k=chance.randrange(1, 30))) for _ in range(chance.randrange(1, most))]
    return texts + chance.choices(texts, k=len(texts) // 3)


def write_sound(
    chance: random.Random, path: Path, rows: list[Any] | None = None, kind: pa.DataType | None = None
) -> None:
    """A sound file of a random make: compression, encodings, pages, checksums, row groups and other columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = documents(chance) if rows is None else rows
    kind = kind or chance.choice([pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())])
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    encoded = [row.encode() if isinstance(row, str) else row for row in rows]
    texts = pa.array(encoded, pa.large_binary()).cast(value, safe=False)
    if pa.types.is_dictionary(kind):
        texts = texts.dictionary_encode()
    table = pa.table({"id": list(range(len(rows))), "text": texts, "url": [f"https://{i}" for i in range(len(rows))]})
    pq.write_table(
        table,
        path,
        compression=chance.choice(["none", "snappy", "zstd", "gzip", "lz4", "brotli"]),
        use_dictionary=chance.choice([True, False]),
        data_page_size=chance.choice([64, 1024, 1 << 20]),
        data_page_version=chance.choice(["1.0", "2.0"]),
        write_page_checksum=chance.choice([True, False]),
        write_statistics=chance.choice([True, False]),
        store_schema=chance.choice([True, False]),
        row_group_size=chance.choice([3, 10, 1000]),
    )


def _format(chance: random.Random) -> dict[str, Any]:
    """Mostly ids; sometimes text or parquet, which adds no EOS."""
    kind = chance.choices(["tokens", "text", "parquet"], [8, 1, 1])[0]
    return {"format": kind, "add_eos": kind == "tokens"}


def _built(chance: random.Random, folder: Path, *, column: str = "text", **changes: Any) -> Outcome:
    changes.setdefault("on_bad_rows", chance.choice(["skip", "quarantine"]))
    changes.setdefault("records", _format(chance))
    config = write_config(folder, **changes)
    return outcome_of(lambda: build_and_check(config, column=column, by_beam=chance.random() < 0.03))


def cut(chance: random.Random, folder: Path) -> Outcome:
    """A file that ends too early, or lacks a piece in its middle, or has been doubled or padded."""
    path = folder / "a" / "0.parquet"
    write_sound(chance, path)
    if chance.random() < 0.5:
        write_sound(chance, path.with_name("1.parquet"))
    data = path.read_bytes()
    footer = int.from_bytes(data[-8:-4], "little")
    places = [0, 1, 3, 4, 5, 8, 11, 12, len(data) - footer - 8, len(data) - 8, len(data) - 4, len(data) - 1]
    place = chance.choice(
        [chance.choice(places), chance.randrange(len(data)), len(data) - chance.randrange(footer + 8)]
    )
    other = chance.randrange(len(data))
    first, last = min(place, other), max(place, other)
    path.write_bytes(
        chance.choice(
            [
                data[:place],
                data[place:],
                data[:first] + data[last:],
                data[:first] + bytes(last - first) + data[last:],
                data + data[place:],
                data[:place] + b"\n" + data[place:],
            ]
        )
    )
    return _built(chance, folder)


def flipped(chance: random.Random, folder: Path) -> Outcome:
    """A few bytes changed: in the footer, in its length, in page headers or in pages."""
    path = folder / "a" / "0.parquet"
    write_sound(chance, path)
    data = bytearray(path.read_bytes())
    footer = int.from_bytes(data[-8:-4], "little")
    where = chance.choice(["footer", "pages", "start", "tail"])
    low, high = {
        "footer": (len(data) - 8 - footer, len(data) - 8),
        "pages": (4, len(data) - 8 - footer),
        "start": (0, min(60, len(data))),
        "tail": (len(data) - 8, len(data)),
    }[where]
    for _ in range(chance.choice([1, 1, 1, 2, 8])):
        place = chance.randrange(low, max(low + 1, high))
        data[place] = chance.choice([data[place] ^ 1 << chance.randrange(8), chance.randrange(256), 0, 255])
    path.write_bytes(data)
    return _built(chance, folder)


def columns(chance: random.Random, folder: Path) -> Outcome:
    """A text column that is missing, there twice, of another type, nested, or oddly named."""
    path = folder / "a" / "0.parquet"
    path.parent.mkdir()
    texts = documents(chance)
    rows = len(texts)
    makers: dict[str, Callable[[], pa.Table]] = {
        "missing": lambda: pa.table({"content": texts}),
        "no columns": lambda: pa.table({}),
        "case": lambda: pa.table({"Text": texts}),
        "twice": lambda: pa.Table.from_arrays([pa.array(texts), pa.array(texts)], ["text", "text"]),
        "twice, one a number": lambda: pa.Table.from_arrays([pa.array(range(rows)), pa.array(texts)], ["text", "text"]),
        "int": lambda: pa.table({"text": list(range(rows))}),
        "float": lambda: pa.table({"text": [0.5] * rows}),
        "bool": lambda: pa.table({"text": [True] * rows}),
        "null": lambda: pa.table({"text": pa.nulls(rows)}),
        "date": lambda: pa.table({"text": [datetime.date(2026, 1, 1)] * rows}),
        "decimal": lambda: pa.table({"text": [Decimal("1.5")] * rows}),
        "list": lambda: pa.table({"text": [[text] for text in texts]}),
        "struct": lambda: pa.table({"text": [{"text": text} for text in texts]}),
        "struct with the name": lambda: pa.table({"a": [{"text": text} for text in texts], "text": texts}),
        "map": lambda: pa.table(
            {"text": pa.array([[("a", text)] for text in texts], pa.map_(pa.string(), pa.string()))}
        ),
        "dictionary of numbers": lambda: pa.table({"text": pa.array([1] * rows).dictionary_encode()}),
        "dictionary": lambda: pa.table({"text": pa.array(texts).dictionary_encode()}),
        "fixed binary": lambda: pa.table({"text": pa.array([b"abcd"] * rows, pa.binary(4))}),
        "view": lambda: pa.table({"text": pa.array(texts, pa.string_view())}),
        "binary view": lambda: pa.table({"text": pa.array([text.encode() for text in texts], pa.binary_view())}),
        "json": lambda: pa.table(
            {"text": pa.ExtensionArray.from_storage(pa.json_(pa.string()), pa.array(["{}"] * rows))}
        ),
        "uuid": lambda: pa.table(
            {"text": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"x" * 16] * rows, pa.binary(16)))}
        ),
        "large": lambda: pa.table({"text": pa.array(texts, pa.large_string())}),
        "beside nested": lambda: pa.table({"n": [{"text": [1, 2]}] * rows, "text": texts, "m": [[{"a": 1}]] * rows}),
        "a dot": lambda: pa.table({"text.a": texts, "text": texts}),
    }
    name = chance.choice(list(makers))
    pq.write_table(makers[name](), path)
    column = "text"
    if name == "a dot":
        column = chance.choice(["text.a", "text"])
    if name in ("struct", "list") and chance.random() < 0.5:
        column = {"struct": "text.text", "list": "text.list.element"}[name]
    if name == "missing" and chance.random() < 0.5:
        column = chance.choice(["../text", "text\x00", "*", "t" * 5000, " text", "content\n"])
    more = path.with_name("1.parquet")
    if chance.random() < 0.3:
        pq.write_table(pa.table({"text": pa.array([b"binary here"], pa.binary())}), more)
    return _built(chance, folder, column=column, datasets={"a": {"text_column": column}})


def not_text(chance: random.Random, folder: Path) -> Outcome:
    """Rows that are null, empty, or bytes that are not UTF-8, lone surrogates among them."""
    rows: list[Any] = [
        chance.choice([*_NOT_TEXT, None, b"", *documents(chance, 4), chance.randbytes(chance.randrange(9))])
        for _ in range(chance.randrange(1, 60))
    ]
    kinds = [pa.binary(), pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]
    write_sound(chance, folder / "a" / "0.parquet", rows, chance.choice(kinds))
    write_sound(chance, folder / "a" / "1.parquet")
    return _built(chance, folder, on_bad_rows=chance.choice(["skip", "quarantine", "quarantine", "fail"]))


def nothing(chance: random.Random, folder: Path) -> Outcome:
    """No row groups, row groups without rows, only nulls, only empty texts, and sources without a file."""
    path = folder / "a" / "0.parquet"
    path.parent.mkdir()
    schema = pa.schema([("text", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for _ in range(chance.choice([0, 0, 1, 3])):
            rows = chance.choice([[], [None] * 5, [""] * 5, [None, ""]])
            writer.write_table(pa.table({"text": pa.array(rows, pa.string())}))
    source: Any = "a/*.parquet"
    match chance.randrange(6):
        case 0:
            write_sound(chance, path.with_name("1.parquet"))
        case 1:
            path.unlink()
        case 2:
            path.unlink()
            path.mkdir()
        case 3:
            source = chance.choice(
                ["a", "a/", "/", "..", "a/**", "[", "a/[", "nosuch://x/*.parquet", "~/no/such", "a/\x01*"]
            )
    return _built(chance, folder, datasets={"a": {"source": source}})


class _LocalKeys(encryption.KmsClient):  # type: ignore[misc]
    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
        return base64.b64encode(key_bytes)

    def unwrap_key(self, wrapped_key: bytes, master_key_identifier: str) -> bytes:
        return base64.b64decode(wrapped_key)


def encrypted(chance: random.Random, folder: Path) -> Outcome:
    """Parquet's own encryption: of the footer, or of some columns under a plain footer."""
    path = folder / "a" / "0.parquet"
    path.parent.mkdir()
    settings = encryption.EncryptionConfiguration(
        footer_key="footer",
        column_keys={"text": chance.choice([["text"], ["id"], ["id", "text"]])},
        plaintext_footer=chance.choice([True, False]),
        encryption_algorithm=chance.choice(["AES_GCM_V1", "AES_GCM_CTR_V1"]),
    )
    factory = encryption.CryptoFactory(lambda _: _LocalKeys())
    table = pa.table({"id": [1, 2], "text": documents(chance, 2)[:1] * 2})
    with pq.ParquetWriter(
        path,
        table.schema,
        encryption_properties=factory.file_encryption_properties(encryption.KmsConnectionConfig(), settings),
    ) as writer:
        writer.write_table(table)
    return _built(chance, folder)


def changing(chance: random.Random, folder: Path) -> Outcome:
    """A source that vanishes, grows, shrinks or is replaced after it has been planned."""
    path = folder / "a" / "0.parquet"
    texts = documents(chance)
    write_sound(chance, path, texts)
    change = chance.choice(["gone", "shorter", "longer", "other text", "fewer rows", "more rows", "a folder", "same"])

    def harm() -> None:
        data = path.read_bytes()
        match change:
            case "gone":
                path.unlink()
            case "shorter":
                path.write_bytes(data[: chance.randrange(len(data))])
            case "longer":
                path.write_bytes(data + chance.choice([b"\n", data, bytes(100)]))
            case "other text":
                write_sound(chance, path, ["z" + text for text in texts])
            case "fewer rows":
                write_sound(chance, path, texts[:-1])
            case "more rows":
                write_sound(chance, path, [*texts, "one more"])
            case "a folder":
                path.unlink()
                path.mkdir()
            case "same":
                path.write_bytes(data)

    config = write_config(folder, records=_format(chance))
    outcome = outcome_of(lambda: build_and_check(config, between=harm))
    if change != "same" and outcome.ending != "error":
        return Outcome("wrong", f"{change}: {outcome.ending}: {outcome.detail}")
    return outcome


def huge_document(chance: random.Random, folder: Path) -> Outcome:
    """One document of 200 MB: prose, one word, one letter, or not UTF-8 at its very end."""
    size = 200_000_000
    what = chance.choice(["prose", "one letter", "not UTF-8", "among small ones"])
    sentence = b"x" if what == "one letter" else "".join(documents(chance)).encode() + b" and so on and on. "
    text = sentence * (size // len(sentence))
    rows = [text + b"\xff"] if what == "not UTF-8" else [text]
    rows = [b"the first one", *rows, b"the last one"] if what != "prose" else rows
    path = folder / "a" / "0.parquet"
    path.parent.mkdir()
    pq.write_table(pa.table({"text": pa.array(rows, pa.large_binary()).cast(pa.large_string(), safe=False)}), path)
    del text, rows
    forget_peak()
    config = write_config(folder, shards={"target_size": "64MiB"}, on_bad_rows="quarantine")
    return outcome_of(lambda: _build_only(config, {"not_text": 1} if what == "not UTF-8" else {}))


def empty_rows(chance: random.Random, folder: Path) -> Outcome:
    """Ten million rows without text, and one with some."""
    path = folder / "a" / "0.parquet"
    path.parent.mkdir()
    kind = chance.choice(["empty", "null"])
    value = None if kind == "null" else ""
    rows = 10_000_000
    schema = pa.schema([("text", pa.string())])
    part = pa.table({"text": pa.array([value] * 1_000_000, pa.string())})
    with pq.ParquetWriter(path, schema) as writer:
        for _ in range(rows // len(part)):
            writer.write_table(part)
        # Rows after the last document would be none of the dataset's.
        writer.write_table(pa.table({"text": ["the only one"]}))
    config = write_config(folder, on_bad_rows=chance.choice(["skip", "quarantine"]))
    return outcome_of(lambda: _build_only(config, {kind: rows}))


def repeated_document(chance: random.Random, folder: Path) -> Outcome:
    """A file of a few hundred kilobytes in which thousands of rows share one long text by a dictionary."""
    path = folder / "a" / "0.parquet"
    path.parent.mkdir()
    text = pa.array(["Brötchen " * 12_000])
    rows = pa.DictionaryArray.from_arrays(np.zeros(20_000, np.int32), text)
    pq.write_table(pa.table({"text": rows}), path, compression="zstd")
    config = write_config(folder, datasets={"a": {"tokens": 1000}})
    return outcome_of(lambda: _build_only(config, {}))


def _build_only(config: Path, skipped: dict[str, int]) -> Outcome:
    """Builds, and checks what is left out and that `verify` agrees: for what is too large to compare."""
    from beam_pipelines.config.mix import load_config
    from tests.campaign.hostile_build import build_by_steps, verify_by_steps
    from transforms.dataset.manifest import find_manifests

    output = str(config.parent / "out")
    build_by_steps(load_config(str(config)), output)
    verify_by_steps(output)
    (manifest,) = find_manifests(output).values()
    found = {reason: count for reason, count in manifest.skipped.items() if count}
    if found != skipped:
        raise Wrong(f"left out {found}, not {skipped}")
    return Outcome("skipped" if skipped else "built", str(skipped or ""))


KINDS = [
    CaseKind("parquet: cut", cut, weight=20),
    CaseKind("parquet: flipped bytes", flipped, weight=28),
    CaseKind("parquet: columns", columns, weight=8),
    CaseKind("parquet: not text", not_text, weight=8),
    CaseKind("parquet: nothing in it", nothing, weight=5),
    CaseKind("parquet: encrypted", encrypted, weight=2),
    CaseKind("parquet: changed after the plan", changing, weight=6),
    CaseKind("parquet: a document of 200 MB", huge_document, weight=1, memory_mib=3000, timeout_s=600, heavy=True),
    # A shard's rows are told by some 25 bytes each, which are held until it is finished.
    CaseKind("parquet: ten million rows without text", empty_rows, weight=1, memory_mib=600, timeout_s=600, heavy=True),
    CaseKind("parquet: one text in 20,000 rows", repeated_document, weight=1, timeout_s=300, heavy=True),
]
