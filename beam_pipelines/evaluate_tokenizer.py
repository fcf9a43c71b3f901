"""Evaluates tokenizers on parquet text: fertility, compression, Rényi efficiency and more, by group of the data.

python -m beam_pipelines.evaluate_tokenizer --tokenizer TOKENIZER --data NAME=GLOB … [Beam options]

Three kinds of tokenizer files are read: a `tokenizer.json` of the library `tokenizers`, the ranks of `tiktoken`, and
SentencePiece's models. MaxText comes with some of each.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import csv
import dataclasses
import functools
import hashlib
import importlib.util
import io
import itertools
import json
import logging
import os
import posixpath
import re
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from tokenizers import Tokenizer

from beam_pipelines.dataset_specs import chosen_datasets, keep_tokenizer
from beam_pipelines.job_errors import plain_errors
from beam_pipelines.mix_config import load_config
from beam_pipelines.runner_options import pipeline_options
from transforms import files
from transforms.dataset_spec import Engine, TokenizerSpec
from transforms.encoder_pool import borrow_encoder, gigatoken_obstacle
from transforms.encoders import PROVEN_SPLITS, Encoded, Encoder, first_difference
from transforms.errors import BroetchenError, UsageError
from transforms.parquet_source import expand_sources, read_footer, read_texts
from transforms.tokenizer_file import TokenizerFile, load_tokenizer
from transforms.tokenizer_metrics import (
    METRICS,
    Metric,
    StatisticsCoder,
    SumStatistics,
    TokenStatistics,
    Vocabulary,
    count_ids,
    count_words,
    measure,
    text_statistics,
)

_LOGGER = logging.getLogger(__name__)

ALL = "All"
"""The group of all groups together."""

Kind = Literal["tokenizers", "tiktoken", "sentencepiece"]
OutputFormat = Literal["table", "json", "csv"]

# Text of one element: enough that its counts, of the size of a vocabulary, are small beside it.
_RUN_TEXT_BYTES = 32 << 20
# Text of each group on which gigatoken is held against `tokenizers` before it is used.
_SAMPLE_TEXT_BYTES = 64 << 10
# Words that are remembered to be whole or not: some 20 MB.
_REMEMBERED_WORDS = 200_000

_NAME = re.compile(r"([A-Za-z0-9][\w.-]*)=(.*)", re.ASCII | re.DOTALL)
_HUB_REVISION = re.compile(r"([\w.-]+/[\w.-]+)@(.+)", re.ASCII)
_RANK_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\s*")

# The tokenizers in MaxText's package, by the short names that they get here.
_MAXTEXT_ASSETS = "assets/tokenizers"
PUBLIC_TOKENIZERS: Mapping[str, str] = {
    "maxtext-default": "tokenizer.default",
    "gemma": "tokenizer.gemma",
    "gemma3": "tokenizer.gemma3",
    "gemma4": "tokenizer_gemma4.model",
    "llama2": "tokenizer.llama2",
    "llama3": "tokenizer_llama3.tiktoken",
    "mistral-v1": "tokenizer.mistral-v1",
    "mistral-v3": "tokenizer.mistral-v3",
    "qwen3": "qwen3-tokenizer",
}

# --- Engines for what `tokenizers` does not read ----------------------------------------------------------------------

# The special tokens that Llama 3 adds to its ranks; none of them is encoded here, but they are of the vocabulary.
_LLAMA3_SPECIAL_TOKENS = 256
# Bounds that Llama 3's own reader keeps, as MaxText's does: tiktoken fails on longer runs of one kind.
_LLAMA3_MAX_CHARACTERS = 400_000
_LLAMA3_MAX_RUN = 25_000
_RUN = re.compile(r"\s+|\S+")


class TiktokenEncoder:
    """Encodes with `tiktoken`, ranks as a `.tiktoken` file holds them, split by Llama 3's pattern; see `Encoder`.

    Args:
        data: the file: a line for each token, its bytes in base 64 and its rank.

    Raises:
        ValueError: it is not of that form, or lacks ranks or single bytes; says what is wrong.
        ImportError: the library is not installed.
    """

    name = "tiktoken"

    def __init__(self, data: bytes) -> None:
        import tiktoken

        self.ranks = _read_ranks(data)
        (pattern,) = PROVEN_SPLITS["llama3"]
        self._encoding = tiktoken.Encoding(
            "ranks", pat_str=pattern, mergeable_ranks=self.ranks, special_tokens={}, explicit_n_vocab=len(self.ranks)
        )

    def encode(self, texts: pa.LargeStringArray) -> Encoded:
        """See `Encoder.encode`."""
        return _encoded(
            list(itertools.chain.from_iterable(map(self._encoding.encode_ordinary, split_as_llama3(text))))
            for text in texts.to_pylist()
        )

    def vocabulary(self) -> Vocabulary:
        """Its size with Llama 3's special tokens, and its single bytes."""
        bytes_alone = tuple(rank for token, rank in self.ranks.items() if len(token) == 1 and token[0] >= 0x80)
        return Vocabulary(len(self.ranks) + _LLAMA3_SPECIAL_TOKENS, byte_ids=bytes_alone)


