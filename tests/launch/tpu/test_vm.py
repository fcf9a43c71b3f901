"""A run on a TPU VM: machines that are set up, a job that is kept running, logs, preemptions.

gcloud is played; the machines' shells, and the scripts that they run, are real.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from launch.job import JobFile, TrainingJob
from launch.maxtext.command import arguments
from launch.shell_script import file_lines
from launch.tpu.gcloud import GcloudError
from launch.tpu.job_folder import LOCK, train_script
from launch.tpu.slice import PreemptedError
from tests.support.services.recording_gcloud import GCSFUSE, Recorder
from tests.support.services.tpu_cloud import (
    HOSTILE,
    JOBS,
    JOBS_MADE,
    MakeVm,
    cloud,
    corpus,
    make_vm,
    no_canary,
    start,
    verbs,
)
from transforms.errors import BroetchenError

__all__ = ["cloud", "corpus", "make_vm", "no_canary"]


@pytest.mark.slow
def test_a_run_starts(cloud: Recorder, make_vm: MakeVm, caplog: pytest.LogCaptureFixture) -> None:
    cloud.play(
        states=["CREATING", "ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"],
        nodes=["", "CREATING", "READY"],
        machines=2,
    )
    caplog.set_level(logging.INFO)
    start(make_vm(spot=True, network="net", subnetwork="sub", internal_ips=True, give_up_after="6h"))
    assert cloud.calls("gcloud", "create") == [
        ["compute", "tpus", "queued-resources", "create", "nano-demo-1", "--node-id=nano-demo-1",
         "--accelerator-type=v6e-8", "--runtime-version=v2-alpha-tpuv6e", "--labels=broetchen=nano-demo-1",
         "--network=net", "--subnetwork=sub", "--valid-until-duration=6h", "--spot", "--internal-ips",
         "--zone=europe-west4-a", "--project=my-project-123", "--quiet"]
    ]  # fmt: skip
    assert JOBS_MADE.made is not None
    wanted = list(arguments(JOBS_MADE.made, f"{JOBS}/nano-demo-1"))
    for number in range(2):
        # Word for word what was meant, through ssh's shell and bash: on each machine the same.
        here = [word.replace(str(cloud.machine(number)), "") for word in cloud.trained(number)[0]]
        assert here == wanted
        assert [one for one in wanted if "touch CANARY" in one]
    for state in ("WAITING_FOR_RESOURCES", "PROVISIONING", "the slice is CREATING"):
        assert state in caplog.text
    settings = json.loads(JOBS_MADE.made.files[-1].content)
    assert all(value["path"].startswith("/mnt/broetchen/broetchen-tests/") for value in settings.values())


def test_the_machines_are_set_up_once(cloud: Recorder, make_vm: MakeVm, capfd: pytest.CaptureFixture[str]) -> None:
    cloud.play(trainer=[0])
    vm = make_vm()
    start(vm)
    start(vm)
    assert len(cloud.calls("gcloud", "create")) == 1
    assert sum("install" in call for call in cloud.installed()) == 1
    assert len(cloud.trained()) == 2
    out = capfd.readouterr().out
    assert out.count("installs MaxText") == 1
    units = cloud.machine() / "etc/systemd/system"
    assert sorted(path.name for path in units.iterdir()) == [
        "broetchen-mount-broetchen-tests.service",
        "broetchen-nano-demo-1.service",
    ]
    assert (cloud.machine() / "etc/apt/sources.list.d/gcsfuse.list").read_text().startswith("deb [signed-by=")


@pytest.mark.slow
def test_a_job_that_runs_is_left_alone(cloud: Recorder, make_vm: MakeVm, capfd: pytest.CaptureFixture[str]) -> None:
    start(make_vm())
    start(make_vm())
    assert len(cloud.trained()) == 1
    assert "the job runs already" in capfd.readouterr().out
    with pytest.raises(GcloudError, match="ended with 3") as refused:
        start(make_vm(max_restarts=5))
    assert refused.value.kind == "remote"
    assert "made from another config: stop it first" in capfd.readouterr().out
    assert len(cloud.trained()) == 1


@pytest.mark.slow
def test_a_trainer_that_fails_is_started_again_a_few_times(
    cloud: Recorder, make_vm: MakeVm, capfd: pytest.CaptureFixture[str]
) -> None:
    cloud.play(trainer=[1, 1, 77])
    vm = make_vm(max_restarts=3)
    start(vm)
    vm.status()
    assert "t1v-n-1-w-0: running, restarted 2 times" in capfd.readouterr().out
    cloud.play(trainer=[1])
    vm.stop()
    start(vm)
    vm.status()
    assert "t1v-n-1-w-0: failed (exit-code, exit status 1), restarted 3 times" in capfd.readouterr().out
    assert len(cloud.trained()) == 3 + 4
    with pytest.raises(BroetchenError, match="the job has failed and is not started again"):
        vm.logs(follow=True)


@pytest.mark.slow
def test_a_run_that_ends_early_has_failed(cloud: Recorder, make_vm: MakeVm, capfd: pytest.CaptureFixture[str]) -> None:
    """MaxText's exit status is 0 then; to start it again would pay for the same end."""
    said = "Training stopped: You may have run out of training data. Received <class 'StopIteration'> exception: ()"
    cloud.play(trainer=[0], said=["Saved a checkpoint at step 0.", "completed step: 2, seconds: 1", said])
    vm = make_vm(max_restarts=3)
    start(vm)
    assert len(cloud.trained()) == 1
    vm.status()
    why = "the data has no more for a step; steps 1 to 2 are not saved"
    ended = f"the training ended early, last step 2 of 4: {why}"
    assert f"machine   t1v-n-1-w-0: ended early; {ended}\n" in capfd.readouterr().out
    with pytest.raises(BroetchenError, match="the job has failed and is not started again"):
        vm.logs(follow=True)
    assert f"broetchen: {ended}\n" in capfd.readouterr().out
    # The loss that was wanted is no failure.
    cloud.play(trainer=[0], said=["Training stopped: Target loss self.config.target_eval_loss=3.0 is achieved."])
    start(vm)
    vm.status()
    assert "t1v-n-1-w-0: not running\n" in capfd.readouterr().out


