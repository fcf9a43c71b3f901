"""The Hugging Face hub's dataset repositories as a Beam filesystem that can be read: `hf://datasets/…@COMMIT/path`.

Importing this module registers it, in workers as well, and every Beam IO then takes such paths. Modules that hand paths
to Beam themselves import it; `transforms.files.storage` does so for a path with a scheme. Listing and sizes come from
the hub's API through `huggingface_hub`; content comes by HTTP range requests, so a reader of some column chunks of a
parquet file fetches those alone. Transient errors and cut connections are retried by
`huggingface_hub.utils.http_backoff`.

Each answer is held against the etag that the hub's API gives the file: by the hub's own, in its answer or in that which
leads to a store, and then by the store's, which is the same for all ranges. Addresses of stores are signed, and good
for everybody who has them; so the logs of HTTP clients lose the queries, and errors tell nothing of them.

A token is taken from where `huggingface_hub` finds it (`HF_TOKEN`, or the login's file), in each process; it is never
part of a path, an option or a message. `HF_ENDPOINT` names another hub.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import logging
import os
import posixpath
import traceback
import urllib.parse
from collections.abc import Iterator
from typing import Any, BinaryIO, NoReturn

from apache_beam.io.filesystem import CompressedFile, CompressionTypes, FileMetadata, FileSystem
from apache_beam.io.filesystemio import Downloader, DownloaderStream

from transforms.errors import BroetchenError, UnreachableError, one_line, without_secrets
from transforms.files.hub_path import SCHEME, HubPath
from transforms.first_contact import make_contact

# Smaller reads fetch this much, and the next ones are answered from it: each request takes a round trip.
_LEAST_BYTES = 64 << 10
_TIMEOUT_S = 60
# After 1, 2, 4, … seconds: three minutes in all, beside the requests themselves.
_RETRIES, _MOST_WAIT_S = 8, 60
# The modules that send requests, in all releases of huggingface_hub that are allowed.
_ASKING = frozenset({"hf_xet", "httpcore", "httpcore2", "httpx", "httpx2", "huggingface_hub", "requests", "urllib3"})
_NO_SUCH_FILE = "the repository has no such file at this revision; check the path"


class HubFileSystem(FileSystem):
    """See the module. Only pinned revisions (full commit hashes) are read, since another one could change meanwhile.

    Raises:
        BroetchenError: (from all of its methods) the repository, revision or file does not exist, or needs a token;
            the file changed; the hub cannot be reached.
    """

    def __init__(self, pipeline_options: Any) -> None:
        super().__init__(pipeline_options)
        self._endpoint = hub_endpoint()

    @classmethod
    def scheme(cls) -> str:
        """`hf`."""
        return SCHEME

    def join(self, basepath: str, *paths: str) -> str:
        """`paths` below `basepath`."""
        return "/".join([basepath.rstrip("/"), *(path.strip("/") for path in paths)])

    def split(self, path: str) -> tuple[str, str]:
        """The folder of `path`, and the name in it."""
        return posixpath.split(path)

    def has_dirs(self) -> bool:
        """False: as in an object store, a folder is there when a file is in it."""
        return False

    def list_below(self, prefix: str, *, deep: bool) -> Iterator[FileMetadata]:
        """The files whose paths begin so; those of folders below its last slash only where `deep`."""
        where = _pinned(prefix)
        folder = posixpath.dirname(where.path)
        with explain_hub_errors(prefix):
            from huggingface_hub.errors import EntryNotFoundError
            from huggingface_hub.hf_api import RepoFile

            try:
                for entry in hub_api(self._endpoint).list_repo_tree(
                    where.repository, folder or None, recursive=deep, revision=where.revision, repo_type="dataset"
                ):
                    if isinstance(entry, RepoFile) and entry.path.startswith(where.path):
                        path = str(HubPath(where.repository, where.revision, entry.path))
                        _file(self._endpoint, path).tell(entry)
                        yield FileMetadata(path, entry.size)
            except EntryNotFoundError:
                return  # no such folder: nothing matches

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        return self.list_below(dir_or_prefix, deep=True)

    def open(
        self,
        path: str,
        mime_type: str = "application/octet-stream",
        compression_type: str = CompressionTypes.AUTO,
    ) -> BinaryIO:
        """A seekable handle; nothing of the content is fetched before it is read."""
        kind = FileSystem._get_compression_type(path, compression_type)
        stream: Any = DownloaderStream(_RangeDownloader(_pinned(path), self._known(path), self._endpoint))
        if kind != CompressionTypes.UNCOMPRESSED:
            stream = CompressedFile(io.BufferedReader(stream), compression_type=kind)
        return stream

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        try:
            _look_up(self._endpoint, path)
        except FileNotFoundError:
            return False
        return True

    def size(self, path: str) -> int:
        """The size in bytes."""
        return self._known(path).size

    def checksum(self, path: str) -> str:
        """The etag that the hub gives the content: SHA-256 where it is stored by LFS, else the git blob's hash."""
        return self._known(path).etag

    def metadata(self, path: str) -> FileMetadata:
        """Path and size; a commit's files have no time of their own."""
        return FileMetadata(path, self.size(path))

    def last_updated(self, path: str) -> float:
        """0, as the content of a commit never changes."""
        return 0.0

    def create(
        self,
        path: str,
        mime_type: str = "application/octet-stream",
        compression_type: str = CompressionTypes.AUTO,
    ) -> BinaryIO:
        """Refused, as are all that would change something."""
        _refuse(path)

    def mkdirs(self, path: str) -> None:
        """Refused."""
        _refuse(path)

    def copy(self, source_file_names: list[str], destination_file_names: list[str]) -> None:
        """Refused."""
        _refuse(destination_file_names[0])

    def rename(self, source_file_names: list[str], destination_file_names: list[str]) -> None:
        """Refused."""
        _refuse(destination_file_names[0])

    def delete(self, paths: list[str]) -> None:
        """Refused."""
        _refuse(paths[0])

    def _known(self, path: str) -> _HubFile:
        try:
            return _look_up(self._endpoint, path)
        except FileNotFoundError as error:
            raise BroetchenError(f"{path}: {_NO_SUCH_FILE}") from error


