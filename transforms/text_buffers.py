"""Arrow arrays of text as NumPy arrays of their bytes and offsets, and back, without copies."""

from __future__ import annotations

from typing import cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def text_buffers(texts: pa.LargeStringArray) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The data and offsets of an array without nulls, slices included.

    Returns:
        data, uint8, shape (bytes,), and offsets, int64, shape (texts + 1,), which need not begin with 0; text i is
        `data[offsets[i]:offsets[i + 1]]`.

    >>> _, offsets = text_buffers(pa.array(["ab", "ü", "c"], pa.large_string()).slice(1))
    >>> offsets.tolist()
    [2, 4, 5]
    """
    _, offsets, data = texts.buffers()
    if offsets is None or data is None or not len(texts):  # as Arrow may leave them where there is no text
        return np.empty(0, dtype=np.uint8), np.zeros(len(texts) + 1, dtype=np.int64)
    return (
        np.frombuffer(data, dtype=np.uint8),
        np.frombuffer(offsets, dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1],
    )


def text_array(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> pa.LargeStringArray:
    """The array of such data, which must be valid UTF-8 in each text, and offsets."""
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return cast("pa.LargeStringArray", pa.Array.from_buffers(pa.large_string(), len(offsets) - 1, buffers))
