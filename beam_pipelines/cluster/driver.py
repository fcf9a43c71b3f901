"""The process of one job: runs its graph with workers on the hosts, and tells the job service how it goes.

    python -m beam_pipelines.cluster.driver

It reads the job from its standard input, an order in a line of JSON and then the graph, and ends when that is closed.
It tells the job's states and messages on its standard output, a line of JSON each: see `Driver.say`. That the job has a
process of its own makes its end sure: with the process go all connections of its workers, and these end with them.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import sys
import threading
import time
import traceback
from typing import Any, BinaryIO

from apache_beam.metrics import monitoring_infos
from apache_beam.portability.api import beam_runner_api_pb2

from beam_pipelines.cluster.calls import ANSWER_S, KEEPALIVES, LOST_S
from beam_pipelines.cluster.family import end_now, end_with
from beam_pipelines.cluster.hosts import Host, Hosts
from beam_pipelines.console import terminal
from beam_pipelines.runners.failures import WORKER_DIED
from beam_pipelines.runners.local_runner import Runner
from transforms.errors import BroetchenError

_OURS = ("beam_pipelines.", "transforms.")
# Beam may find first that a connection is gone. Which host is lost, and how, is told within this time, and then this
# process ends.
_TOLD_S = LOST_S + 2 * ANSWER_S


class Driver:
    """Runs one job.

    Args:
        order: `job`, its id; `host`, at which this process is reached; `hosts`, the addresses of the workers; `options`
            of the pipeline, JSON, for the workers.
        out: for its messages.
    """

    def __init__(self, order: dict[str, Any], out: BinaryIO) -> None:
        self._order, self._out = order, out
        self._lock = threading.Lock()

    def say(self, kind: str, content: object) -> None:
        """Says one thing: a `log` line as [level, text], an `error`, the `metrics`, or that it is `done`."""
        with self._lock:
            self._out.write(json.dumps([kind, content]).encode() + b"\n")
            self._out.flush()

    def run(self, graph: beam_runner_api_pb2.Pipeline) -> None:
        """Runs the job to its end; where it loses a worker, this process ends.

        Raises:
            BroetchenError: no host answers.
            Exception: a step of the pipeline failed.
        """
        order = self._order
        hosts = Hosts(
            [Host(address, order["job"], self._lost) for address in order["hosts"]],
            lambda line: self.say("log", [logging.WARNING, line]),
        )
        self.say("log", [logging.INFO, f"the job takes {hosts}"])
        runner = Runner(lambda _: f"{order['host']}:0", lambda asked: hosts.start(asked, order["options"]), KEEPALIVES)
        result = runner.run_graph(graph, hosts.workers)
        own = [info for info in result.monitoring_infos() if monitoring_infos.is_user_monitoring_info(info)]
        self.say("metrics", [base64.b64encode(info.SerializeToString()).decode() for info in own])
        self.say("done", None)

    def _lost(self, reason: str) -> None:
        """Beam would wait for the worker for ever."""
        self.say("error", in_text(BroetchenError(reason)))
        end_now(1)


def in_text(error: BroetchenError) -> str:
    """An error of ours as the text by which commands know it again, which Beam's runner hands on as it is."""
    return f"{type(error).__module__}.{type(error).__qualname__}: {error}"


class _Log(logging.Handler):
    """Hands on the log of this process, with that of the workers."""

    def __init__(self, driver: Driver) -> None:
        super().__init__(logging.INFO)
        self._driver = driver

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.name == "root":  # of a worker, by Beam's service for their logs
            text = terminal.worker_message(text) or ""
        elif not record.name.startswith(_OURS):
            return
        if text:
            self._driver.say("log", [record.levelno, text])


def main() -> None:
    """Runs the job that standard input holds."""
    source, out = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # Libraries may print, and are not to say anything in our name.
    order = json.loads(source.readline())
    graph = beam_runner_api_pb2.Pipeline.FromString(source.read(order["bytes"]))
    end_with(source)
    driver = Driver(order, out)
    logging.basicConfig(level=logging.INFO, handlers=[_Log(driver)], force=True)
    code = 0
    try:
        driver.run(graph)
    except BroetchenError as error:
        code = 1
        driver.say("error", in_text(error))
    except Exception:
        code, said = 1, traceback.format_exc()
        if WORKER_DIED in said:
            time.sleep(_TOLD_S)
        driver.say("error", said)
    end_now(code)


if __name__ == "__main__":
    main()
