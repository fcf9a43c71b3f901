"""Lengths of documents, from the index beside a shard in Megatron's format."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.files.untrusted import check_regular
from transforms.megatron.index import HEAD_BYTES, LENGTH, IndexHead, index_path
from transforms.parquet.source_files import open_source


def read_lengths(shard: str, first: int, count: int, documents: int | None = None) -> npt.NDArray[np.integer]:
    """The tokens of some documents of a shard: int32 [count].

    Args:
        shard: the path of its `.bin` file.
        first, count: which documents.
        documents: how many the manifest says that there are; None where that is not asked.

    Raises:
        BroetchenError: the index cannot be read, ends too early, or has another number of documents.
    """
    path = index_path(shard)
    check_regular(path)
    with open_source(path) as file:
        try:
            head = IndexHead.parse(file.read(HEAD_BYTES), storage.size(path))
        except ValueError as error:
            raise BroetchenError(f"{path}: {error}; see what broetchen verify says") from error
        if documents not in (None, head.documents):
            raise BroetchenError(
                f"{path}: tells of {head.documents:,} documents, and the manifest of {documents:,}; see what "
                "broetchen verify says"
            )
        file.seek(head.lengths_at + LENGTH.itemsize * first)
        content = file.read(LENGTH.itemsize * count)
    if len(content) != LENGTH.itemsize * count:
        raise BroetchenError(f"{path}: ends too early; see what broetchen verify says")
    return np.frombuffer(content, LENGTH)
