from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from maxtext.input_pipeline.protos import example_pb2, feature_pb2

from transforms.arrayrecord.example import decode_ids, decode_text, encode_ids, encode_texts
from transforms.errors import BroetchenError

KEYS = st.text(st.characters(codec="utf-8"), max_size=300)
IDS = st.one_of(
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**16 - 1),
    st.integers(0, 300),
    st.sampled_from([n for bits in (7, 14, 16, 20, 21, 28, 32) for n in (2**bits - 1, 2**bits % 2**32, 2**bits - 2)]),
)


def of_ids(ids: list[int], key: str) -> example_pb2.Example:
    example = example_pb2.Example()
    example.features.feature[key].int64_list.CopyFrom(feature_pb2.Int64List(value=ids))
    return example


def of_texts(texts: list[bytes], key: str) -> example_pb2.Example:
    example = example_pb2.Example()
    example.features.feature[key].bytes_list.CopyFrom(feature_pb2.BytesList(value=texts))
    return example


@given(st.lists(st.lists(IDS, max_size=60), max_size=10), KEYS)
def test_ids_are_encoded_as_protobuf_does(records, key):
    ids = np.array([i for record in records for i in record], np.uint32)
    bounds = np.cumsum([0, *map(len, records)])
    encoded = encode_ids(ids, bounds, key)
    assert encoded == [of_ids(record, key).SerializeToString() for record in records]
    for record, data in zip(records, encoded, strict=True):
        decoded = decode_ids(data, key)
        assert decoded.dtype == np.int64
        assert decoded.tolist() == record


@given(st.lists(st.binary(max_size=300), max_size=10), KEYS)
def test_texts_are_encoded_as_protobuf_does(texts, key):
    encoded = encode_texts(texts, key)
    assert encoded == [of_texts([text], key).SerializeToString() for text in texts]
    assert [decode_text(data, key) for data in encoded] == texts


@pytest.mark.parametrize("largest", [100, 2**16, 2**18, 2**20, 2**32])
def test_a_large_batch(largest):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, largest, 100_000, dtype=np.uint32)
    bounds = np.unique(np.concatenate([[0, len(ids)], rng.integers(0, len(ids), 100)]))
    expected = [of_ids(ids[start:end].tolist(), "text").SerializeToString() for start, end in pairwise(bounds)]
    assert encode_ids(ids, bounds) == expected


def test_a_long_text():
    text = bytes(range(256)) * 20_000
    assert encode_texts([text]) == [of_texts([text], "text").SerializeToString()]


def test_bounds_may_leave_ids_out():
    ids = np.array([1, 2, 3, 4, 5], np.uint32)
    assert [decode_ids(r).tolist() for r in encode_ids(ids, np.array([1, 3, 3, 4]))] == [[2, 3], [], [4]]
    assert encode_ids(ids, np.array([2])) == []
    assert encode_ids(ids, np.array([], np.int64)) == []
    assert encode_texts([]) == []


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64, np.uint64])
def test_other_integers(dtype):
    ids = np.array([0, 127, 128, 30_000], dtype)
    assert decode_ids(encode_ids(ids, np.array([0, 4]))[0]).tolist() == ids.tolist()


def test_ids_that_are_not_contiguous():
    ids = np.arange(10, dtype=np.uint32)[::2]
    assert decode_ids(encode_ids(ids, np.array([0, 5]))[0]).tolist() == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    ("ids", "bounds", "message"),
    [
        (np.array([-1]), [0, 1], "ids range from -1"),
        (np.array([2**32]), [0, 1], "ids range from 4294967296"),
        (np.array([1.0]), [0, 1], "ids are float64"),
        (np.array([[1]]), [0, 1], r"of shape \(1, 1\)"),
        (np.array([1, 2], np.uint32), [0, 3], "bounds have to ascend within 0 and 2"),
        (np.array([1, 2], np.uint32), [-1, 2], "bounds have to ascend"),
        (np.array([1, 2], np.uint32), [0, 2, 1], "bounds have to ascend"),
        (np.array([1, 2], np.uint32), [0.0, 2.0], "bounds are float64"),
    ],
)
def test_wrong_arguments(ids, bounds, message):
    with pytest.raises(ValueError, match=message):
        encode_ids(ids, np.array(bounds))


def test_protobufs_own_parser_reads_both():
    ids, text = encode_ids(np.array([5, 70_000], np.uint32), np.array([0, 2]), "ids")[0], encode_texts([b"x"])[0]
    assert example_pb2.Example.FromString(ids).features.feature["ids"].int64_list.value == [5, 70_000]
    assert example_pb2.Example.FromString(text).features.feature["text"].bytes_list.value == [b"x"]


def test_negative_ids_are_read():
    assert decode_ids(of_ids([-1, 5], "text").SerializeToString()).tolist() == [-1, 5]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"\xff\xff\xff", r"a record of 3 bytes is not a tf\.train\.Example"),
        (of_ids([1, 2, 3], "text").SerializeToString()[:-1], r"is not a tf\.train\.Example"),
        (b"", "no feature 'text'; it has none"),
        (of_ids([1], "ids").SerializeToString(), "no feature 'text'; it has 'ids': name one of them"),
        (of_texts([b"x"], "text").SerializeToString(), "feature 'text' of a record is bytes_list, not int64_list"),
    ],
)
def test_records_that_hold_no_ids(record, message):
    with pytest.raises(BroetchenError, match=message):
        decode_ids(record)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (of_ids([1], "text").SerializeToString(), "feature 'text' of a record is int64_list, not bytes_list"),
        (of_texts([b"a", b"b"], "text").SerializeToString(), "has 2 texts"),
        (of_texts([], "text").SerializeToString(), "has 0 texts"),
    ],
)
def test_records_that_hold_no_text(record, message):
    with pytest.raises(BroetchenError, match=message):
        decode_text(record)
