"""Sound outputs and ledgers of both format versions to do harm to, and a folder that nobody may be shown."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml

from tests.support.command import run_command
from tests.support.corpora import TOKENIZER
from tests.support.trainable_mixes import training_config
from transforms.arrayrecord.records import Format, holds_ids
from transforms.dataset.manifest import NAME

SECRET = "Geheimnis 7d1c"
"""The text of the documents outside the output; no command may show it."""

PATTERN = "corpus/*.parquet"

_NEWER = {"rows", "filtered"}
_NEWER_IN_SPLITS = ("passes", "beside", "trace", "documents_with_special_strings")


def write_corpus(path: Path, word: str) -> None:
    """A small parquet file with rows that hold no text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True)
    texts = [None if row % 17 == 5 else f"{word} {row}, und so weiter. " * 3 for row in range(60)]
    table = pa.table({"text": texts, "id": [f"{word} {row}" for row in range(60)]})
    pq.write_table(table, path, row_group_size=20)


def _run(*arguments: str | Path) -> None:
    done = run_command(*arguments, timeout=300)
    if done.returncode:
        raise RuntimeError(f"{arguments}: {done.stderr}")


@functools.cache
def _place() -> Path:
    """The corpora of all sound outputs; made once a process, read by nobody else."""
    folder = Path(tempfile.mkdtemp(prefix="untrusted-"))
    for dataset in ("a", "b"):
        write_corpus(folder / dataset / "0.parquet", f"Straße {dataset}")
    write_corpus(folder / "secret" / "0.parquet", SECRET)
    write_corpus(folder / "corpus" / "0.parquet", "Zählen")
    return folder


@functools.cache
def _sound(record_format: Format) -> tuple[Path, Path]:
    """A sound output of a format, and the files outside of it."""
    folder = _place()
    output, outside = folder / record_format, folder / "outside" / record_format
    _build(folder, record_format, ("a", "b"), output)
    _build(folder, record_format, ("secret",), outside)
    (outside / "secret.txt").write_text(f"{SECRET}\n" * 9)
    return output, outside


@functools.cache
def _sound_ledger() -> Path:
    ledger = _place() / "ledger"
    _run("count", _place() / PATTERN, "--tokenizer", TOKENIZER, "--ledger", ledger)
    return ledger


def _build(folder: Path, record_format: Format, datasets: tuple[str, ...], output: Path) -> None:
    content = {
        "name": "untrusted",
        "tokenizer": {"path": str(TOKENIZER), "eos_token": "<|eos|>"},
        "records": {"format": record_format, "max_tokens": 32, "add_eos": holds_ids(record_format), "trace": True},
        "shards": {"target_size": "1KiB"},
        "on_bad_rows": "quarantine",
        "datasets": {
            name: {
                "source": f"{folder}/{name}/*.parquet",
                "tokens": 900,
                "eval_tokens": 100,
                "trace_columns": ["id"],
            }
            for name in datasets
        },
    }
    config = folder / f"{record_format}.yaml"
    config.write_text(yaml.safe_dump(content))
    _run("build", config, "--output", output, "--quiet")


def copied(folder: Path, record_format: Format, version: int) -> Path:
    """A sound output in `folder` with manifests of a format version, and beside it files outside of it."""
    output, outside = _sound(record_format)
    shutil.copytree(output, folder / "out")
    shutil.copytree(outside, folder / "outside")
    training_config(folder, data={"outputs": "out"})
    for path in (folder / "out").glob(f"*/{NAME}"):
        content = json.loads(path.read_bytes())
        write(path, as_first(content) if version == 1 else as_second(content, path.parent))
        if version == 1:
            shutil.rmtree(path.parent / "_trace")
    return folder / "out"


def copied_ledger(folder: Path) -> Path:
    """A sound ledger in `folder`, and the files that it counts."""
    shutil.copytree(_sound_ledger(), folder / "ledger")
    shutil.copytree(_place() / "corpus", folder / "corpus")
    shutil.copytree(_sound("tokens")[1], folder / "outside")
    return folder / "ledger"


def secrets(folder: Path) -> list[str]:
    """Strings that no command may print: text from outside the output, and hashes that only a reader of it knows."""
    outside = [path for path in (folder / "outside").rglob("*") if path.is_file()]
    own = [path for path in folder.rglob("*") if path.is_file() and not path.is_relative_to(folder / "outside")]
    hashes = {hashlib.sha256(path.read_bytes()).hexdigest() for path in outside}
    return [SECRET.split()[0], *sorted(hashes - {hashlib.sha256(_small(path)).hexdigest() for path in own})]


def _small(path: Path) -> bytes:
    return b"" if path.is_symlink() or path.stat().st_size > 1 << 24 else path.read_bytes()


def write(path: Path, content: Any) -> None:
    """Writes JSON as the program does."""
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def as_first(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest as one of the first format version."""
    found = {key: value for key, value in manifest.items() if key not in _NEWER} | {"format_version": 1}
    for split in found["splits"].values():
        for entry in (split, *split["shards"]):
            for newer in _NEWER_IN_SPLITS:
                entry.pop(newer, None)
    found["config"]["records"].pop("trace", None)
    found["config"]["dataset"].pop("trace_columns", None)
    for source in found["source"]:
        source.pop("starts", None)
        source.pop("texts", None)
        source.pop("left_out", None)
    return found


def as_second(manifest: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same with the keys that a build of today leaves out; files beside shards are made."""
    train, dataset = manifest["splits"]["train"], manifest["config"]["dataset"]
    train["budget"] = dataset["tokens"] = 2 * train["tokens"]
    train["passes"], dataset["max_repeats"] = 2.0, 4
    for split in manifest["splits"].values():
        for shard in split["shards"]:
            if "beside" in shard:
                continue
            index = folder / f"{shard['file']}.idx"
            index.write_bytes(b"index")
            entry = {"file": index.name, "bytes": 5, "sha256": hashlib.sha256(b"index").hexdigest()}
            shard["beside"] = [entry]
    return manifest
