"""Renaming in a bucket: of two attempts at one file, one is told, and neither's bytes are mixed or lost."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest
from gcp_storage_emulator.handlers import objects

from tests.support.services.gcs_emulator import Handler
from tests.support.services.gcs_requests import Requests, answer, gcs_requests
from transforms.errors import BroetchenError
from transforms.files import gcs_objects, storage

__all__ = ["gcs_requests"]


@pytest.fixture
def paths(gcs_prefix: str) -> tuple[str, str]:
    source, target = f"{gcs_prefix}/work/shard-00000.arecord", f"{gcs_prefix}/train-00000-of-00001.arecord"
    storage.write_bytes(source, b"new")
    return source, target


def write_before_copies(monkeypatch: pytest.MonkeyPatch, path: str, content: bytes, times: int = 1) -> None:
    """Another process writes `path` right before the server answers the next requests for a copy."""
    bucket, _, name = path.removeprefix("gs://").partition("/")
    left, server = iter(range(times)), os.environ["STORAGE_EMULATOR_HOST"]

    def write(bucket_storage: Any) -> None:
        for _ in left:
            resource = objects._make_object_resource(server, bucket, name, "application/octet-stream", len(content))
            bucket_storage.create_file(bucket, name, content, objects._checksums(content, resource))
            return

    monkeypatch.setattr(Handler, "before_copy", staticmethod(write))


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_rename_replaces_and_leaves_no_source(paths: tuple[str, str], before: bytes | None) -> None:
    source, target = paths
    if before is not None:
        storage.write_bytes(target, before)
    storage.rename(source, target)
    assert storage.read_bytes(target) == b"new"
    assert not storage.exists(source)


def test_a_rename_may_be_repeated(paths: tuple[str, str]) -> None:
    source, target = paths
    storage.rename(source, target, size=3)
    storage.rename(source, target, size=3)
    with pytest.raises(BroetchenError, match="check the path"):
        storage.rename(source, target)


def test_a_source_that_is_not_there_is_named(paths: tuple[str, str]) -> None:
    source, target = paths
    with pytest.raises(FileNotFoundError) as error:
        gcs_objects.rename(f"{source}-not", target)
    assert error.value.errno == errno.ENOENT
    assert error.value.filename == f"{source}-not"
    assert not storage.exists(target)


@pytest.mark.parametrize("before", [None, b"old"])
@pytest.mark.parametrize("theirs", [b"theirs", b"NEW"])
def test_what_another_process_has_written_meanwhile_is_not_replaced(
    paths: tuple[str, str], before: bytes | None, theirs: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor taken for ours where it is as long."""
    source, target = paths
    if before is not None:
        storage.write_bytes(target, before)
    write_before_copies(monkeypatch, target, theirs)
    with pytest.raises(BroetchenError) as error:
        storage.rename(source, target)
    assert str(error.value) == (
        f"{target}: another process has written it meanwhile; make sure that only one build writes there, and run it "
        "again"
    )
    assert storage.read_bytes(target) == theirs
    assert storage.read_bytes(source) == b"new"


def test_what_another_process_has_written_and_deleted_meanwhile_is_told(
    paths: tuple[str, str], gcs_requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = paths
    write_before_copies(monkeypatch, target, b"new")
    for act in (lambda: None, lambda: None, lambda: storage.delete([target])):
        gcs_requests.before("look", act)  # at the source, at the target, and at the target once more
    with pytest.raises(BroetchenError, match="another process has written it meanwhile"):
        storage.rename(source, target)
    assert not storage.exists(target)
    assert storage.read_bytes(source) == b"new"


def test_a_source_that_is_written_anew_after_it_was_copied_stays(
    paths: tuple[str, str], gcs_requests: Requests
) -> None:
    """Another attempt has done so, which will rename it itself."""
    source, target = paths
    gcs_requests.before("delete", lambda: storage.write_bytes(source, b"newer"))
    storage.rename(source, target)
    assert storage.read_bytes(target) == b"new"
    assert storage.read_bytes(source) == b"newer"


def test_a_source_that_another_attempt_has_deleted_is_gone(paths: tuple[str, str], gcs_requests: Requests) -> None:
    source, target = paths

    def delete() -> Any:
        storage.delete([source])
        return answer(404)

    gcs_requests.before("delete", delete)
    storage.rename(source, target)
    assert storage.read_bytes(target) == b"new"
    assert not storage.exists(source)


def test_another_attempt_at_the_same_bytes_is_as_good(paths: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = paths
    write_before_copies(monkeypatch, target, b"new")
    storage.rename(source, target)
    assert storage.read_bytes(target) == b"new"
    assert not storage.exists(source)


def test_a_source_that_changes_meanwhile_is_not_published(
    paths: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = paths
    write_before_copies(monkeypatch, source, b"other")
    with pytest.raises(BroetchenError, match="another process"):
        storage.rename(source, target)
    assert not storage.exists(target)
    assert storage.read_bytes(source) == b"other"
