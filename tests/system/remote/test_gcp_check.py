"""`make gcp-check` against a Dataflow and a bucket of the tests; people with an account run it on Google's."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.campaign.gcp.__main__ import main, parse_arguments, price, table
from tests.campaign.gcp.steps import Outcome, Setting
from tests.support.documents import ROOT
from tests.support.services.dataflow_service import DataflowService, dataflow
from tests.support.services.tpu_cloud import cloud
from transforms.errors import UsageError
from transforms.files import storage
from transforms.files.listing import list_files

__all__ = ["cloud", "dataflow"]

PROJECT = "my-project-123"
STEPS = [
    "the demo's sources and config, copied to the bucket",
    "the demo mix, built on this machine",
    "a job on Dataflow, ended by Ctrl-C",
    "the same command again, to the end",
    "the files of the build here, hash for hash",
    "read back by broetchen verify",
    "a training on a TPU, as a dry run",
    "jobs of this check that still run, cancelled",
    "the folder in the bucket, deleted",
]


def arguments(service: DataflowService, bucket: str) -> list[str]:
    options = [
        f"--option={option}" for option in service.options() if "dataflow_endpoint" in option or "image" in option
    ]
    return ["--project", PROJECT, "--bucket", bucket, "--shards-wait", "0", "--yes", *options]


@pytest.fixture
def restored() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def rows(printed: str) -> dict[str, tuple[str, str]]:
    """The rows of the table: (outcome, note) by step."""
    found = re.findall(r"^\| (.+?) \| (\S+) \| [\d,]+ \| (.*) \|$", printed, re.M)
    return {step: (outcome, note) for step, outcome, note in found}


def left_of_checks(bucket: str) -> list[str]:
    return [path for path, _ in list_files(bucket) if "broetchen-gcp-check-" in path]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("cloud", "restored")
def test_all_of_it_passes_and_leaves_nothing(
    dataflow: DataflowService, gcs_bucket: str, capfd: pytest.CaptureFixture[str]
) -> None:
    kept = f"{gcs_bucket}/broetchen-gcp-check-of-somebody-else"
    storage.write_bytes(kept, b"mine")

    def run_the_second_job() -> None:
        while not any(job["currentState"] == "JOB_STATE_CANCELLED" for job in dataflow.jobs.values()):
            time.sleep(0.05)
        dataflow.runs = True

    threading.Thread(target=run_the_second_job, daemon=True).start()
    code = main(arguments(dataflow, gcs_bucket))
    printed = capfd.readouterr().out
    assert code == 0, printed
    found = rows(printed)
    assert list(found) == STEPS
    assert {outcome for outcome, _ in found.values()} == {"ok"}
    assert re.fullmatch(r"\d\d files, manifests among them", found["the files of the build here, hash for hash"][1])
    assert [job["currentState"] for job in dataflow.jobs.values()] == ["JOB_STATE_CANCELLED", "JOB_STATE_DONE"]
    assert left_of_checks(gcs_bucket) == [kept]
    storage.delete([kept])
    sent = printed.partition("Please send us this table")[2]
    assert PROJECT not in sent
    assert gcs_bucket.removeprefix("gs://") not in sent


@pytest.mark.usefixtures("restored")
def test_what_fails_is_told_and_what_needs_it_is_not_tried(
    dataflow: DataflowService, gcs_bucket: str, capfd: pytest.CaptureFixture[str]
) -> None:
    code = main(arguments(dataflow, "no-such-bucket-of-ours"))
    assert code == 1
    found = rows(capfd.readouterr().out)
    assert list(found) == STEPS
    assert found[STEPS[0]][0] == "**failed**"
    assert "BUCKET" in found[STEPS[0]][1]
    assert {found[step] for step in STEPS[1:7]} == {("–", "not tried, as a step before it failed")}
    assert found[STEPS[7]] == ("ok", "none was left")
    assert not dataflow.jobs


@pytest.mark.slow
def test_ctrl_c_cancels_its_job_and_cleans_up(dataflow: DataflowService, gcs_bucket: str, tmp_path: Path) -> None:
    """Here while it waits for shards of a job that never has any."""
    command = [sys.executable, "-m", "tests.campaign.gcp", *arguments(dataflow, gcs_bucket), "--shards-wait", "600"]
    with (
        (tmp_path / "said").open("w") as said,
        subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        ) as process,
    ):
        try:
            assert dataflow.created.wait(300), (tmp_path / "said").read_text()
            process.send_signal(signal.SIGINT)
            code = process.wait(300)
        finally:
            process.kill()
    printed = (tmp_path / "said").read_text()
    assert code == 130, printed
    assert rows(printed)["a job on Dataflow, ended by Ctrl-C"] == ("**failed**", "interrupted")
    assert rows(printed)["the folder in the bucket, deleted"][0] == "ok"
    assert not dataflow.active()
    assert left_of_checks(gcs_bucket) == []


# --- Before it begins ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ([], "PROJECT=''"),
        (["--project", "My Project", "--bucket", "b-1"], "PROJECT='My Project'"),
        (["--project", PROJECT], "BUCKET=''"),
        (["--project", PROJECT, "--bucket", "gs://a-bucket/folder"], "BUCKET='a-bucket/folder'"),
        (["--project", PROJECT, "--bucket", "a-bucket", "--region", "us-central1-b"], "REGION='us-central1-b'"),
        (["--project", PROJECT, "--bucket", "a-bucket", "--tpu", "v7x"], "no TPU slice"),
        (["--project", PROJECT, "--bucket", "a-bucket", "--tpu", "v4-8"], "ZONE="),
        (["--project", PROJECT, "--bucket", "a-bucket", "--tpu", "v6e-1", "--region", "europe-west4"], "ZONE="),
    ],
)
def test_names_that_are_none_are_refused(given: list[str], named: str) -> None:
    with pytest.raises(UsageError, match=re.escape(named)):
        parse_arguments(given)


def test_nothing_is_done_without_a_yes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", open("/dev/null"))  # noqa: SIM115
    assert main(["--project", PROJECT, "--bucket", "gs://a-bucket/"]) == 2
    captured = capsys.readouterr()
    assert captured.out.startswith("This costs two jobs on Dataflow")
    assert "YES=1" in captured.err


def test_the_price_is_that_of_the_jobs_and_of_the_slice() -> None:
    setting = Setting(PROJECT, "a-bucket", "us-central1", "us-central1-b")
    assert "at most about $0.28 at the list prices of 2024" in price(setting)
    assert "v6e" not in price(setting)
    with_slice = Setting(PROJECT, "a-bucket", "us-central1", "us-central1-b", "v6e-1")
    assert "a v6e-1 for up to half an hour: about $1.35 ($2.70 an hour (Google's list prices" in price(with_slice)
    unknown = Setting(PROJECT, "a-bucket", "us-central1", "mars-north1-a", "v6e-1")
    assert "whose price in mars-north1-a is not known" in price(unknown)


def test_the_table_says_what_ran_and_where() -> None:
    setting = Setting(PROJECT, "a-bucket", "us-central1", "us-central1-b", "v6e-1")
    outcomes = [Outcome("a", True, 1234.5, "x|y"), Outcome("b", False, 0.4, "no"), Outcome("c", None, 0, "not tried")]
    lines = table(setting, outcomes).splitlines()
    assert "apache-beam" in lines[0]
    assert "us-central1, TPU v6e-1 in us-central1-b" in lines[0]
    assert lines[-3:] == ["| a | ok | 1,234 | x/y |", "| b | **failed** | 0 | no |", "| c | – | 0 | not tried |"]
