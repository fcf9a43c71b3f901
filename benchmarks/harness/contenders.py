"""The contenders: how each is called, and how its output is read back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import same_work
from benchmarks.harness.corpus import Corpus
from benchmarks.harness.places import PEERS
from benchmarks.harness.same_work import Content


@dataclass(frozen=True)
class Setting:
    """What all contenders of a run share.

    Attributes:
        tokenizer: the tokenizer.json.
        eos_token: added after each document.
        max_tokens: ids of a record at most, where a contender writes records.
        workers: processes.
        shard_size: target size of ``build``'s shards.
        python: the Python of this environment.
        broetchen: the command.
        build_options: more arguments for ``build``.
    """

    tokenizer: Path
    eos_token: str
    max_tokens: int
    workers: int
    shard_size: str
    python: Path
    broetchen: Path
    build_options: Sequence[str]


@dataclass(frozen=True)
class Contender:
    """One way to tokenize a corpus.

    Attributes:
        name: on the command line and in the results.
        title: in tables.
        command: arguments of the process, from the setting, corpus, output folder, statistics file and budget.
        read: what lies in the output folder.
    """

    name: str
    title: str
    command: Callable[[Setting, Corpus, Path, Path, int], list[str]]
    read: Callable[[Path], Content]


def _common(setting: Setting, corpus: Corpus, output: Path) -> list[str]:
    return [
        f"--corpus={corpus.directory}",
        f"--tokenizer={setting.tokenizer}",
        f"--eos-token={setting.eos_token}",
        f"--output={output}",
    ]


def _loop(setting: Setting, corpus: Corpus, output: Path, stats: Path, budget: int) -> list[str]:
    script = [str(setting.python), str(PEERS / "plain_loop.py")]
    more = [f"--workers={setting.workers}", f"--max-tokens={setting.max_tokens}", f"--stats={stats}"]
    return [*script, *_common(setting, corpus, output), *more]


def _build(setting: Setting, corpus: Corpus, output: Path, stats: Path, budget: int) -> list[str]:
    script = [str(setting.python), str(PEERS / "broetchen_build.py"), f"--broetchen={setting.broetchen}"]
    more = [f"--max-tokens={setting.max_tokens}", f"--budget={budget}", f"--shard-size={setting.shard_size}"]
    return [*script, *_common(setting, corpus, output), *more, *setting.build_options]


def _beam(setting: Setting, corpus: Corpus, output: Path, stats: Path, budget: int) -> list[str]:
    script = [str(setting.python), str(PEERS / "beam_array_record.py")]
    more = [f"--workers={setting.workers}", f"--max-tokens={setting.max_tokens}", f"--stats={stats}"]
    return [*script, *_common(setting, corpus, output), *more]


def _datatrove(setting: Setting, corpus: Corpus, output: Path, stats: Path, budget: int) -> list[str]:
    script = [str(setting.python), str(PEERS / "datatrove_tokenizer.py")]
    return [*script, *_common(setting, corpus, output), f"--workers={setting.workers}", f"--stats={stats}"]


def _array_records_in(pattern: str) -> Callable[[Path], Content]:
    return lambda output: same_work.array_records(sorted(output.glob(pattern)))


# The plain loop comes first: what it writes is what the others are held against.
CONTENDERS = (
    Contender("loop", "plain loop, the ceiling", _loop, _array_records_in("*.arecord")),
    Contender("build", "broetchen build", _build, _array_records_in("corpus/train-*.arecord")),
    Contender("beam", "Beam, tokenizers, array_record's WriteToArrayRecord", _beam, _array_records_in("*.arecord")),
    Contender(
        "datatrove",
        "DataTrove DocumentTokenizer",
        _datatrove,
        lambda output: same_work.datatrove_files(output / "tokens"),
    ),
)
