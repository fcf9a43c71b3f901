from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordReader
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import at_most
from transforms.arrayrecord.options import writer_options
from transforms.arrayrecord.writer import ShardWriter
from transforms.checksums import mark_of
from transforms.errors import BroetchenError, UsageError
from transforms.files import storage
from transforms.files.listing import list_files
from transforms.files.staged import WrittenShard

RECORDS = [b"first", b"", b"third" * 1000, bytes(range(256))]
COMPRESSIONS = ["zstd", "zstd:-5", "zstd:1", "snappy", "brotli:1", "none"]


@pytest.fixture(params=["local", "gcs"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "root") if request.param == "local" else request.getfixturevalue("gcs_prefix")


def write(path: str, records: list[bytes], **options) -> WrittenShard:
    with ShardWriter(path, **options) as writer:
        writer.write_many(records)
    return writer.close()


def names(root: str) -> list[str]:
    return [path.removeprefix(f"{root}/") for path, _ in list_files(root)]


def read(path: str) -> list[bytes]:
    with storage.local_copy(path) as local:
        return list(ArrayRecordDataSource([local]))


def test_a_shard(root, tmp_path):
    path = f"{root}/folder/train-00000-of-00001.arecord"
    with ShardWriter(path, scratch_dir=str(tmp_path)) as writer:
        writer.write(RECORDS[0])
        writer.write_many(RECORDS[1:])
        assert not storage.exists(path)
        written = writer.close()
    data = storage.read_bytes(path)
    mark = mark_of(data)
    assert written == WrittenShard(path, len(RECORDS), len(data), mark.sha256, mark.crc32c)
    assert (written.mark, mark.sha256) == (mark, hashlib.sha256(data).hexdigest())
    assert writer.close() is written
    assert read(path) == RECORDS
    assert names(root) == ["folder/train-00000-of-00001.arecord"]
    assert not list(tmp_path.glob(".*"))


def test_array_record_reads_it_from_the_bucket_itself(gcs_prefix):
    path = f"{gcs_prefix}/train.arecord"
    write(path, RECORDS)
    assert list(ArrayRecordDataSource([path])) == RECORDS


def test_an_empty_shard(root):
    written = write(f"{root}/empty.arecord", [])
    assert (written.records, written.bytes) == (0, 131_072)
    assert read(f"{root}/empty.arecord") == []


def test_a_file_is_replaced(root):
    write(f"{root}/a.arecord", RECORDS)
    write(f"{root}/a.arecord", [b"new"])
    assert read(f"{root}/a.arecord") == [b"new"]


@at_most(40)
@given(st.lists(st.binary(max_size=200), max_size=30), st.integers(1, 40), st.sampled_from(COMPRESSIONS))
def test_what_is_written_is_read_and_the_same_bytes_come_again(tmp_path_factory, records, group_size, compression):
    folder = tmp_path_factory.mktemp("shards")
    first = write(str(folder / "a"), records, group_size=group_size, compression=compression)
    second = write(str(folder / "b"), records, group_size=group_size, compression=compression)
    assert read(first.path) == records
    assert first.sha256 == second.sha256
    assert first.records == len(records)


def test_the_same_bytes_from_many_threads(tmp_path):
    records = [hashlib.sha512(str(i).encode()).digest() * (i % 50) for i in range(3000)]

    def write_one(index: int) -> str:
        # Calls of different sizes, which must not show.
        with ShardWriter(str(tmp_path / str(index)), group_size=1 + index % 2) as writer:
            for start in range(0, len(records), 100 * (index + 1)):
                writer.write_many(records[start : start + 100 * (index + 1)])
        return writer.close().sha256

    with ThreadPoolExecutor(8) as pool:
        checksums = list(pool.map(write_one, range(16)))
    assert len(set(checksums[::2])) == 1
    assert len(set(checksums[1::2])) == 1


def test_the_options_are_in_the_file(tmp_path):
    write(str(tmp_path / "a"), RECORDS, group_size=7, compression="zstd:5")
    stored = ArrayRecordReader(str(tmp_path / "a")).writer_options_string()
    assert stored.startswith("group_size:7,")
    assert "zstd:5" in stored


def test_an_exception_leaves_nothing_behind(root, tmp_path):
    path = f"{root}/a.arecord"
    write(path, [b"old"])
    with pytest.raises(ZeroDivisionError), ShardWriter(path, scratch_dir=str(tmp_path)) as writer:  # noqa: PT012
        writer.write_many(RECORDS)
        1 / 0  # noqa: B018
    assert read(path) == [b"old"]
    assert names(root) == ["a.arecord"]
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(BroetchenError, match="given up after an earlier error"):
        writer.close()


@pytest.mark.parametrize("wrong", ["text", bytearray(b"x"), 3, None])
def test_a_record_that_is_not_bytes(tmp_path, wrong):
    with (
        pytest.raises(TypeError, match=f"a.arecord: a record is of type {type(wrong).__name__}; it has to be bytes"),
        ShardWriter(str(tmp_path / "a.arecord")) as writer,
    ):
        writer.write_many([b"right", wrong])
    assert list(tmp_path.iterdir()) == []


def test_a_closed_writer(tmp_path):
    with ShardWriter(str(tmp_path / "a")) as writer:
        writer.close()
    with pytest.raises(BroetchenError, match="this writer was closed; make a new one"):
        writer.write(b"x")
    writer.abort()
    assert read(str(tmp_path / "a")) == []


@pytest.mark.parametrize("records", [[], RECORDS])
@pytest.mark.parametrize("kept", [0, 1, 65_536, 131_071])
def test_a_file_that_was_cut_short_is_not_published(tmp_path, records, kept):
    writer = ShardWriter(str(tmp_path / "a"))
    writer.write_many(records)
    # A disk may do this behind the writer's back. ArrayRecord reads such a file as one without records.
    assert writer._writer is not None
    writer._writer.close()
    os.truncate(writer._temporary, kept)
    with pytest.raises(
        BroetchenError, match=f"{len(records)} records were written and 0 can be read back from {kept:,}"
    ):
        writer.close()
    assert list(tmp_path.iterdir()) == []


def run_python(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments], stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )


@pytest.mark.slow
def test_a_full_disk(tmp_path):
    # The kernel refuses to let the file grow, as it does on a full disk: at close, or in the middle.
    process = run_python(
        """
        import os, resource, sys
        from transforms.errors import BroetchenError
        from transforms.arrayrecord.writer import ShardWriter
        for limit in (1_000, 2_000_000, 40_000_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))
            try:
                with ShardWriter(sys.argv[1], compression="none") as writer:
                    for _ in range(60):
                        writer.write_many([os.urandom(100_000)] * 10)
            except BroetchenError as error:
                print(error)
        """,
        str(tmp_path / "a.arecord"),
    )
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    message = (
        f"{tmp_path}/a.arecord: a shard could not be written (write() failed: File too large, in {tmp_path}); free"
    )
    assert [line.startswith(message) for line in output.splitlines()] == [True] * 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_writer_that_is_killed_publishes_nothing(root, tmp_path):
    process = run_python(
        """
        import os, sys
        from transforms.arrayrecord.writer import ShardWriter
        with ShardWriter(sys.argv[1], scratch_dir=sys.argv[2]) as writer:
            while True:
                writer.write_many([os.urandom(1000)] * 100)
                print("wrote", flush=True)
        """,
        f"{root}/a.arecord",
        str(tmp_path),
    )
    assert process.stdout is not None
    try:
        for _ in range(300):
            assert process.stdout.readline() == "wrote\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not storage.exists(f"{root}/a.arecord")
    folder = root if storage.is_local(root) else str(tmp_path)
    assert len(storage.delete_temporary(folder)) == 1
    assert names(root) == []