def _read_ranks(data: bytes) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), 1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise ValueError(f"line {number} is not a token in base 64 and its rank") from error
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise ValueError(f"its {len(ranks):,} tokens do not have the ranks from 0 on, each once")
    missing = sum(bytes([byte]) not in ranks for byte in range(256))
    if missing:
        raise ValueError(f"{missing} of the 256 bytes have no token")
    return ranks


def split_as_llama3(text: str) -> Iterator[str]:
    """Parts of a document that are encoded each on its own, as Llama 3's reader does it; most have one part.

    >>> [len(part) for part in split_as_llama3("a" * 60_000 + " b")]
    [25000, 25000, 10002]
    """
    for start in range(0, len(text), _LLAMA3_MAX_CHARACTERS):
        part = text[start : start + _LLAMA3_MAX_CHARACTERS]
        cut = 0
        if len(part) > _LLAMA3_MAX_RUN:
            for run in _RUN.finditer(part):
                for end in range(run.start() + _LLAMA3_MAX_RUN, run.end(), _LLAMA3_MAX_RUN):
                    yield part[cut:end]
                    cut = end
        yield part[cut:]


class SentencePieceEncoder:
    """Encodes with `sentencepiece`; see `Encoder`.

    Args:
        data: the model.

    Raises:
        ValueError: it is no such model, or cut short.
        ImportError: the library is not installed.
    """

    name = "sentencepiece"

    def __init__(self, data: bytes) -> None:
        import sentencepiece

        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=data)
            size = self._processor.vocab_size()
        except RuntimeError as error:
            raise ValueError("it cannot be read") from error
        if not size:
            raise ValueError("it holds no pieces")

    def encode(self, texts: pa.LargeStringArray) -> Encoded:
        """See `Encoder.encode`."""
        return _encoded(self._processor.encode(texts.to_pylist(), out_type=int, num_threads=1))

    def vocabulary(self) -> Vocabulary:
        """Its size, its unknown piece and its byte pieces."""
        size = self._processor.vocab_size()
        return Vocabulary(
            size,
            unknown_ids=tuple(i for i in range(size) if self._processor.is_unknown(i)),
            byte_ids=tuple(i for i in range(size) if self._processor.is_byte(i)),
        )


def _encoded(documents: Iterable[list[int]]) -> Encoded:
    documents = list(documents)
    ids = np.array(list(itertools.chain.from_iterable(documents)), dtype=np.uint32)
    return Encoded(ids, np.cumsum([0, *map(len, documents)], dtype=np.int64))


_FOREIGN: Mapping[Kind, type[TiktokenEncoder] | type[SentencePieceEncoder]] = {
    "tiktoken": TiktokenEncoder,
    "sentencepiece": SentencePieceEncoder,
}

