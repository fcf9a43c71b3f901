"""A Google Cloud Storage of our own: an HTTP server on loopback that Beam's `gs://` talks to, with credentials.

The server is gcp-storage-emulator's. Clients find it through `STORAGE_EMULATOR_HOST` (and ArrayRecord's reader through
`CLOUD_STORAGE_EMULATOR_ENDPOINT`), in this process and in those that it starts. A service account with a key made for
the occasion signs in at the same server, as Beam would otherwise spend 20 seconds looking for credentials.
"""

from __future__ import annotations

import functools
import http.server
import json
import logging
import os
import re
import threading
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import buckets
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage

_BUCKET = "broetchen-tests"


class Handler(RequestHandler):  # type: ignore[misc]
    """Also answers for credentials, and keeps to the preconditions on generations of copies and deletions."""

    before_copy: Callable[[Storage], None] | None = None

    def do_POST(self) -> None:
        if self.path != "/token":
            copy = _COPY.fullmatch(urllib.parse.urlsplit(self.path).path)
            if copy and self.before_copy:
                self.before_copy(self.storage)
            if not copy or self._meets(
                ("ifSourceGenerationMatch", copy[1], copy[2]), ("ifGenerationMatch", copy[3], copy[4])
            ):
                super().do_POST()
            return
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"access_token": "test", "expires_in": 3600, "token_type": "Bearer"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_DELETE(self) -> None:
        match = _OBJECT.fullmatch(urllib.parse.urlsplit(self.path).path)
        if not match or self._meets(("ifGenerationMatch", match[1], match[2])):
            super().do_DELETE()

    def _meets(self, *conditions: tuple[str, str, str]) -> bool:
        asked = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        for name, bucket, quoted in conditions:
            try:
                found = self.storage.get_file_obj(bucket, urllib.parse.unquote(quoted))["generation"]
            except NotFound:
                found = "0"
            if name in asked and asked[name] != [found]:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.send_response(412)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return False
        return True


_OBJECT = re.compile(r"(?:/storage/v1)?/b/([^/]+)/o/([^/]+)")
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


@pytest.fixture(scope="session")
def gcs_bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``gs://…`` of a bucket that lives as long as the test session."""
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    storage = Storage(use_memory_fs=True)
    buckets.create_bucket(_BUCKET, storage)
    with http.server.HTTPServer(("127.0.0.1", 0), functools.partial(Handler, storage)) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        credentials = tmp_path_factory.mktemp("gcs") / "service_account.json"
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


@pytest.fixture
def gcs_prefix(gcs_bucket: str) -> str:
    """A folder of its own for one test, as ``gs://bucket/folder``."""
    return f"{gcs_bucket}/{uuid.uuid4().hex}"
