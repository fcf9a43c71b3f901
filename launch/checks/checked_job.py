"""From a training config to the job that it asks for, checked before anything is paid for.

MaxText itself reads the job's command (`launch.maxtext.settings`), and the settings that it derives are compared with
the data and its tokenizer (`launch.checks.findings`).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from launch.checks import exact_order, findings
from launch.checks.resume import check_resume, note_order, order_of
from launch.config.finding import Finding
from launch.config.training import SET_BY, TrainingConfig
from launch.job import JobFile, TrainingJob, Value
from launch.maxtext.command import FILES
from launch.maxtext.model import find_model, shipped_models
from launch.maxtext.settings import read as read_settings
from launch.maxtext.tokenizer import TrainingTokenizer, find_tokenizer
from launch.mixture.datasets import Mixture, Shares, read_mixture
from launch.mixture.file import eval_files, mixture_json, train_mixture
from launch.mixture.shards import check_shards
from launch.places import Place
from transforms.config.document import Loc, Problem

_LOGGER = logging.getLogger(__name__)

_MIXTURE = "mixture.json"


@dataclass(frozen=True)
class CheckedJob:
    """A job that can go well.

    Attributes:
        job: for MaxText.
        settings: all of MaxText's settings for it by name, derived ones included.
        mixture, shares: that it trains on.
        hosts: how many machines train.
        reading: the facts that decide the order of its data; see `launch.checks.resume`.
        order: of the sequences, to be written before the run; None where MaxText draws.
    """

    job: TrainingJob
    settings: Mapping[str, Any]
    mixture: Mixture
    shares: Shares
    hosts: int
    reading: Mapping[str, Any]
    order: exact_order.ExactOrder | None = None

    def note(self, config: TrainingConfig) -> None:
        """Notes in the run's folder in which order it reads, once it has begun."""
        if self.order is not None:
            self.order.note()
        note_order(config, self.reading)


def checked_job(
    config: TrainingConfig, place: Place, devices: int, extra: Mapping[str, Value] | None = None, *, hosts: int = 1
) -> CheckedJob:
    """The job of a config, checked against MaxText's schema and against the data.

    Takes some four seconds, as MaxText itself reads the command, in a process of its own. Warnings are logged.

    Args:
        config: the run.
        place: the file systems of the machines that train.
        devices: how many accelerators train, all machines together: MaxText's batch sizes are per device.
        extra: parameters that the target needs; they win over the config's.
        hosts: how many machines train, each with one process of JAX, which reads data of its own.

    Raises:
        UsageError: the config has a parameter that MaxText does not know, or that does not go with the data, or with
            the run's last checkpoint.
        BroetchenError: an output has no finished dataset, or not the shards that its manifest names, or a file cannot
            be read.
    """
    with config.blamed("data"):
        mixture = read_mixture(config.outputs(), config.data.datasets or ())
        exact_order.check_formats(config.data, mixture)
    check_shards(mixture, ("train", "eval") if config.data.eval else ("train",))
    if config.data.order == "exact":
        return _in_exact_order(config, place, devices, mixture, extra or {}, hosts)
    with config.blamed("data", "shares"):
        shares = mixture.shares(config.data.shares)
    tokenizer = find_tokenizer(config, mixture)
    with config.blamed("data"):
        data = _data_parameters(config, mixture, shares, place)
        weights = mixture_json(train_mixture(mixture.components, shares, place))
    files = (JobFile(_MIXTURE, weights, "the mixture's weights"),)
    job = _job(config, place, tokenizer, data, extra or {}, files)
    settings = _settings(config, job, devices)
    found = findings.findings(
        config.parameters,
        settings,
        mixture,
        shares,
        tokenizer,
        hosts=hosts,
        evaluates=config.data.eval,
        allows_special_strings=config.data.special_strings == "allow",
    )
    reading = order_of(settings, mixture, shares, hosts)
    _report(config, found, check_resume(config, settings, hosts, reading))
    return CheckedJob(_settled(job, settings), settings, mixture, shares, hosts, reading)


