"""The hosts of a cluster, as the process of one job sees them: those that answer, and those that are lost."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import apache_beam
import grpc  # type: ignore[import-untyped]

from beam_pipelines.cluster.calls import LOST_S, Answer, call, new_channel
from beam_pipelines.runners.local_runner import Worker, WorkerOrder
from transforms.errors import BroetchenError, one_line

_AGAIN = "run the same command again to go on: finished shards are not redone"
_LOOK_S = 2.0
_KILLED = -9


class Host:
    """One host's workers, in one job.

    Args:
        address: `HOST:PORT` of its `broetchen cluster worker`.
        job: its id.
        lost: called once with the reason where the host or a worker of the job there is lost.
    """

    def __init__(self, address: str, job: str, lost: Callable[[str], None]) -> None:
        self.address, self._job, self._lost = address, job, lost
        self._channel = new_channel(address)
        self._workers: dict[str, Answer] = {}
        self._changed = threading.Condition()
        self._answered = time.monotonic()
        self._watch: threading.Thread | None = None

    def processes(self) -> int:
        """How many workers a job is to take there.

        Raises:
            grpc.RpcError: it does not answer.
            BroetchenError: it has another version of Beam.
        """
        found = call(self._channel, "look", job=self._job)
        if found["beam"] != apache_beam.__version__:
            raise BroetchenError(
                f"{self.address} has Beam {one_line(found['beam'])}, and the job service {apache_beam.__version__}; "
                "install the same version of Brötchen on all hosts"
            )
        return max(1, int(found["processes"]))

    def start(self, order: WorkerOrder, options: str) -> Worker:
        """Starts a worker there.

        Raises:
            BroetchenError: it does not answer.
        """
        asked = dataclasses.asdict(order) | {"worker": order.worker_id, "job": self._job, "options": options}
        try:
            call(self._channel, "start", **asked)
        except grpc.RpcError as error:
            raise BroetchenError(self._gone(error)) from error
        with self._changed:
            self._workers[order.worker_id] = {"code": None, "said": ""}
            if self._watch is None:
                self._answered = time.monotonic()
                self._watch = threading.Thread(target=self._look, name=f"watch {self.address}", daemon=True)
                self._watch.start()
        return _OnHost(self, order.worker_id)

    def _look(self) -> None:
        while True:
            time.sleep(_LOOK_S)
            try:
                found = call(self._channel, "look", job=self._job)["workers"]
            except grpc.RpcError as error:
                if time.monotonic() - self._answered > LOST_S:
                    return self._lost(self._gone(error))
                continue
            self._answered = time.monotonic()
            with self._changed:
                for name in self._workers:
                    state = found.get(name, {"code": _KILLED, "said": "its host was started again"})
                    self._workers[name] = state
                    if state["code"]:
                        return self._lost(self._died(state))
                self._changed.notify_all()

    def ended(self, worker: str) -> None:
        """Returns once a worker has ended well."""
        with self._changed:
            self._changed.wait_for(lambda: self._workers[worker]["code"] is not None)

    def end(self, worker: str) -> None:
        """Ends a worker, whatever it is doing."""
        with contextlib.suppress(grpc.RpcError):
            call(self._channel, "end", job=self._job, worker=worker)

    def _gone(self, error: grpc.RpcError) -> str:
        reason = one_line(error.details() or error.code().name) if isinstance(error, grpc.Call) else "no reason"
        return (
            f"the workers at {self.address} are lost: nobody answers there ({reason}). If the host is gone, {_AGAIN}, "
            "on the hosts that are left"
        )

    def _died(self, state: Answer) -> str:
        said = one_line(state["said"])
        if state["code"] == _KILLED:
            why = "was killed; if it was for lack of memory, give its host fewer by --processes"
        else:
            why = f"ended with {state['code']} ({said or 'no word of it'})"
        return f"a worker process at {self.address} {why}. Then {_AGAIN}"


class _OnHost:
    def __init__(self, host: Host, worker: str) -> None:
        self._host, self._worker = host, worker

    def wait(self) -> None:
        self._host.ended(self._worker)

    def kill(self) -> None:
        self._host.end(self._worker)


class Hosts:
    """The hosts that answer, and the workers that a job takes of them in turns.

    Args:
        hosts: all of them.
        left_out: called for each that does not answer, with a line that says so.

    Attributes:
        workers: how many a job takes.
        count: how many hosts answer.

    Raises:
        BroetchenError: none answers, or one has another version of Beam.
    """

    def __init__(self, hosts: Sequence[Host], left_out: Callable[[str], None]) -> None:
        with concurrent.futures.ThreadPoolExecutor(len(hosts)) as asking:
            asked = [(host, asking.submit(host.processes)) for host in hosts]
        answering: list[tuple[Host, int]] = []
        for host, answer in asked:
            try:
                answering.append((host, answer.result()))
            except grpc.RpcError:
                left_out(f"{host.address}: no workers answer there, and the job goes without them")
        if not answering:
            raise BroetchenError(
                f"no workers answer at {', '.join(host.address for host in hosts)}; start them by broetchen cluster "
                "worker, and check that the job service reaches their hosts"
            )
        self.workers, self.count = sum(count for _, count in answering), len(answering)
        self._turns = itertools.cycle(list(_in_turns(answering)))

    def __str__(self) -> str:
        return f"{self.workers} worker processes on {self.count} host{'s' if self.count > 1 else ''}"

    def start(self, order: WorkerOrder, options: str) -> Worker:
        """Starts a worker on the next host; see `Host.start`."""
        return next(self._turns).start(order, options)


def _in_turns(found: Sequence[tuple[Host, int]]) -> Iterator[Host]:
    for turn in range(max(count for _, count in found)):
        yield from (host for host, count in found if turn < count)


def end_job(addresses: Iterable[str], job: str) -> None:
    """Ends the remaining workers of a job; those on hosts that do not answer have lost it, and end by themselves."""

    def end(address: str) -> None:
        with contextlib.suppress(grpc.RpcError), _closing(new_channel(address)) as channel:
            call(channel, "end", job=job)

    with concurrent.futures.ThreadPoolExecutor() as ending:
        list(ending.map(end, addresses))


@contextlib.contextmanager
def _closing(channel: Any) -> Iterator[Any]:
    try:
        yield channel
    finally:
        channel.close()