# --- Tokenizers -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class EvaluatedTokenizer:
    """A tokenizer as workers find it.

    Attributes:
        name: in the results.
        source: where it is from, as it was given.
        kind: the library that defines what it gives.
        engine: what encodes; it gives the same ids.
        file: a copy that every worker can read.
        sha256: of its content.
    """

    name: str
    source: str
    kind: Kind
    engine: Literal["tokenizers", "gigatoken", "tiktoken", "sentencepiece"]
    file: str = dataclasses.field(compare=False)
    sha256: str
    vocabulary: Vocabulary = dataclasses.field(compare=False)

    def lend(self) -> contextlib.AbstractContextManager[Encoder]:
        """Its encoder, for one thread at a time."""
        if self.kind == "tokenizers":
            return borrow_encoder(_hub_spec(self.file, self.sha256), _pooled(self.engine))
        return contextlib.nullcontext(_foreign_encoder(self))


def _hub_spec(path: str, sha256: str) -> TokenizerSpec:
    return TokenizerSpec(path=path, sha256=sha256, bos_token=None, eos_token=None, special_tokens="text")


def _pooled(engine: str) -> Engine:
    return "gigatoken" if engine == "gigatoken" else "tokenizers"


@functools.cache
def _foreign_encoder(tokenizer: EvaluatedTokenizer) -> Encoder:
    return _FOREIGN[tokenizer.kind](files.read_bytes(tokenizer.file))


@dataclasses.dataclass(frozen=True)
class _Loaded:
    name: str
    source: str
    kind: Kind
    content: TokenizerFile | bytes
    vocabulary: Vocabulary

    def keep(self, scratch: str) -> tuple[str, str]:
        """Puts a copy where workers find it; (its path, its hash)."""
        if isinstance(self.content, TokenizerFile):
            return keep_tokenizer(self.content, scratch), self.content.sha256
        sha256 = hashlib.sha256(self.content).hexdigest()
        path = posixpath.join(scratch, f"tokenizer-{sha256[:12]}")
        files.write_bytes(path, self.content)
        return path, sha256


def _load(given: str) -> _Loaded:
    """Loads a tokenizer that the user names: NAME=PATH, or a path or hub id alone."""
    named = None if os.path.exists(given) else _NAME.fullmatch(given)
    name, path = (named[1], named[2]) if named else (_short_name(given), given)
    return _load_as(name, path, given=path)


def _short_name(path: str) -> str:
    """What to call a tokenizer: the last part of its path that tells one from others.

    >>> [_short_name(path) for path in ("a/qwen/tokenizer.json", "b/neox.json", "owner/name@1a2b", "c/nanochat/")]
    ['qwen', 'neox', 'name', 'nanochat']
    """
    hub = _HUB_REVISION.fullmatch(path)
    parts = [part for part in (hub[1] if hub else path).split("/") if part]
    last = parts[-1].removesuffix(".gz").removesuffix(".json") if parts else path
    folder = parts[-2] if len(parts) > 1 else ""
    return folder if last == "tokenizer" and folder not in ("", ".", "..") else last


def _load_as(name: str, path: str, *, given: str) -> _Loaded:
    hub = None if os.path.exists(path) else _HUB_REVISION.fullmatch(path)
    if hub:
        tokenizer = load_tokenizer(hub[1], revision=hub[2])
        return _Loaded(name, given, "tokenizers", tokenizer, _json_vocabulary(tokenizer))
    if not path.endswith((".json", ".gz")) and _is_file(path):
        data = files.read_bytes(path)
        kind: Kind = "tiktoken" if _RANK_LINE.fullmatch(data[:200].partition(b"\n")[0]) else "sentencepiece"
        if not data.lstrip().startswith(b"{"):
            try:
                return _Loaded(name, given, kind, data, _FOREIGN[kind](data).vocabulary())
            except ValueError as error:
                raise UsageError(
                    f"{path}: taken for a {kind} file, but {error}; is it the right file, and whole? Copy it again"
                ) from error
            except ImportError as error:
                raise UsageError(f"{path}: needs the package {kind}, which is not installed: install it") from error
    tokenizer = load_tokenizer(path)
    return _Loaded(name, given, "tokenizers", tokenizer, _json_vocabulary(tokenizer))


