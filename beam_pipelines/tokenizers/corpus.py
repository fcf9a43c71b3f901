"""The corpus that a tokenizer is trained on: the sources of a mix config, or text in a folder."""

from __future__ import annotations

import dataclasses
import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import pyarrow as pa

from beam_pipelines.config.mix import MixConfig
from beam_pipelines.jobs.specs import chosen_datasets, row_filter
from transforms.bpe.corpus import TextPart, TextStream, find_parts, is_portable, parquet_part
from transforms.errors import UsageError
from transforms.progress.display import Bar


@dataclasses.dataclass(frozen=True)
class Corpus:
    """The texts to train on, and how much of each part if not all of it.

    Attributes:
        weights: of the parts where `--max-bytes` divides text among them, by name.
        evaluation: other text to check the tokenizer on; empty where some of the corpus is kept for it.
    """

    parts: Sequence[TextPart]
    weights: Mapping[str, Fraction]
    evaluation: Sequence[TextPart] = ()


def corpus_of_config(config: MixConfig, datasets: Sequence[str] = ()) -> Corpus:
    """The sources of a mix config: all their documents that pass `filters` and `exclude`; budgets weigh `max_bytes`.

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
            row_filter(config, name),
        )
        for name in names
    ]
    return Corpus(parts, {name: Fraction(budgets[name].total) for name in names})


def corpus_at(location: str, datasets: Sequence[str] = (), text_column: str = "text") -> Corpus:
    """The corpus in a folder, of built text or of parquet files; see `transforms.bpe.corpus.find_parts`.

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


def followed(batches: Iterable[pa.LargeStringArray], bar: Bar, *, then: str) -> Iterator[pa.LargeStringArray]:
    """The batches as they are read, which a bar counts in bytes; `then` is done after the last."""
    for batch in batches:
        yield batch
        bar.advance(batch.nbytes)
    bar.state(then)


def description(parts: Sequence[TextPart], stream: TextStream) -> dict[str, Any]:
    """Which documents a stream of these parts held, which has been read; as plain JSON types, for a manifest."""
    return {
        "documents": stream.total.documents,
        "bytes": stream.total.bytes,
        "sha256": stream.sha256,
        "parts": [
            {
                "name": part.name,
                **dataclasses.asdict(stream.counts[part.name]),
                **({"rows": json.loads(part.rows.identity)} if part.rows else {}),
                "files": [{"path": path, "size": size} for path, size in zip(part.shown, part.sizes, strict=True)],
            }
            for part in parts
        ],
    }
