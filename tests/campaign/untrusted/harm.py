"""The harm that is done to manifests, ledgers and the files that they name."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.campaign.untrusted.sound import write
from transforms.dataset.manifest import NAME

#: steers a terminal, turns text around, breaks a line, is markup of rich's or HTML
_NASTY = (
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31m",
    "a\rb",
    "a\nbroetchen: all is well",
    "\x00",
    "\u202egnp.exe",
    "\ud800",
    "[red]x[/red]",
    "[/]",
    "[link=file:///etc/passwd]x[/link]",
    "<script>alert(1)</script>",
    "{{ 7 * 7 }}",
    "%s%n$(id)`id`",
)
_PATHS = (
    "..",
    "../../outside/secret/train-00000-of-00001.arecord",
    "../../outside/secret.txt",
    "../b/train-00000-of-00001.arecord",
    "/etc/passwd",
    "/dev/zero",
    "./train-00000-of-00001.arecord",
    "_quarantine/../../b/manifest.json",
    "_trace/../../outside/secret/_trace/train-00000-of-00001.parquet",
    "file:///etc/passwd",
    "hf://datasets/x/y/z",
    "train-00000-of-00001.arecord/",
    "../outside/secret.txt",
    "~/x",
    "C:\\x",
    "*",
)
_NUMBERS = (0, 1, -1, 2**31, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64, 2**70, 10**400, 1.5, -0.0, 1e308)
_OTHERS: tuple[Any, ...] = (None, True, False, "", "x", "5", [], {}, [[]], [None], {"a": {}}, {"": 0})

_SPARSE_BYTES = 300 << 20


def value(chance: random.Random) -> Any:
    """Something that does not belong there."""
    kind = chance.randrange(8)
    if kind < 2:
        return chance.choice(_NUMBERS)
    if kind < 4:
        return chance.choice(_OTHERS)
    if kind == 4:
        return chance.choice(_NASTY)
    if kind == 5:
        return chance.choice(_PATHS)
    if kind == 6:
        return "x" * chance.choice([300, 10_000, 1_000_000])
    nested: Any = chance.choice([0, "x"])
    for _ in range(chance.choice([5, 100, 900])):
        nested = [nested] if chance.random() < 0.5 else {"a": nested}
    return nested


def places(content: Any) -> Iterator[tuple[Any, Any]]:
    """All (container, key) of a JSON value."""
    keys = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, inner in keys:
        yield content, key
        yield from places(inner)


def change(chance: random.Random, content: Any) -> None:
    """Changes one thing: a value, its key, or how often it is there."""
    found = list(places(content))
    # Not mostly row groups.
    depth = chance.choice([found, [place for place in found if isinstance(place[0], dict)]]) or found
    container, key = chance.choice(depth)
    match chance.randrange(6):
        case 0:
            del container[key]
        case 1 if isinstance(container, dict):
            container[str(value(chance))[:2000]] = container.pop(key)
        case 1 | 2 if isinstance(container, list):
            container.extend([container[key]] * chance.choice([1, 5000]))
        case 3 if isinstance(container, dict):
            container[chance.choice(["extra", "starts", "rows", "passes", "beside", *_NASTY])] = value(chance)
        case _:
            container[key] = value(chance)


def lie(chance: random.Random, manifest: dict[str, Any]) -> None:
    """Something that is of the right form, and cannot be."""
    number = chance.choice([0, 0, 1, 2**31, 2**53, 2**62, 2**63 - 1])
    splits = list(manifest["splits"].values())
    part = chance.choice(["tokens", "records", "documents", "bytes", "budget", "missing", "documents_put_back"])
    match chance.randrange(9):
        case 0:
            for split in splits:
                for entry in [split, *split["shards"]]:
                    entry.update({part: number} if part in entry else {})
        case 1:
            split = chance.choice(splits)
            split.update(tokens=number, budget=number, missing=0)
            manifest["config"]["dataset"]["tokens"] = number
        case 2:
            manifest["tokenizer"][chance.choice(["vocab_size", "bos_id", "eos_id"])] = chance.choice([0, 1, 2**32 - 1])
        case 3:
            manifest["config"]["records"]["max_tokens"] = chance.choice([1, 2**31 - 1])
        case 4:
            manifest["splits"] = chance.choice([{}, {"eval": splits[-1]}, {"other": splits[0]}])
        case 5:
            chance.choice(splits)["shards"] = []
        case 6:
            manifest["config"]["records"]["format"] = chance.choice(["tokens", "text", "parquet"])
        case 7:
            manifest["config"]["dataset"]["text_column"] = chance.choice([*_NASTY, "", "id"])
            manifest["source"][0]["path"] = chance.choice([*_NASTY, "hf://datasets/x/y@\x1b[2J/z", "/etc/passwd"])
            manifest["versions"][chance.choice(["x", *_NASTY])] = chance.choice(_NASTY)
        case _:
            manifest["dataset"] = manifest["mix"] = chance.choice([*_NASTY, "a", "b", "x" * 256])


def names(chance: random.Random, manifest: dict[str, Any]) -> None:
    """Names of files that lead elsewhere."""
    entries = [shard for split in manifest["splits"].values() for shard in split["shards"]]
    held = manifest.get("quarantine", [])
    beside = [one for entry in entries for one in entry.get("beside", [])]
    traces = [entry["trace"] for entry in entries if isinstance(entry.get("trace"), dict)]
    where = chance.choice(_PATHS if chance.random() < 0.8 else _NASTY)
    match chance.randrange(5):
        case 0:
            manifest["tokenizer"]["path"] = where
        case 1 if held:
            chance.choice(held)["file"] = where
        case 2 if beside:
            chance.choice(beside)["file"] = where
        case 3 if traces:
            chance.choice(traces)["file"] = where
        case _:
            chance.choice(entries)["file"] = where


def spoil_text(chance: random.Random, path: Path) -> None:
    """Bytes that are no JSON, not UTF-8, too many, or JSON that says one thing twice."""
    data = path.read_bytes()
    match chance.randrange(10):
        case 0:
            path.write_bytes(data[: chance.randrange(len(data))])
        case 1:
            changed = bytearray(data)
            for _ in range(chance.choice([1, 1, 8])):
                changed[chance.randrange(len(data))] = chance.randrange(256)
            path.write_bytes(changed)
        case 2:
            path.write_bytes(b"\xef\xbb\xbf" + data if chance.random() < 0.5 else data.decode().encode("utf-16"))
        case 3:
            path.write_bytes(chance.choice([b"[", b'{"a":', b'[{"a":']) * chance.choice([100, 30_000, 1_000_000]))
        case 4:
            with path.open("r+b") as file:
                file.truncate(_SPARSE_BYTES)
        case 5:
            many = [b"[%s0]" % (b"0," * 20_000_000), b"{%s}" % b",".join(b'"%d":0' % key for key in range(1_000_000))]
            path.write_bytes(chance.choice(many))
        case 6:
            numbers = list(re.finditer(rb":\s*[0-9]+", data))
            chosen = chance.choice(numbers)
            other = chance.choice([b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"1_000", b"0x10", b"\xd9\xa3"])
            path.write_bytes(data[: chosen.start()] + b": " + other + data[chosen.end() :])
        case 7:
            keys = list(re.finditer(rb'"[a-z_]+":\s*("[^"]*"|[0-9]+)', data))
            chosen = chance.choice(keys)
            twice = chosen.group() + b", " + chosen.group()
            path.write_bytes(data[: chosen.start()] + twice + data[chosen.end() :])
        case 8:
            path.write_bytes(chance.choice([b"", b"\n", b"null", b"0", b'"x"', b"[]", b"{}", b"\xff", b"\x00" * 4096]))
        case _:
            path.write_bytes(re.sub(rb'":\s*"', rb'": "\\ud800', data, count=chance.choice([1, 3])))


def replace_file(chance: random.Random, path: Path, outside: Path) -> None:
    """Puts something else than a regular file in the place of one."""
    path.unlink()
    beside = sorted(one for one in outside.rglob("*") if one.is_file())
    alike = [one for one in beside if one.suffix == path.suffix] or beside
    match chance.randrange(9):
        case 0 | 1:
            path.symlink_to(chance.choice(alike))
        case 2:
            path.symlink_to(chance.choice(["/dev/zero", "/etc/passwd", path.name, "gone", "/proc/self/environ"]))
        case 3 | 4:
            os.mkfifo(path)
        case 5:
            path.mkdir()
        case 6:
            with contextlib.closing(socket.socket(socket.AF_UNIX)) as listening:
                listening.bind(os.path.relpath(path))
        case 7:
            with path.open("wb") as file:
                file.truncate(_SPARSE_BYTES)
        case _:
            path.symlink_to(os.path.relpath(chance.choice(alike), path.parent))


def harm_files(chance: random.Random, output: Path, outside: Path) -> None:
    """Links, FIFOs and the like in an output, and folders with names that nobody gives."""
    dataset = output / "a"
    match chance.randrange(6):
        case 0:
            replace_file(chance, dataset / NAME, outside)
        case 1:
            replace_file(chance, chance.choice(sorted(output.glob("tokenizer-*/*"))), outside)
        case 2:
            folder = chance.choice([dataset / "_quarantine", dataset / "_trace", *output.glob("tokenizer-*")])
            if not folder.is_dir():
                return
            shutil.rmtree(folder)
            target = chance.choice([outside, outside / "secret", next(outside.glob("tokenizer-*")), Path("/")])
            folder.symlink_to(target)
        case 3:
            safe = [name for name in _NASTY if not {"\x00", "\ud800", "/"} & set(name)]
            dataset.rename(output / chance.choice(safe))
        case _:
            files = [path for path in dataset.rglob("*") if path.is_file() and path.name != NAME]
            replace_file(chance, chance.choice(sorted(files)), outside)


def _several(chance: random.Random, how: Callable[[random.Random, Any], None], content: Any) -> None:
    for _ in range(chance.choice([1, 1, 2, 4])):
        with contextlib.suppress(IndexError, KeyError, TypeError, AttributeError):  # an earlier one broke it
            how(chance, content)


def harm_output(chance: random.Random, output: Path, outside: Path) -> None:
    """Does one kind of harm to a sound output."""
    path = output / "a" / NAME
    how: Callable[[random.Random, Any], None] = chance.choice([change, change, lie, names])
    match chance.randrange(5):
        case 0:
            harm_files(chance, output, outside)
        case 1:
            spoil_text(chance, path)
        case _:
            content = json.loads(path.read_bytes())
            _several(chance, how, content)
            _write(path, content)


def harm_ledger(chance: random.Random, ledger: Path, outside: Path, seal: Callable[[Any], str]) -> None:
    """Does one kind of harm to an entry of a ledger; a changed one often gets the checksum that it needs."""
    path = chance.choice(sorted(ledger.glob("*/*.json")))
    match chance.randrange(4):
        case 0:
            replace_file(chance, path, outside)
        case 1:
            spoil_text(chance, path)
        case _:
            entry = json.loads(path.read_bytes())
            _several(chance, change, entry)
            if isinstance(entry, dict) and chance.random() < 0.7:
                with contextlib.suppress(UnicodeEncodeError, RecursionError):
                    entry["sha256"] = seal({key: entry.get(key) for key in ("counted", "row_groups")})
            _write(path, entry)


def _write(path: Path, content: Any) -> None:
    try:
        write(path, content)
    except UnicodeEncodeError:
        path.write_text(json.dumps(content))
