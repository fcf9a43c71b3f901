"""Builds the demo's mix on a cluster of three hosts on this machine, and compares it with a build without one.

    python -m tests.support.hosts.demo

As `make cluster-demo`. It says which host has made how many shards.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from beam_pipelines.config.mix import load_config
from beam_pipelines.jobs.build import build
from tests.support.hosts.cluster import Cluster, cluster, tree
from tests.support.hosts.network import why_none

_LONGEST_S = 600.0
_WORKERS = ("worker-1", "worker-2", "worker-3")


def build_on_hosts(there: Cluster) -> bool:
    """Whether the files of the cluster are those of a build in this process."""
    config = there.put_demo()
    here, output = f"{there.bucket}/here", f"{there.bucket}/there"
    print("Building the demo's mix in this process ...", flush=True)
    build(load_config(config), here, quiet=True)

    print(f"Starting {len(_WORKERS)} hosts ...", flush=True)
    workers = [there.worker(name) for name in _WORKERS]
    head = there.serve(_WORKERS[0], *_WORKERS, host=workers[0])
    there.shards.clear()
    print("Building it there ...", flush=True)
    since = time.monotonic()
    built = there.build(head, head.name, config, output)
    if built.wait(_LONGEST_S):
        print(there.said("build"), file=sys.stderr)
        return False
    print(f"Built in {time.monotonic() - since:.0f} s. Shards in the bucket, by the host that made them:")
    for host in workers:
        print(f"  {host.name} ({host.address})  {there.shards[host.address]:3}")
    if there.run(head, "verify", output, log="verify").wait(_LONGEST_S):
        print(there.said("verify"), file=sys.stderr)
        return False
    print("broetchen verify: nothing is wrong with it.")
    expected, found = tree(here), tree(output)
    if different := sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)):
        print(f"Not the same bytes: {', '.join(different)}", file=sys.stderr)
        return False
    print(f"All {len(found)} files are those of the build in this process, byte for byte.")
    return True


def main() -> int:
    """Runs it where it can be run."""
    if reason := why_none():
        print(f"This demo cannot run here: {reason}.", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder, cluster(Path(folder)) as there:
        return 0 if build_on_hosts(there) else 1


if __name__ == "__main__":
    sys.exit(main())