@dataclasses.dataclass
class _HubFile:
    """The facts about a file of the hub; all of them are empty before the hub was asked.

    Attributes:
        store: where the hub's redirect led last, with the etag there: an address that is good for some minutes.
    """

    etag: str = ""
    size: int = -1
    store: tuple[str, str] | None = None

    def tell(self, entry: Any) -> None:
        """Takes size and etag from the answer of the hub's API."""
        self.size = int(entry.size)
        self.etag = str(entry.lfs.sha256 if entry.lfs else entry.blob_id)


@functools.lru_cache(10_000)
def _file(endpoint: str | None, path: str) -> _HubFile:
    # Kept, as the content of a commit never changes; each answer's etag is still checked.
    return _HubFile()


def hub_endpoint() -> str | None:
    """The hub that `HF_ENDPOINT` names; None for the Hugging Face hub itself."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def hub_api(endpoint: str | None) -> Any:
    """The hub's client; `endpoint` names another hub."""
    from huggingface_hub import HfApi

    make_contact(f"{SCHEME}://")
    return HfApi(endpoint=endpoint)


def _look_up(endpoint: str | None, path: str) -> _HubFile:
    """The facts about a file, asked of the hub where they are not known.

    Raises:
        FileNotFoundError: there is none.
    """
    from huggingface_hub.hf_api import RepoFile

    where, file = _pinned(path), _file(endpoint, path)
    if file.etag:
        return file
    with explain_hub_errors(path):
        entries = hub_api(endpoint).get_paths_info(
            where.repository, [where.path], revision=where.revision, repo_type="dataset"
        )
    for entry in entries:
        if isinstance(entry, RepoFile):
            file.tell(entry)
            return file
    raise FileNotFoundError(path)


class _RangeDownloader(Downloader):
    """Ranges of one file, each checked for its length, and for being of the content that was opened."""

    def __init__(self, where: HubPath, file: _HubFile, endpoint: str | None) -> None:
        from huggingface_hub import hf_hub_url

        self._where, self._file = where, file
        self._url = hf_hub_url(
            where.repository, where.path, repo_type="dataset", revision=where.revision, endpoint=endpoint
        )
        self._window_start, self._window = 0, b""

    @property
    def size(self) -> int:
        return self._file.size

    def get_range(self, start: int, end: int) -> bytes:
        offset = start - self._window_start
        if offset >= 0 and end <= self._window_start + len(self._window):
            return self._window[offset : offset + end - start]
        if end - start >= _LEAST_BYTES:
            return self._fetch(start, end)
        self._window_start, self._window = start, self._fetch(start, min(start + _LEAST_BYTES, self.size))
        return self._window[: end - start]

    def _fetch(self, start: int, end: int) -> bytes:
        headers = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        with explain_hub_errors(str(self._where)):
            response = self._from_store(headers) or self._from_hub(headers)
        if response.status_code == 206:
            self._check_range(response, start, end)
        elif (start, end) != (0, self.size):
            raise BroetchenError(f"{self._where}: the server gives no ranges of it; download it, and read the copy")
        data = bytes(response.content)
        if len(data) != end - start:
            raise BroetchenError(f"{self._where}: {len(data):,} of {end - start:,} bytes arrived; run it again")
        return data

    def _check_range(self, response: Any, start: int, end: int) -> None:
        answered = response.headers.get("Content-Range", "")
        span, _, total = answered.removeprefix("bytes ").partition("/")
        if total.isdigit() and int(total) != self.size:
            raise self._changed(f"{int(total):,} bytes instead of {self.size:,}")
        if span != f"{start}-{end - 1}":
            raise BroetchenError(
                f"{self._where}: the server gives another range ({one_line(answered) or 'it does not say which'}) than "
                f"bytes {start}-{end - 1}; run it again"
            )

    def _from_store(self, headers: dict[str, str]) -> Any:
        """The answer of the store that the hub has led to before, or None where it is no longer good."""
        if self._file.store is None:
            return None
        url, etag = self._file.store
        # Without the token, which is for the hub alone.
        response = _asked(url, headers)
        if response.status_code == 206 and response.headers.get("ETag") == etag:
            return response
        self._file.store = None
        return None

    def _from_hub(self, headers: dict[str, str]) -> Any:
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

        headers = build_hf_headers() | headers
        response = _asked(self._url, headers)
        hf_raise_for_status(response)
        answered = _response_etag(response, self._url)
        if answered is None:
            raise BroetchenError(
                f"{self._where}: the hub does not say of what content its answer is (no etag), so it may be another "
                "than planned; fetch it by other means, compare its hash, and read the copy"
            )
        if answered != self._file.etag:
            raise self._changed(f"etag {one_line(answered)}, {self._file.etag} before")
        etag = response.headers.get("ETag")
        if etag and _origin(str(response.url)) != _origin(self._url):
            self._file.store = (str(response.url), etag)
        return response

    def _changed(self, how: str) -> BroetchenError:
        return BroetchenError(
            f"{self._where}: its content changed while it was read ({how}); run it again, and ask the repository's "
            "owner if it goes on"
        )


