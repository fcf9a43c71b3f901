"""The first contact with a service on the network: whether it answers is known within seconds, and told meanwhile.

The clients of the hub and of object stores retry for minutes, and say nothing of it. In the middle of a long build that
is right. Before one starts it is not: mostly there is no network, a proxy is missing, or an address is wrong. So a
command makes contact first (`expect_answers`), once with each service; workers and other programs leave it out.

Contact is any answer over HTTP to a request without credentials, by the proxies that the environment names. Where
nobody has signed in to Google Cloud, that is told as well: Beam looks for credentials five times, for some 20 seconds,
before it goes on without.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import socket
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from transforms.errors import UnreachableError, one_line

_LOGGER = logging.getLogger(__name__)

# When each attempt begins, in seconds, unless one before has succeeded; all of them may go on until the end.
_STARTS_S = (0.0, 0.6, 1.4, 2.4, 3.6)
_END_S = 6.0

# By scheme: the service's name, the variable that names another address, and the address.
_SERVICES = {
    "gs": ("Google Cloud Storage", "STORAGE_EMULATOR_HOST", "https://storage.googleapis.com"),
    "hf": ("the Hugging Face hub", "HF_ENDPOINT", "https://huggingface.co"),
}

_answered: set[str] = set()
_expected = False


def expect_answers(expected: bool = True) -> None:
    """Has this process make contact with a service before it is used for the first time; its forks do not."""
    global _expected
    _expected = expected


os.register_at_fork(after_in_child=lambda: expect_answers(False))


def make_contact(path: str) -> None:
    """Makes contact with the service that holds `path`, if this process is to, and has not done so before.

    Args:
        path: ``gs://…`` or ``hf://…``; of others nothing is asked.

    Raises:
        UnreachableError: it does not answer within 6 s.
    """
    scheme, separator, _ = path.partition("://")
    if not _expected or not separator or scheme not in _SERVICES:
        return
    name, variable, usual = _SERVICES[scheme]
    address = os.environ.get(variable) or usual
    if address in _answered or not _can_be_asked(scheme, address):
        return
    reason = _why_silent(name, address)
    if reason is not None:
        named = f" {variable} names this address." if address != usual else ""
        raise UnreachableError(
            f"{name} cannot be reached at {_host(address)} ({reason}); check the network, and whether it takes a proxy "
            f"(HTTPS_PROXY), then run it again.{named}"
        )
    _answered.add(address)
    if scheme == "gs":
        _look_for_credentials()


def _look_for_credentials() -> None:
    """Says that there are none, and has Beam ask anonymously at once, as it would in the end."""
    import google.auth
    import google.auth.exceptions
    from apache_beam.internal.gcp.auth import _Credentials

    with _Credentials._credentials_lock:
        if _Credentials._credentials_init:
            return
        try:
            google.auth.default()
        except google.auth.exceptions.DefaultCredentialsError as error:
            if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
                _LOGGER.warning("Google Cloud: %s; only what is public can be read", one_line(error))
            else:
                _LOGGER.warning(
                    "Google Cloud: nobody has signed in here, so only what is public can be read; to sign in: gcloud "
                    "auth application-default login"
                )
            _Credentials._credentials, _Credentials._credentials_init = None, True
        except google.auth.exceptions.GoogleAuthError:
            pass  # Beam will see what it is.


def _can_be_asked(scheme: str, address: str) -> bool:
    """Whether a request from here tells anything about those of the service's own client."""
    try:
        parts, _ = urllib.parse.urlsplit(address), _host(address)
    except ValueError:  # It is no address, which its client says as well.
        return False
    proxies = urllib.request.getproxies()
    # Proxies of kinds that urllib does not know.
    other = "all" in proxies or not proxies.get(parts.scheme, "http://").startswith("http://")
    # As `huggingface_hub` reads them.
    said = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    offline = scheme == "hf" and said.upper() in ("1", "ON", "YES", "TRUE")
    return parts.scheme in ("http", "https") and not other and not offline


def _why_silent(name: str, address: str) -> str | None:
    """Why a service does not answer; None where it does. Names may take long to be resolved, hence the threads."""
    ends: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    began, failed, reason = time.monotonic(), 0, "no answer"
    for number, until in enumerate((*_STARTS_S[1:], _END_S), 1):
        if number > 1:
            _LOGGER.warning("%s: %s; retrying (%d of %d)", _host(address), reason, number, len(_STARTS_S))
        threading.Thread(target=_ask, args=(address, ends), daemon=True, name=f"contact with {name}").start()
        while (left := began + until - time.monotonic()) > 0 and not failed == number == len(_STARTS_S):
            try:
                error = ends.get(timeout=left)
            except queue.Empty:
                break
            if error is None:
                return None
            failed, reason = failed + 1, _in_words(error, address)
    return reason if failed else f"no answer within {_END_S:.0f} s"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _ask(address: str, ends: queue.SimpleQueue[BaseException | None]) -> None:
    try:
        request = urllib.request.Request(address, method="HEAD")
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=_END_S):
            ends.put(None)
    except urllib.error.HTTPError:
        ends.put(None)
    except Exception as error:
        reason = getattr(error, "reason", error)
        # Whether a certificate can be trusted, the service's client has its own means to know.
        silent = not isinstance(reason, ssl.SSLError) and isinstance(error, OSError)
        ends.put((reason if isinstance(reason, OSError) else error) if silent else None)


def _host(address: str) -> str:
    parts = urllib.parse.urlsplit(address)
    return parts.hostname + (f":{parts.port}" if parts.port else "") if parts.hostname else address


def _in_words(error: BaseException, address: str) -> str:
    """The meaning of a failure to connect.

    >>> _in_words(socket.gaierror(-2, "Name or service not known"), "https://hub.invalid")
    'the name hub.invalid cannot be resolved'
    """
    if isinstance(error, socket.gaierror):
        proxy = urllib.request.getproxies().get(urllib.parse.urlsplit(address).scheme)
        return f"the name {_host(proxy or address)} cannot be resolved"
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, OSError) and error.errno in (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH):
        return os.strerror(error.errno).lower()
    return one_line(error) or type(error).__name__
