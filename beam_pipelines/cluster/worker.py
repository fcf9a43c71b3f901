"""One worker process of a host: Beam's harness, which ends at once when the job has, however that came.

    python -m beam_pipelines.cluster.worker

It gets its orders by the variables of `WorkerOrder` and by `PIPELINE_OPTIONS`. Beam's harness would wait for the
step that it is in the middle of, and for a lost connection five minutes.

Rests on `create_harness` of `apache_beam/runners/worker/sdk_worker_main.py` and on
`GRPCChannelFactory.DEFAULT_OPTIONS` of `apache_beam/runners/worker/channel_factory.py`, Beam 2.77
(`tests/beam_pipelines/cluster/test_beam.py`).
"""

from __future__ import annotations

import logging
import os
import sys
import threading

from apache_beam.runners.worker import sdk_worker_main
from apache_beam.runners.worker.channel_factory import GRPCChannelFactory

from beam_pipelines.cluster.calls import TO_HOSTS
from beam_pipelines.cluster.family import end_now, end_with

# For the last lines of its log to reach the job.
_LOGGED_S = 3.0


def take_keepalives() -> None:
    """Has all channels that Beam makes in this process find out soon that the other end has gone."""
    GRPCChannelFactory.DEFAULT_OPTIONS[:] = list(TO_HOSTS)


def main() -> None:
    """Works until the job has no more work, or is gone."""
    end_with(sys.stdin.buffer)
    take_keepalives()
    log, code = None, 0
    try:
        log, harness, _ = sdk_worker_main.create_harness(os.environ)
        harness.run()
    except BaseException as error:
        # Threads of Beam's would keep the process, which nobody needs any more.
        code = 1
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    if log:
        closing = threading.Thread(target=log.close, daemon=True)
        closing.start()
        closing.join(_LOGGED_S)
    logging.getLogger().handlers.clear()
    end_now(code)


if __name__ == "__main__":
    main()
