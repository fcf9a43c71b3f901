"""The contenders that write ids, and those that count them: how each is called, and how its output is read back."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import same_work
from benchmarks.harness.corpus import Corpus
from benchmarks.harness.places import PEERS
from benchmarks.harness.same_work import Content, RowGroupTokens


@dataclass(frozen=True)
class Setting:
    """The settings that all contenders of a run share.

    Attributes:
        tokenizer: the tokenizer.json.
        broetchen: the command.
        workers: processes.
        eos_token: added after each document.
        max_tokens: ids of a record at most, where a contender writes records.
        shard_size: target size of ``build``'s shards.
        python: the Python of this environment.
        build_options, count_options: more arguments for ``build`` and for ``count``.
    """

    tokenizer: Path
    broetchen: Path
    workers: int = 2
    eos_token: str = "<|eos|>"
    max_tokens: int = 2048
    shard_size: str = "8MiB"
    python: Path = Path(sys.executable)
    build_options: Sequence[str] = ()
    count_options: Sequence[str] = ()


@dataclass(frozen=True)
class Contender:
    """One way to tokenize a corpus.

    Attributes:
        name: on the command line and in the results.
        title: in tables.
        command: arguments of the process, from the setting, corpus, output folder, statistics file and budget.
        read: reads the work in the output folder.
        row_group_tokens: how many tokens each row group has, from output folder, statistics file and corpus, where the
            contender can be the reference.
    """

    name: str
    title: str
    command: Callable[[Setting, Corpus, Path, Path, int], list[str]]
    read: Callable[[Path], Content]
    row_group_tokens: Callable[[Path, Path, Corpus], RowGroupTokens] | None = None


@dataclass(frozen=True)
class Counter:
    """One way to count a corpus.

    Attributes:
        name: on the command line and in the results.
        title: in tables.
        command: arguments of the process, from the setting, corpus, a folder for its logs and the statistics file.
        read: reads tokens and documents from the statistics file.
    """

    name: str
    title: str
    command: Callable[[Setting, Corpus, Path, Path], list[str]]
    read: Callable[[Any], tuple[int, int]]


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


def _count(setting: Setting, corpus: Corpus, folder: Path, stats: Path) -> list[str]:
    script = [str(setting.python), str(PEERS / "broetchen_count.py"), f"--broetchen={setting.broetchen}"]
    return [*script, *_common_count(setting, corpus, stats), *setting.count_options]


def _datatrove_count(setting: Setting, corpus: Corpus, folder: Path, stats: Path) -> list[str]:
    script = [str(setting.python), str(PEERS / "datatrove_counter.py")]
    return [*script, *_common_count(setting, corpus, stats), f"--workers={setting.workers}", f"--logs={folder}/logs"]


def _common_count(setting: Setting, corpus: Corpus, stats: Path) -> list[str]:
    return [f"--corpus={corpus.directory}", f"--tokenizer={setting.tokenizer}", f"--stats={stats}"]


def _loop_row_groups(output: Path, stats: Path, corpus: Corpus) -> RowGroupTokens:
    counts: Mapping[str, Sequence[int]] = json.loads(stats.read_text())["row_group_tokens"]
    return counts


LOOP = Contender(
    "loop", "plain loop, the ceiling", _loop, _array_records_in("*.arecord"), row_group_tokens=_loop_row_groups
)
BUILD = Contender("build", "broetchen build", _build, _array_records_in("corpus/train-*.arecord"))
BEAM = Contender("beam", "Beam, tokenizers, array_record's WriteToArrayRecord", _beam, _array_records_in("*.arecord"))
DATATROVE = Contender(
    "datatrove",
    "DataTrove DocumentTokenizer",
    _datatrove,
    lambda output: same_work.datatrove_files(output / "tokens"),
    row_group_tokens=lambda output, stats, corpus: same_work.datatrove_row_groups(output / "tokens", corpus.files),
)
# The first also comes first in a run: the others are held against its output.
CONTENDERS = (LOOP, BUILD, BEAM, DATATROVE)

COUNT = Counter("count", "broetchen count", _count, lambda rows: (rows[-1]["subtokens"], rows[-1]["documents"]))
DATATROVE_COUNT = Counter(
    "datatrove-counter",
    "DataTrove TokensCounter",
    _datatrove_count,
    lambda stats: (stats["tokens"], stats["documents"]),
)
COUNTERS = (COUNT, DATATROVE_COUNT)


def comparable(names: Sequence[str], *, plain_loop: bool) -> list[Contender]:
    """The contenders of these names that write the same ids, after the one that the others are held against.

    Args:
        names: of contenders.
        plain_loop: whether the plain loop encodes these texts with this tokenizer as `tokenizers` does. It leaves out
            added tokens, other splits, and characters that the engines do not know alike. Where it does not,
            DataTrove's output takes its place; that has no records, so that the Beam pipeline's cannot be held against
            it.
    """
    first, others = (LOOP, (BUILD, BEAM, DATATROVE)) if plain_loop else (DATATROVE, (BUILD,))
    return [first, *(contender for contender in others if contender.name in names)]
