"""Builds on hosts that share a bucket and nothing else: the same bytes, with any losses on the way."""

from __future__ import annotations

import contextlib
import itertools
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from beam_pipelines.config.mix import load_config
from beam_pipelines.jobs.build import build
from tests.support.corpora import SAMPLES, write_parquet
from tests.support.hosts.cluster import JOBS, WORKERS, Cluster, cluster, tree
from tests.support.hosts.demo import build_on_hosts
from tests.support.hosts.network import Host, Process, why_none
from transforms.files import storage

_REASON = why_none()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(_REASON), reason=_REASON),
]

_SOON_S = 60.0
_LONGEST_S = 600.0
_GROUPS, _FILES = 240, 4
_numbers = itertools.count()


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The bucket, with the sources of both mixes, and no hosts yet."""
    with cluster(tmp_path_factory.mktemp("cluster")) as found:
        found.put_demo()
        write_sources(found.bucket, tmp_path_factory.mktemp("sources"))
        write_mix(found.bucket, "wide", {"fineweb2_german": 160_000, "finepdfs_german": 220_000})
        write_mix(found.bucket, "narrow", {"fineweb2_german": 40_000, "finepdfs_german": 60_000})
        yield found


def write_mix(bucket: str, name: str, tokens: Mapping[str, int]) -> None:
    """A mix of datasets in shards of a row group each."""
    content = {
        "name": name,
        "tokenizer": {"path": "../samples/tokenizer.json", "eos_token": "<|eos|>"},
        "records": {"max_tokens": 512, "add_eos": True},
        "shards": {"target_size": "8KiB"},
        "datasets": {
            dataset: {"source": f"../sources/{dataset}/*.parquet", "tokens": number, "eval_tokens": 1_000}
            for dataset, number in tokens.items()
        },
    }
    storage.write_bytes(f"{bucket}/mixes/{name}.yaml", yaml.safe_dump(content).encode())


def write_sources(bucket: str, folder: Path) -> None:
    """Two of the sample corpora, in small row groups."""
    for name in ("fineweb2_german", "finepdfs_german"):
        paths = sorted((SAMPLES / "corpora" / name).glob("*.parquet"))
        rows = [row for path in paths for row in pq.read_table(path)["text"].to_pylist()]
        groups = [rows[group::_GROUPS] for group in range(_GROUPS)]
        for file in range(_FILES):
            write_parquet(folder / f"{file}.parquet", groups[file::_FILES])
            storage.upload(str(folder / f"{file}.parquet"), f"{bucket}/sources/{name}/{file}.parquet")


@pytest.fixture(scope="module")
def demo(there: Cluster) -> dict[str, str]:
    """The files that a build in one process here makes of the demo's mix."""
    return built_here(there, f"{there.bucket}/mix_configs/demo.yaml")


@pytest.fixture(scope="module")
def wide(there: Cluster) -> dict[str, str]:
    """The same for the mix of some hundred shards."""
    found = built_here(there, f"{there.bucket}/mixes/wide.yaml")
    assert len([name for name in found if name.endswith(".arecord")]) > 90
    return found


@pytest.fixture(scope="module")
def narrow(there: Cluster) -> dict[str, str]:
    """The same for a mix of fewer shards."""
    return built_here(there, f"{there.bucket}/mixes/narrow.yaml")


def built_here(there: Cluster, config: str) -> dict[str, str]:
    output = f"{there.bucket}/here-{next(_numbers)}"
    build(load_config(config), output, quiet=True)
    return tree(output)


@contextlib.contextmanager
def hosts(there: Cluster, count: int) -> Iterator[list[Host]]:
    """A host with the job service, and `count` with a worker each; they are gone afterwards."""
    number = next(_numbers)
    names = [f"w{number}-{each}" for each in range(count)]
    workers = [there.worker(name) for name in names]
    head = there.serve(f"head{number}", *names)
    try:
        yield [head, *workers]
    finally:
        for host in (head, *workers):
            host.kill()


@pytest.fixture(scope="module")
def pair(there: Cluster) -> Iterator[list[Host]]:
    """A host with the job service and two with a worker each, for tests that leave them as they are."""
    with hosts(there, 2) as found:
        yield found


@contextlib.contextmanager
def building(there: Cluster, head: Host, output: str, mix: str = "narrow") -> Iterator[Process]:
    yield there.build(head, head.name, f"{there.bucket}/mixes/{mix}.yaml", output)


def ends_soon(there: Cluster, process: Process, since: float, words: str) -> None:
    """It has to end with exit code 1 in one line, soon after something has happened."""
    assert process.wait(3 * _SOON_S) == 1, there.said("build")
    took = time.monotonic() - since
    last = there.said("build").splitlines()[-1]
    print(f"ended after {took:.0f} s: {last}")
    assert words in last, there.said("build")
    assert "Traceback" not in there.said("build")
    assert took < _SOON_S, there.said("build")


def goes_on(there: Cluster, head: Host, output: str, expected: dict[str, str], mix: str = "narrow") -> None:
    """The same command again ends well, and the bytes are those of a build here."""
    again = there.build(head, head.name, f"{there.bucket}/mixes/{mix}.yaml", output)
    assert again.wait(_LONGEST_S) == 0, there.said("build")
    assert tree(output) == expected


