"""`tf.train.Example` on the wire, without TensorFlow: records of token ids or of text, written fast and read safely.

The messages are those of TensorFlow's `tensorflow/core/example/example.proto` and `feature.proto`; the encoding is
protobuf's (https://protobuf.dev/programming-guides/encoding/). Records have one feature. Ids are a packed
`int64_list`, text is a `bytes_list` of one value, as MaxText reads them. Encoders give the bytes of protobuf's own
`SerializeToString`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf import (  # type: ignore[import-untyped]
    descriptor_pb2,
    descriptor_pool,
    message,
    message_factory,
)

from transforms.errors import BroetchenError

_MAX_VARINT_BYTES = 5  # of an id below 2**32
# Covers the vocabularies in use, in a table of some 7 MB; the common 65,536 ids take 0.4 MB and stay in the L2 cache.
_MAX_TABLE_IDS = 1 << 20
_MIN_TABLE_IDS = 1 << 16

# Field numbers: Example.features = 1; Features.feature = 1, a map of key = 1, value = 2; Feature.bytes_list = 1 and
# int64_list = 3; the lists' value = 1. All are length-delimited: tag = number << 3 | 2.
_FIELD_1, _FIELD_2, _FIELD_3 = b"\x0a", b"\x12", b"\x1a"


def encode_ids(ids: npt.NDArray[Any], bounds: npt.NDArray[Any], key: str = "text") -> list[bytes]:
    """Encodes records of token ids.

    Args:
        ids: token ids, of shape [ids] and any integer dtype (uint32 is taken as it is), each below 2**32.
        bounds: where records begin and end, of shape [records + 1], ascending: record `i` is
            ``ids[bounds[i]:bounds[i + 1]]``.
        key: the feature's name.

    Returns:
        one serialized `Example` a record.

    Raises:
        ValueError: `ids` or `bounds` are not as they should be.

    >>> record = encode_ids(np.array([1, 300, 2], np.uint32), np.array([0, 3]))[0]
    >>> decode_ids(record)
    array([  1, 300,   2])
    """
    bounds = np.asarray(bounds)
    _check_ids(ids, bounds)
    if len(bounds) < 2:
        return []
    # Only the part that the records cover, so that no byte is made for nothing.
    first, last = int(bounds[0]), int(bounds[-1])
    data, offsets = _varints(ids[first:last].astype(np.uint32, copy=False))
    ends = offsets[bounds - first].tolist()
    view = memoryview(data)
    return [_ids_head(key, end - start) + view[start:end] for start, end in itertools.pairwise(ends)]


def _check_ids(ids: npt.NDArray[Any], bounds: npt.NDArray[Any]) -> None:
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise ValueError(f"ids are {ids.dtype} of shape {ids.shape}; they have to be integers of one dimension")
    if bounds.ndim != 1 or bounds.dtype.kind not in "iu":
        raise ValueError(
            f"bounds are {bounds.dtype} of shape {bounds.shape}; they have to be integers of one dimension"
        )
    if len(bounds) and (bounds[0] < 0 or bounds[-1] > len(ids) or (bounds[1:] < bounds[:-1]).any()):
        raise ValueError(f"bounds have to ascend within 0 and {len(ids):,}, the number of ids")
    if ids.dtype != np.uint32 and len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < 1 << 32:
        raise ValueError(f"ids range from {ids.min()} to {ids.max()}; they have to lie within 0 and 2**32 - 1")


def encode_texts(texts: Iterable[bytes], key: str = "text") -> list[bytes]:
    """Encodes records of text: one serialized `Example` for each of `texts`, UTF-8 or any other bytes.

    >>> decode_text(encode_texts(["Brötchen".encode()])[0]).decode()
    'Brötchen'
    """
    return [_text_head(key, len(text)) + text for text in texts]


def decode_ids(record: bytes, key: str = "text") -> npt.NDArray[np.int64]:
    """The ids of a record, of shape [ids].

    Raises:
        BroetchenError: the record is damaged, has no such feature, or that is not a list of integers.
    """
    values = _feature(record, key, "int64_list")
    return np.fromiter(values, np.int64, len(values))


def decode_text(record: bytes, key: str = "text") -> bytes:
    """The text of a record.

    Raises:
        BroetchenError: the record is damaged, has no such feature, or that is not one text.
    """
    values = _feature(record, key, "bytes_list")
    if len(values) != 1:
        raise BroetchenError(f"feature {key!r} of a record has {len(values)} texts; a record of text has one")
    text: bytes = values[0]
    return text


def _feature(record: bytes, key: str, kind: str) -> Any:
    try:
        features = _example_class().FromString(record).features.feature
    except message.DecodeError as error:
        raise BroetchenError(
            f"a record of {len(record):,} bytes is not a tf.train.Example ({error}); the file is damaged, or holds "
            "something else"
        ) from error
    if key not in features:
        found = ", ".join(map(repr, sorted(features))) or "none"
        raise BroetchenError(f"a record has no feature {key!r}; it has {found}: name one of them")
    feature = features[key]
    if feature.WhichOneof("kind") != kind:
        raise BroetchenError(
            f"feature {key!r} of a record is {feature.WhichOneof('kind') or 'without a value'}, not {kind}; read it as "
            "records of the other format (tokens or text)"
        )
    return getattr(feature, kind).value


@functools.cache
def _example_class() -> Any:
    """The message class of `Example`, in a pool of its own: names in the default pool belong to TensorFlow's copy."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="broetchen/example.proto", package="tensorflow", syntax="proto3")

    def add(parent: Any, name: str, number: int, kind: int, label: int, type_name: str = "") -> Any:
        return parent.field.add(name=name, number=number, type=kind, label=label, type_name=type_name or None)

    optional, repeated = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    for name, kind in (
        ("BytesList", field.TYPE_BYTES),
        ("FloatList", field.TYPE_FLOAT),
        ("Int64List", field.TYPE_INT64),
    ):
        add(file.message_type.add(name=name), "value", 1, kind, repeated)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(("BytesList", "FloatList", "Int64List"), 1):
        lower = name.removesuffix("List").lower() + "_list"
        add(feature, lower, number, field.TYPE_MESSAGE, optional, f".tensorflow.{name}").oneof_index = 0
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    add(entry, "key", 1, field.TYPE_STRING, optional)
    add(entry, "value", 2, field.TYPE_MESSAGE, optional, ".tensorflow.Feature")
    add(features, "feature", 1, field.TYPE_MESSAGE, repeated, ".tensorflow.Features.FeatureEntry")
    example = file.message_type.add(name="Example")
    add(example, "features", 1, field.TYPE_MESSAGE, optional, ".tensorflow.Features")

    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


