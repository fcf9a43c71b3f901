"""Trains a byte-level BPE tokenizer on a vocabulary corpus, checks it, and writes what transformers and MaxText load.

python -m beam_pipelines.train_tokenizer --config CONFIG_OR_URI --output URI [--style gpt-4] [options]

Training runs on one machine, with all its threads: merges need the counts of all words in one place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import itertools
import json
import logging
import posixpath
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import pyarrow as pa
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from tokenizers import Tokenizer

from beam_pipelines import terminal
from beam_pipelines.dataset_specs import chosen_datasets
from beam_pipelines.mix_config import MixConfig
from transforms import bpe_training, files
from transforms.errors import BroetchenError, UsageError
from transforms.largest_remainder import apportion
from transforms.quantities import format_size
from transforms.text_stream import PartCount, TextPart, TextStream, find_parts, is_portable, parquet_part, spread_sample
from transforms.tokenizer_styles import (
    BOS_TOKEN,
    EOS_TOKEN,
    STYLES,
    TokenizerStyle,
    check_bytes,
    check_round_trip,
    check_vocab_size,
    merge_count,
    special_tokens,
)

_LOGGER = logging.getLogger(__name__)

TOKENIZER, CONFIG, SPECIAL_TOKENS_MAP, MANIFEST = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "manifest.json",
)
_FORMAT_VERSION = 1

# Every so manieth document is kept out of the training, as long as these make no more than so much text.
_HELD_OUT_EVERY = 100
_HELD_OUT_BYTES = 16 << 20
_CHECKED_DOCUMENTS = 256
_SAMPLE_BYTES = 4 << 20
# What transformers writes for a tokenizer that sets no limit.
_NO_LIMIT = int(1e30)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """What to train on, and how much text of each part if not all of it.

    Attributes:
        weights: of the parts where `--max-bytes` divides text among them, by name.
        evaluation: other text to check the tokenizer on; empty where some of the corpus is kept for it.
    """

    parts: Sequence[TextPart]
    weights: Mapping[str, Fraction]
    evaluation: Sequence[TextPart] = ()


@dataclasses.dataclass(frozen=True)
class TrainingSummary:
    """What a training did.

    Attributes:
        corpus: what the vocabulary was learnt from.
        checked: the text that was encoded and decoded, and came back.
        checked_tokens: that it makes.
        checked_what: which text it was.
        skipped: rows without text.
    """

    output: str
    style: str
    corpus: PartCount
    vocab_size: int
    asked_vocab_size: int
    merges: int
    checked: PartCount
    checked_tokens: int
    checked_what: str
    skipped: int
    seconds: float


def corpus_of_config(config: MixConfig, datasets: Sequence[str] = ()) -> Corpus:
    """The sources of a mix config: all their documents, whatever the budgets; these only weigh `max_bytes`.

    Raises:
        UsageError: the config has no such dataset.
        BroetchenError: a source is missing or damaged.
    """
    names = chosen_datasets(config, datasets)
    budgets = config.budgets()
    parts = [
        parquet_part(
            name,
            {
                opened: written if is_portable(written) else posixpath.basename(written)
                for opened, written in zip(config.sources(name), config.datasets[name].paths, strict=True)
            },
            config.datasets[name].text_column,
        )
        for name in names
    ]
    return Corpus(parts, {name: Fraction(budgets[name].total) for name in names})


def corpus_at(location: str, datasets: Sequence[str] = (), text_column: str = "text") -> Corpus:
    """The corpus in a folder, of built text or of parquet files; see `transforms.text_stream.find_parts`.

    Raises:
        UsageError: it has no such dataset, or holds ids.
        BroetchenError: there is nothing, or it is damaged.
    """
    known = {part.name: part for part in find_parts(location, text_column)}
    for name in datasets:
        if name not in known:
            raise UsageError(f"--dataset {name}: there is no such dataset; there are {', '.join(known)}")
    parts = [part for name, part in known.items() if not datasets or name in datasets]
    evaluation = [part for part in find_parts(location, text_column, "eval") if not datasets or part.name in datasets]
    return Corpus(parts, {part.name: Fraction(sum(part.sizes)) for part in parts}, evaluation)


def train_tokenizer(
    corpus: Corpus,
    output: str,
    *,
    style: str = "gpt-4",
    trainer: str = "tokenizers",
    vocab_size: int = 65_536,
    eos_token: str = EOS_TOKEN,
    more_special_tokens: Sequence[str] = (),
    max_bytes: int | None = None,
    check_all: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> TrainingSummary:
    """Trains a tokenizer, and writes it to the folder `output`, complete or not at all.

    Args:
        corpus: what to train on.
        output: a folder on any filesystem that Beam writes.
        style: a key of `transforms.tokenizer_styles.STYLES`.
        trainer: a key of `transforms.bpe_training.TRAINERS`; the tokenizer is the same.
        vocab_size: of the tokenizer, special tokens included.
        eos_token: the name of the EOS token, which is added where it is not one of the usual.
        more_special_tokens: names of others, which come last.
        max_bytes: the most text to take, divided among the parts by their weights.
        check_all: whether the whole corpus is encoded and decoded too, not the evaluation text alone.
        overwrite: whether to replace a tokenizer that is there.
        quiet: whether to show no progress.

    Raises:
        UsageError: style or vocabulary size cannot be; there is a tokenizer already.
        BroetchenError: the corpus is empty or damaged, the tokenizer loses text, or the output cannot be written.
    """
    started = time.monotonic()
    if style not in STYLES:
        raise UsageError(f"--style {style}: there is no such style; take one of {', '.join(STYLES)}")
    if trainer not in bpe_training.TRAINERS:
        raise UsageError(
            f"--trainer {trainer}: there is no such trainer; take one of {', '.join(bpe_training.TRAINERS)}"
        )
    form = STYLES[style]
    special = special_tokens(eos_token, more_special_tokens)
    check_vocab_size(vocab_size, special)
    output = output.rstrip("/") or "/"
    _check_output(output, overwrite=overwrite)
    limits = None if max_bytes is None else apportion(max_bytes, corpus.weights)
    _warn_of_memory(corpus.parts, max_bytes)

    stream, held_out = TextStream(corpus.parts, limits), _HeldOut()
    total = max_bytes or _total(corpus.parts)
    with _progress("reading", total, quiet=quiet) as bar:
        batches = bar.follow(stream, then="merging")
        if not corpus.evaluation:
            batches = held_out.kept_out(batches)
        tokenizer = bpe_training.TRAINERS[trainer](form, batches, vocab_size, special)
    check_bytes(tokenizer)

    if corpus.evaluation:
        evaluation = TextStream(corpus.evaluation)
        what, tokens = "evaluation text", _check(tokenizer, form, evaluation, "checking", quiet=quiet)
        checked, details = evaluation.total, _described(corpus.evaluation, evaluation)
    elif held_out.texts and not check_all:
        batch = pa.array(held_out.texts, pa.large_string())
        what, tokens = "documents kept out of training", _check(tokenizer, form, [batch], "checking", quiet=quiet)
        checked, details = PartCount(len(held_out.texts), held_out.bytes), {"every": _HELD_OUT_EVERY}
    else:
        check_all = True
    if check_all:
        whole = TextStream(corpus.parts, limits)
        what, tokens = "the whole corpus", _check(tokenizer, form, whole, "checking", quiet=quiet)
        checked, details = whole.total, {}

    learnt = PartCount(stream.total.documents - len(held_out.texts), stream.total.bytes - held_out.bytes)
    text, merges = tokenizer.to_str(pretty=True), merge_count(tokenizer)
    manifest = {
        "format": "broetchen-tokenizer",
        "format_version": _FORMAT_VERSION,
        "style": style,
        "vocab_size": tokenizer.get_vocab_size(),
        "asked_vocab_size": vocab_size,
        "merges": merges,
        "special_tokens": list(special),
        "tokenizer_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "corpus": {
            **_described(corpus.parts, stream),
            "max_bytes": max_bytes,
            "skipped": dict(sorted(stream.skipped.items())),
        },
        "trained_on": dataclasses.asdict(learnt),
        "round_trip": {"text": what, **dataclasses.asdict(checked), "tokens": tokens, **details},
        "versions": {name: importlib.metadata.version(name) for name in ("broetchen", "tokenizers")},
    }
    _write(output, _files(text, eos_token, special, manifest))
    if tokenizer.get_vocab_size() < vocab_size:
        _LOGGER.warning(
            "the corpus has no more pairs to merge: the vocabulary is %s of the %s asked for",
            f"{tokenizer.get_vocab_size():,}",
            f"{vocab_size:,}",
        )
    return TrainingSummary(
        output=output,
        style=style,
        corpus=learnt,
        vocab_size=tokenizer.get_vocab_size(),
        asked_vocab_size=vocab_size,
        merges=merges,
        checked=checked,
        checked_tokens=tokens,
        checked_what=what,
        skipped=sum(stream.skipped.values()),
        seconds=time.monotonic() - started,
    )


def _total(parts: Sequence[TextPart]) -> int | None:
    sizes = [part.text_bytes for part in parts]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def _warn_of_memory(parts: Sequence[TextPart], max_bytes: int | None) -> None:
    # Records of text do not say how much text they hold; zstd leaves about 0.4 bytes of each.
    text_bytes = sum(part.text_bytes or round(sum(part.sizes) / 0.4) for part in parts)
    if max_bytes is not None:
        text_bytes = min(text_bytes, max_bytes)
    sample = spread_sample(parts, _SAMPLE_BYTES)
    if warning := bpe_training.memory_warning(sample, text_bytes, bpe_training.available_memory()):
        _LOGGER.warning("%s", warning)


class _HeldOut:
    """Every hundredth document of a stream, taken out of it and kept, as long as they make no more than 16 MiB."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.bytes = 0
        self._seen = 0

    def kept_out(self, batches: Iterable[pa.LargeStringArray]) -> Iterator[pa.LargeStringArray]:
        """The stream without them."""
        for batch in batches:
            first = _HELD_OUT_EVERY - 1 - self._seen % _HELD_OUT_EVERY
            self._seen += len(batch)
            out = [index for index in range(first, len(batch), _HELD_OUT_EVERY) if self._keep(batch[index].as_py())]
            starts = [0, *(index + 1 for index in out)]
            pieces = [batch.slice(a, b - a) for a, b in zip(starts, [*out, len(batch)], strict=True)]
            yield pa.concat_arrays(pieces) if out else batch

    def _keep(self, text: str) -> bool:
        size = len(text.encode())
        fits = self.bytes + size <= _HELD_OUT_BYTES
        if fits:
            self.texts.append(text)
            self.bytes += size
        return fits