def _in_exact_order(
    config: TrainingConfig, place: Place, devices: int, mixture: Mixture, extra: Mapping[str, Value], hosts: int
) -> CheckedJob:
    """The same with `data.order: exact`."""
    with config.blamed("data", "shares" if config.data.phases is None else "phases"):
        phases = exact_order.phases_of(config.data, mixture)
    data = exact_order.parameters(mixture, evaluates=config.data.eval)
    job = _job(config, place, find_tokenizer(config, mixture), data, extra)
    settings = _settings(config, job, devices)
    found = exact_order.findings(config.parameters, settings, mixture, phases, evaluates=config.data.eval)
    _report(config, found)
    with config.blamed("data"):
        order = exact_order.exact_order(config, settings, mixture, phases, place)
    shares = exact_order.mean_shares(phases, [one.name for one in mixture.components])
    reading = order_of(settings, mixture, shares, hosts, order.plan.beginning())
    _report(config, (), check_resume(config, settings, hosts, reading))
    return CheckedJob(order.job(_settled(job, settings)), settings, mixture, shares, hosts, reading, order)


def _job(
    config: TrainingConfig,
    place: Place,
    tokenizer: TrainingTokenizer,
    data: Mapping[str, Value],
    extra: Mapping[str, Value],
    files: tuple[JobFile, ...] = (),
) -> TrainingJob:
    """The job of a config, by the parameters that follow from its data, and their files."""
    model = find_model(config)
    with config.blamed("output"):
        output = _output(config, place)
    with config.blamed("data" if config.tokenizer is None else "tokenizer"):
        tokenizer_path = place.locate(tokenizer.folder)
    settled: dict[str, Value] = {
        "run_name": config.name,
        "base_output_directory": output,
        **model.parameters,
        **data,
        "tokenizer_type": "huggingface",
        "tokenizer_path": tokenizer_path,
    }
    return TrainingJob(
        name=config.name, parameters=settled | dict(config.parameters) | dict(extra), files=(*model.files, *files)
    )


def _report(config: TrainingConfig, found: Iterable[Finding], others: Iterable[Problem] = ()) -> None:
    """Logs settings that may be mistakes; raises a `UsageError` of those that cannot go well, and of other problems."""
    found = list(found)
    for finding in found:
        if not finding.fatal:
            _LOGGER.warning("%s: %s: %s", config.name, finding.key, finding.what)
    problems = [Problem(_loc(finding.key), finding.what) for finding in found if finding.fatal]
    if problems := [*problems, *others]:
        raise config.refusal(problems)


def _settings(config: TrainingConfig, job: TrainingJob, devices: int) -> Mapping[str, Any]:
    """All of MaxText's settings, as it reads the job's command itself."""
    with config.blamed("data"):  # a folder's name that MaxText would read otherwise
        reading = read_settings(job, devices)
    if reading.problems:
        # A name that MaxText does not know may be meant for one of ours.
        ours = f"; launch/models has {', '.join(shipped_models())}" if "model_name" in job.parameters else ""
        raise config.refusal(
            [Problem(_loc(key), what + ours * (key == "model_name")) for key, what in reading.problems]
        )
    return reading.settings


def _settled(job: TrainingJob, settings: Mapping[str, Any]) -> TrainingJob:
    """The job with the number of steps that MaxText makes of the one written: 1e4, or -1 for that of the schedule."""
    return dataclasses.replace(job, parameters={**job.parameters, "steps": settings["steps"]})


def _loc(key: str | None) -> Loc:
    """The place in the config of a value that became a parameter."""
    if key is None or key == "tokenizer":
        return (key or "parameters",)
    if key in SET_BY or key.startswith("data."):
        return tuple(SET_BY.get(key, key).split("."))
    return ("parameters", key)


def _output(config: TrainingConfig, place: Place) -> str:
    """MaxText writes gs:// itself; a mounted bucket is for reading."""
    output = config.output_directory()
    return output if output.startswith("gs://") else place.locate(output)


def _data_parameters(config: TrainingConfig, mixture: Mixture, shares: Shares, place: Place) -> dict[str, Value]:
    """MaxText's parameters that follow from the data; the config may say otherwise of the last ones."""
    text = mixture.records.format == "text"
    evaluation = {"grain_eval_files": eval_files(mixture.components, shares, place)} if config.data.eval else {}
    return {
        "dataset_type": "grain",
        "grain_file_type": "arrayrecord",
        "grain_train_mixture_config_path": f"{FILES}/{_MIXTURE}",
        **evaluation,
        "tokenize_train_data": text,
        "tokenize_eval_data": text,
        # Ids have their BOS and EOS; to texts MaxText adds them, EOS as mixes mostly have it.
        "add_bos": False,
        "add_eos": text,
        # Texts that are longer than a sequence are cut into several, not cut off.
        **({"use_truncation": False} if text else {}),
    }
