"""A run as a workload of a cluster: xpk is played, its shells and the container's script are real."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import launch.tpu.target
from launch.config.training import load_training_config
from launch.maxtext.command import arguments
from launch.tpu.xpk import Xpk
from tests.support.services.recording_gcloud import Recorder
from tests.support.services.tpu_cloud import Jobs, cloud, config_file, corpus, no_canary
from transforms.errors import BroetchenError, UsageError

__all__ = ["cloud", "corpus", "no_canary"]

SECTION = {
    "accelerator": "v6e-8",
    "zone": "europe-west4-a",
    "project": "my-project-123",
    "cluster": "my-cluster",
    "num_slices": 2,
}
WHERE = ["--cluster=my-cluster", "--zone=europe-west4-a", "--project=my-project-123"]
STORAGE = "broetchen-broetchen-tests"

MakeXpk = Callable[..., Xpk]

_JOBS = Jobs()


@pytest.fixture
def make_xpk(tmp_path: Path, corpus: str, cloud: Recorder, monkeypatch: pytest.MonkeyPatch) -> MakeXpk:
    monkeypatch.setattr(launch.tpu.target, "checked_job", _JOBS)

    def make(**section: Any) -> Xpk:
        return Xpk(load_training_config(config_file(tmp_path, corpus, xpk=SECTION | section)))

    return make


@pytest.mark.slow
def test_a_workload_starts_once(cloud: Recorder, make_xpk: MakeXpk, capfd: pytest.CaptureFixture[str]) -> None:
    cloud.play(maxtext_is_missing=1)
    xpk = make_xpk(spot=True)
    xpk.start(yes=True)
    created = cloud.calls("xpk", "create")
    folder = next(word for word in created[0] if word.startswith("--script-dir=")).partition("=")[2]
    assert created == [
        ["workload", "create", "--workload=nano-demo-1", "--tpu-type=v6e-8", "--num-slices=2",
         "--base-docker-image=python:3.12-slim-bookworm", f"--script-dir={folder}", "--command=bash /app/train.sh",
         "--max-restarts=10", "--restart-on-exit-codes=1-64,66-126", "--priority=medium", "--spot",
         f"--storage={STORAGE}",
         *WHERE]
    ]  # fmt: skip
    assert not Path(folder).exists()
    assert _JOBS.made is not None
    # Looks for MaxText, installs it, and trains: each word as it was meant.
    probe, install, trained = ([word.replace(str(cloud.machine()), "") for word in call] for call in cloud.trained())
    assert probe == ["-c", "import maxtext, libtpu"]
    assert install[-2:] == ["--requirement", "/app/trainer.lock"]
    assert trained == list(arguments(_JOBS.made, "/app"))
    assert _JOBS.made.parameters["run_name"] == "Nano_Demo.1"
    said = capfd.readouterr().out
    assert "2 slices v6e-8 spot in europe-west4-a, as nodes of my-cluster: at most $47.52" in said

    xpk.start(yes=True)
    assert len(cloud.calls("xpk", "create")) == 1
    xpk.stop()
    xpk.start(yes=True)
    assert len(cloud.calls("xpk", "create")) == 2
    assert len(cloud.calls("xpk", "attach")) == 1
    xpk.logs(follow=True)
    assert "completed step: 0" in capfd.readouterr().out
    assert cloud.calls("kubectl")[0][:3] == [
        "logs",
        "--selector=xpk.google.com/workload=nano-demo-1,jobset.sigs.k8s.io/job-index=0,"
        "batch.kubernetes.io/job-completion-index=0",
        "--container=jax-tpu",
    ]


def test_a_storage_is_attached_read_only(cloud: Recorder, make_xpk: MakeXpk) -> None:
    make_xpk().start(yes=True)
    (attached,) = cloud.calls("xpk", "attach")
    assert attached[:3] == ["storage", "attach", STORAGE]
    assert {"--type=gcsfuse", "--readonly=true", "--auto-mount=false", "--bucket=broetchen-tests"} <= set(attached)
    assert "--mount-point=/mnt/broetchen/broetchen-tests" in attached


def test_a_workload_that_has_ended_is_made_anew(cloud: Recorder, make_xpk: MakeXpk) -> None:
    cloud.add_workload("nano-demo-1", "FINISHED")
    make_xpk().start(yes=True)
    did = [" ".join(call[:2]) for call in cloud.calls("xpk")]
    assert did.index("workload delete") < did.index("workload create")


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        (
            "[XPK] ERROR: (gcloud.container.clusters.list) You do not currently have an active account selected.",
            "login",
        ),
        ("ERROR: PERMISSION_DENIED: Permission 'container.jobs.create' denied on 'projects/p'", "roles/tpu.admin"),
        ("[XPK] v6e-8 is not available: Quota exceeded", "quotas"),
    ],
)
def test_what_xpk_refuses(cloud: Recorder, make_xpk: MakeXpk, said: str, advice: str) -> None:
    cloud.play(**{"workload create": [said]})
    with pytest.raises(BroetchenError) as refused:
        make_xpk().start(yes=True)
    assert advice in str(refused.value)
    assert "\n" not in str(refused.value)


def test_nothing_is_created_unasked(cloud: Recorder, make_xpk: MakeXpk) -> None:
    with pytest.raises(UsageError, match="give --yes"):
        make_xpk().start()
    with pytest.raises(UsageError, match="price_per_hour"):
        make_xpk(zone="africa-south1-a").start()
    assert not cloud.calls("xpk", "create")
    assert not cloud.calls("xpk", "attach")


def test_there_is_no_workload(cloud: Recorder, make_xpk: MakeXpk, capfd: pytest.CaptureFixture[str]) -> None:
    xpk = make_xpk()
    with pytest.raises(BroetchenError, match="start it first"):
        xpk.logs()
    xpk.delete()
    assert "there is no such workload in my-cluster" in capfd.readouterr().out
    xpk.status()
    assert "Jobset Name" in capfd.readouterr().out


def test_a_workload_is_deleted_after_a_question(cloud: Recorder, make_xpk: MakeXpk) -> None:
    cloud.add_workload("nano-demo-1", "RUNNING")
    xpk = make_xpk()
    with pytest.raises(UsageError, match="give --yes"):
        xpk.delete()
    xpk.delete(yes=True)
    assert cloud.calls("xpk", "delete") == [["workload", "delete", "--workload=nano-demo-1", *WHERE]]


def test_a_dry_run_can_be_pasted(cloud: Recorder, make_xpk: MakeXpk) -> None:
    script = make_xpk().dry_run().script
    assert not cloud.calls("xpk")
    assert "$47.52 an hour" in script
    done = subprocess.run(["sh", "-eu"], input=script, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert _JOBS.made is not None
    trained = [word.replace(str(cloud.machine()), "") for word in cloud.trained()[-1]]
    assert trained == list(arguments(_JOBS.made, "/app"))


def test_a_folder_that_xpk_would_take_apart(
    cloud: Recorder, make_xpk: MakeXpk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = tmp_path / "a b;touch CANARY"
    hostile.mkdir()
    monkeypatch.setattr("tempfile.tempdir", os.fspath(hostile))
    with pytest.raises(UsageError, match="set TMPDIR to a path without special characters"):
        make_xpk().start(yes=True)
    assert not cloud.calls("xpk", "create")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cluster", "c; rm -rf /"),
        ("cluster", None),
        ("image", "a b"),
        ("image", "$(touch CANARY)"),
        ("priority", "x; touch CANARY"),
        ("num_slices", 0),
        ("name", "x" * 41),
    ],
)
def test_a_section_that_is_wrong(tmp_path: Path, key: str, value: Any) -> None:
    path = config_file(tmp_path, "gs://corpus/mix", xpk=SECTION | {key: value})
    with pytest.raises(UsageError, match=f"xpk.{key}"):
        load_training_config(path)


def test_no_section(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="add one, such as xpk:"):
        Xpk(load_training_config(config_file(tmp_path, "gs://corpus/mix")))
