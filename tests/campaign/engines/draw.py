"""Random tokenizers of the kinds that gigatoken is used for, and texts on which engines might differ."""

from __future__ import annotations

import functools
import random
import unicodedata
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tests.support.corpora import SAMPLES
from tests.support.small_tokenizers import (
    GPT2,
    SENTENCEPIECE_FORMS,
    added_token,
    byte_characters,
    byte_level,
    sentencepiece_like,
    split_then_bytes,
    train,
)
from transforms.encoding.splits import COVERING_SPLITS, known_spellings
from transforms.segments.code_points import agreed

_DIGITS = {"type": "Digits", "individual_digits": True}
_NEVER = [0xC0, 0xC1, *range(0xF5, 0x100)]


@functools.cache
def _samples() -> list[str]:
    texts: list[str] = []
    for path in sorted(SAMPLES.glob("corpora/*/*.parquet")):
        texts += pq.read_table(path, columns=["text"])["text"].to_pylist()
    return texts


def _pre_tokenizers() -> dict[str, dict[str, Any]]:
    kinds: dict[str, dict[str, Any]] = {
        "GPT-2": GPT2,
        "GPT-2, prefix space": {**GPT2, "add_prefix_space": True},
        "digits, then GPT-2": {"type": "Sequence", "pretokenizers": [_DIGITS, GPT2]},
    }
    for patterns, (known, digits) in known_spellings().items():
        name = f"{patterns[0][:60]}… {digits or ''}".strip()
        kinds[name] = split_then_bytes(*patterns)
        if known in COVERING_SPLITS:
            kinds[f"{name}, removed"] = split_then_bytes(*patterns, behavior="Removed", invert=True)
    return kinds


@functools.cache
def _trained(name: str) -> dict[str, Any]:
    """The model of a tokenizer with merges of real words, which the split allows."""
    chance = random.Random(name)
    model: dict[str, Any] = train(chance.sample(_samples(), 60), _pre_tokenizers()[name])["model"]
    return model


def _random_merges(chance: random.Random) -> dict[str, Any]:
    """Merges of any bytes that stand beside each other in texts; several may make one token."""
    characters = byte_characters()
    parts = [bytes([byte]) for byte in range(256)]
    common = [*b" abcdefersntu0123456789\n", *"äßé漢😀".encode()]
    merges: list[tuple[bytes, bytes]] = []
    made = set(parts)
    for _ in range(chance.randrange(5, 80)):
        recent = parts[256:]
        left, right = (
            chance.choice(recent) if recent and chance.random() < 0.5 else bytes([chance.choice(common)])
            for _ in range(2)
        )
        if (left, right) in merges:
            continue
        merges.append((left, right))
        if left + right not in made:
            made.add(left + right)
            parts.append(left + right)
    vocabulary = {"".join(characters[byte] for byte in part): number for number, part in enumerate(parts)}
    pairs = [["".join(characters[byte] for byte in part) for part in merge] for merge in merges]
    return {"type": "BPE", "vocab": vocabulary, "merges": pairs, "ignore_merges": False}


_PIECES = [*"abcdest01.,!?\n\t-'<>", "▁", "▁", "▁", "▁", "é", "漢", "字", "😀", "ü", "█"]


def draw_sentencepiece(chance: random.Random) -> tuple[str, dict[str, Any]]:
    """A tokenizer in SentencePiece's manner, whose merges may cross words and stand in any order."""
    characters = list(dict.fromkeys(chance.sample(_PIECES, chance.randrange(8, len(_PIECES)))))
    crossing, parts, merges = chance.random() < 0.4, list(characters), list[tuple[str, str]]()
    for _ in range(chance.randrange(3, 120)):
        left, right = (chance.choice(parts if chance.random() < 0.5 else characters) for _ in range(2))
        if (left, right) in merges or (not crossing and "▁" in (left + right).lstrip("▁")) or len(left + right) > 14:
            continue
        merges.append((left, right))
        parts.append(left + right)
    if chance.random() < 0.3:
        chance.shuffle(merges)
    more = ["".join(chance.choices(_PIECES, k=chance.randrange(2, 6))) for _ in range(chance.randrange(6))]
    form = chance.choice(list(SENTENCEPIECE_FORMS))
    tokenizer = sentencepiece_like(merges, characters="".join(characters), more=more, form=form)
    vocabulary = tokenizer["model"]["vocab"]
    if chance.random() < 0.4:
        ids = chance.sample(range(2 * len(vocabulary)), len(vocabulary))
        tokenizer["model"]["vocab"] = dict(zip(vocabulary, ids, strict=True))
    tokenizer["model"]["fuse_unk"] = chance.random() < 0.7
    _add_tokens(chance, tokenizer, chance.sample(["<s>", "</s>", "▁▁", "\n\n", "<unk>"], chance.randrange(4)))
    return f"SentencePiece, {form}", tokenizer


def _add_tokens(chance: random.Random, tokenizer: dict[str, Any], more: list[str]) -> None:
    vocabulary = tokenizer["model"]["vocab"]
    first_free = max(vocabulary.values()) + 1
    names = dict.fromkeys([*_added(chance), *more])
    tokenizer["added_tokens"] = [
        added_token(
            vocabulary.get(content, first_free + number),
            content,
            special=chance.random() < 0.5,
            normalized=chance.random() < 0.4,
            lstrip=(strips := chance.random() < 0.04),
            rstrip=strips and chance.random() < 0.5,
        )
        for number, content in enumerate(names)
    ]


