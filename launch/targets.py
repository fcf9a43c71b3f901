"""Where a run trains: this machine, a TPU VM, or a TPU cluster, each behind the same few verbs."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from launch.checks.budget import DryRun
from launch.config.training import TrainingConfig
from launch.places import Place
from launch.run_state import RunState


class TargetName(StrEnum):
    """The targets, as `--target` names them."""

    local = "local"
    tpu_vm = "tpu-vm"
    xpk = "xpk"


class Target(Protocol):
    """One place to train at, for one config. Each verb prints its messages.

    All raise `UsageError` where the config does not fit the target, and `BroetchenError` where the target fails.
    """

    @property
    def place(self) -> Place:
        """The file systems of the machines that train."""
        ...

    def start(self, *, yes: bool, quiet: bool = False) -> None:
        """Starts the run, checked by `checked_job`, or goes on with it.

        Without `yes` it asks before it creates anything that costs money; with `quiet` it shows no progress.
        """
        ...

    def dry_run(self) -> DryRun:
        """The resources of the run, with each of its commands and files, after the same checks. Does nothing."""
        ...

    def status(self) -> None:
        """Tells how the run and its machines are."""
        ...

    def state(self) -> RunState:
        """The same as values. Nothing is printed."""
        ...

    def logs(self, *, follow: bool) -> None:
        """Prints the trainer's log, and goes on with `follow` until the run ends."""
        ...

    def stop(self) -> None:
        """Stops the run; machines and checkpoints stay."""
        ...

    def delete(self, *, yes: bool) -> None:
        """Deletes the machines; checkpoints stay. Without `yes` it asks first."""
        ...


def target_of(name: TargetName, config: TrainingConfig) -> Target:
    """The target of that name.

    Raises:
        UsageError: the config lacks a section or key that the target needs.
    """
    match name:
        case TargetName.local:
            from launch.local.target import Local

            return Local(config)
        case TargetName.tpu_vm:
            from launch.tpu.vm import TpuVm

            return TpuVm(config)
        case TargetName.xpk:
            from launch.tpu.xpk import Xpk

            return Xpk(config)
