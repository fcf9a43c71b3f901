"""`Tokenize` says before anything runs what is wrong with it; what it makes is checked by its own example."""

from __future__ import annotations

import re
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from tests.support.corpora import TOKENIZER
from transforms.arrayrecord.example import decode_ids
from transforms.encoding.tokenize import Tokenize
from transforms.errors import UsageError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_tokens": 0}, "max_tokens is 0; use a whole number from 1 to 2,147,483,647"),
        ({"max_tokens": -3}, "max_tokens is -3; use"),
        ({"max_tokens": 2**31}, "max_tokens is 2147483648; use"),
        ({"max_tokens": 8.0}, "max_tokens is 8.0; use"),
        ({"max_tokens": True}, "max_tokens is True; use"),
        ({"engine": "fast"}, "engine is 'fast'; use auto or tokenizers or gigatoken"),
        ({"special_tokens": "keep"}, "special_tokens is 'keep'; use text or token"),
        ({"add_eos": True}, "names no EOS token: give Tokenize eos_token="),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        Tokenize(str(TOKENIZER), **arguments)


@pytest.mark.parametrize(("most", "records"), [(1, 3), (2, 2), (2**31 - 1, 1)])
def test_records_of_the_fewest_and_the_most_tokens(most: int, records: int) -> None:
    with TestPipeline() as pipeline:
        lengths = (
            pipeline
            | beam.Create(["!!!"])
            | Tokenize(str(TOKENIZER), max_tokens=most)
            | beam.Map(lambda record: len(decode_ids(record)))
        )
        assert_that(lengths | beam.combiners.Count.Globally(), equal_to([records]))
