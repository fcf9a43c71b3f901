"""Finished datasets that somebody damaged: `verify` has to see it, whatever it is, and to live through it."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from beam_pipelines.config.mix import load_config
from beam_pipelines.jobs.verify import verify
from tests.campaign.hostile_build import build_by_steps, verify_by_steps, write_config
from tests.campaign.hostile_case import CaseKind, Outcome, Wrong, outcome_of
from tests.campaign.hostile_parquet import documents, write_sound

_VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    2**63,
    2**70,
    1.5,
    "",
    "x",
    "..",
    "../../../etc/passwd",
    "/etc/passwd",
    "\x00",
    [],
    {},
    [1],
    {"a": 1},
]


@cache
def _sound(record_format: str) -> Path:
    """A sound output, made once a process."""
    chance = random.Random(record_format)
    folder = Path(tempfile.mkdtemp(prefix="hostile-sound-"))
    rows: list[Any] = [*(text for _ in range(8) for text in documents(chance)), None, b"\xff", b""]
    chance.shuffle(rows)
    write_sound(chance, folder / "a" / "0.parquet", rows)
    records = {"format": record_format, "add_eos": record_format == "tokens"}
    config = write_config(folder, records=records, on_bad_rows="quarantine", shards={"target_size": 1000})
    build_by_steps(load_config(str(config)), str(folder / "out"))
    return folder / "out"


def _refused(chance: random.Random, output: Path, sound: Path) -> Outcome:
    same = _tree(output) == _tree(sound)

    def work() -> Outcome:
        if chance.random() < 0.05:
            verify(str(output))
        else:
            verify_by_steps(str(output))
        if not same:
            raise Wrong("verify finds nothing wrong")
        return Outcome("built", "nothing changed")

    return outcome_of(work)


def _tree(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _copied(chance: random.Random, folder: Path) -> tuple[Path, Path]:
    sound = _sound(chance.choice(["tokens", "tokens", "text", "parquet"]))
    shutil.copytree(sound, folder / "out")
    return folder / "out", sound


def shards(chance: random.Random, folder: Path) -> Outcome:
    """Shards and quarantines with flipped bytes, cut, swapped, lost, doubled or emptied."""
    output, sound = _copied(chance, folder)
    paths = sorted([*(output / "a").glob("*-of-*"), *(output / "a" / "_quarantine").iterdir()])
    path = chance.choice(paths)
    data = bytearray(path.read_bytes())
    match chance.randrange(8):
        case 0:
            path.write_bytes(data[: chance.randrange(len(data))])
        case 1:
            path.unlink()
        case 2:
            path.write_bytes(chance.choice(paths).read_bytes())
        case 3:
            shutil.copy(path, path.with_name(chance.choice(["train-00099-of-00100.arecord", "x.parquet", "y.arecord"])))
        case 4:
            path.write_bytes(data + bytes(chance.choice([1, 65536])))
        case _:
            for _ in range(chance.choice([1, 1, 4, 64])):
                data[chance.randrange(len(data))] = chance.randrange(256)
            path.write_bytes(data)
    new = _tree(output).keys() - _tree(sound).keys()
    kinds = {file.suffix for file in _tree(sound) if file.parent == Path("a")}
    if any(file.parent == Path("a") and file.suffix not in kinds for file in new):
        return Outcome("built", "a file that no reader of shards looks at")
    return _refused(chance, output, sound)


def resealed(chance: random.Random, folder: Path) -> Outcome:
    """A damaged shard whose new checksum and size are in the manifest: only its records tell."""
    output, _ = _copied(chance, folder)
    path = chance.choice(sorted((output / "a").glob("*-of-*")))
    data = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 1, 4, 64])):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    manifest = json.loads((output / "a" / "manifest.json").read_bytes())
    for shard in manifest["splits"]["train"]["shards"]:
        if shard["file"] == path.name:
            shard["sha256"] = hashlib.sha256(data).hexdigest()
    (output / "a" / "manifest.json").write_text(json.dumps(manifest))
    # The findings depend on the format's own checksums; a crash must not happen.
    return _lived_through(output, "no one could see it")


def manifests(chance: random.Random, folder: Path) -> Outcome:
    """A manifest with some values replaced by others, cut, scrambled or gone."""
    output, _ = _copied(chance, folder)
    path = output / "a" / "manifest.json"
    text = path.read_bytes()
    match chance.randrange(4):
        case 0:
            path.write_bytes(text[: chance.randrange(len(text))])
        case 1:
            data = bytearray(text)
            data[chance.randrange(len(data))] = chance.randrange(256)
            path.write_bytes(data)
        case 2:
            tokenizer = next(iter(output.glob("tokenizer-*/tokenizer.json")))
            gone = chance.choice([tokenizer, path])
            gone.unlink()
            if chance.random() < 0.3:
                gone.write_bytes(b"{}")
        case _:
            manifest = json.loads(text)
            section: Any = manifest
            while True:
                keys = list(section) if isinstance(section, dict) else list(range(len(section)))
                if not keys:
                    break
                key = chance.choice(keys)
                if isinstance(section[key], dict | list) and chance.random() < 0.8:
                    section = section[key]
                    continue
                section[key] = chance.choice(_VALUES)
                break
            path.write_text(json.dumps(manifest))
    # Not all of a manifest can be held against the dataset: the versions of libraries, say.
    return _lived_through(output, "nothing that verify reads")


def _lived_through(output: Path, otherwise: str) -> Outcome:
    def work() -> Outcome:
        verify_by_steps(str(output))
        return Outcome("built", otherwise)

    return outcome_of(work)


KINDS = [
    CaseKind("verify: damaged shards", shards, weight=8),
    CaseKind("verify: damaged and sealed again", resealed, weight=4),
    CaseKind("verify: manifests", manifests, weight=6),
]
