"""Encodes random texts by both engines with random tokenizers, and names the differences.

    python -m tests.campaign.engines --strings 1_000_000 --seed 1

Each tokenizer has a split, a normalizer, merges and added tokens drawn from those that are given to gigatoken. With
`--tokenizer FILE …` published ones are tried as well. A difference is printed with its cause, and the command ends
with 1.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import random
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from tests.campaign.engines.draw import draw_texts, draw_tokenizer
from tests.support.small_tokenizers import as_file
from transforms.encoding.encoders import GigatokenEncoder, ReferenceEncoder
from transforms.encoding.unfit import GigatokenUnfitError
from transforms.errors import BroetchenError
from transforms.segments.encoded import first_difference
from transforms.tokenizer.spec import SpecialTokens

_TEXTS_OF_A_TOKENIZER = 2000
_MODES: tuple[SpecialTokens, ...] = ("text", "token")


def compare(chance: random.Random, tokenizer: dict[str, Any]) -> tuple[int, str | None]:
    """How many texts were encoded alike, and the first difference."""
    file = as_file(tokenizer)
    mode = chance.choice(_MODES)
    reference, fast = ReferenceEncoder(file, mode), GigatokenEncoder(file, mode)
    texts = draw_texts(chance, tokenizer, _TEXTS_OF_A_TOKENIZER)
    for batch in itertools.batched(texts, 200):
        array = pa.array(batch, pa.large_string())
        if first_difference(reference.encode(array), fast.encode(array)) is None:
            continue
        for text in batch:
            one = pa.array([text], pa.large_string())
            expected, found = reference.encode(one).ids.tolist(), fast.encode(one).ids.tolist()
            if expected != found:
                return 0, f"special_tokens={mode}, {text!r}: {found}, not {expected}"
        return 0, f"special_tokens={mode}: a batch differs, and none of its texts alone: {batch!r}"
    return len(texts), None


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaign.engines", description=__doc__.split("\n\n")[0])
    parser.add_argument("--strings", type=lambda text: int(text.replace("_", "")), default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokenizer", type=Path, nargs="*", default=[])
    given = parser.parse_args()
    console = Console(stderr=True)
    published = [(path.name, json.loads(path.read_text())) for path in given.tokenizer]
    counts: collections.Counter[str] = collections.Counter()
    differences: list[str] = []
    for number in track(range(-(-given.strings // _TEXTS_OF_A_TOKENIZER)), "tokenizers", console=console):
        chance = random.Random(f"{given.seed} {number}")
        if published and number % 2:
            name, tokenizer = published[number // 2 % len(published)]
        else:
            name, tokenizer = draw_tokenizer(chance)
        try:
            alike, difference = compare(chance, tokenizer)
        except GigatokenUnfitError as error:
            counts[f"{name}: {error.reason}"] += 0
            continue
        except BroetchenError as error:
            # The reference itself gives up where added tokens overlap by the white space that they take, and does
            # as chance has it where two are one once they are normalized.
            if "bad split" not in str(error) and "by chance" not in str(error):
                raise
            counts["not by tokenizers"] += 0
            continue
        counts[name] += alike
        if difference is not None:
            differences.append(f"seed {given.seed}, tokenizer {number}, {name}: {difference}")
    table = Table(title=f"{sum(counts.values()):,} texts alike")
    table.add_column("split")
    table.add_column("texts", justify="right")
    for name, alike in sorted(counts.items()):
        table.add_row(escape(name), f"{alike:,}" if alike else "not by gigatoken")
    Console().print(table)
    for difference in differences:
        print(difference)
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
