"""The meaning of the errors of filesystems and object stores, and advice for each."""

from __future__ import annotations

import contextlib
import errno
import http
import http.client
import os
import sys
from collections.abc import Iterator

from transforms.errors import BroetchenError, UnreachableError, one_line

# By errno and by HTTP status: the two do not overlap.
_ADVICE: dict[int, str] = {
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another path",
    errno.EEXIST: "a part of the path is a file, not a folder; choose another path",
    errno.EISDIR: "this is a folder; name a file",
    errno.EACCES: "get permission for it, or choose another path",
    errno.EPERM: "get permission for it, or choose another path",
    errno.EROFS: "choose a path on a filesystem that can be written",
    errno.ENOSPC: "free some space, or choose a path elsewhere, and run it again",
    errno.EDQUOT: "free some space, or choose a path elsewhere, and run it again",
    errno.EFBIG: "raise the limit on the size of files, or make the shards smaller",
    http.HTTPStatus.UNAUTHORIZED: "sign in to the object store (for gs://: gcloud auth application-default login)",
    http.HTTPStatus.FORBIDDEN: "get permission for it; an account that writes also needs to list, read and delete",
    http.HTTPStatus.NOT_FOUND: "check the path, and that the bucket exists",
    http.HTTPStatus.REQUEST_TIMEOUT: "check the network, and try it again",
    http.HTTPStatus.PRECONDITION_FAILED: "somebody else has changed it meanwhile: see who, and try it again",
    http.HTTPStatus.TOO_MANY_REQUESTS: "the object store had too many requests: wait some minutes, and try it again",
}


@contextlib.contextmanager
def explain_file_errors(path: str, action: str) -> Iterator[None]:
    """Turns a filesystem's exception into an error that names the path and says what to do.

    Every kind of exception: the clients of the object stores behind Beam's interface have no common base class.

    Args:
        path: the file or folder, as it is shown.
        action: the operation that was tried, as a participle: "read", "renamed to b".

    Raises:
        UnreachableError: the store has too much to do, or cannot be reached.
        BroetchenError: the block failed otherwise; one of ours comes through as it is.
    """
    try:
        yield
    except BroetchenError:
        raise
    except Exception as error:
        root = _root(error)
        if isinstance(root, BroetchenError):
            raise root from error
        reason, advice = reason_and_advice(error)
        kind = UnreachableError if _says_nothing(root) else BroetchenError
        raise kind(f"{path}: cannot be {action} ({reason}); {advice}") from error


def reason_and_advice(error: Exception) -> tuple[str, str]:
    """The innermost reason of a filesystem's error, and advice."""
    root = _root(error)
    if isinstance(root, OSError) and root.errno:
        return os.strerror(root.errno), _ADVICE.get(root.errno, "try it again")
    status = root if isinstance(root, int) else getattr(root, "code", None)
    if status is None:
        status = getattr(getattr(root, "response", None), "status_code", None)
    if isinstance(status, int):
        reason = f"HTTP {int(status)} {http.client.responses.get(status, '')}".rstrip()
        busy = "the object store has a problem: wait a while, and try it again"
        return reason, _ADVICE.get(status, busy if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR else "try it again")
    if _is(root, "google.auth.exceptions", "GoogleAuthError"):
        return one_line(root), _ADVICE[http.HTTPStatus.UNAUTHORIZED]
    # Beam raises ValueError for a path that a filesystem cannot parse.
    advice = "check the path" if isinstance(root, ValueError) else "try it again"
    return one_line(root) or type(root).__name__, advice


def _says_nothing(root: Exception | int) -> bool:
    """Whether a store's error is none of the path's: it has too much to do, or cannot be reached."""
    status = root if isinstance(root, int) else getattr(root, "code", None)
    if isinstance(status, int):
        waits = (http.HTTPStatus.REQUEST_TIMEOUT, http.HTTPStatus.TOO_MANY_REQUESTS)
        return status in waits or status >= http.HTTPStatus.INTERNAL_SERVER_ERROR
    of_requests = type(root).__module__.startswith("requests.")
    return (
        of_requests
        or _is(root, "google.auth.exceptions", "TransportError")
        or _is(root, "google.api_core.exceptions", "RetryError")
    )


def _is(error: Exception | int, module: str, kind: str) -> bool:
    """Whether an error is of a class in a module that is slow to import; the code that raised it has imported it."""
    # Another thread may be importing it right now.
    return isinstance(error, getattr(sys.modules.get(module), kind, ()))


def _root(error: Exception) -> Exception | int:
    # Beam wraps errors twice over: BeamIOError(…, {path: error or HTTP status}), and OSError(error).
    beams = _is(error, "apache_beam.io.filesystem", "BeamIOError")
    details = getattr(error, "exception_details", None)
    if beams and details:
        inner = next(iter(details.values()))
    elif isinstance(error, OSError) and error.args:
        inner = error.args[0]
    else:
        return error
    if isinstance(inner, Exception):
        return _root(inner)
    return inner if isinstance(inner, int) and beams else error
