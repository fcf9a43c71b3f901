"""A Google Cloud Storage of our own: an HTTP server on loopback that Beam's `gs://` talks to, with credentials.

The server is gcp-storage-emulator's. Clients find it through `STORAGE_EMULATOR_HOST` (and ArrayRecord's reader through
`CLOUD_STORAGE_EMULATOR_ENDPOINT`), in this process and in those that it starts. A service account with a key made for
the occasion signs in at the same server, as Beam would otherwise spend 20 seconds looking for credentials.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import io
import json
import logging
import os
import re
import sys
import threading
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import buckets
from gcp_storage_emulator.server import Request, RequestHandler
from gcp_storage_emulator.storage import Storage

_BUCKET = "broetchen-tests"


class Handler(RequestHandler):  # type: ignore[misc]
    """Answers for credentials as well, and keeps to the preconditions of copies, uploads, patches and deletions.

    Of uploads, to those in one request, whose preconditions the client states.
    """

    rfile: BinaryIO
    before_copy: Callable[[Storage], None] | None = None
    # Called with the method and the path of each request: before it is answered, which it is not if that says so, and
    # after.
    before_request: Callable[[str, str], bool] | None = None
    after_request: Callable[[str, str], None] | None = None
    # Called with the client's address and the path of each request, before `before_request`.
    from_client: Callable[[str, str], None] | None = None

    def parse_request(self) -> bool:
        parsed: bool = super().parse_request()
        if parsed and self.from_client:
            self.from_client(self.client_address[0], urllib.parse.unquote(self.path))
        if parsed and self.before_request:
            return self.before_request(self.command, urllib.parse.unquote(self.path))
        return parsed

    def handle_one_request(self) -> None:
        super().handle_one_request()
        if self.after_request and self.raw_requestline:
            self.after_request(self.command, urllib.parse.unquote(self.path))

    def do_POST(self) -> None:
        if self.path != "/token":
            copy = _COPY.fullmatch(urllib.parse.urlsplit(self.path).path)
            upload = _UPLOAD.fullmatch(self.path)
            if copy and self.before_copy:
                self.before_copy(self.storage)
            if copy:
                meets = self._meets(
                    ("ifSourceGenerationMatch", copy[1], copy[2]), ("ifGenerationMatch", copy[3], copy[4])
                )
            else:
                meets = not upload or self._meets(("ifGenerationMatch", upload[1], self._uploaded_name()))
            if meets:
                super().do_POST()
            return
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"access_token": "test", "expires_in": 3600, "token_type": "Bearer"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        """Gives the generation that is asked for, or none: the store keeps no older ones."""
        parts = urllib.parse.urlsplit(self.path)
        match, asked = _ANY_OBJECT.search(parts.path), urllib.parse.parse_qs(parts.query).get("generation")
        if match and asked:
            with contextlib.suppress(NotFound):
                if [self.storage.get_file_obj(match[1], urllib.parse.unquote(match[2]))["generation"]] != asked:
                    self.send_response(404)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
        super().do_GET()

    def do_DELETE(self) -> None:
        match = _OBJECT.fullmatch(urllib.parse.urlsplit(self.path).path)
        if not match or self._meets(("ifGenerationMatch", match[1], match[2])):
            super().do_DELETE()

    def do_PATCH(self) -> None:
        match = _OBJECT.fullmatch(urllib.parse.urlsplit(self.path).path)
        if not match or self._meets(("ifGenerationMatch", match[1], match[2])):
            super().do_PATCH()

    def _uploaded_name(self) -> str:
        """The name in an upload's body, which stays to be read again."""
        body = io.BytesIO(self.rfile.read(int(self.headers["Content-Length"])))
        self.rfile = body
        name = urllib.parse.quote(Request(self, "POST").data["meta"]["name"])
        body.seek(0)
        return name

    def _meets(self, *conditions: tuple[str, str, str]) -> bool:
        """Whether the preconditions hold, each as (parameter, bucket, quoted name); if not, it is answered."""
        asked = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        for name, bucket, quoted in conditions:
            try:
                found = self.storage.get_file_obj(bucket, urllib.parse.unquote(quoted))
            except NotFound:
                found = {"generation": "0", "metageneration": "0"}
            meta = name.replace("Generation", "Metageneration")
            if asked.get(name, [found["generation"]]) != [found["generation"]] or (
                asked.get(meta, [found["metageneration"]]) != [found["metageneration"]]
            ):
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.send_response(412)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return False
        return True


_ANY_OBJECT = re.compile(r"/b/([^/]+)/o/(.+)$")
_OBJECT = re.compile(r"(?:/storage/v1)?/b/([^/]+)/o/([^/]+)")
_UPLOAD = re.compile(r"(?:/upload)?/storage/v1/b/([^/]+)/o\?(?=.*uploadType=multipart)(?=.*if\w*[Gg]enerationMatch=).*")
_COPY = re.compile(_OBJECT.pattern + r"/copyTo/b/([^/]+)/o/([^/]+)")


def _write_service_account(path: Path, server: str) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    account = {
        "type": "service_account",
        "project_id": "broetchen-tests",
        "private_key": pem,
        "client_email": "tests@broetchen-tests.iam.gserviceaccount.com",
        "token_uri": f"{server}/token",
    }
    path.write_text(json.dumps(account))


class _Server(http.server.HTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # as of clients that were killed
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextlib.contextmanager
def emulated_bucket(folder: Path, host: str = "127.0.0.1", storage: Storage | None = None) -> Iterator[str]:
    """``gs://…`` of a bucket that lives during the block; the key of its account is put into `folder`.

    Args:
        folder: for the key.
        host: the address at which the server listens.
        storage: an empty one for the objects; by default they are in memory.
    """
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    storage = storage or Storage(use_memory_fs=True)
    buckets.create_bucket(_BUCKET, storage)
    # Else it keeps deleted objects, and lists all of them at each request that changes anything.
    storage.buckets[_BUCKET]["softDeletePolicy"] = {"retentionDurationSeconds": "0"}
    with _Server((host, 0), functools.partial(Handler, storage)) as server:
        address = f"http://{host}:{server.server_address[1]}"
        credentials = folder / "service_account.json"
        _write_service_account(credentials, address)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STORAGE_EMULATOR_HOST", address)
            patch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", address)
            patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", os.fspath(credentials))
            patch.setenv("GOOGLE_CLOUD_PROJECT", "broetchen-tests")
            yield f"gs://{_BUCKET}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def gcs_bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``gs://…`` of a bucket that lives as long as the test session."""
    with emulated_bucket(tmp_path_factory.mktemp("gcs")) as bucket:
        yield bucket


@pytest.fixture
def gcs_prefix(gcs_bucket: str) -> str:
    """A folder of its own for one test, as ``gs://bucket/folder``."""
    return f"{gcs_bucket}/{uuid.uuid4().hex}"