def _is_file(path: str) -> bool:
    return os.path.isfile(path) if files.is_local(path) else files.exists(path)


def _json_vocabulary(tokenizer: TokenizerFile) -> Vocabulary:
    whole = json.loads(tokenizer.json)
    model = whole["model"]
    entries = Tokenizer.from_str(tokenizer.json).get_vocab(with_added_tokens=True)
    unknown = {model.get("unk_id"), entries.get(model.get("unk_token") or "")} - {None}
    byte_names: Iterable[str] = ()
    if model.get("byte_fallback"):
        byte_names = [f"<0x{byte:02X}>" for byte in range(256)]
    elif any('"ByteLevel"' in json.dumps(whole.get(part)) for part in ("pre_tokenizer", "normalizer")):
        byte_names = _high_bytes()
    return Vocabulary(
        tokenizer.vocab_size,
        unknown_ids=tuple(sorted(unknown)),
        byte_ids=tuple(sorted(entries[name] for name in byte_names if name in entries)),
    )


def _high_bytes() -> Iterator[str]:
    """The characters that stand for the bytes from 0x80 in byte-level vocabularies, as GPT-2 began it.

    Those that print in Latin-1 stand for themselves; all others get the code points from 256 on.

    >>> [character for character in _high_bytes()][:2], len(list(_high_bytes()))
    (['Ģ', 'ģ'], 128)
    """
    hidden = [*range(0x21), *range(0x7F, 0xA1), 0xAD]
    for byte in range(0x80, 0x100):
        yield chr(0x100 + hidden.index(byte)) if byte in hidden else chr(byte)


def load_public() -> tuple[list[_Loaded], dict[str, str]]:
    """The tokenizers in MaxText's package that load, and why others do not, by name."""
    spec = importlib.util.find_spec("maxtext")
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        return [], dict.fromkeys(PUBLIC_TOKENIZERS, "the package maxtext is not installed")
    loaded, left_out = [], {}
    for name, file in PUBLIC_TOKENIZERS.items():
        path = Path(places[0], _MAXTEXT_ASSETS, file)
        try:
            if not path.exists():
                raise UsageError(f"the installed version of maxtext has no {file}")
            loaded.append(_load_as(name, str(path), given=f"maxtext:{file}"))
        except BroetchenError as error:
            left_out[name] = str(error)
    return loaded, left_out


def _load_all(given: Sequence[str], with_public: bool) -> tuple[list[_Loaded], dict[str, str]]:
    loaded = [_load(one) for one in given]
    public, left_out = load_public() if with_public else ([], {})
    for name, reason in left_out.items():
        _LOGGER.warning("leaving out the public tokenizer %s: %s", name, reason)
    loaded += public
    if not loaded:
        raise UsageError("no tokenizer to evaluate: name one (a tokenizer.json, a folder, OWNER/NAME@REVISION)")
    names = [one.name for one in loaded]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        first, second = [one.source for one in loaded if one.name == twice][:2]
        raise UsageError(f"{first} and {second} would both be called {twice!r}; write NAME=PATH for one of them")
    return loaded, left_out


# --- Data -------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Group:
    """Texts that are evaluated together: a language, or a dataset."""

    name: str
    patterns: tuple[str, ...]
    text_column: str


