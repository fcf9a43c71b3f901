"""Evaluates tokenizers on parquet text: fertility, compression, Rényi efficiency and more, by group of the data."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import apache_beam as beam
import pyarrow as pa

from beam_pipelines.config.mix import load_config
from beam_pipelines.console.progress import display, follow_tallies
from beam_pipelines.jobs.specs import chosen_datasets, keep_tokenizer, row_filter
from beam_pipelines.runners.job import job_folder, run_job
from beam_pipelines.runners.local import stored_tokens, work_seconds
from transforms.config.file import is_config
from transforms.encoding.pool import choose_engine, encode_samples, expected_engine, know_tokenizer
from transforms.errors import UsageError
from transforms.evaluation.evaluate import EvaluateTokenizers, Pair, sample_texts
from transforms.evaluation.metrics import measure
from transforms.evaluation.statistics import StatisticsCoder, TokenStatistics
from transforms.evaluation.tokenizers import (
    EvaluatedTokenizer,
    LoadedTokenizer,
    TokenizerKind,
    load_tokenizers,
    plain_text_spec,
    split_name,
)
from transforms.files import storage
from transforms.parquet.read import TextSource
from transforms.progress.display import BYTES
from transforms.tokenizer.file import TokenizerFile
from transforms.tokenizer.spec import ChosenEngine, Engine

# With gigatoken in one process, start-up left out; measured on the benchmark's corpus. Words are counted in Python.
_TOKENS_PER_S = 800_000

ALL = "All"
"""The name of all groups together, which no group has."""


def read_groups(data: Sequence[str], text_column: str = "text") -> list[TextSource]:
    """Groups as the command line gives them: globs, `NAME=GLOB`, or a mix config, whose datasets are its groups.

    Globs without a name make one group, "data"; several of the same name make one too.

    Raises:
        UsageError: there is none, a name is taken twice or reserved, or a config cannot be read.
    """
    patterns: dict[str, list[str]] = {}
    configured: dict[str, TextSource] = {}
    for given in data:
        if is_config(given):
            config = load_config(given)
            for name in chosen_datasets(config, ()):
                if name in configured:
                    raise UsageError(f"--data {given}: another config has a dataset {name!r} too; give one of them")
                column, rows = config.datasets[name].text_column, row_filter(config, name)
                configured[name] = TextSource(name, tuple(config.sources(name)), column, rows=rows)
            continue
        given_name, pattern = split_name(given)
        name = given_name or "data"
        if not pattern.strip():
            raise UsageError(f"--data {given!r}: names no file; write --data NAME=FOLDER/*.parquet")
        storage.check_scheme(pattern)
        patterns.setdefault(name, []).append(pattern)
    both = next((name for name in patterns if name in configured), None)
    if both:
        raise UsageError(f"--data {both}=…: a config has a dataset {both!r} too; take another name")
    groups = [*configured.values(), *(TextSource(name, tuple(some), text_column) for name, some in patterns.items())]
    if not groups:
        raise UsageError("no data to evaluate on: add --data NAME=FOLDER/*.parquet, or --data CONFIG.yaml")
    if any(group.name == ALL for group in groups):
        raise UsageError(f"--data {ALL}=…: {ALL} is the name for all groups together; take another one")
    return groups


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The results of an evaluation.

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

    @property
    def shown_groups(self) -> tuple[str, ...]:
        """The groups that differ: all of one group is that group."""
        return self.groups[:1] if len(self.groups) == 2 else self.groups

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
                    "tokenizer": tokenizer.name,
                    "source": tokenizer.source,
                    "library": tokenizer.kind,
                    "engine": tokenizer.engine,
                    "sha256": tokenizer.sha256,
                }
                for tokenizer in self.tokenizers
            ],
            "left_out": dict(self.left_out),
            "results": [
                {"group": group, "tokenizer": tokenizer.name, **self.metrics(tokenizer, group)}
                for group in self.groups
                for tokenizer in self.tokenizers
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
    quiet: bool = True,
) -> Evaluation:
    """Evaluates tokenizers on parquet text.

    Args:
        tokenizers: each a path or `OWNER/NAME@REVISION`, or `NAME=` and one of these.
        data: see `read_groups`.
        text_column: of the globs; a config names its own.
        with_public: adds the tokenizers in MaxText's package (`PUBLIC_TOKENIZERS`), as far as they load.
        engine: the encoder for a tokenizer.json; "auto" takes gigatoken where it gives the same ids on a sample.
        beam_arguments: options of Beam.
        quiet: to show no progress.

    Raises:
        UsageError: a tokenizer cannot be loaded, there is no data or tokenizer, or the engine cannot be used.
        BroetchenError: data is missing, damaged, or holds no text.
    """
    groups = {group.name: group for group in read_groups(data, text_column)}
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(display("eval-tokenizer", BYTES, quiet=quiet, first="loading tokenizers"))
        loaded, left_out = load_tokenizers(tokenizers, with_public=with_public)
        scratch = stack.enter_context(job_folder(beam_arguments, "eval"))
        job = stack.enter_context(run_job(beam_arguments, work_s=_work_s(loaded, groups.values(), engine)))
        progress.say("comparing engines on a sample")
        samples = [sample_texts(group) for group in groups.values()]
        ready = {tokenizer.name: _make_ready(tokenizer, scratch, engine, samples) for tokenizer in loaded}
        tallies = None if quiet else scratch
        if tallies:
            # The workers find out how much text there is, which each tokenizer encodes.
            stack.enter_context(follow_tallies(progress, tallies, "evaluating", BYTES))
        with job.pipeline() as pipeline:
            _ = (
                pipeline
                | "Groups" >> beam.Create(list(groups))
                | "EvaluateTokenizers" >> EvaluateTokenizers(ready, groups, tallies)
                | "Write" >> beam.Map(_write_statistics, scratch)
            )
        coder = StatisticsCoder()
        statistics = {
            key: coder.decode(storage.read_bytes(_statistics_path(scratch, key)))
            for key in itertools.product(ready, groups)
        }
    for name in ready:
        statistics[name, ALL] = sum((statistics[name, group] for group in groups), TokenStatistics())
    return Evaluation(tuple(ready.values()), (*groups, ALL), statistics, left_out)


def _work_s(loaded: Iterable[LoadedTokenizer], groups: Iterable[TextSource], wanted: Engine) -> float:
    """About how long one process evaluates, from the sizes of files.

    Raises:
        BroetchenError: a pattern matches nothing.
    """
    tokens = sum(stored_tokens(group.patterns) for group in groups)
    return sum(work_seconds(tokens, _TOKENS_PER_S, _expected_engine(one, wanted)) for one in loaded)


def _expected_engine(loaded: LoadedTokenizer, wanted: Engine) -> ChosenEngine:
    if not isinstance(loaded.content, TokenizerFile):
        return "tokenizers"  # The other libraries are about as fast.
    spec = plain_text_spec(loaded.source, loaded.content.sha256)
    know_tokenizer(spec, loaded.content)
    return expected_engine(spec, wanted)


def _make_ready(
    loaded: LoadedTokenizer, scratch: str, wanted: Engine, samples: Sequence[pa.LargeStringArray]
) -> EvaluatedTokenizer:
    """Puts a copy of a tokenizer where workers find it, and chooses its engine."""
    content = loaded.content
    engine: ChosenEngine | TokenizerKind = loaded.kind
    if isinstance(content, TokenizerFile):
        path, sha256 = keep_tokenizer(content, scratch), content.sha256
        spec = plain_text_spec(path, sha256)
        engine, _ = choose_engine(loaded.name, spec, wanted, encode_samples(spec, samples))
    else:
        sha256 = hashlib.sha256(content).hexdigest()
        path = posixpath.join(scratch, f"tokenizer-{sha256[:12]}")
        storage.write_bytes(path, content)
    return EvaluatedTokenizer(loaded.name, loaded.source, loaded.kind, engine, path, sha256, loaded.vocabulary)


def _write_statistics(element: tuple[Pair, TokenStatistics], scratch: str) -> None:
    key, statistics = element
    storage.write_bytes(_statistics_path(scratch, key), StatisticsCoder().encode(statistics))


def _statistics_path(scratch: str, key: Pair) -> str:
    return posixpath.join(scratch, hashlib.sha256(json.dumps(key).encode()).hexdigest())
