from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.direct.direct_runner import BundleBasedDirectRunner
from apache_beam.testing import test_stream
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms import trigger
from apache_beam.transforms.window import FixedWindows, GlobalWindows
from grain.python import ArrayRecordDataSource

from transforms.arrayrecord import sink
from transforms.arrayrecord.sink import WriteToArrayRecord, shard_name
from transforms.errors import UsageError
from transforms.files import storage
from transforms.files.listing import list_files

RECORDS = [f"record {i} ".encode() * (i % 20) for i in range(300)]


@pytest.fixture(params=["local", "gcs"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "root") if request.param == "local" else request.getfixturevalue("gcs_prefix")


def names(root: str) -> list[str]:
    return [path.removeprefix(f"{root}/") for path, _ in list_files(root)]


def read(root: str, name: str) -> list[bytes]:
    with storage.local_copy(f"{root}/{name}") as local:
        return list(ArrayRecordDataSource([local]))


def read_all(root: str) -> list[bytes]:
    return sorted(record for name in names(root) for record in read(root, name))


def write(root: str, records: Sequence[bytes], options: Sequence[str] = (), runner=None, **arguments) -> None:
    """Writes, and checks that the transform returns the names of exactly the files that are there."""

    def check(returned):
        assert sorted(returned) == [f"{root}/{name}" for name in names(root)]

    with beam.Pipeline(runner=runner, options=PipelineOptions(list(options))) as pipeline:
        returned = (
            pipeline
            | beam.Create(records, reshuffle=False).with_output_types(bytes)
            | WriteToArrayRecord(f"{root}/train", **arguments)
        )
        assert_that(returned, check)


@pytest.mark.parametrize("arguments", [{}, {"num_shards": 3}, {"target_shard_size": 5_000}])
def test_what_goes_in_comes_out(root, arguments):
    write(root, RECORDS, **arguments)
    assert read_all(root) == sorted(RECORDS)
    assert all(name.startswith("train-0000") and name.endswith(".arecord") for name in names(root))


MODES = [
    pytest.param(["--direct_running_mode=multi_threading", "--direct_num_workers=2"], id="multi_threading"),
    pytest.param(
        ["--direct_running_mode=multi_processing", "--direct_num_workers=2"],
        id="multi_processing",
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("options", MODES)
@pytest.mark.parametrize("arguments", [{}, {"num_shards": 3}])
def test_workers(root, options, arguments):
    write(root, RECORDS, options, **arguments)
    assert read_all(root) == sorted(RECORDS)


def test_shards_have_the_same_records_on_every_runner(tmp_path):
    contents = []
    for index, options in enumerate([[], ["--direct_running_mode=multi_threading", "--direct_num_workers=3"]]):
        root = str(tmp_path / str(index))
        write(root, RECORDS[:: -1 if index else 1], options, num_shards=4)
        contents.append([sorted(read(root, name)) for name in names(root)])
    assert contents[0] == contents[1]
    assert all(len(records) > 40 for records in contents[0])


@pytest.mark.parametrize(("records", "shards"), [([], 3), ([b"one"], 3), (RECORDS, 1)])
def test_num_shards_is_exact(root, records, shards):
    write(root, records, num_shards=shards)
    assert names(root) == [f"train-{i:05}-of-{shards:05}.arecord" for i in range(shards)]
    assert read_all(root) == sorted(records)


@pytest.mark.parametrize("arguments", [{}, {"target_shard_size": 10}])
def test_no_records(root, arguments):
    write(root, [], **arguments)
    assert names(root) == ["train-00000-of-00001.arecord"]
    assert read_all(root) == []


def test_target_shard_size(tmp_path):
    records = [b"%03d" % i for i in range(100)]
    write(str(tmp_path), records, target_shard_size=30)
    sizes = [len(read(str(tmp_path), name)) for name in names(str(tmp_path))]
    assert sum(sizes) == 100
    assert max(sizes) == 10
    # A bundle may end before its last file is full.
    assert sum(size < 10 for size in sizes) < len(sizes)


def test_names(tmp_path):
    write(str(tmp_path / "a"), RECORDS, num_shards=2, shard_name_template="_SS", file_name_suffix=".ar")
    assert names(str(tmp_path / "a")) == ["train_00.ar", "train_01.ar"]
    write(str(tmp_path / "b"), RECORDS, shard_name_template="")
    assert names(str(tmp_path / "b")) == ["train.arecord"]
    assert read_all(str(tmp_path / "b")) == sorted(RECORDS)
    assert shard_name("-SSSSS-of-NNNNN", 123_456, 7) == "-123456-of-00007"


def test_names_without_a_beginning(tmp_path):
    with beam.Pipeline() as pipeline:
        _ = pipeline | beam.Create([b"x"]) | WriteToArrayRecord(f"{tmp_path}/", shard_name_template="SS-NN")
    assert names(str(tmp_path)) == ["00-01.arecord"]


def test_files_of_the_same_names_are_replaced_and_others_left_alone(root):
    storage.write_bytes(f"{root}/train-00000-of-00001.arecord", b"an older one")
    storage.write_bytes(f"{root}/train-00001-of-00002.arecord", b"of another run")
    storage.write_bytes(f"{root}/train", b"unrelated")
    with beam.Pipeline() as pipeline:
        _ = pipeline | beam.Create([b"new"]) | WriteToArrayRecord(f"{root}/train", num_shards=1)
    assert names(root) == ["train", "train-00000-of-00001.arecord", "train-00001-of-00002.arecord"]
    assert read(root, "train-00000-of-00001.arecord") == [b"new"]


def test_options_reach_the_files(tmp_path):
    sizes = {}
    for compression in ("none", "zstd"):
        folder = str(tmp_path / compression)
        write(folder, [b"x" * 1_000_000], group_size=2, compression=compression)
        sizes[compression] = storage.size(f"{folder}/{names(folder)[0]}")
    assert sizes["zstd"] < 300_000 < 1_000_000 < sizes["none"]


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [{}, {"num_shards": 3}, {"target_shard_size": 5_000}])
def test_bundles_that_run_three_times(root, arguments):
    """The runner repeats every bundle and keeps the last one's outputs: as if the attempts before it had been lost."""
    write(root, RECORDS, ["--direct_runner_bundle_repeat=2"], **arguments)
    assert read_all(root) == sorted(RECORDS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "arguments"),
    [
        ("_WriteBundle", {}),
        ("_WriteBundle", {"target_shard_size": 500}),
        ("_WriteShard", {"num_shards": 3}),
        ("_Name", {"target_shard_size": 500}),
        ("_Name", {"num_shards": 3}),
        ("_Publish", {"target_shard_size": 500}),
        ("_Publish", {"num_shards": 3}),
        ("_Finish", {"num_shards": 3}),
    ],
)
def test_a_step_that_fails_after_its_work_and_is_tried_again(tmp_path, monkeypatch, step, arguments):
    failures = tmp_path / "failures"
    failures.mkdir()
    original: Any = getattr(sink, step)

    class FailsAtFirst(original):  # type: ignore[misc]
        def process(self, *arguments):
            outputs = list(super().process(*arguments) or ())
            if len(list(failures.iterdir())) < 2:
                (failures / uuid.uuid4().hex).touch()
                raise OSError("the first attempts fail")
            return outputs

    monkeypatch.setattr(sink, step, FailsAtFirst)
    root = str(tmp_path / "root")
    # This runner tries failed bundles again.
    write(root, RECORDS[:50], runner=BundleBasedDirectRunner(), **arguments)
    assert len(list(failures.iterdir())) == 2
    assert read_all(root) == sorted(RECORDS[:50])


@pytest.mark.slow
def test_a_pipeline_that_is_killed_publishes_nothing(root):
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(
                """
                import os, sys
                import apache_beam as beam
                from transforms.arrayrecord.sink import WriteToArrayRecord

                def forever(_):
                    while True:
                        print("record", flush=True)
                        yield os.urandom(100_000)

                with beam.Pipeline() as pipeline:
                    pipeline | beam.Impulse() | beam.FlatMap(forever).with_output_types(bytes) | WriteToArrayRecord(
                        sys.argv[1] + "/train", target_shard_size=1_000_000
                    )
                """
            ),
            root,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        for _ in range(25):
            assert process.stdout.readline() == "record\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    left = names(root)
    assert left
    assert all(name.startswith(".train.tmp-") for name in left)


def test_a_pipeline_that_fails_publishes_nothing(tmp_path):
    with pytest.raises(Exception, match="an element that breaks"), beam.Pipeline() as pipeline:
        _ = (
            pipeline
            | beam.Create([b"1", b"2", b"3"], reshuffle=False)
            | beam.Map(_break_at_3).with_output_types(bytes)
            | WriteToArrayRecord(str(tmp_path / "train"))
        )
    assert all(name.startswith(".train.tmp-") for name in names(str(tmp_path)))


def _break_at_3(record):
    if record == b"3":
        raise ZeroDivisionError("an element that breaks")
    return record


@pytest.mark.parametrize("arguments", [{}, {"num_shards": 2}])
def test_elements_that_are_not_bytes(tmp_path, arguments):
    with pytest.raises(beam.typehints.TypeCheckError, match="expected <class 'bytes'>, got <class 'str'>"):
        _ = beam.Pipeline() | beam.Create(["text"]) | WriteToArrayRecord(str(tmp_path / "train"), **arguments)
    with (
        pytest.raises(TypeError, match=r"^a record is of type str; WriteToArrayRecord takes bytes"),
        beam.Pipeline() as pipeline,
    ):
        _ = (
            pipeline
            | beam.Create(["text"])
            | beam.Map(lambda text: text).with_output_types(beam.typehints.Any)
            | WriteToArrayRecord(str(tmp_path / "train"), **arguments)
        )
    assert all(name.startswith(".train.tmp-") for name in names(str(tmp_path)))


def test_windows_and_unbounded_input_are_refused(tmp_path):
    pipeline = beam.Pipeline()
    write_it = WriteToArrayRecord(str(tmp_path / "train"))
    with pytest.raises(UsageError, match="bounded input in the global window"):
        _ = pipeline | beam.Create([b"x"]) | beam.WindowInto(FixedWindows(10)) | "Windowed" >> write_it
    with pytest.raises(UsageError, match="bounded input in the global window"):
        _ = pipeline | test_stream.TestStream(beam.coders.BytesCoder()).add_elements([b"x"]) | "Unbounded" >> write_it


def test_an_early_trigger_makes_no_more_shards(tmp_path):
    with beam.Pipeline() as pipeline:
        returned = (
            pipeline
            | beam.Create(RECORDS)
            | beam.WindowInto(
                GlobalWindows(),
                trigger=trigger.Repeatedly(trigger.AfterCount(1)),
                accumulation_mode=trigger.AccumulationMode.ACCUMULATING,
            )
            | WriteToArrayRecord(str(tmp_path / "train"), num_shards=2)
        )
        assert_that(returned, equal_to([f"{tmp_path}/train-0000{i}-of-00002.arecord" for i in range(2)]))
    assert read_all(str(tmp_path)) == sorted(RECORDS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_shards": -1}, "num_shards is -1"),
        ({"num_shards": 2, "target_shard_size": 10}, "use either the one"),
        ({"target_shard_size": 0}, "target_shard_size is 0"),
        ({"shard_name_template": "-of-NN"}, "gives all shards the same name"),
        ({"shard_name_template": "", "num_shards": 2}, "gives all shards the same name"),
        ({"shard_name_template": "", "target_shard_size": 2}, "gives all shards the same name"),
        ({"shard_name_template": "/SS/", "file_name_suffix": ""}, "make a folder"),
        ({"compression": "lzma"}, '"lzma" is no compression of ArrayRecord'),
        ({"group_size": 0}, "group_size is 0"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(UsageError, match=message):
        WriteToArrayRecord("gs://bucket/train", **arguments)


def test_a_scheme_that_is_unknown_is_refused_before_the_pipeline_runs():
    with pytest.raises(UsageError, match=r"gopher://host/train: Beam has no filesystem for gopher://"):
        WriteToArrayRecord("gopher://host/train")
