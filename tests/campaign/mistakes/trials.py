"""Makes mistakes, each in a folder of its own, and checks the command's messages."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.campaign.mistakes.cases import Command, Mistake
from tests.campaign.mistakes.places import placed
from tests.support.command import COMMAND
from tests.support.documents import ROOT
from tests.support.services.hub_server import HubServer
from tests.support.services.refusing_service import answering

_MOST_S = 300
_NOT_OURS = ("Traceback", "unexpected ", "[while running", "grpc", "apache_beam", "_InactiveRpcError")


@dataclasses.dataclass(frozen=True)
class Told:
    """The answer of a command to a mistake.

    Attributes:
        message: its standard error, without its progress.
        seconds: from its start to its end.
        cpu_s: of processor time, which depends less on the machine's other work.
        wrong: the faults of the answer; empty where it is as it has to be.
    """

    mistake: Mistake
    message: str
    code: int
    seconds: float
    cpu_s: float
    wrong: tuple[str, ...]


@contextlib.contextmanager
def services(folder: Path) -> Iterator[dict[str, str]]:
    """Addresses on loopback, by the server there: a hub, a store that forbids all or has nothing, nobody."""
    (folder / "secret").mkdir()
    with (
        HubServer({"me/secret": folder / "secret"}, private=frozenset({"me/secret"})) as hub,
        answering(403, "someone does not have storage.objects.list access") as forbidden,
        answering(404, "The specified bucket does not exist.") as missing,
        socket.socket() as silent,
        socket.socket() as refusing,
    ):
        for one in (silent, refusing):
            one.bind(("127.0.0.1", 0))
        silent.listen(64)  # and no answer: the kernel takes connections, and nobody reads them
        there = {
            name: f"http://127.0.0.1:{one.getsockname()[1]}"
            for name, one in (("silent", silent), ("refusing", refusing))
        }
        yield there | {"hub": hub.address, "forbidden": forbidden, "missing": missing}


def made(mistake: Mistake, folder: Path, there: Mapping[str, str]) -> Told:
    """Makes a mistake in an empty folder by the installed command, and tells the outcome."""
    environment = os.environ | {"HF_HOME": str(folder / "hf"), "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    environment |= {name: value.format(**there) for name, value in mistake.environment.items()}
    environment = {name: value for name, value in environment.items() if value and "proxy" not in name.lower()}
    if mistake.before is not None:
        subprocess.run(_line(mistake.before(folder)), env=environment, capture_output=True, check=True, timeout=_MOST_S)
    (folder / "disk").mkdir(exist_ok=True)
    command = placed(_line(mistake.make(folder)), mistake.place, str(folder / "disk"))
    started, used = time.monotonic(), _cpu_s()
    with subprocess.Popen(
        command,
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_stoppable,
    ) as process:
        try:
            if mistake.interrupted:
                _until_at_work(folder)
                started = time.monotonic()
                process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=_MOST_S)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    seconds = time.monotonic() - started
    message = _without_folder(errors.strip() or output.strip(), folder)
    return Told(
        mistake,
        message,
        process.returncode,
        seconds,
        _cpu_s() - used,
        tuple(wrong(mistake, message, process.returncode)),
    )


def wrong(mistake: Mistake, message: str, code: int) -> Iterator[str]:
    """The faults of a message and an exit code."""
    if code != mistake.code:
        yield f"exit code {code}, not {mistake.code}"
    yield from (f"no {word!r}" for word in mistake.words if word.lower() not in message.lower())
    yield from (f"it has {word!r}" for word in _NOT_OURS if word in message)


def _line(arguments: Command) -> list[str]:
    return [str(COMMAND), *map(str, arguments)]


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _stoppable() -> None:
    # Commands that a shell runs in the background ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _until_at_work(folder: Path) -> None:
    deadline = time.monotonic() + _MOST_S
    while not (folder / "out" / "german").exists():
        if time.monotonic() > deadline:
            raise TimeoutError("the build does not begin")
        time.sleep(0.05)


def _without_folder(message: str, folder: Path) -> str:
    return message.replace(f"{folder}/", "").replace(str(folder), ".").replace(str(ROOT), "~")