@pytest.mark.slow
def test_a_preempted_run_goes_on(cloud: Recorder, make_vm: MakeVm, capfd: pytest.CaptureFixture[str]) -> None:
    cloud.play(meanwhile=["preempted", "-", "inactive"])
    vm = make_vm(spot=True)
    start(vm)
    vm.logs(follow=True)
    assert len(cloud.calls("gcloud", "create")) == 2
    assert len(cloud.calls("gcloud", "delete")) == 1
    assert len(cloud.trained()) == 1
    assert "the job is inactive" in capfd.readouterr().out
    assert len(list(cloud.folder.glob("former-*"))) == 1


@pytest.mark.slow
def test_a_preempted_run_waits_where_that_is_wanted(cloud: Recorder, make_vm: MakeVm) -> None:
    cloud.play(meanwhile=["preempted", "-"])
    vm = make_vm(spot=True, resume_preempted=False)
    start(vm)
    with pytest.raises(BroetchenError, match="it was preempted; `start` requests it again"):
        vm.logs(follow=True)
    assert len(cloud.calls("gcloud", "create")) == 1
    start(vm)
    assert len(cloud.calls("gcloud", "create")) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "said"), [("deleted", "start the run first"), ("deleted-slice", "somebody has deleted")]
)
def test_a_slice_that_somebody_deletes_stays_deleted(cloud: Recorder, make_vm: MakeVm, what: str, said: str) -> None:
    cloud.play(meanwhile=[what, "-"])
    vm = make_vm(spot=True)
    start(vm)
    with pytest.raises(BroetchenError, match=said):
        vm.logs(follow=True)
    assert len(cloud.calls("gcloud", "create")) == 1


LOST = "ERROR: (gcloud.compute.tpus.tpu-vm.ssh) [/usr/bin/ssh] exited with return code [255]."


def test_machines_that_do_not_answer_yet(cloud: Recorder, make_vm: MakeVm) -> None:
    cloud.play(**{"tpu-vm scp": [LOST, LOST, ""], "tpu-vm ssh": [LOST, ""]})
    start(make_vm())
    assert len(cloud.trained()) == 1
    assert verbs(cloud).count("tpu-vm scp") == 4
    cloud.play(**{"tpu-vm scp": [LOST]})
    with pytest.raises(GcloudError, match="does the network's firewall let ssh in"):
        start(make_vm())


def test_gone_while_it_is_set_up(cloud: Recorder, make_vm: MakeVm) -> None:
    cloud.play(states=["ACTIVE", "SUSPENDED"], **{"tpu-vm scp": [LOST]})
    with pytest.raises(PreemptedError):
        start(make_vm(spot=True))


def test_a_bucket_that_cannot_be_mounted(cloud: Recorder, make_vm: MakeVm, capfd: pytest.CaptureFixture[str]) -> None:
    cloud.play(mount_fails=True)
    with pytest.raises(GcloudError, match="ended with 4"):
        start(make_vm())
    assert "cannot mount gs://broetchen-tests: may the service account" in capfd.readouterr().out
    assert cloud.trained() == []


def test_what_is_installed_is_known_by_its_hash(cloud: Recorder, make_vm: MakeVm, tmp_path: Path) -> None:
    """uv too, by the machine's pip: no script of the network's is run."""
    cloud.play(pip_is_missing=1)
    start(make_vm(gcsfuse=f"9.9.9@sha256:{hashlib.sha256(GCSFUSE.encode()).hexdigest()}"))
    calls = {name: cloud.machine_calls(name) for name in ("curl", "python3", "uv", "apt-get")}
    (fetched,) = calls["curl"]
    assert fetched[-1].endswith("/v9.9.9/gcsfuse_9.9.9_amd64.deb")
    (installed,) = (call for call in calls["python3"] if "install" in call)
    assert installed[-1] == "uv.lock"
    assert {"--require-hashes", "--only-binary"} <= set(installed)
    assert {"--require-hashes", "--only-binary"} <= set(calls["uv"][-1])
    assert any("python3-pip" in call for call in calls["apt-get"])
    assert not list((cloud.machine() / "etc/apt").glob("**/*"))
    assert len(cloud.trained()) == 1


