"""The kinds of cases: each command that reads manifests or ledgers, on outputs that were harmed."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.campaign.hostile_case import CaseKind, Outcome, Wrong, outcome_of
from tests.campaign.untrusted.endings import check_shown, command
from tests.campaign.untrusted.harm import harm_ledger, harm_output
from tests.campaign.untrusted.sound import PATTERN, copied, copied_ledger, secrets
from tests.support.corpora import TOKENIZER
from transforms.counting.ledger import digest
from transforms.dataset.splits import open_dataset

_READ_RECORDS = 5


def _harmed(chance: random.Random, folder: Path) -> tuple[Path, list[str]]:
    output = copied(folder, chance.choice(["tokens", "tokens", "text", "parquet", "megatron"]), chance.choice([1, 2]))
    harm_output(chance, output, folder / "outside")
    return output, secrets(folder)


def _checked(work: Callable[[], Outcome]) -> Outcome:
    try:
        return work()
    except Wrong as wrong:
        return Outcome("wrong", str(wrong))


def _by_command(chance: random.Random, folder: Path, *, name: str) -> Outcome:
    output, hidden = _harmed(chance, folder)
    where = chance.choice([output, output, output / "a"])
    table = chance.choice([[], ["--format", "json"], ["--format", "csv"]])
    arguments: dict[str, list[Any]] = {
        "verify": [where],
        "report": [where, "--output", folder / "page.html", "--quiet"],
        "mix": [where, "--output", folder / "mixture.json", *chance.choice([[], ["--simulate", "20"]])],
        "status": [output, *table],
        "count": [where, *table],
        "show": [
            output / "a",
            *chance.choice([["-n", "3"], ["--id", "Straße a 3"], ["--record", "1", "--ids", "--split", "eval"]]),
            *chance.choice([[], ["--json"]]),
        ],
        "train": [folder / "run.yaml", "--dry-run"],
    }
    return _checked(lambda: command(folder, [name, *arguments[name]], hidden, folder / "page.html"))


def _opened(chance: random.Random, folder: Path) -> Outcome:
    output, hidden = _harmed(chance, folder)
    found = [path for path in output.iterdir() if not path.name.startswith(("b", "tokenizer-"))]

    def work() -> Outcome:
        with open_dataset(chance.choice([*found, output / "a"])) as dataset:
            check_shown(repr(dataset), hidden)
            for records in dataset.values():
                numbers = {0, len(records) - 1, *(chance.randrange(len(records) or 1) for _ in range(_READ_RECORDS))}
                for record in (records[number] for number in sorted(numbers) if 0 <= number < len(records)):
                    if any(secret in record.text for secret in hidden) or len(record.ids) > 1 << 20:
                        raise Wrong("reads a record from outside")
        return Outcome("built")

    ending = outcome_of(work)
    if ending.ending == "error":
        return _checked(lambda: _said(ending, hidden))
    return ending


def _said(ending: Outcome, hidden: list[str]) -> Outcome:
    check_shown(ending.detail, hidden)
    if "\n" in ending.detail:
        raise Wrong(f"more than one line: {ending.detail}")
    return ending


def _ledger(chance: random.Random, folder: Path) -> Outcome:
    ledger = copied_ledger(folder)
    harm_ledger(chance, ledger, folder / "outside", digest)
    counting: list[str | Path] = [
        "count",
        folder / PATTERN,
        "--tokenizer",
        TOKENIZER,
        "--ledger",
        ledger,
        "--format",
        "json",
    ]

    def work() -> Outcome:
        ending = command(folder, [*counting, "--format", "json"], secrets(folder))
        if ending.ending != "built":
            return ending
        counts = json.loads((folder / "stdout").read_text())[0]
        if (counts["documents"], counts["rows_left_out"]) != (56, 4):
            raise Wrong(f"counts {counts}")
        return ending

    return _checked(work)


_COMMANDS = {"verify": 3, "report": 2, "mix": 5, "status": 6, "count": 2, "show": 4, "train": 1}

# The first case of a process builds the sound outputs; a command has a shorter time of its own.
_BOUNDS: Mapping[str, Any] = {"memory_mib": 1000, "timeout_s": 400}

KINDS = [
    *(
        CaseKind(f"manifest: {name}", functools.partial(_by_command, name=name), weight=weight, **_BOUNDS)
        for name, weight in _COMMANDS.items()
    ),
    CaseKind("manifest: open_dataset", _opened, weight=11, **_BOUNDS),
    CaseKind("ledger: count", _ledger, weight=3, **_BOUNDS),
]