def read_groups(data: Sequence[str], text_column: str = "text") -> list[Group]:
    """Groups as the command line gives them: globs, `NAME=GLOB`, or a mix config, whose datasets are its groups.

    Globs without a name make one group, "data"; several of the same name make one too.

    Raises:
        UsageError: there is none, a name is taken twice or reserved, or a config cannot be read.
    """
    patterns: dict[str, list[str]] = {}
    configured: dict[str, Group] = {}
    for one in data:
        if one.endswith((".yaml", ".yml")):
            config = load_config(one)
            for name in chosen_datasets(config, ()):
                if name in configured:
                    raise UsageError(f"--data {one}: another config has a dataset {name!r} too; give one of them")
                configured[name] = Group(name, tuple(config.sources(name)), config.datasets[name].text_column)
            continue
        named = None if os.path.exists(one) else _NAME.fullmatch(one)
        name, pattern = (named[1], named[2]) if named else ("data", one)
        if not pattern.strip():
            raise UsageError(f"--data {one!r}: names no file; write --data NAME=FOLDER/*.parquet")
        files.check_scheme(pattern)
        patterns.setdefault(name, []).append(pattern)
    both = next((name for name in patterns if name in configured), None)
    if both:
        raise UsageError(f"--data {both}=…: a config has a dataset {both!r} too; take another name")
    groups = [*configured.values(), *(Group(name, tuple(some), text_column) for name, some in patterns.items())]
    if not groups:
        raise UsageError("no data to evaluate on: add --data NAME=FOLDER/*.parquet, or --data CONFIG.yaml")
    if any(group.name == ALL for group in groups):
        raise UsageError(f"--data {ALL}=…: {ALL} is the name for all groups together; take another one")
    return groups


def _sample(group: Group) -> pa.LargeStringArray:
    """The first documents of a group.

    Raises:
        BroetchenError: there is none.
    """
    for path, size in expand_sources(group.patterns):
        footer = read_footer(path, size, group.text_column)
        for _, batch in read_texts(path, range(len(footer.row_groups)), group.text_column):
            if len(batch.texts):
                sizes = np.cumsum([len(text) for text in batch.texts.to_pylist()])
                return batch.texts.slice(0, int(np.searchsorted(sizes, _SAMPLE_TEXT_BYTES)) + 1)
    raise BroetchenError(
        f"group {group.name}: column {group.text_column!r} holds no text in any of its files; check the data, or name "
        "another column with --text-column"
    )


def _choose_engine(name: str, spec: TokenizerSpec, wanted: Engine, samples: Iterable[pa.LargeStringArray]) -> Engine:
    if wanted == "tokenizers":
        return "tokenizers"
    reason = gigatoken_obstacle(spec)
    if reason is None:
        with borrow_encoder(spec, "tokenizers") as reference, borrow_encoder(spec, "gigatoken") as fast:
            differences = (first_difference(reference.encode(texts), fast.encode(texts)) for texts in samples)
            reason = next(filter(None, differences), None)
    if reason is None:
        return "gigatoken"
    if wanted == "gigatoken":
        raise UsageError(f"{name}: --engine gigatoken cannot be used: gigatoken {reason}; take --engine auto")
    return "tokenizers"


# --- The pipeline -----------------------------------------------------------------------------------------------------

# (tokenizer, group, file, its row groups)
_Task = tuple[str, str, str, tuple[int, ...]]
_Key = tuple[str, str]


def row_group_runs(sizes: Sequence[int], target: int = _RUN_TEXT_BYTES) -> Iterator[tuple[int, ...]]:
    """Numbers of consecutive row groups that hold about `target` bytes together, by the size of each in bytes.

    >>> list(row_group_runs([3, 3, 9, 1], target=6))
    [(0, 1), (2,), (3,)]
    """
    run: list[int] = []
    for number, _ in enumerate(sizes):
        run.append(number)
        if sum(sizes[one] for one in run) >= target:
            yield tuple(run)
            run = []
    if run:
        yield tuple(run)


