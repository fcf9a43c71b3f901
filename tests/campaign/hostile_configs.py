"""Mix configs that are bombs, nonsense, or nearly right."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from beam_pipelines.config.mix import MixConfig, load_config
from tests.campaign.hostile_case import CaseKind, Outcome, Wrong, outcome_of
from transforms.errors import UsageError

_GOOD = """\
name: my-mix
tokenizer:
  path: ./tokenizer.json
  eos_token: <|eos|>
total_tokens: 1M
records: {max_tokens: 64, add_eos: true}
shards: {target_size: 64KiB, compression: zstd:3}
on_shortfall: keep
on_bad_rows: quarantine
datasets:
  german: {share: 66.7%, eval_tokens: 1K, source: a/*.parquet}
  english: {share: 33.3%, source: [b/*.parquet, c.parquet], order: shuffled, text_column: content}
"""
_VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    2**64,
    10**29,
    10**40,
    0.1,
    float("inf"),
    float("nan"),
    "",
    " ",
    "\x00",
    "..",
    "../..",
    "/etc/passwd",
    "a/../../b",
    "C:\\x",
    "~",
    "~root/x",
    "gs://",
    "gs://b",
    "hf://x",
    "http://x/y",
    "file:///x",
    "*",
    "**",
    "[",
    "%",
    "100%",
    "-5%",
    "1e400",
    "NaN",
    "1_0",
    "٣",
    "１００",
    "\u202e",
    "\ud7ff",
    "é" * 300,
    "x" * 100_000,
    [],
    {},
    [[]],
    [None],
    [[["a"]]],
    {"a": None},
    {"": ""},
    {"a": {"b": {"c": []}}},
    ["a"] * 1000,
    "2025-01-01",
    "1:30",
    "!!python/object/apply:os.system [id]",
    "con",
    "nul",
    ".",
    "manifest.json",
    "_quarantine",
    ".broetchen",
]


def _checked(path: Path, overrides: Mapping[str, Any] | None = None) -> Outcome:
    """Loads a config; one that is taken must name nothing outside its output, and mean the same when written out."""

    def load() -> Outcome:
        try:
            config = load_config(str(path), overrides=overrides)
        except UsageError as error:
            if len(str(error).splitlines()) > 110:
                raise Wrong(f"a message of {len(str(error).splitlines())} lines") from error
            raise
        for name in (config.name, *config.datasets):
            if "/" in name or "\\" in name or ".." in name or name.startswith((".", "_", "~")):
                raise Wrong(f"the name {name!r} is taken")
        if any(budget.train < 1 for budget in config.budgets().values()):
            raise Wrong("a budget of nothing is taken")
        again = MixConfig.model_validate(config.as_written())
        if again.as_written() != config.as_written():
            raise Wrong("the config means something else when it is written out")
        return Outcome("built", "taken")

    return outcome_of(load)


def changed(chance: random.Random, folder: Path) -> Outcome:
    """A good config with a few values, keys or whole sections replaced by others."""
    content = yaml.safe_load(_GOOD)
    for _ in range(chance.choice([1, 1, 2, 5])):
        _change(chance, content)
    path = folder / "mix.yaml"
    path.write_text(yaml.dump(content, allow_unicode=chance.choice([True, False])), encoding="utf-8")
    return _checked(path)


def _change(chance: random.Random, section: Any) -> None:
    if isinstance(section, list):
        section[:] = chance.choice([[], section * 2, [chance.choice(_VALUES), *section]])
        return
    keys = list(section)
    key = chance.choice(keys) if keys else "a"
    if isinstance(section.get(key), dict | list) and section[key] and chance.random() < 0.7:
        _change(chance, section[key])
        return
    match chance.randrange(5):
        case 0:
            section.pop(key, None)
        case 1:
            section[chance.choice(["", "nmae", "..", "datasets", "a/b", "../x", 5, None, True, "x" * 500])] = (
                chance.choice(_VALUES)
            )
        case 2 if key in section:
            section[chance.choice(["a/b", "..", "../../x", "/abs", ".hidden", "A" * 200, "é", "a\nb", key + " "])] = (
                section.pop(key)
            )
        case _:
            section[key] = chance.choice(_VALUES)


def scrambled(chance: random.Random, folder: Path) -> Outcome:
    """A good config with bytes changed, lines doubled, moved or lost, or cut short."""
    data = bytearray(_GOOD.encode())
    lines = _GOOD.splitlines(keepends=True)
    match chance.randrange(4):
        case 0:
            for _ in range(chance.randrange(1, 6)):
                data[chance.randrange(len(data))] = chance.randrange(256)
        case 1:
            place = chance.randrange(len(lines))
            lines.insert(chance.randrange(len(lines)), lines[place])
            data = bytearray("".join(lines).encode())
        case 2:
            chance.shuffle(lines)
            data = bytearray("".join(lines).encode())
        case _:
            data = data[: chance.randrange(len(data))]
    path = folder / "mix.yaml"
    path.write_bytes(data)
    return _checked(path)


def bombs(chance: random.Random, folder: Path) -> Outcome:
    """Documents made to take all memory or time, to run code, or to be no text at all."""
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
    )
    candidates: list[bytes] = [
        laughs.encode(),
        (laughs.replace("[", "{k: [", 1).replace("]", "]}", 1) + _GOOD).encode(),
        b"a: &a [*a]\n",
        b"a: &a {<<: *a}\n",
        b"&a [*a, *a]: 1\n",
        b"[" * chance.choice([50, 5_000, 500_000]),
        b"{" * 100_000,
        b"- " * 100_000,
        b"? " * 100_000,
        b"a: " * 50_000,
        ("x: " + "&a " * 2 + "1\n").encode(),
        b"x" * (1 << 21),
        b"\x00" * 1000,
        chance.randbytes(chance.randrange(1, 5000)),
        b"\xff\xfe" + _GOOD.encode("utf-16-le"),
        _GOOD.encode("utf-16"),
        b"\xef\xbb\xbf" * 2 + _GOOD.encode(),
        b"%YAML 9.9\n---\n" + _GOOD.encode(),
        _GOOD.encode() + b"---\n" + _GOOD.encode(),
        b"!!python/object/apply:os.system ['true']\n",
        b"!!binary |\n  AAAA\n",
        b"name: !!set {a, b}\n" + _GOOD.encode(),
        b"name: !<tag:x,2000:y> b\n",
        _GOOD.encode().replace(b"my-mix", b"!!str [a]"),
        _GOOD.encode() + "".join(f"k{i}: {i}\n" for i in range(20_000)).encode(),
        _GOOD.encode() + b"datasets: {}\n",
        _GOOD.encode() + b"  german: {share: 1%, source: x}\n",
        b"<<: [" + b"{}, " * 1000 + b"]\n" + _GOOD.encode(),
        b"datasets: {" + b", ".join(b"d%d: {share: 1%%, source: x}" % i for i in range(15_000)) + b"}\n",
        b"total_tokens: " + b"9" * 900_000 + b"\n" + _GOOD.encode(),
        _GOOD.encode().replace(b"66.7%", b"0." + b"6" * 500_000 + b"%"),
        _GOOD.encode().replace(b"1M", b"1e999999999"),
        _GOOD.encode().replace(b"64KiB", b"1e99999999KiB"),
    ]
    path = folder / "mix.yaml"
    path.write_bytes(chance.choice(candidates))
    return _checked(path)


def overridden(chance: random.Random, folder: Path) -> Outcome:
    """`--set` of anything to anything."""
    path = folder / "mix.yaml"
    path.write_text(_GOOD)
    keys = [
        "name",
        "tokenizer",
        "tokenizer.path",
        "total_tokens",
        "records.max_tokens",
        "shards.target_size",
        "datasets",
        "datasets.german",
        "datasets.german.share",
        "datasets.german.source",
        "datasets..share",
        "datasets.a.b.c.d",
        "",
        ".",
        "..",
        "a",
        "seed",
        "name.x",
        "datasets.german.source.0",
        "on_bad_rows",
        "datasets.english.on_bad_rows",
        "\x00",
        "x" * 10_000,
    ]
    texts = [
        "{a: ",
        "[1, 2",
        '"',
        "'x",
        "{}",
        "[]",
        "{a: {b: [c]}}",
        "[" * 3000,
        "&a [*a]",
        "'\\xff'",
        "null",
        *map(str, _VALUES),
    ]
    chosen = {chance.choice(keys): chance.choice(texts) for _ in range(chance.choice([1, 1, 2]))}
    return _checked(path, chosen)


KINDS = [
    CaseKind("config: a value or key changed", changed, weight=20, timeout_s=60),
    CaseKind("config: scrambled", scrambled, weight=12, timeout_s=60),
    CaseKind("config: bombs", bombs, weight=12, timeout_s=60),
    CaseKind("config: --set", overridden, weight=8, timeout_s=60),
]