def _check(
    tokenizer: Tokenizer, style: TokenizerStyle, batches: Iterable[pa.LargeStringArray], what: str, *, quiet: bool
) -> int:
    tokens = documents = 0
    with _progress(what, None, quiet=quiet) as bar:
        for batch in bar.follow(batches, then=what):
            for texts in itertools.batched(batch.to_pylist(), _CHECKED_DOCUMENTS):
                tokens += check_round_trip(tokenizer, style, texts, documents)
                documents += len(texts)
    return tokens


def _described(parts: Sequence[TextPart], stream: TextStream) -> dict[str, Any]:
    """Which documents they were, for a manifest."""
    return {
        "documents": stream.total.documents,
        "bytes": stream.total.bytes,
        "sha256": stream.sha256,
        "parts": [
            {
                "name": part.name,
                **dataclasses.asdict(stream.counts[part.name]),
                "files": [{"path": path, "size": size} for path, size in zip(part.shown, part.sizes, strict=True)],
            }
            for part in parts
        ],
    }


def _files(tokenizer: str, eos_token: str, special: Sequence[str], manifest: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of a tokenizer's folder, as transformers reads them; the manifest comes last."""
    tokens = {
        "bos_token": BOS_TOKEN,
        "eos_token": eos_token,
        "additional_special_tokens": [token for token in special if token not in (BOS_TOKEN, eos_token)],
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **tokens,
        "clean_up_tokenization_spaces": False,
        "model_max_length": _NO_LIMIT,
    }
    return {
        CONFIG: _as_json(config),
        SPECIAL_TOKENS_MAP: _as_json(tokens),
        TOKENIZER: tokenizer.encode(),
        MANIFEST: _as_json(manifest),
    }


def _as_json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()


def _check_output(output: str, *, overwrite: bool) -> None:
    """Checks that the output is free and can be written, before anything takes time."""
    there = [
        name for name in (TOKENIZER, CONFIG, SPECIAL_TOKENS_MAP, MANIFEST) if files.exists(files.join(output, name))
    ]
    if there and not overwrite:
        raise UsageError(f"{files.join(output, there[0])}: is there already; choose another folder, or add --overwrite")
    probe = files.temporary_path(files.join(output, TOKENIZER))
    files.write_bytes(probe, b"")
    files.delete([probe])


def _write(output: str, contents: Mapping[str, bytes]) -> None:
    """Writes all files of a folder; if one cannot be written, none is left."""
    paths = {files.join(output, name): content for name, content in contents.items()}
    try:
        files.delete([files.join(output, MANIFEST)])
        for path, content in paths.items():
            files.write_bytes(path, content)
    except BaseException:
        with contextlib.suppress(BroetchenError):
            files.delete(reversed(paths))
        raise


class _Bar:
    """Shows how much text has been read; without a `Progress` it shows nothing."""

    def __init__(self, progress: Progress | None, what: str, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task(what, total=total, amount="") if progress else None
        self._read = 0

    def follow(self, batches: Iterable[pa.LargeStringArray], then: str) -> Iterator[pa.LargeStringArray]:
        """The batches as they are read, and what is done after the last."""
        for batch in batches:
            yield batch
            self._read += batch.nbytes
            self._update(completed=self._read, amount=format_size(self._read))
        self._update(description=then, total=None)

    def _update(self, **fields: Any) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, **fields)


@contextlib.contextmanager
def _progress(what: str, total: int | None, *, quiet: bool) -> Iterator[_Bar]:
    console = terminal.console()
    if quiet or not console.is_terminal:
        yield _Bar(None, what, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[amount]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False) as progress:
        yield _Bar(progress, what, total)


def print_summary(console: Console, summary: TrainingSummary) -> None:
    """The table at the end of a training."""
    asked = f" of {summary.asked_vocab_size:,} asked for" if summary.vocab_size < summary.asked_vocab_size else ""
    checked = summary.checked
    rows = {
        "style": summary.style,
        "documents": f"{summary.corpus.documents:,}",
        "text": f"{summary.corpus.bytes:,} bytes",
        "vocabulary": f"{summary.vocab_size:,}{asked}",
        "merges": f"{summary.merges:,}",
        "round trip": f"complete: {summary.checked_what}, {checked.documents:,} documents, {checked.bytes:,} bytes",
        "bytes per token": f"{checked.bytes / summary.checked_tokens:.3f}",
        "seconds": f"{summary.seconds:.1f}",
        "tokenizer": files.join(summary.output, TOKENIZER),
    }
    table = Table(box=box.SIMPLE_HEAD, show_header=False, pad_edge=False)
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
    if summary.skipped:
        console.print(f"{summary.skipped:,} rows held no text and were left out; the manifest has the reasons.")


if __name__ == "__main__":
    from beam_pipelines.cli import module_main

    module_main("train-tokenizer", "--config")
