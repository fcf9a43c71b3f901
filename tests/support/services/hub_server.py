"""A Hugging Face hub of our own on loopback: the parts of its HTTP API that reading datasets takes.

Repositories hold the files of a folder, as if LFS kept them: their etag is their SHA-256, and a download is redirected
to a store at another address, which answers range requests. `HF_ENDPOINT` leads clients here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import json
import re
import threading
import time
import urllib.parse
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

# The signature in an address of the store: everybody who has it can read the file.
SIGNATURE = "5ec2e7c0ffee"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
_REVISION = "(refs/(?:convert|pr)/[^/]+|[^/]+)"
_REVISIONS = (COMMIT, "main", "refs/convert/parquet")


@dataclasses.dataclass
class HubServer:
    """The server's state, which tests set and read.

    Attributes:
        repositories: folders by OWNER/NAME; each has one commit, `COMMIT`, where all of its branches are.
        private: repositories that need `token`.
        latency_s: how long each answer waits.
        store_latency_s: how long the store's wait beside that.
        cut_every: of the requests to the store, each one of this number ends in the middle of its body; 0 is none.
        expired_after: so many answers of the store after which an address is refused, as signed ones are; 0 is never.
        refuses: the HTTP status with which the store answers, where it is not 0.
        left_out: headers that no answer has.
        answers_from: the first byte that the store says and sends, whichever is asked for, where it is not negative.
        fetched: bytes of content sent, by path in the repository.
        resolved: how often each path has been redirected to the store.
        authorized: paths of the requests that carried a token.
    """

    repositories: dict[str, Path]
    private: frozenset[str] = frozenset()
    token: str = "hf_secret"
    latency_s: float = 0.0
    store_latency_s: float = 0.0
    cut_every: int = 0
    expired_after: int = 0
    store_answers: int = 0
    refuses: int = 0
    left_out: frozenset[str] = frozenset()
    answers_from: int = -1
    fetched: Counter[str] = dataclasses.field(default_factory=Counter)
    resolved: Counter[str] = dataclasses.field(default_factory=Counter)
    authorized: list[str] = dataclasses.field(default_factory=list)
    address: str = ""
    store: str = ""
    _hashes: dict[tuple[Path, int, int], str] = dataclasses.field(default_factory=dict)
    _downloads: int = 0
    # Of the last server in this process; the next one takes them again, as clients keep addresses from their import on.
    _ports: ClassVar[list[int]] = [0, 0]

    def __enter__(self) -> HubServer:
        hub = self

        class Handler(_Handler):
            state = hub

        self._servers = [http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler) for port in self._ports]
        self._ports[:] = [server.server_port for server in self._servers]
        self.address, self.store = (f"http://127.0.0.1:{port}" for port in self._ports)
        self._threads = [threading.Thread(target=server.serve_forever, daemon=True) for server in self._servers]
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.daemon_threads = True
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()

    def source(self, repository: str, path: str, revision: str = COMMIT) -> str:
        """The path of a file, or a pattern, as a config writes it."""
        return f"hf://datasets/{repository}@{revision}/{path}"

    def etag(self, path: Path) -> str:
        status = path.stat()
        key = (path, status.st_size, status.st_mtime_ns)
        if key not in self._hashes:
            self._hashes[key] = hashlib.sha256(path.read_bytes()).hexdigest()
        return self._hashes[key]

    def cuts_now(self) -> bool:
        self._downloads += 1
        return bool(self.cut_every) and self._downloads % self.cut_every == 0


class _Handler(http.server.BaseHTTPRequestHandler):
    state: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or an answer in two parts waits 40 ms for the client

    def log_message(self, *_: Any) -> None:
        pass

    def send_header(self, keyword: str, value: str) -> None:
        if keyword not in self.state.left_out:
            super().send_header(keyword, value)

    def do_GET(self) -> None:
        time.sleep(self.state.latency_s)
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        if match := re.fullmatch(r"/store/([^/]+/[^/]+)/(.+)", path):
            if self.headers.get("Authorization"):
                self.state.authorized.append(self.path)
            time.sleep(self.state.store_latency_s)
            self._send_content(self.state.repositories[match[1]] / match[2], match[2])
        elif match := re.fullmatch(rf"/datasets/([^/]+/[^/]+)/resolve/{_REVISION}/(.+)", path):
            if folder := self._folder(match[1], match[2]):
                self._redirect(match[1], folder, match[3])
        elif match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(?:/revision/" + _REVISION + ")?", path):
            if folder := self._folder(match[1], match[2] or "main"):
                self._send_json({"id": match[1], "sha": COMMIT, "private": False, "tags": [], "siblings": []})
        elif match := re.fullmatch(rf"/api/datasets/([^/]+/[^/]+)/tree/{_REVISION}/?(.*)", path):
            if folder := self._folder(match[1], match[2]):
                self._send_tree(folder, match[3], "recursive=true" in self.path.lower())
        else:
            self._fail(404, "EntryNotFound")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        time.sleep(self.state.latency_s)
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        match = re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/paths-info/" + _REVISION, urllib.parse.unquote(self.path))
        assert match
        if folder := self._folder(match[1], match[2]):
            form = self.headers["Content-Type"].startswith("application/x-www-form-urlencoded")
            paths = urllib.parse.parse_qs(body)["paths"] if form else json.loads(body)["paths"]
            self._send_json([self._entry(folder, folder / path) for path in paths if (folder / path).is_file()])

    def _folder(self, repository: str, revision: str) -> Path | None:
        authorization = self.headers.get("Authorization")
        if authorization:
            self.state.authorized.append(self.path)
        allowed = repository not in self.state.private or authorization == f"Bearer {self.state.token}"
        if repository not in self.state.repositories or not allowed:
            self._fail(401, "RepoNotFound")
        elif revision not in _REVISIONS:
            self._fail(404, "RevisionNotFound")
        else:
            return self.state.repositories[repository]
        return None

    def _entry(self, folder: Path, file: Path) -> dict[str, Any]:
        if file.is_dir():
            name = file.relative_to(folder).as_posix()
            return {"type": "directory", "path": name, "size": 0, "oid": hashlib.sha1(name.encode()).hexdigest()}
        size, etag = file.stat().st_size, self.state.etag(file)
        return {
            "type": "file",
            "path": file.relative_to(folder).as_posix(),
            "size": size,
            "oid": hashlib.sha1(etag.encode()).hexdigest(),
            "lfs": {"oid": etag, "size": size, "pointerSize": 130},
        }

    def _send_tree(self, folder: Path, below: str, recursive: bool) -> None:
        if (folder / below).is_dir():
            found = (folder / below).rglob("*") if recursive else (folder / below).iterdir()
            self._send_json([self._entry(folder, path) for path in sorted(found)])
        else:
            self._fail(404, "EntryNotFound")

    def _redirect(self, repository: str, folder: Path, path: str) -> None:
        file = folder / path
        if not file.is_file():
            self._fail(404, "EntryNotFound")
            return
        self.state.resolved[path] += 1
        query = f"X-Amz-Expires=900&X-Amz-Signature={SIGNATURE}"
        self.send_response(302)
        self.send_header("Location", f"{self.state.store}/store/{repository}/{urllib.parse.quote(path)}?{query}")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("X-Linked-ETag", f'"{self.state.etag(file)}"')
        self.send_header("X-Linked-Size", str(file.stat().st_size))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_content(self, file: Path, name: str) -> None:
        if self.state.expired_after and self.state.store_answers >= self.state.expired_after:
            self.state.store_answers = 0
            self._fail(403, "ExpiredToken")
            return
        if self.state.refuses:
            self._fail(self.state.refuses, "SlowDown")
            return
        self.state.store_answers += 1
        size = file.stat().st_size
        start, end = 0, size - 1
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked:
            start, end = int(asked[1]), min(int(asked[2]), size - 1)
            if self.state.answers_from >= 0:
                start, end = self.state.answers_from, self.state.answers_from + end - start
        with file.open("rb") as content:
            content.seek(start)
            body = content.read(end - start + 1)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{self.state.etag(file)[:32]}"')
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.state.cuts_now():
            body = body[: len(body) // 2]
            self.close_connection = True
        self.wfile.write(body)
        self.state.fetched[name] += len(body)

    def _send_json(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _fail(self, status: int, code: str) -> None:
        body = json.dumps({"error": code}).encode()
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
