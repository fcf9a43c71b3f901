"""Runs a job's graph with two workers, each a Python of the environment that this runs in, and says how it goes.

    python -I worker_program.py GRAPH SOCKETS

It is a program of its own, which imports nothing of the tests: their folder is not where it runs. It writes a line of
JSON for each thing that it has to say: ``["counters", […]]``, all counters so far, as encoded `MonitoringInfo`;
``["modules", […]]``, where the project's modules came from; at the end ``["done", null]`` or ``["failed", traceback]``.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from apache_beam.metrics import monitoring_infos
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner

import transforms
from beam_pipelines.runners.fresh import FreshWorker
from beam_pipelines.runners.local_runner import LocalRunner

_WORKERS = 2
_TOLD_EVERY_S = 0.5
_out = os.fdopen(os.dup(1), "w", buffering=1)
_lock = threading.Lock()
_of_bundles: dict[str, list[str]] = {}


def _say(kind: str, content: object) -> None:
    with _lock:
        _out.write(json.dumps([kind, content]) + "\n")


def _encoded(infos: Any) -> list[str]:
    own = (info for info in infos if monitoring_infos.is_user_monitoring_info(info))
    return [base64.b64encode(info.SerializeToString()).decode() for info in own]


def _tell(bundle: str, infos: Any) -> None:
    """Says the counters of all bundles, after news of one."""
    _of_bundles[bundle] = _encoded(infos)
    _say("counters", [info for infos in list(_of_bundles.values()) for info in infos])


class _Asking(fn_runner.ProgressRequester):
    def __init__(self, handler: Any, bundle: str, _: float | None) -> None:
        super().__init__(handler, bundle, _TOLD_EVERY_S, lambda progress: _tell(bundle, progress.monitoring_infos))


_process_bundle = fn_runner.BundleManager.process_bundle


def _process(self: Any, *arguments: Any, **options: Any) -> Any:
    result, splits = _process_bundle(self, *arguments, **options)
    _tell(result.instruction_id, result.process_bundle.monitoring_infos)
    return result, splits


def main() -> None:
    """Runs the graph that the first argument names."""
    graph = beam_runner_api_pb2.Pipeline.FromString(Path(sys.argv[1]).read_bytes())
    sockets = Path(sys.argv[2])
    vars(fn_runner)["ProgressRequester"] = _Asking
    fn_runner.BundleManager.process_bundle = _process  # type: ignore[method-assign]
    _say("modules", [str(path) for path in transforms.__path__])
    try:
        LocalRunner(sockets, FreshWorker).run_graph(graph, _WORKERS)
    except BaseException:
        _say("failed", traceback.format_exc())
        os._exit(1)
    _say("done", None)
    os._exit(0)


if __name__ == "__main__":
    main()