# Records of the same size have the same head, and most sizes come up again and again.
@functools.lru_cache(maxsize=1 << 14)
def _ids_head(key: str, size: int) -> bytes:
    """All of a record but the last `size` bytes, the packed ids. An empty list has no field for its values at all."""
    values = _FIELD_1 + _varint(size) if size else b""
    return _example_head(key, _FIELD_3 + _varint(len(values) + size) + values, size)


def _text_head(key: str, size: int) -> bytes:
    """All of a record but the last `size` bytes, the text."""
    value = _FIELD_1 + _varint(size)
    return _example_head(key, _FIELD_1 + _varint(len(value) + size) + value, size)


def _example_head(key: str, feature_head: bytes, size: int) -> bytes:
    name = key.encode()
    entry = _FIELD_1 + _varint(len(name)) + name + _FIELD_2 + _varint(len(feature_head) + size) + feature_head
    features = _FIELD_1 + _varint(len(entry) + size) + entry
    return _FIELD_1 + _varint(len(features) + size) + features


def _varints(ids: npt.NDArray[np.uint32]) -> tuple[Any, npt.NDArray[np.int64]]:
    """The varints of `ids` one after the other, as a buffer, and where each begins and ends, of shape [ids + 1].

    Gathers them from a table, by Arrow's `take` on variable-length values: one pass in native code that leaves the
    interpreter lock to others. Ids above any table are computed.
    """
    largest = int(ids.max(initial=0))
    if largest >= _MAX_TABLE_IDS:
        return _computed_varints(ids)
    table = _varint_table(max(_MIN_TABLE_IDS, 1 << largest.bit_length()))
    indices: Any = pa.array(ids)
    _, offsets, data = pc.take(table, indices, boundscheck=False).buffers()
    return data or b"", np.frombuffer(offsets, np.int64, len(ids) + 1)


@functools.cache
def _varint_table(size: int) -> Any:
    data, offsets = _computed_varints(np.arange(size, dtype=np.uint32))
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), size, [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def _computed_varints(ids: npt.NDArray[np.uint32]) -> tuple[bytes, npt.NDArray[np.int64]]:
    """Like `_varints`, by arithmetic: seven bits a byte, the lowest first, the top bit set on all but the last."""
    shifts = np.arange(0, 7 * _MAX_VARINT_BYTES, 7, dtype=np.uint32)
    groups = ids[:, None] >> shifts
    used = groups > 0
    used[:, 0] = True
    continued = np.zeros_like(used)
    continued[:, :-1] = used[:, 1:]
    encoded = (groups & 0x7F | continued * np.uint32(0x80)).astype(np.uint8)
    offsets = np.zeros(len(ids) + 1, np.int64)
    np.cumsum(used.sum(axis=1), out=offsets[1:])
    return encoded[used].tobytes(), offsets
