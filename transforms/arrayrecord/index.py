"""What a reader of ArrayRecord holds in memory of the files that it has open. Pure arithmetic."""

from __future__ import annotations

# The reader keeps the offset of each group, and something of each file; measured by benchmarks.random_reads.
_GROUP_BYTES = 8
_FILE_BYTES = 5 << 10


def index_bytes(records: int, files: int, group_size: int) -> int:
    """About the bytes of index that a process holds once it has read from all files, as each worker of Grain's does.

    Args:
        records: of all files together.
        files: how many there are.
        group_size: records that are compressed together.

    >>> index_bytes(25_000, 1, 1), index_bytes(25_000, 1, 16)
    (205120, 17624)
    """
    return _GROUP_BYTES * -(-records // group_size) + _FILE_BYTES * files
