"""`--target tpu-vm`: the job on all machines of a slice of TPUs.

The machines get a folder of files by scp and run its scripts by ssh (`vm_files`). MaxText's checkpoints are in the
output's bucket, so that a run goes on from the last of them wherever it is started again under its name.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from launch import shell_script
from launch.checks.budget import DryRun
from launch.checks.checked_job import CheckedJob
from launch.config.tpu import TpuVmConfig
from launch.config.training import TrainingConfig
from launch.job import Command, JobFile
from launch.maxtext.ending import EARLY
from launch.run_state import RunState
from launch.tpu import vm_files
from launch.tpu.gcloud import Gcloud, GcloudError, retried
from launch.tpu.job_folder import folder_lines, write_folder
from launch.tpu.queued_resource import PREEMPTED
from launch.tpu.slice import PreemptedError, TpuSlice
from launch.tpu.target import TpuTarget
from transforms.errors import BroetchenError, without_controls
from transforms.files.scratch import temporary_folder

_LOGGER = logging.getLogger(__name__)

_POLL_S = 15.0
# A machine takes a while from being up to letting ssh in, and a connection breaks now and then.
_CONNECTIONS = 10
_LASTING_S = 60.0
# The exit code of logs.sh where the job has failed.
_JOB_FAILED = 5

_PRICES = "https://cloud.google.com/tpu/pricing"


class TpuVm(TpuTarget[TpuVmConfig]):
    """One training run on one slice of TPUs."""

    def __init__(self, config: TrainingConfig, *, poll_s: float = _POLL_S) -> None:
        """A run on the slice that the section `tpu_vm` names.

        Args:
            config: the run.
            poll_s: seconds between two looks while it waits.

        Raises:
            UsageError: the config has no such section.
        """
        example = "tpu_vm: {accelerator: v6e-8, zone: europe-west4-a}"
        super().__init__(config, config.tpu_vm, example=example, machines="a TPU VM")
        self._gcloud = Gcloud(self._section.zone, self._section.project)
        self._slice = TpuSlice(self._name, self._section, self._gcloud, poll_s)

    def start(self, *, yes: bool = False, quiet: bool = False) -> None:
        """Starts the run, or goes on with it, on a slice that is requested unless it is there.

        Raises:
            UsageError: the config does not fit, or the name is taken.
            BroetchenError: Cloud TPU refused, or the machines could not be set up.
        """
        checked = self._checked_job()
        files = self._files(checked)
        if checked.order is not None:
            checked.order.write()
        self._slice.secure(yes=yes)
        try:
            self._set_up(files)
        except GcloudError as error:
            if error.kind == "unreachable" and self._slice.is_preempted(self._slice.request()):
                raise PreemptedError(f"{self._name}: {PREEMPTED}") from error
            raise
        checked.note(self._config)
        _LOGGER.info("%s: all machines are set up; `logs --follow` shows the trainer's log", self._name)

    def dry_run(self) -> DryRun:
        """The resources of the run, and a script that does the work of `start` by hand where there is no slice yet.

        Raises:
            UsageError: the config does not fit.
        """
        checked = self._checked_job()
        return self._dry_run(checked, self._script(checked, self._files(checked)))

    def status(self) -> None:
        """Prints the state of the request, of the slice and of the job on each machine."""
        self.state().tell()

    def state(self) -> RunState:
        """The state of the request, of the slice and of the job on each machine."""
        facts: dict[str, object] = {"run": self._name, "running": None, "request": None, "slice": None, "machines": []}
        request = self._slice.request()
        if request is None:
            where = f"there is no such slice in {self._section.zone}; it was not started, or is deleted"
            return RunState({**facts, "running": False}, (f"{self._name}: {where}",))
        facts["request"] = request.state
        lines = [f"request   {self._name}: {request.state}{request.explain_state()}"]
        if request.state != "ACTIVE":
            return RunState({**facts, "running": False}, tuple(lines))
        state = self._slice.node_state()
        price = self._section.price()
        cost = price.in_words() if price else f"not known here; see {_PRICES}"
        facts |= {"slice": state, "accelerator": request.accelerator, "spot": request.spot, "cost": cost}
        lines.append(f"slice     {request.accelerator}{' spot' if request.spot else ''}: {state or 'not there yet'}")
        lines.append(f"cost      {cost}")
        if state == "READY":
            command = self._ssh("all", vm_files.STATUS, "asks how the job is")
            machines = [machine_line(line) for line in sorted(self._gcloud.run(command).splitlines())]
            facts["machines"] = machines
            lines += [f"machine   {machine}" for machine in machines]
        elif self._slice.is_preempted(request):
            facts["running"] = False
            lines.append(f"{self._name}: {PREEMPTED}")
        return RunState(facts, tuple(lines))

    def logs(self, *, follow: bool = False) -> None:
        """Prints the log of the first machine's trainer; with `follow` until the job ends, over preemptions.

        Raises:
            BroetchenError: there is no slice, it was preempted and is not to be requested again, or the job failed.
        """
        request = self._slice.require_ours()
        command = self._ssh("0", f"{vm_files.LOGS}{' follow' if follow else ''}", "shows the trainer's log")
        if self._slice.is_preempted(request):
            self._resume(follow)
        elif request.state != "ACTIVE":
            raise BroetchenError(f"{self._name}: {request.state}{request.explain_state()}; there is no log now")
        lost = 0
        while True:
            began = time.monotonic()
            try:
                return self._gcloud.show(command)
            except GcloudError as error:
                if error.kind == "remote" and error.code == _JOB_FAILED:
                    what = "the job has failed and is not started again; fix the error in its log, and start it"
                    raise BroetchenError(f"{self._name}: {what}") from error
                # Of connections that last, any number may be lost.
                lost = 1 if time.monotonic() - began > _LASTING_S else lost + 1
                if error.kind != "unreachable" or lost == _CONNECTIONS:
                    raise
                request = self._slice.require_ours()
                if self._slice.is_preempted(request):
                    self._resume(follow)
                    lost = 0
                elif request.state != "ACTIVE":
                    raise BroetchenError(f"{self._name}: {request.state}{request.explain_state()}") from error
                elif not follow:
                    raise
                else:
                    _LOGGER.info("%s: the connection is lost; tries again", self._name)
                    self._slice.wait()

    def stop(self) -> None:
        """Stops the job; the slice stays, at its price."""
        request = self._slice.require_ours()
        if request.state != "ACTIVE":
            print(f"{self._name}: {request.state}; no job runs there")
            return
        self._gcloud.show(self._ssh("all", vm_files.STOP, "stops the job"))
        print(f"{self._name}: the machines stay and cost money; `delete` gives them back")

    def delete(self, *, yes: bool = False) -> None:
        """Deletes the slice and its request. Checkpoints are in the bucket and stay."""
        deleted = self._slice.delete(yes=yes)
        print(f"{self._name}: {'deleted' if deleted else f'there is no such slice in {self._section.zone}'}")

    def _resume(self, follow: bool) -> None:
        """Requests a preempted slice again, and starts the job on it. Its cost was agreed to when it was first made."""
        if not (follow and self._section.spot and self._section.resume_preempted):
            raise BroetchenError(f"{self._name}: {PREEMPTED}")
        while True:
            _LOGGER.info("%s: the slice was preempted; requests it again, and goes on with the run", self._name)
            try:
                return self.start(yes=True)
            except PreemptedError:
                self._slice.wait()

    def _files(self, checked: CheckedJob) -> tuple[JobFile, ...]:
        buckets, size = self._place.buckets, checked.mixture.data_bytes
        return vm_files.vm_files(self._name, checked.job, self._section, buckets, size)

    def _set_up(self, files: tuple[JobFile, ...]) -> None:
        with temporary_folder("vm") as scratch:
            folder = Path(scratch) / self._folder
            write_folder(folder, files)

            def attempt() -> None:
                self._gcloud.run(self._copy_command(str(folder)))
                self._gcloud.show(self._setup_command())

            retried(attempt, times=_CONNECTIONS, kinds=("unreachable",), wait=self._slice.wait)

    def _script(self, checked: CheckedJob, files: tuple[JobFile, ...]) -> str:
        """The steps of `start` where there is no slice yet, as a shell script."""
        price = self._section.price()
        state = self._slice.state_command()
        folder = self._folder
        return shell_script.script(
            [
                shell_script.comment(f"It costs {price.in_words() if price else f'what {_PRICES} says'}."),
                shell_script.command_lines(self._slice.create_command()),
                f"{shell_script.comment(state.purpose)}\n"
                f"until {state.shell_line()} | grep -x ACTIVE; do sleep 15; done",
                *folder_lines(folder, files),
                *([] if checked.order is None else checked.order.script_lines(folder)),
                shell_script.command_lines(self._copy_command(folder)),
                shell_script.command_lines(self._setup_command()),
            ]
        )

    def _copy_command(self, folder: str) -> Command:
        options = ("--recurse", "--worker=all", folder, f"{self._name}:")
        return self._gcloud.command("tpu-vm", "scp", *options, purpose="copies the job to all machines")

    def _setup_command(self) -> Command:
        return self._ssh("all", vm_files.SETUP, "sets up all machines and starts the job")

    def _ssh(self, worker: str, script: str, purpose: str) -> Command:
        """One of the job's scripts on the machines. A shell there reads this: it has fixed words and our own name."""
        options = (f"--worker={worker}", f"--command=bash {self._folder}/{script}")
        return self._gcloud.command("tpu-vm", "ssh", self._name, *options, purpose=purpose)


def machine_line(line: str) -> str:
    """A line of `status.sh` in words.

    >>> machine_line("worker=t1v-n-1-w-0 ActiveState=active Result=success ExecMainStatus=0 NRestarts=2")
    't1v-n-1-w-0: running, restarted 2 times'
    """
    properties, _, said = line.partition(" said=")
    values = dict(word.partition("=")[::2] for word in properties.split())
    state = values.get("ActiveState", line)
    if state == "failed":
        failed = f"failed ({values.get('Result')}, exit status {values.get('ExecMainStatus')})"
        state = "ended early" if values.get("ExecMainStatus") == str(EARLY) else failed
    words = {"active": "running", "activating": "starting, or about to start again", "inactive": "not running"}
    restarts = values.get("NRestarts", "0")
    again = "" if restarts == "0" else f", restarted {restarts} {'time' if restarts == '1' else 'times'}"
    told = f"; {without_controls(said)}" if said else ""
    return f"{values.get('worker', 'a machine')}: {words.get(state, state)}{again}{told}"
