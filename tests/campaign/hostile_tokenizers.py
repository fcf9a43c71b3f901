"""Tokenizers with holes in their ids, templates that add tokens, and files that are nearly a tokenizer."""

from __future__ import annotations

import copy
import gzip
import json
import random
from pathlib import Path
from typing import Any

from tests.campaign.hostile_build import build_and_check, write_config
from tests.campaign.hostile_case import CaseKind, Outcome, outcome_of
from tests.campaign.hostile_parquet import write_sound
from tests.support.small_tokenizers import added_token, byte_characters, byte_level

_VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    2**31,
    2**32,
    2**64,
    1.5,
    "",
    "x",
    "\x00",
    "[",
    "(?P<",
    "(a+)+$",
    [],
    {},
    [None],
    {"type": "x"},
]


def _base(chance: random.Random) -> dict[str, Any]:
    special = [added_token(1000, "<|bos|>"), added_token(1001, "<|eos|>")]
    return byte_level([(b"a", b"b"), (b"e", b"r"), (b" ", b"u")], added_tokens=special if chance.random() < 0.7 else [])


def _tried(
    chance: random.Random, folder: Path, tokenizer: Any, config: Any = None, data: bytes | None = None
) -> Outcome:
    path = folder / "tokenizer.json"
    path.write_bytes(json.dumps(tokenizer).encode() if data is None else data)
    if config is not None:
        (folder / "tokenizer_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    write_sound(chance, folder / "a" / "0.parquet")
    given: dict[str, Any] = {"path": str(path), "bos_token": None, "eos_token": None}
    if chance.random() < 0.3:
        given["eos_token"] = chance.choice(["<|eos|>", "a", "nowhere", "\x00"])
    records = {
        "format": "tokens",
        "add_eos": given["eos_token"] is not None or (config is not None and chance.random() < 0.5),
    }
    mix = write_config(folder, tokenizer=given, records=records)
    return outcome_of(lambda: build_and_check(mix, tokenizer=path, by_beam=chance.random() < 0.03))


def odd(chance: random.Random, folder: Path) -> Outcome:
    """Whole tokenizers that are rare: holes in the ids, high ids, templates, truncation, other models."""
    tokenizer = _base(chance)
    model = tokenizer["model"]
    characters = byte_characters()
    match chance.choice(
        [
            "holes",
            "high",
            "template",
            "truncation",
            "lost bytes",
            "same ids",
            "models",
            "normalizer",
            "nothing",
            "added",
        ]
    ):
        case "holes":
            model["vocab"] = {token: number * 3 for token, number in model["vocab"].items()}
        case "high":
            model["vocab"] = {token: number + 2**31 for token, number in model["vocab"].items()}
        case "template":
            tokenizer["post_processor"] = {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<|bos|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<|bos|>": {"id": "<|bos|>", "ids": [1000, 1000], "tokens": ["<|bos|>", "<|bos|>"]}},
            }
        case "truncation":
            tokenizer["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
            tokenizer["padding"] = {
                "strategy": {"Fixed": 99},
                "direction": "Right",
                "pad_to_multiple_of": None,
                "pad_id": 7,
                "pad_type_id": 0,
                "pad_token": "a",
            }
        case "lost bytes":
            for character in chance.sample(characters, 40):
                if all(character not in pair for pair in model["merges"]):
                    del model["vocab"][character]
        case "same ids":
            model["vocab"] = {token: number // 2 for token, number in model["vocab"].items()}
        case "models":
            vocabulary = {"a": 0, "b": 1, "<unk>": 2}
            tokenizer["model"] = chance.choice(
                [
                    {"type": "WordLevel", "vocab": vocabulary, "unk_token": chance.choice(["<unk>", "nowhere"])},
                    {
                        "type": "WordPiece",
                        "vocab": vocabulary,
                        "unk_token": "<unk>",
                        "continuing_subword_prefix": "##",
                        "max_input_chars_per_word": 5,
                    },
                    {"type": "Unigram", "vocab": [["<unk>", 0.0], ["a", -1.0]], "unk_id": chance.choice([0, 5, None])},
                    {"type": "BPE", "vocab": {}, "merges": []},
                ]
            )
        case "normalizer":
            tokenizer["normalizer"] = chance.choice(
                [{"type": kind} for kind in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt")]
                + [{"type": "Replace", "pattern": {"Regex": "."}, "content": ""}, {"type": "Prepend", "prepend": "▁"}]
            )
        case "nothing":
            tokenizer["pre_tokenizer"] = chance.choice(
                [None, {"type": "Whitespace"}, {"type": "Digits", "individual_digits": True}]
            )
        case "added":
            tokenizer["added_tokens"] = [
                added_token(
                    chance.choice([5, 300, 1000, 2**31, 2**32 - 1]),
                    chance.choice(["ein", " ", "e", "", "🙂", "x" * 5000]),
                    special=chance.choice([True, False]),
                    lstrip=chance.choice([True, False]),
                    single_word=chance.choice([True, False]),
                )
                for _ in range(3)
            ]
    return _tried(chance, folder, tokenizer)


def changed(chance: random.Random, folder: Path) -> Outcome:
    """A tokenizer.json with some values replaced by others, at any depth."""
    tokenizer = copy.deepcopy(_base(chance))
    for _ in range(chance.choice([1, 1, 3])):
        section: Any = tokenizer
        while True:
            keys = list(section) if isinstance(section, dict) else list(range(len(section)))
            if not keys:
                break
            key = chance.choice(keys)
            if isinstance(section[key], dict | list) and chance.random() < 0.75:
                section = section[key]
                continue
            if isinstance(section, dict) and chance.random() < 0.3:
                del section[key]
            else:
                section[key] = chance.choice(_VALUES)
            break
    return _tried(chance, folder, tokenizer)


def damaged(chance: random.Random, folder: Path) -> Outcome:
    """Files that are cut, scrambled, nested without end, or not JSON."""
    data = bytearray(json.dumps(_base(chance)).encode())
    match chance.randrange(6):
        case 0:
            data = data[: chance.randrange(len(data))]
        case 1:
            for _ in range(chance.randrange(1, 5)):
                data[chance.randrange(len(data))] = chance.randrange(256)
        case 2:
            data = bytearray(chance.choice([b"[", b'{"a":']) * chance.choice([500, 100_000]))
        case 3:
            data = bytearray(
                chance.choice(
                    [
                        b"",
                        b"null",
                        b"[]",
                        b'"x"',
                        b"NaN",
                        b"1" * 10_000,
                        b"\xff",
                        b"{}",
                        b"version https://git-lfs.github.com/spec/v1\n",
                    ]
                )
            )
        case 4:
            data = bytearray(gzip.compress(data))
        case _:
            data = data.replace(b'"model"', b'"model": 5, "model"', 1)
    return _tried(chance, folder, None, data=bytes(data))


def configured(chance: random.Random, folder: Path) -> Outcome:
    """A tokenizer_config.json beside it that is nonsense."""
    odd_values = [*_VALUES, {"content": 5}, {"content": "<|eos|>"}, {"content": None}, ["<|eos|>"], "<|eos|>"]
    config: Any = {"eos_token": chance.choice(odd_values), "bos_token": chance.choice(odd_values)}
    if chance.random() < 0.3:
        config = chance.choice(["", "[]", "null", "{", "5", '"x"', "[" * 100_000, '{"eos_token": NaN}'])
    return _tried(chance, folder, _base(chance), config)


KINDS = [
    CaseKind("tokenizer: odd", odd, weight=6),
    CaseKind("tokenizer: a value changed", changed, weight=6),
    CaseKind("tokenizer: damaged file", damaged, weight=4),
    CaseKind("tokenizer: tokenizer_config.json", configured, weight=3),
]
