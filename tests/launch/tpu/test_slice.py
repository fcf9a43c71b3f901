"""Requests for TPUs: made once, waited for through all states, refused for many reasons, never made unasked."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from launch.tpu.gcloud import GcloudError, kind_and_advice
from launch.tpu.slice import PreemptedError
from launch.tpu.target import resource_name
from tests.support.services.recording_gcloud import NOT_FOUND, Recorder
from tests.support.services.tpu_cloud import MakeVm, cloud, corpus, make_vm, no_canary, start, verbs
from transforms.errors import BroetchenError, UsageError

__all__ = ["cloud", "corpus", "make_vm", "no_canary"]

QUOTA = (
    "ERROR: (gcloud.compute.tpus.queued-resources.create) RESOURCE_EXHAUSTED: Quota limit "
    "'TPUV6EPerProjectPerZoneForTPUAPI' has been exceeded. Limit: 0 in zone europe-west4-a."
)
CAPACITY = (
    'There is no more capacity in the zone "europe-west4-a"; you can try in another zone where Cloud TPU Nodes are '
    "offered (see https://cloud.google.com/tpu/docs/regions) [EID: 0x1]"
)


@pytest.mark.slow
def test_a_request_is_found_again(cloud: Recorder, make_vm: MakeVm) -> None:
    cloud.add_request("nano-demo-1", labels={"broetchen": "nano-demo-1"}, states=["WAITING_FOR_RESOURCES", "ACTIVE"])
    start(make_vm())
    assert "queued-resources create" not in verbs(cloud)
    with pytest.raises(UsageError, match="it is a v6e-8 slice, and the config wants v6e-8 spot; `delete` it first"):
        start(make_vm(spot=True))


def test_a_stranger_of_the_same_name_is_left_alone(cloud: Recorder, make_vm: MakeVm) -> None:
    cloud.add_request("nano-demo-1")
    vm = make_vm()
    for act in (lambda: start(vm), lambda: vm.delete(yes=True), vm.stop, vm.logs):
        with pytest.raises(UsageError, match="not made by Brötchen"):
            act()
    assert set(verbs(cloud)) == {"queued-resources describe", "tpu-vm describe"}


def test_a_label_may_be_the_slices_alone(cloud: Recorder, make_vm: MakeVm) -> None:
    cloud.add_request("nano-demo-1", accelerator="")
    cloud.play(labels={"broetchen": "nano-demo-1"})
    start(make_vm())
    assert len(cloud.trained()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("state", ["SUSPENDED", "FAILED", "SUSPENDING"])
def test_a_request_that_has_ended_is_made_anew(cloud: Recorder, make_vm: MakeVm, state: str) -> None:
    after = {"SUSPENDING": ["SUSPENDING", "SUSPENDED"]}.get(state, [state])
    cloud.add_request("nano-demo-1", spot=True, labels={"broetchen": "nano-demo-1"}, states=after)
    start(make_vm(spot=True))
    did = verbs(cloud)
    assert did.index("queued-resources delete") < did.index("queued-resources create")
    assert len(cloud.trained()) == 1


def test_preempted_while_it_is_waited_for(cloud: Recorder, make_vm: MakeVm) -> None:
    cloud.play(states=["PROVISIONING", "ACTIVE", "SUSPENDED"], nodes=["CREATING"])
    with pytest.raises(PreemptedError):
        start(make_vm(spot=True))


@pytest.mark.parametrize(
    ("said", "kind", "advice"),
    [
        (QUOTA, "quota", "iam-admin/quotas"),
        (f"ERROR: (gcloud.x) {CAPACITY}", "no-capacity", "try another zone"),
        (
            "ERROR: (gcloud.x) PERMISSION_DENIED: Permission 'tpu.nodes.create' denied on 'projects/p'",
            "permission",
            "roles/tpu.admin",
        ),
        (
            "ERROR: (gcloud.x) PERMISSION_DENIED: Permission denied on 'locations/europe-x9-z' (or it may not exist).",
            "wrong-zone",
            "accelerator-types list",
        ),
        (
            "ERROR: (gcloud.x) INVALID_ARGUMENT: Accelerator type v6e-8 is not available in zone us-west1-a",
            "wrong-zone",
            "regions-zones",
        ),
        (
            "ERROR: (gcloud.x) PERMISSION_DENIED: Cloud TPU API has not been used in project 5 before or is disabled.",
            "api-disabled",
            "gcloud services enable",
        ),
        (
            "ERROR: (gcloud.x) You do not currently have an active account selected.\nPlease run:\n  $ gcloud auth",
            "signed-out",
            "gcloud auth login",
        ),
        (
            "ERROR: (gcloud.x) Error parsing [queued_resource].\nFailed to find attribute [project].",
            "no-project",
            "gcloud config set project",
        ),
        ("ERROR: (gcloud.x) ALREADY_EXISTS: Resource 'x' already exists", "exists", "name"),
    ],
)
def test_what_google_cloud_refuses(cloud: Recorder, make_vm: MakeVm, said: str, kind: str, advice: str) -> None:
    assert kind_and_advice(said)[0] == kind
    cloud.play(**{"queued-resources create": [f"Create request issued for: [x]\n{said}"]})
    with pytest.raises(BroetchenError) as refused:
        start(make_vm())
    message = str(refused.value)
    assert advice in message
    assert "\n" not in message
    assert cloud.requests() == {}


def test_a_request_that_fails_in_the_queue(cloud: Recorder, make_vm: MakeVm) -> None:
    cloud.play(states=["WAITING_FOR_RESOURCES", "FAILED"], failure=CAPACITY)
    with pytest.raises(BroetchenError, match=r"the request has failed \(There is no more capacity.*try another zone"):
        start(make_vm())


@pytest.mark.parametrize("node", ["STOPPED", "STOPPING", "HIDDEN"])
def test_a_slice_that_somebody_stopped(cloud: Recorder, make_vm: MakeVm, node: str) -> None:
    cloud.play(nodes=[node])
    with pytest.raises(BroetchenError, match=f"the slice is {node}; delete it"):
        start(make_vm())


def test_status_of_each_state(cloud: Recorder, make_vm: MakeVm, capfd: pytest.CaptureFixture[str]) -> None:
    vm = make_vm(spot=True)
    vm.status()
    assert "there is no such slice in europe-west4-a" in capfd.readouterr().out
    cloud.play(failure=CAPACITY)
    for states, nodes, said in (
        (["WAITING_FOR_RESOURCES"], [""], "it waits for free TPUs"),
        (["SUSPENDED"], [""], "it was preempted; `start` requests it again"),
        (["FAILED"], [""], "no more capacity"),
        (["ACTIVE"], ["PREEMPTED"], "it was preempted; `start` requests it again"),
        (["ACTIVE"], ["CREATING"], "v6e-8 spot: CREATING"),
    ):
        cloud.add_request("nano-demo-1", spot=True, labels={"broetchen": "nano-demo-1"}, states=states)
        cloud.play(nodes=nodes, failure=CAPACITY)
        vm.status()
        assert said in capfd.readouterr().out


def test_nothing_is_created_unasked(
    cloud: Recorder, make_vm: MakeVm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="give --yes"):
        make_vm().start()
    assert "europe-west4-a: $23.76 an hour (Google's list prices, looked up on" in capsys.readouterr().out
    with pytest.raises(UsageError, match="write it into the config as `price_per_hour`, or give --yes"):
        make_vm(zone="africa-south1-a").start()

    ours, theirs = os.openpty()
    with os.fdopen(theirs) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        os.write(ours, b"n\n")
        with pytest.raises(BroetchenError, match="nothing was done"):
            make_vm(price_per_hour=12.5).start()
        assert "europe-west4-a: $12.50 an hour (the config's price_per_hour)" in capsys.readouterr().out
        assert cloud.requests() == {}
        os.write(ours, b"y\n")
        make_vm(spot=True).start()
        assert "slice in europe-west4-a, and again after each preemption: at most $23.76" in capsys.readouterr().out
        os.write(ours, b"\n")
        with pytest.raises(BroetchenError, match="nothing was done"):
            make_vm(spot=True).delete()
    os.close(ours)
    assert list(cloud.requests()) == ["nano-demo-1"]


def test_gcloud_is_missing(make_vm: MakeVm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="gcloud is not on the PATH; install the Google Cloud CLI"):
        start(make_vm())


def test_gcloud_answers_something_else(cloud: Recorder, make_vm: MakeVm) -> None:
    (cloud.bin / "gcloud").write_text("#!/bin/sh\necho hello\n")
    with pytest.raises(BroetchenError, match="gcloud answered no JSON but 'hello'"):
        make_vm().status()


def test_not_found_is_not_an_error_to_look_for(cloud: Recorder, make_vm: MakeVm) -> None:
    assert kind_and_advice(NOT_FOUND)[0] == "not-found"
    cloud.play(**{"queued-resources describe": [QUOTA]})
    with pytest.raises(GcloudError) as refused:
        make_vm().status()
    assert refused.value.kind == "quota"


def test_names_in_google_cloud() -> None:
    assert resource_name("x" * 39 + "-y") == "x" * 39
    assert resource_name("ÄÖ") == "run"