def draw_tokenizer(chance: random.Random) -> tuple[str, dict[str, Any]]:
    """(the name of its split, a tokenizer.json)."""
    if chance.random() < 0.25:
        return draw_sentencepiece(chance)
    kinds = _pre_tokenizers()
    name = chance.choice(list(kinds))
    model = dict(_trained(name) if chance.random() < 0.5 else _random_merges(chance))
    model["vocab"] = dict(model["vocab"])
    in_merges = {part for merge in model["merges"] for part in (merge if isinstance(merge, list) else merge.split(" "))}
    if chance.random() < 0.4:
        for byte in _NEVER:
            if byte_characters()[byte] not in in_merges:
                model["vocab"].pop(byte_characters()[byte], None)
    if chance.random() < 0.3:
        ids = list(model["vocab"].values())
        chance.shuffle(ids)
        model["vocab"] = dict(zip(model["vocab"], ids, strict=True))
    if chance.random() < 0.2:
        model["ignore_merges"] = True
    tokenizer = byte_level(
        pre_tokenizer=kinds[name], normalizer=chance.choice([None, {"type": "NFC"}, {"type": "NFKC"}])
    )
    tokenizer["model"] = model
    _add_tokens(chance, tokenizer, [])
    return name, tokenizer


def _added(chance: random.Random) -> list[str]:
    some = [
        "<|eos|>",
        "<|bos|>",
        "<s>",
        "ab",
        "abc",
        "bcd",
        "a b",
        " the",
        "\n\n",
        "ü",
        "ﬁ",
        "fi",
        "12",
        "7",
        "\t",
        "ａ",
        "é",
        "e\u0301",
    ]
    names = chance.sample(some, chance.randrange(0, 6))
    if chance.random() < 0.3:
        longest = chance.randrange(2, 26)
        names += [" " * length for length in range(2, longest + 1) if chance.random() < 0.97]
    if chance.random() < 0.1:
        names += ["\t" * length for length in range(2, 6)]
    return list(dict.fromkeys(names))


_ALPHABETS = [
    "abcdefgh ABC 0123456789 .,;:!?-'\"()\n\t\r",
    "0123456789²³¼½٣४๕Ⅷ①０１ ",
    "äöüÄÖÜßẞ„“‚‘–—…§€°µ ",
    "\u00a0\u2002\u3000\u0085\u2028\ufeff\u180e\u200b\u200d\u00ad\x00\x1b\x7f\ufffd\ufffe",
    "漢字ひらがなカタカナ한글。、",
    "\u1100\u1161\u11a8\u0301\u0308\u0323\u0327\u0345\u093c\u0915ӄ",
    "ＡＢＣａｂｃ０１２（）＜＞｜ﬁﬀ①Ⅷ㎏㍿",
    "😀🤯🫠🫨👩\u200d🚀🏳️\u200d🌈🇩🇪\U0001d400\U0001d15e\U00018dc3\U0001e036\U00010793\U00011935\ua7ce\U0010ffff",
    "עברית العربية हिन्दी ไทย Кириллица",
]
_WORDS = [
    "'s",
    "'LL",
    "don't",
    "  ",
    "   ",
    "\r\n",
    "12345",
    "1",
    "a b c",
    " x y",
    "\U00018dc3-s",
    "K",
    "ſ",
    "'ſ",
    "İ",
    "x 1 y",
]


@functools.cache
def _unlike() -> list[str]:
    """Code points on which engines may differ, all over Unicode."""
    points = np.flatnonzero(~agreed())
    points = points[(points < 0xD800) | (points > 0xDFFF)]
    return [chr(point) for point in points[:: max(1, len(points) // 4000)].tolist()] + [
        chr(point) for point in points.tolist() if point < 0x20000 and unicodedata.category(chr(point)) != "Cn"
    ]


def draw_texts(chance: random.Random, tokenizer: dict[str, Any], count: int) -> list[str]:
    """Texts of parts on which engines might differ, of parts of added tokens, and of real sentences."""
    names = [token["content"] for token in tokenizer["added_tokens"]]
    if tokenizer["model"].get("byte_fallback"):
        pieces = [token for token in tokenizer["model"]["vocab"] if not token.startswith("<0x")]
        names += [piece.replace("▁", " ") for piece in chance.sample(pieces, min(20, len(pieces)))]
    return [_draw_text(chance, names) for _ in range(count)]


def _draw_text(chance: random.Random, names: list[str]) -> str:
    parts: list[str] = []
    for _ in range(chance.randrange(1, 14)):
        kind = chance.random()
        if kind < 0.3:
            parts += chance.choices(chance.choice(_ALPHABETS), k=chance.randrange(1, 9))
        elif kind < 0.45:
            parts.append(chance.choice(_WORDS))
        elif kind < 0.55 and names:
            name = chance.choice(names)
            parts.append(chance.choice([name, name, name[: chance.randrange(len(name)) + 1], name[1:], name * 2]))
        elif kind < 0.65:
            parts.append(chance.choice(_unlike()))
        elif kind < 0.72:
            parts.append(str(chance.randrange(10 ** chance.randrange(1, 12))))
        elif kind < 0.76:
            parts.append(chance.choice(" \n\t0a") * chance.randrange(1, 60))
        else:
            text = chance.choice(_samples())
            start = chance.randrange(len(text))
            parts.append(text[start : start + chance.randrange(1, 80)])
    return "".join(parts)
