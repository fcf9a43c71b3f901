"""A build reads the files that it planned: an object of one generation, a file of the hub by its etag."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.corpora import write_parquet
from tests.support.services.gcs_requests import Requests, gcs_requests
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.parquet.footer import SourceFile, read_footer
from transforms.parquet.texts import read_files

__all__ = ["gcs_requests"]

ROWS = [["aaaa", "bb"], ["cccc"]]


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    """A file whose footer does not show its letters."""
    write_parquet(tmp_path / "a.parquet", ROWS, compression="none", write_statistics=False)
    return (tmp_path / "a.parquet").read_bytes()


@pytest.fixture
def path(gcs_prefix: str, content: bytes) -> str:
    path = f"{gcs_prefix}/a.parquet"
    storage.write_bytes(path, content)
    return path


def texts(source: SourceFile) -> list[str]:
    groups = range(len(source.row_groups))
    planned = [(source.version, source.row_groups[group]) for group in groups]
    batches = read_files([(source.path, group) for group in groups], "text", planned=planned)
    return [text for _, batch in batches for text in batch.texts.to_pylist()]


def test_each_range_names_the_generation_that_was_planned(path: str, gcs_requests: Requests) -> None:
    source = read_footer(path, storage.size(path), "text")
    assert texts(source) == ["aaaa", "bb", "cccc"]
    reads = [sent for sent in gcs_requests.of(path) if sent.what == "read"]
    assert reads
    assert {sent.asked.get("generation") for sent in reads} == {str(source.generation)}


def test_an_object_that_was_replaced_since_is_not_read(path: str, content: bytes) -> None:
    source = read_footer(path, storage.size(path), "text")
    storage.write_bytes(path, content.replace(b"cccc", b"cxxc"))
    with pytest.raises(BroetchenError, match=r"a\.parquet: has changed since its footer was read; run it again, while"):
        texts(source)


def test_an_object_that_is_replaced_while_it_is_read_is_not_read_on(
    path: str, content: bytes, gcs_requests: Requests
) -> None:
    source = read_footer(path, storage.size(path), "text")
    gcs_requests.before("read", lambda: storage.write_bytes(path, content.replace(b"cccc", b"cxxc")))
    with pytest.raises(BroetchenError, match=r"a\.parquet: .*(has changed|404)"):
        texts(source)


def test_an_object_that_was_replaced_since_it_was_listed(path: str, content: bytes) -> None:
    with pytest.raises(BroetchenError, match=r"a\.parquet: has changed since it was listed"):
        read_footer(path, len(content) - 1, "text")
