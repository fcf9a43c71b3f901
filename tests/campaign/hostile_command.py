"""Hostile inputs by the command line, as a user meets them: exit codes, and no traceback."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.campaign.hostile_build import write_config
from tests.campaign.hostile_case import Outcome
from tests.campaign.hostile_parquet import write_sound
from tests.support.command import run_command


def _ended(expected: int, *arguments: str | Path) -> Outcome:
    result = run_command(*arguments, timeout=300)
    said = result.stdout + result.stderr
    if result.returncode != expected:
        return Outcome("wrong", f"exit code {result.returncode}, not {expected}: {said[-1500:]}")
    if "Traceback" in said or "unexpected " in said or "broetchen: " not in result.stderr:
        return Outcome("wrong", f"not an error to show: {said[-1500:]}")
    return Outcome("error", result.stderr.strip())


def _build(expected: int, folder: Path, **changes: object) -> Outcome:
    return _ended(expected, "build", write_config(folder, **changes), "--output", folder / "out")


def _cut_parquet(chance: random.Random, folder: Path) -> Outcome:
    path = folder / "a" / "0.parquet"
    write_sound(chance, path)
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(len(data))])
    return _build(1, folder)


def _pages(chance: random.Random, folder: Path) -> Outcome:
    path = folder / "a" / "0.parquet"
    write_sound(chance, path)
    data = path.read_bytes()
    footer = int.from_bytes(data[-8:-4], "little") + 8
    path.write_bytes(b"PAR1" + b"\xff" * (len(data) - footer - 4) + data[-footer:])
    return _build(1, folder)


def _bad_rows(chance: random.Random, folder: Path) -> Outcome:
    write_sound(chance, folder / "a" / "0.parquet", [b"gut", b"\xed\xa0\x80"])
    return _build(1, folder, on_bad_rows="fail")


def _no_column(chance: random.Random, folder: Path) -> Outcome:
    write_sound(chance, folder / "a" / "0.parquet")
    return _build(2, folder, datasets={"a": {"text_column": chance.choice(["content", "id", "../text"])}})


def _no_source(chance: random.Random, folder: Path) -> Outcome:
    return _build(2, folder)


def _bomb(chance: random.Random, folder: Path) -> Outcome:
    path = folder / "mix.yaml"
    path.write_bytes(chance.choice([b"a: &a [*a]\n", b"[" * 100_000, b"\x00", b"x" * (1 << 21)]))
    return _ended(2, "build", path, "--output", folder / "out")


def _name(chance: random.Random, folder: Path) -> Outcome:
    return _build(2, folder, name=chance.choice(["../x", "/abs", "a\x00b", ""]))


def _tokenizer(chance: random.Random, folder: Path) -> Outcome:
    path = folder / "tokenizer.json"
    path.write_bytes(chance.choice([b"", b"{}", b"[" * 100_000, b'{"model": 5}', b"\xff"]))
    write_sound(chance, folder / "a" / "0.parquet")
    return _build(2, folder, tokenizer={"path": str(path)})


def _shard(chance: random.Random, folder: Path) -> Outcome:
    write_sound(chance, folder / "a" / "0.parquet")
    if (built := run_command("build", write_config(folder), "--output", folder / "out")).returncode:
        return Outcome("wrong", built.stderr[-1500:])
    path = chance.choice(sorted((folder / "out" / "a").glob("*.arecord")))
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1
    path.write_bytes(data)
    return _ended(1, "verify", folder / "out")


def _manifest(chance: random.Random, folder: Path) -> Outcome:
    path = folder / "out" / "a" / "manifest.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(chance.choice([b"", b"{}", b"[" * 100_000, b"\xff", b'{"format": 5}']))
    return _ended(1, chance.choice(["verify", "count", "mix"]), folder / "out")


COMMANDS: Mapping[str, Callable[[random.Random, Path], Outcome]] = {
    "parquet that is cut": _cut_parquet,
    "pages of nonsense": _pages,
    "rows that are not text": _bad_rows,
    "another column": _no_column,
    "no source": _no_source,
    "a bomb for a config": _bomb,
    "a name that leaves the folder": _name,
    "no tokenizer": _tokenizer,
    "a damaged shard": _shard,
    "a damaged manifest": _manifest,
}