def wait_for(what: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it does not come to that"
        time.sleep(0.1)


def test_the_demo_on_two_hosts(there: Cluster, pair: list[Host], demo: dict[str, str]) -> None:
    head, *workers = pair
    there.shards.clear()
    output = f"{there.bucket}/demo-out"
    done = there.build(head, head.name, f"{there.bucket}/mix_configs/demo.yaml", output)
    listening: set[str] = set()
    while done.poll() is None:
        listening |= {address for host in (head, *workers) for address in listeners(host)}
        time.sleep(0.5)
    assert done.poll() == 0, there.said("build")
    assert tree(output) == demo
    assert min(there.shards[host.address] for host in workers) > 2
    # The services, and those of the job; nothing at other addresses than those that were given.
    assert {f"{head.address}:{JOBS}", *(f"{host.address}:{WORKERS}" for host in workers)} < listening
    assert {address.partition(":")[0] for address in listening} == {host.address for host in (head, *workers)}
    # Of the job nothing is left, and no defunct process.
    wait_for(lambda: all(len(host.processes()) == 1 for host in (head, *workers)))


def listeners(host: Host) -> list[str]:
    """The sockets that listen by TCP on a host, as ``address:port``."""
    found = []
    for table in ("tcp", "tcp6"):
        for line in (host.root / "proc/1/net" / table).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            if state == "0A":
                found.append(_address(*local.split(":")))
    return found


def _address(address: str, port: str) -> str:
    """As proc_net_tcp(5) has it; gRPC's sockets are of IPv6, and their addresses those of IPv4 mapped into it."""
    if len(address) > 8 and not address.startswith("0000000000000000FFFF0000"):
        return f"{address}:{int(port, 16)}"
    return ".".join(str(byte) for byte in reversed(bytes.fromhex(address[-8:]))) + f":{int(port, 16)}"


def test_a_hundred_shards_on_three_hosts(there: Cluster, wide: dict[str, str]) -> None:
    output = f"{there.bucket}/hundred"
    with hosts(there, 3) as (head, *workers):
        there.shards.clear()
        with building(there, head, output, "wide") as process:
            assert process.wait(_LONGEST_S) == 0, there.said("build")
        assert tree(output) == wide
        assert min(there.shards[host.address] for host in workers) > 10


def test_a_host_that_is_killed(there: Cluster, narrow: dict[str, str]) -> None:
    output = f"{there.bucket}/killed"
    with hosts(there, 3) as (head, *workers):
        with there.at_shard(10) as comes, building(there, head, output) as process:
            comes()
            workers[1].kill()
            since = time.monotonic()
        ends_soon(there, process, since, f"the workers at {workers[1].name}:{WORKERS} are lost")
        goes_on(there, head, output, narrow)
        assert "no workers answer there, and the job goes without them" in there.said("build")


def test_a_link_that_is_cut_in_the_middle_of_tokenizing(there: Cluster, narrow: dict[str, str]) -> None:
    output = f"{there.bucket}/cut"
    with hosts(there, 2) as (head, *workers):
        with there.at_shard(10) as comes, building(there, head, output) as process:
            comes()
            workers[0].cut()
            since = time.monotonic()
        ends_soon(there, process, since, f"the workers at {workers[0].name}:{WORKERS} are lost")
        # The worker behind the cut ends as well.
        wait_for(lambda: len(workers[0].processes()) == 1)
    with hosts(there, 2) as (head, *_):
        goes_on(there, head, output, narrow)


def test_a_link_that_is_cut_while_a_worker_starts(there: Cluster) -> None:
    with hosts(there, 2) as (head, *workers):
        with building(there, head, f"{there.bucket}/start") as process:
            there.says(workers[1].name, "a worker process for job")
            workers[1].cut()
            since = time.monotonic()
        ends_soon(there, process, since, f"the workers at {workers[1].name}:{WORKERS} are lost")


def test_a_killed_command_is_followed_by_the_next(there: Cluster, pair: list[Host], narrow: dict[str, str]) -> None:
    output, head = f"{there.bucket}/followed", pair[0]
    with there.at_shard(10) as comes, building(there, head, output) as process:
        comes()
        process.signal(signal.SIGKILL)
        process.wait(30)
    goes_on(there, head, output, narrow)
    # Unless the job was the faster.
    said = there.said("build")
    assert "builds the same there already: it is followed" in said or "2 of 2 datasets were there already" in said


def test_ctrl_c_ends_the_work_on_all_hosts(there: Cluster, pair: list[Host], narrow: dict[str, str]) -> None:
    output = f"{there.bucket}/cancelled"
    head, *workers = pair
    with there.at_shard(10) as comes, building(there, head, output) as process:
        comes()
        process.signal(signal.SIGINT)
        there.says("build", "cancelling the PortableRunner job")
        wait_for(lambda: all(len(host.processes()) == 1 for host in workers))
    assert process.wait(120) == 130, there.said("build")
    assert "broetchen: stopped; run the same command again to go on" in there.said("build")
    goes_on(there, head, output, narrow)


def test_a_job_service_that_is_killed(there: Cluster) -> None:
    """Its jobs end with it; the command finds out soon, also where the service's host is gone without a word."""
    output = f"{there.bucket}/service"
    with hosts(there, 2) as (head, *workers):
        client = there.host(f"c{next(_numbers)}")
        with there.at_shard(10) as comes:
            process = there.build(client, head.name, f"{there.bucket}/mixes/narrow.yaml", output)
            comes()
            head.cut()
            since = time.monotonic()
        ends_soon(there, process, since, "may go on (")
        wait_for(lambda: all(len(host.processes()) == 1 for host in workers))
        client.kill()


def test_what_make_cluster_demo_does(there: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    """Last, as its hosts stay until the network goes."""
    assert build_on_hosts(there)
    assert "byte for byte" in capsys.readouterr().out
