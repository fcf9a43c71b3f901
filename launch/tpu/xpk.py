"""`--target xpk`: the job as a workload on a GKE cluster that xpk (https://github.com/AI-Hypercomputer/xpk) has made.

xpk puts the job's folder into an image, on top of the config's, and runs one fixed command in it. It builds its own
commands as text for a shell, unquoted (1.16): so all that it is given here is either fixed or of a form in which no
character means anything to a shell. The trainer's arguments stand, quoted, in a file of the folder.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable
from pathlib import Path

from launch import processes, shell_script
from launch.checks.budget import DryRun
from launch.checks.checked_job import CheckedJob
from launch.config.tpu import XpkConfig
from launch.config.training import TrainingConfig
from launch.job import Command, JobFile, TrainingJob
from launch.maxtext.ending import EARLY
from launch.places import mount_point
from launch.run_state import RunState
from launch.tpu.consent import ask, ask_about_cost
from launch.tpu.gcloud import kind_and_advice, message_of
from launch.tpu.gcsfuse import mount_options
from launch.tpu.job_folder import LOCK_NAME, RUNNER, folder_lines, train_script, write_folder
from launch.tpu.target import TpuTarget, resource_name
from transforms.errors import BroetchenError, UsageError, one_line
from transforms.files.scratch import temporary_folder

_LOGGER = logging.getLogger(__name__)

# Where xpk puts the folder in the image, and how it calls the container.
_APP = "/app"
_CONTAINER = "jax-tpu"

_SAFE_PATH = re.compile(r"[A-Za-z0-9/._-]+")

# The bytes of data that a cluster's node keeps: the CSI driver puts them on the node's disk.
_CACHE_BYTES = 40 * 2**30


class Xpk(TpuTarget[XpkConfig]):
    """One training run as one workload."""

    def __init__(self, config: TrainingConfig) -> None:
        """A run on the cluster that the section `xpk` names.

        Raises:
            UsageError: the config has no such section.
        """
        example = "xpk: {accelerator: v6e-8, zone: europe-west4-a, cluster: my-cluster}"
        super().__init__(config, config.xpk, example=example, machines="a cluster")

    def start(self, *, yes: bool = False, quiet: bool = False) -> None:
        """Starts the run, or goes on with it, unless it is running.

        Raises:
            UsageError: the config does not fit.
            BroetchenError: xpk failed.
        """
        checked = self._checked_job(self._section.num_slices)
        files, size = _files(checked.job), checked.mixture.data_bytes
        if self._is_listed("RUNNING") or self._is_listed("QUEUED"):
            _LOGGER.info("%s: the workload is in the cluster already", self._name)
            return
        slices = f"{self._section.num_slices} slices" if self._section.num_slices > 1 else "A slice"
        what = f"{slices} {self._section.accelerator}{' spot' if self._section.spot else ''} in {self._section.zone}"
        ask_about_cost(f"{what}, as nodes of {self._section.cluster}", self._section.price(), yes=yes)
        if checked.order is not None:
            checked.order.write()
        for bucket in self._place.buckets:
            if not self._has_storage(bucket):
                self._run(self._attach_command(bucket, size))
        if self._is_listed("FINISHED"):
            self._run(self._delete_command())
        with temporary_folder("workload") as scratch:
            if not _SAFE_PATH.fullmatch(scratch):
                what = "xpk hands it to a shell as it is"
                raise UsageError(f"{scratch!r}: {what}; set TMPDIR to a path without special characters")
            folder = Path(scratch) / self._folder
            write_folder(folder, files)
            self._show(self._create_command(str(folder)))
        checked.note(self._config)
        _LOGGER.info("%s: the workload is in the cluster; `logs --follow` shows its log", self._name)

    def dry_run(self) -> DryRun:
        """The resources of the run, and a script that does the work of `start` by hand for a new workload.

        Raises:
            UsageError: the config does not fit.
        """
        slices = self._section.num_slices
        checked = self._checked_job(slices)
        return self._dry_run(checked, self._script(checked, _files(checked.job), checked.mixture.data_bytes), slices)

    def status(self) -> None:
        """Prints xpk's line about the workload."""
        self._show(self._list_command("EVERYTHING"))

    def state(self) -> RunState:
        """Xpk's line about the workload."""
        lines = self._run(self._list_command("EVERYTHING")).splitlines()
        return RunState({"run": self._name, "running": None, "workloads": lines}, tuple(lines))

    def logs(self, *, follow: bool = False) -> None:
        """Prints the log of the first machine's trainer; with `follow` until it ends."""
        # This one also makes kubectl look at the cluster.
        if not self._is_listed("EVERYTHING"):
            raise BroetchenError(f"{self._name}: there is no such workload in {self._section.cluster}; start it first")
        first = "jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=0"
        options = ("--follow", "--tail=200") if follow else ("--tail=1000",)
        selector = f"--selector=xpk.google.com/workload={self._name},{first}"
        arguments = ("kubectl", "logs", selector, f"--container={_CONTAINER}", "--namespace=default", *options)
        self._show(Command(arguments, "shows the trainer's log"))

    def stop(self) -> None:
        """Deletes the workload, which is how xpk stops one; checkpoints and cluster stay."""
        if not self._is_listed("EVERYTHING"):
            print(f"{self._name}: there is no such workload in {self._section.cluster}")
            return
        self._run(self._delete_command())
        print(f"{self._name}: stopped; the cluster and its nodes stay and cost money")

    def delete(self, *, yes: bool = False) -> None:
        """The same, after a question. The cluster is not ours to delete."""
        if not yes and self._is_listed("EVERYTHING"):
            ask(f"Delete the workload {self._name} of {self._section.cluster}? Its checkpoints stay in the bucket.")
        self.stop()

    def _script(self, checked: CheckedJob, files: Iterable[JobFile], data_bytes: int) -> str:
        """The steps of `start` where the cluster has neither the storages nor the workload, as a shell script."""
        price = self._section.price()
        return shell_script.script(
            [
                shell_script.comment(f"Its nodes cost {price.in_words() if price else 'what is not known here'}."),
                *(shell_script.command_lines(self._attach_command(name, data_bytes)) for name in self._place.buckets),
                *folder_lines(self._folder, files),
                *([] if checked.order is None else checked.order.script_lines(self._folder)),
                shell_script.command_lines(self._create_command(self._folder)),
            ]
        )

    # --- xpk ----------------------------------------------------------------------------------------------------------

    def _xpk(self, *arguments: str, purpose: str) -> Command:
        project = (f"--project={self._section.project}",) if self._section.project else ()
        where = (f"--cluster={self._section.cluster}", f"--zone={self._section.zone}", *project)
        return Command(("xpk", *arguments, *where), purpose)

    def _create_command(self, folder: str) -> Command:
        section = self._section
        options = [
            f"--workload={self._name}",
            f"--tpu-type={section.accelerator}",
            f"--num-slices={section.num_slices}",
            f"--base-docker-image={section.image}",
            f"--script-dir={folder}",
            f"--command=bash {_APP}/train.sh",
            f"--max-restarts={section.max_restarts}",
            # xpk starts a workload again on 42 and from 127 on; Python ends with 1 where it fails. A run that has ended
            # early would end so again.
            f"--restart-on-exit-codes=1-{EARLY - 1},{EARLY + 1}-126",
            f"--priority={section.priority}",
            *(("--spot",) if section.spot else ()),
            *(f"--storage={_storage_name(bucket)}" for bucket in self._place.buckets),
        ]
        return self._xpk("workload", "create", *options, purpose="builds the job's image and starts the workload")

    def _delete_command(self) -> Command:
        return self._xpk("workload", "delete", f"--workload={self._name}", purpose="deletes the workload")

    def _list_command(self, status: str) -> Command:
        options = (f"--filter-by-status={status}", f"--filter-by-job=^{self._name}$")
        return self._xpk("workload", "list", *options, purpose="looks for the workload")

    def _attach_command(self, bucket: str, data_bytes: int) -> Command:
        options = [
            "--type=gcsfuse",
            f"--bucket={bucket}",
            f"--mount-point={mount_point(bucket)}",
            "--readonly=true",
            "--auto-mount=false",
            f"--size={max(1, -(-data_bytes // 10**9))}",
            f"--mount-options={mount_options(cache_bytes=_CACHE_BYTES, data_bytes=data_bytes)}",
        ]
        what = f"mounts gs://{bucket}, read-only"
        return self._xpk("storage", "attach", _storage_name(bucket), *options, purpose=what)

    def _is_listed(self, status: str) -> bool:
        lines = self._run(self._list_command(status)).splitlines()
        return any(line.split()[:1] == [self._name] for line in lines)

    def _has_storage(self, bucket: str) -> bool:
        lines = self._run(self._xpk("storage", "list", purpose="looks for the storages")).splitlines()
        return any(line.split()[:1] == [_storage_name(bucket)] for line in lines)

    def _run(self, command: Command) -> str:
        outcome = processes.run(command)
        self._check(command, outcome)
        return outcome.output

    def _show(self, command: Command) -> None:
        self._check(command, processes.show(command, merged=True))

    def _check(self, command: Command, outcome: processes.Outcome) -> None:
        if not outcome.code:
            return
        said = outcome.output + outcome.errors
        message = message_of(said) or one_line("\n".join(said.splitlines()[-5:])) or f"ended with {outcome.code}"
        raise BroetchenError(f"{command.purpose}: {message}; {kind_and_advice(message)[1]}")


def _files(job: TrainingJob) -> tuple[JobFile, ...]:
    install = f"""\
if ! python3 -c 'import maxtext, libtpu' 2>/dev/null; then
  python3 -m pip install --quiet --root-user-action=ignore --only-binary :all: --require-hashes \\
    --requirement {_APP}/{LOCK_NAME}
fi
"""
    train = train_script(job, _APP, "python3", before=install)
    return (*job.files, RUNNER, JobFile("train.sh", train, "installs MaxText where the image lacks it, and runs it"))


def _storage_name(bucket: str) -> str:
    """A name in Kubernetes for a bucket, one of its own for each.

    >>> _storage_name("corpus"), _storage_name("corpus.de")
    ('broetchen-corpus', 'broetchen-corpus-de-54c7f1')
    """
    name = resource_name(f"broetchen-{bucket}")
    if name == f"broetchen-{bucket}":
        return name
    return f"{name[:33].rstrip('-')}-{hashlib.sha256(bucket.encode()).hexdigest()[:6]}"
