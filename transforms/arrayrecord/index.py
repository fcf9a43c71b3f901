"""The memory that a reader of ArrayRecord keeps for its open files, and the cost of a read. Pure arithmetic."""

from __future__ import annotations

# The reader keeps the offset of each group, and something of each file; measured by benchmarks.random_reads.
_GROUP_BYTES = 8
_FILE_BYTES = 5 << 10

# A read at random looks through the offsets of all groups of its file, and decompresses a group; measured likewise.
_GROUP_SECONDS = 1.9e-9
_RECORD_SECONDS = 2.5e-6


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


def read_seconds(records: float, group_size: int) -> float:
    """About the seconds of one core that it takes to read a record at random, as Grain does.

    Args:
        records: of its file.
        group_size: records that are compressed together.

    >>> round(1000 * read_seconds(25_000, 1), 2), round(1000 * read_seconds(400_000, 1), 2)
    (0.05, 0.76)
    """
    return _GROUP_SECONDS * records / group_size + _RECORD_SECONDS * group_size
