"""Tokenizes documents into training records."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.transforms.display import DisplayDataItem

from transforms.arrayrecord.example import encode_ids, encode_texts
from transforms.arrayrecord.records import FEATURE, MOST_TOKENS, Ids, RecordSpec, add_bos_eos, record_bounds
from transforms.encoding.pool import borrow_encoder
from transforms.errors import UsageError
from transforms.segments.encoded import Encoded
from transforms.tokenizer.file import load_tokenizer
from transforms.tokenizer.spec import Engine, SpecialTokens, TokenizerSpec


@dataclasses.dataclass(frozen=True)
class TokenizedBatch:
    """Documents and their tokens, on the way to records.

    Attributes:
        lengths: int64 [documents], the tokens of each document, BOS and EOS included.
        records: makes the serialized `tf.train.Example`s, in order. It is apart from the encoding so that another
            thread can do it.
        ids: uint32 [tokens], of formats of ids: of all documents, BOS and EOS included.
    """

    lengths: npt.NDArray[np.int64]
    records: Callable[[], list[bytes]]
    ids: Ids | None = None


def tokenize_batch(records: RecordSpec, texts: pa.LargeStringArray, encoded: Encoded) -> TokenizedBatch:
    """Makes records of documents and their ids."""
    if records.is_text:
        return TokenizedBatch(
            np.diff(encoded.offsets), lambda: encode_texts(texts.cast(pa.large_binary()).to_pylist(), FEATURE)
        )
    ids, offsets = add_bos_eos(encoded.ids, encoded.offsets, records.bos_id, records.eos_id)
    return TokenizedBatch(
        np.diff(offsets), lambda: encode_ids(ids, record_bounds(offsets, records.max_tokens), FEATURE), ids
    )


class _TokenizeBatch(beam.DoFn):
    def __init__(self, tokenizer: TokenizerSpec, engine: Engine, records: RecordSpec) -> None:
        self._tokenizer, self._engine, self._records = tokenizer, engine, records
        self._tokens = Metrics.counter("broetchen", "tokens")

    def process(self, documents: Sequence[str]) -> Iterator[bytes]:
        with borrow_encoder(self._tokenizer, self._engine) as encoder:
            texts = pa.array(documents, pa.large_string())
            batch = tokenize_batch(self._records, texts, encoder.encode(texts))
        self._tokens.inc(int(batch.lengths.sum()))
        yield from batch.records()


@beam.typehints.with_input_types(str)
@beam.typehints.with_output_types(bytes)
class Tokenize(beam.PTransform[beam.PCollection[str], beam.PCollection[bytes]]):
    """Documents in, training records out: PCollection[str] to PCollection[bytes].

    A record is a serialized `tf.train.Example` whose feature `text` is an int64_list of at most `max_tokens` ids, the
    form that MaxText reads with `tokenize_train_data=false`. No record spans two documents. `WriteToArrayRecord` writes
    them; the metric `broetchen/tokens` counts their ids.

    Example:
        >>> import apache_beam as beam
        >>> from transforms.arrayrecord.example import decode_ids
        >>> with beam.Pipeline() as pipeline:
        ...     ids = (
        ...         pipeline
        ...         | beam.Create(["Ein Brötchen, bitte."])
        ...         | Tokenize("samples/tokenizer.json", eos_token="<|eos|>", add_eos=True)
        ...         | beam.Map(lambda record: print(decode_ids(record)[-1]))
        ...     )
        1

    Args:
        tokenizer: a tokenizer.json or a folder with one, on any filesystem that Beam reads and the workers reach.
        max_tokens: ids in a record at most.
        add_bos, add_eos: whether each document begins with the BOS id and ends with the EOS id.
        bos_token, eos_token: name those tokens where no tokenizer_config.json beside the tokenizer does.
        special_tokens: whether a special token's string in a document is plain text, or the token.
        engine: the encoder; the ids are the same.

    Raises:
        UsageError: an argument is none of those that there are, or the tokenizer cannot be loaded or has no token that
            is to be added.
    """

    def __init__(
        self,
        tokenizer: str,
        *,
        max_tokens: int = 2048,
        add_bos: bool = False,
        add_eos: bool = False,
        bos_token: str | None = None,
        eos_token: str | None = None,
        special_tokens: SpecialTokens = "text",
        engine: Engine = "auto",
    ) -> None:
        super().__init__()
        if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or not 1 <= max_tokens <= MOST_TOKENS:
            raise UsageError(f"max_tokens is {max_tokens!r}; use a whole number from 1 to {MOST_TOKENS:,}")
        for name, value, known in (("special_tokens", special_tokens, SpecialTokens), ("engine", engine, Engine)):
            if value not in get_args(known):
                raise UsageError(f"{name} is {value!r}; use {' or '.join(get_args(known))}")
        loaded = load_tokenizer(tokenizer, bos_token=bos_token, eos_token=eos_token)
        for kind, added, token_id in (("bos", add_bos, loaded.bos_id), ("eos", add_eos, loaded.eos_id)):
            if added and token_id is None:
                raise UsageError(f"{tokenizer} names no {kind.upper()} token: give Tokenize {kind}_token=")
        self._tokenizer = TokenizerSpec(tokenizer, loaded.sha256, bos_token, eos_token, special_tokens)
        self._records = RecordSpec(
            "tokens", max_tokens, loaded.bos_id if add_bos else None, loaded.eos_id if add_eos else None
        )
        self._engine = engine

    def expand(self, documents: beam.PCollection[str]) -> beam.PCollection[bytes]:
        return (
            documents
            | "Batch" >> beam.BatchElements(min_batch_size=16, max_batch_size=1024)
            | "Encode"
            >> beam.ParDo(_TokenizeBatch(self._tokenizer, self._engine, self._records)).with_output_types(bytes)
        )

    def display_data(self) -> dict[str, Any]:
        """The arguments of this step that the runner's pages show."""
        records, tokenizer = self._records, self._tokenizer
        return {
            "tokenizer": DisplayDataItem(str(tokenizer.path), label="Tokenizer"),
            "tokenizer_sha256": DisplayDataItem(tokenizer.sha256, label="SHA-256 of the tokenizer"),
            "max_tokens": DisplayDataItem(records.max_tokens, label="Tokens in a record at most"),
            "bos_id": DisplayDataItem(records.bos_id, label="BOS id").drop_if_none(),
            "eos_id": DisplayDataItem(records.eos_id, label="EOS id").drop_if_none(),
            "special_tokens": DisplayDataItem(tokenizer.special_tokens, label="Special tokens become"),
            "engine": DisplayDataItem(self._engine, label="Engine"),
        }
