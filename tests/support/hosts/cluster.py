"""A cluster of Brötchen's own on hosts that share a bucket and nothing else."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gcp_storage_emulator.storage import Storage

from tests.support.corpora import SAMPLES
from tests.support.hosts.network import Host, Network, Process, network
from tests.support.services.gcs_emulator import Handler, emulated_bucket
from transforms.files import storage
from transforms.files.listing import list_files

JOBS, WORKERS = 8099, 8100
_KEY = "tmp/home/key.json"
# How a shard that has been tokenized gets its name in the bucket.
_SHARD = re.compile(r"/copyTo/.*/\.broetchen/[^/]+/shard-\d+-[0-9a-f]+\.arecord")
# A host whose cable is cut in the middle of a request would hold the bucket, which answers one at a time.
_ANSWER_S = 5
_LONGEST_S = 600.0


class Cluster:
    """Hosts, the processes on them, and the bucket.

    Attributes:
        bucket: ``gs://…``.
        shards: how many shards each host has put into the bucket, by its address.
    """

    def __init__(self, network: Network, bucket: str, logs: Path) -> None:
        self.network, self.bucket, self._logs = network, bucket, logs
        self.hosts: dict[str, Host] = {}
        self.shards: collections.Counter[str] = collections.Counter()
        self._hold_at = 0
        self._held, self._go = threading.Event(), threading.Event()

    def seen(self, client: str, path: str) -> None:
        """Counts the shards of a host, and holds the bucket's answer at the one that is asked for."""
        if not _SHARD.search(path):
            return
        self.shards[client] += 1
        if self._hold_at and self.shards.total() >= self._hold_at:
            self._hold_at = 0
            self._held.set()
            self._go.wait(_LONGEST_S)

    @contextlib.contextmanager
    def at_shard(self, number: int) -> Iterator[Callable[[], None]]:
        """Holds the bucket at the nth shard from now, until the block ends; yields a wait for that shard."""
        self.shards.clear()
        self._held.clear()
        self._go.clear()
        self._hold_at = number
        try:
            yield lambda: self._wait(self._held.is_set, "no shard comes")
        finally:
            self._go.set()

    def put_demo(self) -> str:
        """Puts the demo's mix with its samples into the bucket; returns the path of its config."""
        config = f"{self.bucket}/mix_configs/demo.yaml"
        storage.upload(str(SAMPLES.parent / "mix_configs" / "demo.yaml"), config)
        for path in [SAMPLES / "tokenizer.json", *SAMPLES.glob("corpora/*/*.parquet")]:
            storage.upload(str(path), f"{self.bucket}/samples/{path.relative_to(SAMPLES)}")
        return config

    def host(self, name: str) -> Host:
        """A new host, which can reach the bucket."""
        host = self.hosts[name] = self.network.host(name)
        (host.root / _KEY).write_bytes(Path(os.environ["GOOGLE_APPLICATION_CREDENTIALS"]).read_bytes())
        return host

    def run(self, host: Host, *command: str, log: str = "") -> Process:
        """Starts `broetchen` on a host."""
        names = ("STORAGE_EMULATOR_HOST", "CLOUD_STORAGE_EMULATOR_ENDPOINT", "GOOGLE_CLOUD_PROJECT")
        environment = {name: os.environ[name] for name in names} | {"GOOGLE_APPLICATION_CREDENTIALS": f"/{_KEY}"}
        return host.start([sys.executable, "-m", "beam_pipelines", *command], self.log(log or host.name), environment)

    def worker(self, name: str, processes: int = 1) -> Host:
        """A new host with workers."""
        host = self.host(name)
        self.run(host, "cluster", "worker", "--address", f"{name}:{WORKERS}", "--processes", str(processes))
        return host

    def serve(self, name: str, *workers: str, host: Host | None = None) -> Host:
        """The job service for the workers of those hosts, on a new host or on `host`, once it and they answer."""
        host = host or self.host(name)
        for worker in workers:
            self.says(worker, "up to ")
        addresses = ",".join(f"{worker}:{WORKERS}" for worker in workers)
        self.run(host, "cluster", "serve", "--address", f"{name}:{JOBS}", "--workers", addresses)
        self.says(name, "a job takes ")
        return host

    def build(self, host: Host, service: str, config: str, output: str, *more: str, log: str = "build") -> Process:
        """Starts a build on the cluster, from a host."""
        self.log(log).unlink(missing_ok=True)
        portable = ["--runner=PortableRunner", f"--job_endpoint={service}:{JOBS}"]
        return self.run(host, "build", config, "--output", output, "--quiet", *portable, *more, log=log)

    def log(self, name: str) -> Path:
        """The file with the output of a host's service or of a command."""
        return self._logs / f"{name}.log"

    def said(self, name: str) -> str:
        """The text of that file; empty before it exists."""
        with contextlib.suppress(FileNotFoundError):
            return self.log(name).read_text()
        return ""

    def says(self, name: str, text: str, seconds: float = _LONGEST_S) -> None:
        """Waits until the output holds this text."""
        self._wait(lambda: text in self.said(name), f"{name} does not say {text}", seconds)

    def _wait(self, what: Callable[[], bool], otherwise: str, seconds: float = _LONGEST_S) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, otherwise + "".join(
                f"\n{path.name}: {path.read_text()[-2000:]}" for path in self._logs.iterdir()
            )
            time.sleep(0.05)


def tree(folder: str) -> dict[str, str]:
    """SHA-256 of all files of a dataset in the bucket; none is of work that is not finished."""
    return {
        path.removeprefix(f"{folder}/"): hashlib.sha256(storage.read_bytes(path)).hexdigest()
        for path, _ in list_files(folder)
    }


@contextlib.contextmanager
def cluster(folder: Path, storage: Storage | None = None) -> Iterator[Cluster]:
    """A cluster without hosts yet.

    Args:
        folder: an empty one.
        storage: an empty one for the bucket's objects; by default they are in memory.
    """
    logs = folder / "logs"
    logs.mkdir()
    with (
        network() as made,
        emulated_bucket(folder, made.address, storage) as bucket,
        pytest.MonkeyPatch.context() as patch,
    ):
        found = Cluster(made, bucket, logs)
        patch.setattr(Handler, "from_client", staticmethod(found.seen))
        patch.setattr(Handler, "timeout", _ANSWER_S)
        yield found
