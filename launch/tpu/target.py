"""Common parts of both ways to TPUs: the run's name in Google Cloud, its folder there, and buckets that are mounted."""

from __future__ import annotations

import re

from launch.checks.budget import DryRun, budget
from launch.checks.checked_job import CheckedJob, checked_job
from launch.config.tpu import TpuConfig
from launch.config.training import TrainingConfig
from launch.places import MountedPlace
from transforms.errors import UsageError


def resource_name(name: str) -> str:
    """A run's name as Google Cloud takes it: lower case, letters, digits and -, at most 40 of them.

    >>> resource_name("Nano_1.2"), resource_name("2nd")
    ('nano-1-2', 'run-2nd')
    """
    text = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    text = text if text[:1].isalpha() else f"run-{text}"
    return text[:40].rstrip("-")


class TpuTarget[SectionT: TpuConfig]:
    """One training run on TPUs of any provider; the machines get its files in a folder of the run's name."""

    def __init__(self, config: TrainingConfig, section: SectionT | None, *, example: str, machines: str) -> None:
        """A run by a section of its config.

        Args:
            config: the run.
            section: of the config, for this target; None where it has none.
            example: of such a section.
            machines: their name in errors.

        Raises:
            UsageError: the config has no such section.
        """
        if section is None:
            key = example.partition(":")[0]
            raise UsageError(f"the config has no section `{key}`; add one, such as {example}")
        self._config = config
        self._section = section
        self._name = section.name or resource_name(config.name)
        self._folder = f"broetchen-{self._name}"
        self._place = MountedPlace(machines)

    @property
    def place(self) -> MountedPlace:
        """The machines' file systems."""
        return self._place

    def _checked_job(self, slices: int = 1) -> CheckedJob:
        """The job for so many slices; the place knows its buckets from then on."""
        chips = self._section.slice().chips * slices
        return checked_job(self._config, self._place, chips, hosts=self._section.hosts())

    def _dry_run(self, checked: CheckedJob, script: str, slices: int = 1) -> DryRun:
        """The figures of a checked job on so many slices, and a script that does it by hand."""
        accelerator = self._section.slice()
        peak = accelerator.generation.tflops * accelerator.chips * slices
        return DryRun(budget(checked, peak_tflops=peak, price=self._section.price()), script)