class _WholeWords:
    """Which words a single token expresses. Remembers some of the words that it was asked about."""

    def __init__(self, encoder: Encoder, vocabulary: Vocabulary) -> None:
        self._encoder = encoder
        self._unknown = np.array(vocabulary.unknown_ids, dtype=np.uint32)
        self._known: dict[str, bool] = {}

    def count(self, words: Mapping[str, int]) -> int:
        """How many words, each as often as it occurs, are whole."""
        if len(self._known) + len(words) > _REMEMBERED_WORDS:
            self._known = {}
        new = [word for word in words if word not in self._known]
        alone, spaced = self._single(new), self._single([f" {word}" for word in new])
        self._known.update(zip(new, (alone | spaced).tolist(), strict=True))
        return sum(count for word, count in words.items() if self._known[word])

    def _single(self, texts: list[str]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        encoded = self._encoder.encode(pa.array(texts, pa.large_string()))
        single = np.diff(encoded.offsets) == 1
        firsts = encoded.ids[encoded.offsets[:-1][single]]
        single[single] = ~np.isin(firsts, self._unknown)
        return single


def evaluate_texts(texts: pa.LargeStringArray, encoder: Encoder, whole_words: _WholeWords) -> TokenStatistics:
    """The statistics of a batch of documents."""
    start = time.process_time_ns()
    encoded = encoder.encode(texts)
    spent = time.process_time_ns() - start
    words = count_words(texts)
    return dataclasses.replace(
        text_statistics(texts),
        words=words.total(),
        whole_words=whole_words.count(words),
        encode_ns=spent,
        counts=count_ids(encoded.ids),
    )


class _Evaluate(beam.DoFn):
    def __init__(self, tokenizers: Mapping[str, EvaluatedTokenizer], groups: Mapping[str, Group]) -> None:
        self._tokenizers = tokenizers
        self._groups = groups

    def process(self, task: _Task) -> Iterator[tuple[_Key, TokenStatistics]]:
        name, group, path, row_groups = task
        tokenizer = self._tokenizers[name]
        total = TokenStatistics()
        with tokenizer.lend() as encoder:
            whole_words = _WholeWords(encoder, tokenizer.vocabulary)
            encoder.encode(pa.array(["a"], pa.large_string()))  # some make tables at their first call
            for _, batch in read_texts(path, row_groups, self._groups[group].text_column):
                total += evaluate_texts(batch.texts, encoder, whole_words)
        yield (name, group), total


class EvaluateTokenizers(beam.PTransform):
    """Names of groups in, ((tokenizer, group), TokenStatistics) out.

    An element of the work is one tokenizer on a run of row groups.

    Args:
        tokenizers: what to evaluate, by name.
        groups: the data, by name.
    """

    def __init__(self, tokenizers: Mapping[str, EvaluatedTokenizer], groups: Mapping[str, Group]) -> None:
        super().__init__()
        self._tokenizers = dict(tokenizers)
        self._groups = dict(groups)

    def expand(self, names: beam.PCollection[str]) -> beam.PCollection[tuple[_Key, TokenStatistics]]:
        return (
            names
            | "Expand" >> beam.FlatMap(self._files).with_output_types(tuple[str, str, int])
            | "SpreadFiles" >> beam.Reshuffle()
            | "Tasks" >> beam.FlatMapTuple(self._tasks).with_output_types(_Task)
            | "SpreadTasks" >> beam.Reshuffle()
            | "Evaluate"
            >> beam.ParDo(_Evaluate(self._tokenizers, self._groups)).with_output_types(tuple[_Key, TokenStatistics])
            | "Sum" >> beam.CombinePerKey(SumStatistics()).with_output_types(tuple[_Key, TokenStatistics])
        )

    def _files(self, name: str) -> Iterator[tuple[str, str, int]]:
        for path, size in expand_sources(self._groups[name].patterns):
            yield name, path, size

    def _tasks(self, group: str, path: str, size: int) -> Iterator[_Task]:
        footer = read_footer(path, size, self._groups[group].text_column)
        for run in row_group_runs([row_group.text_bytes for row_group in footer.row_groups]):
            for tokenizer in self._tokenizers:
                yield tokenizer, group, path, run


def _write_statistics(element: tuple[_Key, TokenStatistics], scratch: str) -> None:
    key, statistics = element
    files.write_bytes(_statistics_path(scratch, key), StatisticsCoder().encode(statistics))


def _statistics_path(scratch: str, key: _Key) -> str:
    return posixpath.join(scratch, hashlib.sha256(json.dumps(key).encode()).hexdigest())


# --- The job ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        tokenizers: those evaluated, in their order.
        groups: names of the groups in their order; the last is `ALL`.
        statistics: by (tokenizer, group).
        left_out: why a public tokenizer is not among them, by its name.
    """

    tokenizers: tuple[EvaluatedTokenizer, ...]
    groups: tuple[str, ...]
    statistics: Mapping[tuple[str, str], TokenStatistics]
    left_out: Mapping[str, str]

    def metrics(self, tokenizer: EvaluatedTokenizer, group: str) -> Mapping[str, float | None]:
        """All metrics of a tokenizer on a group, by their names."""
        return measure(self.statistics[tokenizer.name, group], tokenizer.vocabulary)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types. Only `encode_mb_per_s` differs from one run to the next."""
        first = self.tokenizers[0].name
        text = ("documents", "words", "lines", "characters", "text_bytes")
        return {
            "groups": [
                {"group": group} | {name: getattr(self.statistics[first, group], name) for name in text}
                for group in self.groups
            ],
            "tokenizers": [
                {
                    "tokenizer": one.name,
                    "source": one.source,
                    "library": one.kind,
                    "engine": one.engine,
                    "sha256": one.sha256,
                }
                for one in self.tokenizers
            ],
            "left_out": dict(self.left_out),
            "results": [
                {"group": group, "tokenizer": one.name, **self.metrics(one, group)}
                for group in self.groups
                for one in self.tokenizers
            ],
        }


def evaluate(
    tokenizers: Sequence[str],
    data: Sequence[str],
    *,
    text_column: str = "text",
    with_public: bool = False,
    engine: Engine = "auto",
    beam_arguments: Sequence[str] = (),
) -> Evaluation:
    """Evaluates tokenizers on parquet text.

    Args:
        tokenizers: each a path or `OWNER/NAME@REVISION`, or `NAME=` and one of these.
        data: see `read_groups`.
        text_column: of the globs; a config names its own.
        with_public: adds the tokenizers in MaxText's package (`PUBLIC_TOKENIZERS`), as far as they load.
        engine: what encodes for a tokenizer.json; "auto" takes gigatoken where it gives the same ids on a sample.
        beam_arguments: options of Beam.

    Raises:
        UsageError: a tokenizer cannot be loaded, there is no data or tokenizer, or the engine cannot be used.
        BroetchenError: data is missing, damaged, or holds no text.
    """
    groups = {group.name: group for group in read_groups(data, text_column)}
    loaded, left_out = _load_all(tokenizers, with_public)
    options = pipeline_options(beam_arguments)
    samples = [_sample(group) for group in groups.values()]
    with _scratch_folder(options) as scratch:
        ready: dict[str, EvaluatedTokenizer] = {}
        for one in loaded:
            path, sha256 = one.keep(scratch)
            chosen: Any = one.kind
            if one.kind == "tokenizers":
                chosen = _choose_engine(one.name, _hub_spec(path, sha256), engine, samples)
            ready[one.name] = EvaluatedTokenizer(one.name, one.source, one.kind, chosen, path, sha256, one.vocabulary)
        with plain_errors(), beam.Pipeline(options=options) as pipeline:
            _ = (
                pipeline
                | "Groups" >> beam.Create(list(groups))
                | "EvaluateTokenizers" >> EvaluateTokenizers(ready, groups)
                | "Write" >> beam.Map(_write_statistics, scratch)
            )
        coder = StatisticsCoder()
        statistics = {
            key: coder.decode(files.read_bytes(_statistics_path(scratch, key)))
            for key in itertools.product(ready, groups)
        }
    for name in ready:
        statistics[name, ALL] = sum((statistics[name, group] for group in groups), TokenStatistics())
    return Evaluation(tuple(ready.values()), (*groups, ALL), statistics, left_out)


@contextlib.contextmanager
def _scratch_folder(options: PipelineOptions) -> Iterator[str]:
    remote = options.view_as(GoogleCloudOptions).temp_location
    if not remote:
        with tempfile.TemporaryDirectory(prefix="broetchen-eval-") as local:
            yield local
        return
    # Workers elsewhere cannot read a folder of this machine.
    scratch = posixpath.join(remote, f"broetchen-eval-{uuid.uuid4().hex}")
    try:
        yield scratch
    finally:
        files.delete_tree(scratch)


# --- What is shown ----------------------------------------------------------------------------------------------------


def write_json(evaluation: Evaluation, path: str) -> None:
    """Writes `Evaluation.to_dict` as a JSON file, on any of Beam's filesystems.

    Raises:
        BroetchenError: it cannot be written.
    """
    files.write_bytes(path, (_as_json(evaluation) + "\n").encode())


def _as_json(evaluation: Evaluation) -> str:
    return json.dumps(evaluation.to_dict(), indent=1, ensure_ascii=False)


def print_evaluation(console: Console, evaluation: Evaluation, output_format: OutputFormat) -> None:
    """Prints all results: as a table for each group, where * marks the best value of a column; as JSON; or as CSV."""
    if output_format == "table":
        _print_tables(console, evaluation)
        return
    if output_format == "json":
        text = _as_json(evaluation)
    else:
        buffer = io.StringIO()
        rows = evaluation.to_dict()["results"]
        writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        text = buffer.getvalue().rstrip("\n")
    console.print(text, soft_wrap=True, markup=False, highlight=False)


def _print_tables(console: Console, evaluation: Evaluation) -> None:
    # All of one group is that group.
    groups = evaluation.groups[:1] if len(evaluation.groups) == 2 else evaluation.groups
    for group in groups:
        text = evaluation.statistics[evaluation.tokenizers[0].name, group]
        title = f"{group}: {text.documents:,} documents, {text.words:,} words, {text.text_bytes:,} bytes"
        for table in _group_tables(console, evaluation, group, title):
            console.print(table)
    engines = ", ".join(f"{one.name} by {one.engine}" for one in evaluation.tokenizers)
    console.print(
        "* the best of its column. MB/s of processor time compare within one run only; encoded were " + engines,
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
    for name, reason in evaluation.left_out.items():
        console.print(f"{name} was left out: {reason}", soft_wrap=True, markup=False, highlight=False)


def _group_tables(console: Console, evaluation: Evaluation, group: str, title: str) -> Iterator[Table]:
    """One table, or as many below each other as the console's width asks for."""
    rows = [evaluation.metrics(one, group) for one in evaluation.tokenizers]
    unbounded = console.options.update(width=10_000)
    waiting = list(METRICS)
    while waiting:
        taken = 1
        while taken < len(waiting):
            wider = _table(evaluation, rows, waiting[: taken + 1], title)
            if Measurement.get(console, unbounded, wider).maximum > console.width:
                break
            taken += 1
        yield _table(evaluation, rows, waiting[:taken], title)
        waiting, title = waiting[taken:], ""


def _table(
    evaluation: Evaluation, rows: Sequence[Mapping[str, float | None]], metrics: Sequence[Metric], title: str
) -> Table:
    table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    table.add_column("tokenizer", no_wrap=True)
    best = {}
    for metric in metrics:
        table.add_column(metric.title.replace("/", "\n/").replace(" ", "\n"), justify="right", no_wrap=True)
        best[metric.key] = metric.best(row[metric.key] for row in rows)
    for tokenizer, row in zip(evaluation.tokenizers, rows, strict=True):
        cells = []
        for metric in metrics:
            shown = metric.shown(row[metric.key])
            cells.append(f"[bold green]{shown}*[/]" if shown == best[metric.key] else f"{shown} ")
        table.add_row(tokenizer.name, *cells)
    return table


if __name__ == "__main__":
    from beam_pipelines.cli import module_main

    module_main("eval-tokenizer", "--tokenizer")
