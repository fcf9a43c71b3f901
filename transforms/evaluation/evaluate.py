"""Evaluates tokenizers on groups of parquet files: the statistics of each pair, as one PTransform.

An element is one tokenizer on a run of row groups; only counts are combined, never tokens.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.transforms.display import DisplayDataItem

from transforms.encoding.encoders import Encoder
from transforms.encoding.long_documents import LARGEST_PIECE
from transforms.encoding.pool import leading_documents
from transforms.errors import BroetchenError, listed
from transforms.evaluation.statistics import SumStatistics, TokenStatistics, count_ids, count_words, text_statistics
from transforms.evaluation.tokenizers import EvaluatedTokenizer
from transforms.evaluation.vocabulary import Vocabulary
from transforms.parquet.footer import SourceFile, read_footer
from transforms.parquet.read import ReadFooters, TextSource
from transforms.parquet.source_files import expand_sources
from transforms.parquet.texts import read_texts
from transforms.progress.tally import worker_tally
from transforms.texts import TextBatch

# Text of one element: enough that its counts, of the size of a vocabulary, are small beside it.
_RUN_TEXT_BYTES = 32 << 20
# Text of each group on which gigatoken is held against `tokenizers` before it is used.
_SAMPLE_TEXT_BYTES = 64 << 10
# Words that are remembered to be whole or not: some 20 MB.
_REMEMBERED_WORDS = 200_000

# (tokenizer, group, file, its row groups, their bytes of text)
_Task = tuple[str, str, str, list[int], int]

Pair = tuple[str, str]
"""The names of a tokenizer and a group."""


def sample_texts(group: TextSource) -> pa.LargeStringArray:
    """The first documents of a group: about 64 KiB of text, at least one document.

    Raises:
        BroetchenError: there is none.
    """
    for path, size in expand_sources(group.patterns):
        footer = read_footer(path, size, group.text_column, rows=group.rows)
        for _, batch in read_texts(path, footer.wanted_groups, group.text_column, rows=group.rows):
            if len(texts := _texts_of(batch)):
                return leading_documents(texts, _SAMPLE_TEXT_BYTES)
    raise BroetchenError(
        f"group {group.name}: column {group.text_column!r} holds no text in any of its files; check the data, or name "
        "another column with --text-column"
    )


def _texts_of(batch: TextBatch) -> pa.LargeStringArray:
    """The documents that every tokenizer can encode, so that all are evaluated on the same ones."""
    return batch.texts.filter(pc.less_equal(pc.binary_length(batch.texts), LARGEST_PIECE))


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


class WholeWords:
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


def evaluate_texts(texts: pa.LargeStringArray, encoder: Encoder, whole_words: WholeWords) -> TokenStatistics:
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
    def __init__(
        self, tokenizers: Mapping[str, EvaluatedTokenizer], groups: Mapping[str, TextSource], tallies: str | None
    ) -> None:
        self._tokenizers = tokenizers
        self._groups = groups
        self._tallies = tallies

    def process(self, task: _Task) -> Iterator[tuple[Pair, TokenStatistics]]:
        name, group, path, row_groups, size = task
        tokenizer = self._tokenizers[name]
        total = TokenStatistics()
        with worker_tally(self._tallies).element(size) as counted, tokenizer.lend() as encoder:
            whole_words = WholeWords(encoder, tokenizer.vocabulary)
            encoder.encode(pa.array(["a"], pa.large_string()))  # some make tables at their first call
            source = self._groups[group]
            for _, batch in read_texts(path, row_groups, source.text_column, rows=source.rows):
                total += evaluate_texts(_texts_of(batch), encoder, whole_words)
                counted(batch.text_bytes)
        yield (name, group), total


@beam.typehints.with_input_types(str)
@beam.typehints.with_output_types(tuple[Pair, TokenStatistics])
class EvaluateTokenizers(beam.PTransform[beam.PCollection[str], beam.PCollection[tuple[Pair, TokenStatistics]]]):
    """Names of groups in, ((tokenizer, group), TokenStatistics) out.

    An element of the work is one tokenizer on a run of row groups.

    Example:
        >>> from transforms.evaluation.tokenizers import load_tokenizers
        >>> from transforms.tokenizer.file import load_tokenizer
        >>> (loaded,), _ = load_tokenizers(["mine=samples/tokenizer.json"], with_public=False)
        >>> file = load_tokenizer("samples/tokenizer.json")
        >>> group = TextSource("english", ("samples/corpora/fineweb_edu_english/*.parquet",), text_column="text")
        >>> tokenizer = EvaluatedTokenizer(
        ...     "mine", loaded.source, loaded.kind, "tokenizers", loaded.source, file.sha256,
        ...     loaded.vocabulary,
        ... )
        >>> with beam.Pipeline() as pipeline:
        ...     evaluated = pipeline | beam.Create(["english"])
        ...     evaluated |= EvaluateTokenizers({"mine": tokenizer}, {"english": group})
        ...     shown = evaluated | beam.MapTuple(lambda pair, found: print(pair, found.documents, found.tokens))
        ('mine', 'english') 27 288258

    Args:
        tokenizers: to evaluate, by name.
        groups: the data, by name.
        tallies: a folder that workers share, where they note the bytes of text that they have evaluated, each as often
            as there are tokenizers; None for none.
    """

    def __init__(
        self,
        tokenizers: Mapping[str, EvaluatedTokenizer],
        groups: Mapping[str, TextSource],
        tallies: str | None = None,
    ) -> None:
        super().__init__()
        self._tokenizers = dict(tokenizers)
        self._groups = dict(groups)
        self._tallies = tallies

    def expand(self, names: beam.PCollection[str]) -> beam.PCollection[tuple[Pair, TokenStatistics]]:
        evaluate = beam.ParDo(_Evaluate(self._tokenizers, self._groups, self._tallies))
        return (
            names
            | "Sources" >> beam.Map(self._groups.__getitem__).with_output_types(TextSource)
            | "ReadFooters" >> ReadFooters()
            | "Tasks" >> beam.FlatMapTuple(self._tasks).with_output_types(_Task)
            | "SpreadTasks" >> beam.Reshuffle()
            | "Evaluate" >> evaluate.with_output_types(tuple[Pair, TokenStatistics])
            | "Sum" >> beam.CombinePerKey(SumStatistics()).with_output_types(tuple[Pair, TokenStatistics])
        )

    def display_data(self) -> dict[str, Any]:
        """The arguments of this step that the runner's pages show."""
        return {
            "tokenizers": DisplayDataItem(listed(self._tokenizers), label="Tokenizers"),
            "groups": DisplayDataItem(listed(self._groups), label="Groups of texts"),
        }

    def _tasks(self, group: str, file: SourceFile) -> Iterator[_Task]:
        wanted = file.wanted_groups
        sizes = [file.row_groups[number].text_bytes for number in wanted]
        worker_tally(self._tallies).expect(sum(sizes) * len(self._tokenizers))
        for run in row_group_runs(sizes):
            for tokenizer in self._tokenizers:
                numbers = [wanted[place] for place in run]
                yield tokenizer, group, file.path, numbers, sum(sizes[place] for place in run)