@pytest.mark.slow
def test_killed_at_any_moment_there_is_the_whole_file_or_none(tmp_path):
    process = run_python(
        """
        import os, signal, sys, time
        from transforms.arrayrecord.writer import ShardWriter
        for moment in range(10):
            child = os.fork()
            if not child:
                for turn in range(1000):
                    with ShardWriter(f"{sys.argv[1]}/{moment}/{turn}.arecord") as writer:
                        writer.write_many([bytes([turn % 256]) * 100_000] * 50)
            time.sleep(0.1 + 0.0137 * moment)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        """,
        str(tmp_path),
    )
    process.communicate(timeout=120)
    assert process.returncode == 0
    published = list(tmp_path.glob("*/*.arecord"))
    assert published
    for path in published:
        assert ArrayRecordReader(str(path)).num_records() == 50


def test_folders_that_cannot_be_written(tmp_path, gcs_prefix):
    storage.write_bytes(str(tmp_path / "file"), b"")
    with pytest.raises(BroetchenError, match=r"/file/below: cannot be made a folder .* a part of the path is a file"):
        ShardWriter(str(tmp_path / "file" / "below" / "a"))
    with pytest.raises(BroetchenError, match=r"a: cannot be written, by way of .*absent/\.a.* \(No such file or dir"):
        ShardWriter(f"{gcs_prefix}/a", scratch_dir=str(tmp_path / "absent"))
    with pytest.raises(UsageError, match="a shard needs a file name"):
        ShardWriter(f"{gcs_prefix}/")


def test_a_bucket_that_is_not_there(gcs_bucket, tmp_path):
    writer = ShardWriter("gs://absent/a.arecord", scratch_dir=str(tmp_path))
    writer.write(b"x")
    with pytest.raises(BroetchenError, match=r"^gs://absent/a.arecord: cannot be written \(HTTP 404"):
        writer.close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert write("a.arecord", RECORDS).path == "a.arecord"
    assert read("a.arecord") == RECORDS


@pytest.mark.parametrize(
    ("group_size", "compression", "options"),
    [
        (1, "zstd", "group_size:1,zstd:3"),
        (1, "zstd:3", "group_size:1,zstd:3"),
        (16, "zstd:-7", "group_size:16,zstd:-7"),
        (1, "brotli", "group_size:1,brotli:6"),
        (1, "brotli:11", "group_size:1,brotli:11"),
        (1, "snappy", "group_size:1,snappy"),
        (1, "none", "group_size:1,uncompressed"),
    ],
)
def test_writer_options(group_size, compression, options):
    assert writer_options(group_size, compression) == options


@pytest.mark.parametrize(
    ("group_size", "compression", "message"),
    [
        (0, "zstd", "group_size is 0; use a whole number from 1"),
        (2**31, "zstd", "group_size is 2147483648"),
        (True, "zstd", "group_size is True"),
        (1.0, "zstd", r"group_size is 1\.0"),
        (1, "zstd:23", '"zstd:23" has no valid level; zstd takes whole numbers from -131072 to 22'),
        (1, "zstd:03", '"zstd:03" has no valid level'),
        (1, "brotli:12", "brotli takes whole numbers from 0 to 11"),
        (1, "snappy:1", '"snappy:1" has a level, which snappy does not take; write snappy'),
        (1, "gzip", '"gzip" is no compression of ArrayRecord; write zstd'),
        (1, "zstd,transpose", '"zstd,transpose" is no compression'),
        (1, "", '"" is no compression'),
    ],
)
def test_wrong_writer_options(tmp_path, group_size, compression, message):
    with pytest.raises(UsageError, match=message):
        writer_options(group_size, compression)
    with pytest.raises(UsageError, match=message):
        ShardWriter(str(tmp_path / "a"), group_size=group_size, compression=compression)
    assert list(tmp_path.iterdir()) == []