def _asked(url: str, headers: dict[str, str]) -> Any:
    """The answer to a request for content; a build that has run for hours waits some minutes for it."""
    from huggingface_hub.utils import http_backoff

    return http_backoff(
        "GET",
        url,
        headers=headers,
        timeout=_TIMEOUT_S,
        max_retries=_RETRIES,
        max_wait_time=_MOST_WAIT_S,
        follow_redirects=True,
    )


def _origin(url: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.netloc


def _response_etag(response: Any, url: str) -> str | None:
    """The hub's own etag of the content; where it redirects to a store, that one has an etag of its own kind."""
    asked = [answer for answer in (*response.history, response) if _origin(str(answer.url)) == _origin(url)]
    for answer in asked:
        if linked := answer.headers.get("X-Linked-ETag"):
            return _bare(linked)
    return _bare(response.headers.get("ETag")) if response in asked else None


def _bare(etag: str | None) -> str | None:
    return etag.removeprefix("W/").strip('"') if etag else None


def _pinned(path: str) -> HubPath:
    where = HubPath.parse(path)
    if not where.pinned:
        raise BroetchenError(
            f"{path}: not pinned to a full commit hash (40 hexadecimal digits), so it could change between two reads; "
            f"write hf://datasets/{where.repository}@COMMIT/{where.path}"
        )
    return where


def _refuse(path: str) -> NoReturn:
    raise BroetchenError(f"{path}: the hub is only read here; choose a local path or gs://…")


@contextlib.contextmanager
def explain_hub_errors(path: str) -> Iterator[None]:
    """Turns the hub client's errors into one that names the path and says what to do, and nothing of the request."""
    from huggingface_hub import errors

    # The first that fits: some are kinds of others.
    reasons = (
        (
            errors.GatedRepoError,
            "access to this repository must be asked for on its page at the hub, and needs a token: set HF_TOKEN, or "
            "run `hf auth login`",
        ),
        (errors.RevisionNotFoundError, "the repository has no such revision; check the commit hash"),
        (
            errors.RepositoryNotFoundError,
            "there is no such repository, or it is private; check its name, or set HF_TOKEN to a token that may read "
            "it (or run `hf auth login`)",
        ),
        (errors.EntryNotFoundError, _NO_SUCH_FILE),
    )
    try:
        yield
    except BroetchenError:
        raise
    except Exception as error:  # The HTTP client's own errors are of its own hierarchy.
        reason, kind = next((reason for kind, reason in reasons if isinstance(error, kind)), None), BroetchenError
        if reason is None and isinstance(error, errors.HfHubHTTPError):
            status = error.response.status_code
            advice = "check the token in HF_TOKEN" if status in (401, 403) else "try it again later"
            reason = f"the hub answers HTTP {status}; {advice}"
            kind = BroetchenError if status in (401, 403) else UnreachableError
        if reason is None:
            reason = f"the hub cannot be reached ({one_line(error)}); check the network, and try it again"
            kind = UnreachableError
        raise kind(f"{path}: {reason}") from _told(error)


def _told(error: Exception) -> Exception:
    """The error as a traceback may show it: not with the address of a store, which its text and request have."""
    return RuntimeError(without_secrets(f"{type(error).__name__}: {error}")).with_traceback(error.__traceback__)


def _log_without_secrets() -> None:
    """Removes the queries of addresses from all logs of HTTP clients, for every handler, in each process of ours."""
    make = logging.getLogRecordFactory()

    def record_of(*arguments: Any, **options: Any) -> logging.LogRecord:
        record = make(*arguments, **options)
        if record.name.partition(".")[0] in _ASKING:
            with contextlib.suppress(TypeError, ValueError):  # of a message that does not fit what is to be put in
                record.msg, record.args = without_secrets(record.getMessage()), ()
            if record.exc_info:
                record.exc_text = without_secrets("".join(traceback.format_exception(*record.exc_info)).rstrip())
        return record

    logging.setLogRecordFactory(record_of)


_log_without_secrets()
