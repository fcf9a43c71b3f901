"""The mistakes themselves: how each is made, and the words of its message."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tests.campaign.mistakes.places import Place
from tests.support.corpora import SAMPLES, TOKENIZER
from tests.support.services.hub_server import COMMIT

Command = Sequence[str | Path]

_GERMAN, _ENGLISH = SAMPLES / "corpora/fineweb2_german", SAMPLES / "corpora/fineweb_edu_english"
_NO_COMMIT = "0" * 40


@dataclasses.dataclass(frozen=True)
class Mistake:
    """One mistake.

    Attributes:
        name: of the mistake.
        make: makes it in an empty folder, and returns the arguments of the command.
        words: of the message.
        code: the exit code.
        before: the arguments of a command that has to succeed before, by the same folder.
        place: where it is run.
        environment: more variables, with the address of a service for `{hub}` and the others of `services`.
        interrupted: whether Ctrl-C is pressed while it works.
    """

    name: str
    make: Callable[[Path], Command]
    words: Sequence[str]
    code: int = 2
    before: Callable[[Path], Command] | None = None
    place: Place = "here"
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    interrupted: bool = False


def _config(folder: Path, **changes: Any) -> Path:
    """A config of one dataset, `german`, with other keys, and other keys of the dataset as `dataset`."""
    content: dict[str, Any] = {
        "name": "my-mix",
        "tokenizer": {"path": str(TOKENIZER), "eos_token": "<|eos|>"},
        "records": {"max_tokens": 512, "add_eos": True},
        "datasets": {"german": {"tokens": 20_000, "source": f"{_GERMAN}/*.parquet"} | changes.pop("dataset", {})},
    }
    path = folder / "mix.yaml"
    path.write_text(yaml.safe_dump(content | changes, sort_keys=False))
    return path


def _build(**changes: Any) -> Callable[[Path], Command]:
    return lambda folder: ("build", _config(folder, **dict(changes)), "--output", folder / "out")


def _of_text(text: str) -> Callable[[Path], Command]:
    def make(folder: Path) -> Command:
        path = folder / "mix.yaml"
        path.write_text(text)
        return "build", path, "--output", folder / "out"

    return make


def _edited(old: str, new: str) -> Callable[[Path], Command]:
    """The sound config, with one text for another."""

    def make(folder: Path) -> Command:
        path = _config(folder)
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        return "build", path, "--output", folder / "out"

    return make


def _source(write: Callable[[Path], object], source: str = "raw/*.parquet") -> Callable[[Path], Command]:
    """A source in the folder `raw`, which `write` fills."""

    def make(folder: Path) -> Command:
        (folder / "raw").mkdir()
        write(folder / "raw")
        return _build(dataset={"source": source})(folder)

    return make


def _cut(raw: Path) -> None:
    data = sorted(_GERMAN.glob("*.parquet"))[0].read_bytes()
    (raw / "0.parquet").write_bytes(data[: len(data) // 2])


def _table(name: str, **columns: Any) -> Callable[[Path], None]:
    return lambda raw: pq.write_table(pa.table(columns), raw / name)


def _inside(folder: Path) -> Command:
    shutil.copytree(_GERMAN, folder / "data")
    return (
        "build",
        _config(folder, dataset={"source": "data/**/*.parquet"}, records={"format": "parquet"}),
        "--output",
        folder / "data",
    )


def _on_disk(folder: Path) -> Command:
    (folder / "disk").mkdir(exist_ok=True)
    return "build", _config(folder), "--output", folder / "disk/out"


def _on(output: str) -> Callable[[Path], Command]:
    return lambda folder: ("build", _config(folder), "--output", output)


def _bare(*arguments: str) -> Callable[[Path], Command]:
    return lambda folder: [argument.format(folder=folder) for argument in arguments]


def _training(folder: Path, **changes: Any) -> Path:
    """A training config for what is at `folder/out`."""
    path = folder / "train.yaml"
    content: dict[str, Any] = {
        "name": "my-run",
        "data": {"outputs": str(folder / "out")},
        "model": "nano-german-slm",
        "output": str(folder / "runs"),
        "parameters": {
            "steps": 10,
            "learning_rate": 6e-06,
            "per_device_batch_size": 1,
            "max_target_length": 512,
            "packing": True,
        },
    }
    path.write_text(yaml.safe_dump(content | changes))
    return path


def _train(**changes: Any) -> Callable[[Path], Command]:
    return lambda folder: ("train", _training(folder, **changes), "--target", "local", "--dry-run")


def _interrupted(folder: Path) -> Command:
    return "build", _config(folder, dataset={"tokens": "400K", "on_shortfall": "keep"}), "--output", folder / "out"


_HUB = "hf://datasets/HuggingFaceFW/fineweb-2@" + _NO_COMMIT + "/data/*.parquet"
_HUB_TOKENIZER = {"path": "no-such-owner/no-such-tokenizer", "revision": _NO_COMMIT, "eos_token": "<|eos|>"}


def _asked(hub: str, store: str) -> dict[str, str]:
    """The environment in which another hub and another store are asked than those of the world."""
    return {"HF_ENDPOINT": hub, "STORAGE_EMULATOR_HOST": store, "GOOGLE_APPLICATION_CREDENTIALS": ""}


LOCAL: Sequence[Mistake] = [
    Mistake(
        "wrong source path",
        _build(dataset={"source": "no/such/*.parquet"}),
        ["mix.yaml:", "datasets.german.source", "no/such"],
    ),
    Mistake(
        "source path with a slip",
        _build(dataset={"source": f"{SAMPLES}/corpora/fineweb2_germann/*.parquet"}),
        ["mix.yaml:", "fineweb2_german?"],
    ),
    Mistake(
        "a folder for a pattern",
        _build(dataset={"source": str(_GERMAN)}),
        ["mix.yaml:", "datasets.german.source", "is a folder", "/*.parquet"],
    ),
    Mistake(
        "a pattern without a match",
        _build(dataset={"source": f"{_GERMAN}/*.parqet"}),
        ["mix.yaml:", "no file matches", ".parquet"],
    ),
    Mistake(
        "wrong text_column",
        _build(dataset={"text_column": "txt"}),
        ["mix.yaml:", "datasets.german.text_column", "did you mean", "text"],
    ),
    Mistake("text_column of numbers", _source(_table("0.parquet", text=[1, 2, 3])), ["mix.yaml:", "int64", "not text"]),
    Mistake(
        "no tokenizer file",
        _build(tokenizer={"path": "./tokeniser.json", "eos_token": "<|eos|>"}),
        ["mix.yaml:", "tokenizer.path", "tokeniser.json"],
    ),
    Mistake(
        "eos_token that the tokenizer lacks",
        _build(tokenizer={"path": str(TOKENIZER), "eos_token": "<eos>"}),
        ["mix.yaml:", "tokenizer.eos_token", "<|eos|>"],
    ),
    Mistake("no eos_token", _build(tokenizer={"path": str(TOKENIZER)}), ["mix.yaml:", "eos_token"]),
    Mistake("YAML syntax error", _edited("name: my-mix", "name: [my-mix"), ["mix.yaml:", "YAML"]),
    Mistake("tab in YAML", _of_text("name: my-mix\ntokenizer:\n\tpath: tokenizer.json\n"), ["mix.yaml:3", "tab"]),
    Mistake(
        "unknown key",
        _edited("tokens: 20000", "token: 20000"),
        ["mix.yaml:", "datasets.german.token", "did you mean `tokens`"],
    ),
    Mistake(
        "a list for a number", _edited("tokens: 20000", "tokens: [20000]"), ["mix.yaml:", "datasets.german.tokens"]
    ),
    Mistake(
        "budget of 2 bilion",
        _edited("tokens: 20000", "tokens: 2 bilion"),
        ["mix.yaml:", "datasets.german.tokens", "2B"],
    ),
    Mistake(
        "eval_tokens larger than tokens",
        lambda folder: (*_build(dataset={"eval_tokens": 50_000})(folder), "--dry-run"),
        ["mix.yaml:", "datasets.german.eval_tokens", "50,000", "20,000"],
        0,
    ),
    Mistake(
        "a dataset twice",
        _edited("datasets:\n", "datasets:\n  german: {tokens: 1, source: a}\n"),
        ["mix.yaml:", "twice"],
    ),
    Mistake("output inside source", _inside, ["mix.yaml:", "datasets.german.source", "also match"]),
    Mistake(
        "output that another config has built",
        _build(dataset={"tokens": 30_000}),
        ["another config", "tokens", "20,000", "30,000"],
        before=_build(),
    ),
    Mistake(
        "output of another seed and order",
        _build(seed=3, dataset={"order": "shuffled"}),
        ["another config", "seed", "order"],
        before=_build(),
    ),
    Mistake("output not writable", _on_disk, ["disk/out", "cannot be"], 1, place="read-only"),
    Mistake(
        "output is a file",
        lambda folder: ("build", _config(folder), "--output", _config(folder)),
        ["file, not a folder"],
        1,
    ),
    Mistake(
        "disk full",
        lambda folder: (
            "build",
            _config(folder, dataset={"tokens": "120K", "on_shortfall": "keep"}),
            "--output",
            folder / "disk/out",
        ),
        ["No space left"],
        1,
        place="full disk",
    ),
    Mistake("a truncated parquet", _source(_cut), ["0.parquet", "cut short"], 1),
    Mistake(
        "a file that is no parquet",
        _source(lambda raw: (raw / "0.parquet").write_text("hello\n" * 100)),
        ["0.parquet", "not a parquet file"],
        1,
    ),
    Mistake(
        "a csv for parquet",
        _source(lambda raw: (raw / "a.csv").write_text("id,text\n1,hello\n"), "raw/*.csv"),
        ["mix.yaml:", "a.csv", "parquet"],
    ),
    Mistake(
        "a directory named .parquet",
        _source(lambda raw: (raw / "a.parquet").mkdir()),
        ["mix.yaml:", "a.parquet", "folder"],
    ),
    Mistake(
        "a source without rows",
        _source(_table("0.parquet", text=pa.array([], pa.string()))),
        ["german", "no text"],
        1,
    ),
    Mistake(
        "a training config given to build",
        lambda folder: ("build", _training(folder), "--output", folder / "out"),
        ["train"],
    ),
    Mistake("train before build", _train(), ["no finished dataset", "build it first"], 1),
    Mistake("verify of a folder without datasets", _bare("verify", "{folder}"), ["no finished dataset"], 1),
    Mistake("report of a folder without datasets", _bare("report", "{folder}"), ["no finished dataset"], 1),
    Mistake("verify of a folder that is not there", _bare("verify", "{folder}/outt"), ["outt"], 1),
    Mistake("wrong --runner", lambda folder: (*_build()(folder), "--runner", "DataflowRuner"), ["DataflowRunner"]),
    Mistake("a misspelt option", lambda folder: (*_build()(folder), "--overwritte"), ["--overwrite"]),
    Mistake("a misspelt command", _bare("biuld", "mix.yaml"), ["build"]),
    Mistake("a missing argument", _bare("build", "--output", "out"), ["CONFIG"]),
    Mistake("a missing option", lambda folder: ("build", _config(folder)), ["--output"]),
    Mistake(
        "a config that is not there",
        _bare("build", "{folder}/mixx.yaml", "--output", "out"),
        ["mixx.yaml", "no such config"],
    ),
    Mistake("Ctrl-C", _interrupted, ["stopped", "run the same command again"], 130, interrupted=True),
]
"""Mistakes that need no network."""

SERVICES: Sequence[Mistake] = [
    Mistake(
        "hub tokenizer that does not exist",
        _build(tokenizer=_HUB_TOKENIZER),
        ["mix.yaml:", "tokenizer.path", "no-such-owner/no-such-tokenizer"],
        environment=_asked("{hub}", "{forbidden}"),
    ),
    Mistake(
        "hub tokenizer without a revision",
        _build(tokenizer={"path": "no-such-owner/no-such-tokenizer"}),
        ["mix.yaml:", "revision"],
        environment=_asked("{hub}", "{forbidden}"),
    ),
    Mistake(
        "hub dataset that does not exist",
        _build(dataset={"source": _HUB}),
        ["mix.yaml:", "datasets.german.source", "no such repository"],
        environment=_asked("{hub}", "{forbidden}"),
    ),
    Mistake(
        "a private hub dataset without token",
        _build(dataset={"source": "hf://datasets/me/secret@" + COMMIT + "/*.parquet"}),
        ["mix.yaml:", "HF_TOKEN"],
        environment=_asked("{hub}", "{forbidden}"),
    ),
    Mistake(
        "wrong bucket for a source",
        _build(dataset={"source": "gs://no-such-bucket/*.parquet"}),
        ["mix.yaml:", "gs://no-such-bucket", "bucket exists"],
        environment=_asked("{hub}", "{missing}"),
    ),
    Mistake(
        "wrong bucket for the output",
        _on("gs://no-such-bucket/out"),
        ["gs://no-such-bucket", "bucket exists"],
        1,
        environment=_asked("{hub}", "{missing}"),
    ),
    Mistake(
        "no rights on a bucket of a source",
        _build(dataset={"source": "gs://theirs/*.parquet"}),
        ["mix.yaml:", "gs://theirs", "permission"],
        environment=_asked("{hub}", "{forbidden}"),
    ),
    Mistake(
        "no rights on a bucket",
        _on("gs://theirs/out"),
        ["gs://theirs", "permission"],
        1,
        environment=_asked("{hub}", "{forbidden}"),
    ),
]
"""Mistakes that a hub or a store answers."""

_NO_NETWORKS: Sequence[tuple[str, Place, Mapping[str, str]]] = [
    ("names that do not resolve", "here", _asked("http://hub.invalid", "http://storage.invalid")),
    ("a host that refuses", "here", _asked("{refusing}", "{refusing}")),
    ("no network", "no network", {}),
    ("packets that are lost", "lost packets", {}),
    ("a port that never answers", "here", _asked("{silent}", "{silent}")),
]
_OVER_IT: Sequence[tuple[str, Callable[[Path], Command], str]] = [
    ("hub source", _build(dataset={"source": _HUB}), "hub"),
    ("hub tokenizer", _build(tokenizer=_HUB_TOKENIZER), "hub"),
    ("gs:// source", _build(dataset={"source": "gs://my-bucket/raw/*.parquet"}), "Google Cloud Storage"),
    ("gs:// output", _on("gs://my-bucket/out"), "Google Cloud Storage"),
]

NETWORK: Sequence[Mistake] = [
    Mistake(f"{what}, {how}", make, [service, "cannot be reached"], 1, place=place, environment=environment)
    for how, place, environment in _NO_NETWORKS
    for what, make, service in _OVER_IT
]
"""Mistakes with no network."""