def test_another_package_of_gcsfuse_is_not_installed(
    cloud: Recorder, make_vm: MakeVm, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(GcloudError, match="ended with 6"):
        start(make_vm(gcsfuse=f"9.9.9@sha256:{'0' * 64}"))
    assert "the package of gcsfuse 9.9.9 is not the one that tpu_vm.gcsfuse names" in capfd.readouterr().out
    assert not [call for call in cloud.installed() if "install" in call]
    assert not list((cloud.machine() / "opt/broetchen").glob("*.deb"))
    assert cloud.trained() == []


def test_stop_and_delete(cloud: Recorder, make_vm: MakeVm, capfd: pytest.CaptureFixture[str]) -> None:
    vm = make_vm()
    start(vm)
    vm.stop()
    vm.status()
    assert "t1v-n-1-w-0: not running" in capfd.readouterr().out
    vm.delete(yes=True)
    vm.delete(yes=True)
    assert cloud.calls("gcloud", "delete") == [
        ["compute", "tpus", "queued-resources", "delete", "nano-demo-1", "--force", "--zone=europe-west4-a",
         "--project=my-project-123", "--quiet"]
    ]  # fmt: skip
    assert cloud.requests() == {}
    with pytest.raises(BroetchenError, match="start the run first"):
        vm.logs()


@pytest.mark.slow
def test_a_dry_run_can_be_pasted(cloud: Recorder, make_vm: MakeVm) -> None:
    vm = make_vm()
    script = vm.dry_run().script
    assert cloud.calls("gcloud") == []
    assert "$23.76 an hour" in script
    cloud.play(states=["PROVISIONING", "ACTIVE"])
    shell = {**os.environ, "PATH": f"{cloud.folder / 'machine'}:{os.environ['PATH']}", "RECORDING_ROOT": str(cloud.bin)}
    subprocess.run(["bash", "-eu"], input=script, text=True, check=True, env=shell, capture_output=True)
    by_hand = cloud.trained()
    files = {path.name: path.read_bytes() for path in Path("broetchen-nano-demo-1").iterdir()}
    vm.delete(yes=True)
    start(vm)
    copied = {path.name: path.read_bytes() for path in (cloud.machine() / "home/broetchen-nano-demo-1").iterdir()}
    assert {**files, "settings.sh": b""} == {**copied, "settings.sh": b""}
    assert by_hand == cloud.trained()
    assert len(by_hand) == 1


def test_a_file_that_has_the_line_that_ends_it() -> None:
    text = "END_OF_FILE\nEND_OF_FILE_\n$(touch CANARY)\n"
    written = subprocess.run(
        ["bash", "-c", f"{file_lines('.', JobFile('a file', text, 'x'))}\ncat 'a file'"], capture_output=True, text=True
    )
    assert (written.stdout, written.stderr) == (text, "")


def test_the_lock_is_maxtexts() -> None:
    lines = LOCK.read_text().splitlines()
    pinned = [line.split("==")[0].partition("[")[0] for line in lines if "==" in line and not line.startswith(" ")]
    assert {"maxtext", "jax", "libtpu", "grain", "array-record"} <= set(pinned)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here to check its units")
def test_the_units_are_systemds(cloud: Recorder, make_vm: MakeVm, tmp_path: Path) -> None:
    start(make_vm())
    units = sorted((cloud.machine() / "etc/systemd/system").iterdir())
    for unit in units:
        text = unit.read_text()
        program = text.partition("ExecStart=")[2].split()[0]
        text = text.replace(program, "/bin/true", 1).replace(f"WorkingDirectory={JOBS}/nano-demo-1", "")
        (tmp_path / unit.name).write_text(text)
    checked = subprocess.run(
        ["systemd-analyze", "verify", *(tmp_path / unit.name for unit in units)], capture_output=True, text=True
    )
    ours = [line for line in checked.stderr.splitlines() if "broetchen" in line]
    assert (checked.returncode, ours) == (0, [])


def test_the_trainer_may_open_as_many_files_as_the_machine_allows(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/bash\necho $(ulimit -S -n) $(ulimit -H -n)\n")
    python.chmod(0o700)
    script = train_script(TrainingJob("job", {}, ()), str(tmp_path), str(python))
    limited = f"ulimit -S -n 100\n{script}"
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True)
    soft, hard = done.stdout.split()
    assert (soft, done.stderr, done.returncode) == (hard, "", 0)


def test_hostile_words_in_settings_stay_words(tmp_path: Path) -> None:
    shown = shlex.join(["python", HOSTILE])
    done = subprocess.run(["sh", "-c", f"printf '%s\\n' {shown}"], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.split("\n")[1] == HOSTILE
