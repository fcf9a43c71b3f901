"""`data.order: exact`: MaxText reads datasets of Megatron's format (`grain_file_type=mmap_npy`) by a schedule of ours.

The effect of each setting was read from `maxtext/input_pipeline/grain_data_processing.py` and
`maxtext/input_pipeline/_mmap_datasource.py`, 0.2.5. It never packs nor pads here: each sequence is full, and documents
are told apart by EOS.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from launch import shell_script
from launch.blend import schedule
from launch.blend.check import PROGRAM, write_order
from launch.blend.plan import BlendPlan, Split, SplitPlan, maxtext_files, split_plan
from launch.blend.supply import Phase, Supply, dataset_plans, locate, shortages, supplies
from launch.blend.write import note_order, order_folder
from launch.checks.evaluation import interval_findings, left_out_findings
from launch.checks.findings import common_findings
from launch.config.finding import Finding
from launch.config.training import DataConfig, TrainingConfig
from launch.job import Command, JobFile, TrainingJob, Value
from launch.maxtext.checkpoints import run_folder
from launch.maxtext.command import FILES, config_file
from launch.mixture.datasets import Mixture, Shares
from launch.mixture.repeats import RESEARCH, WORTHWHILE_PASSES
from launch.places import Place
from transforms.errors import UsageError

_LOGGER = logging.getLogger(__name__)

_CONFIG = "order.yml"
_PLAN = "order.json"
FORMAT = "megatron"
"""The format of the datasets that an exact order reads."""

_UNKNOWN = "/unknown"
# With thousands of shards they are too long for a command line.
_IN_CONFIG = ("grain_train_files", "grain_eval_files")

# With these, MaxText asks for another number of sequences than the steps take, or reads other ones.
_UNSUITED: Mapping[str, tuple[Any, ...]] = {
    "enable_rampup_batch_size": (False,),
    "expansion_factor_real_data": (-1.0, 1.0),
    "grain_use_elastic_iterator": (False,),
    "colocated_python_data_input": (False,),
    "elastic_enabled": (False,),
    "use_sft": (False,),
    "use_dpo": (False,),
    "use_multimodal": (False,),
}


@dataclass(frozen=True)
class ExactOrder:
    """The order of a run.

    Attributes:
        plan: all that decides it.
        run: the run's folder, local or gs://….
        folder: where the order's files go, below it.
        located: where the machines that train find them.
    """

    plan: BlendPlan
    run: str
    folder: str
    located: str

    def job(self, job: TrainingJob) -> TrainingJob:
        """A job that trains in this order: with the datasets in a config of their own, and a check before the trainer.

        Args:
            job: with `parameters` of this module.
        """
        base = next((file.name for file in job.files if file.name.endswith(".yml")), "base.yml")
        # A model file may have that name.
        config = _CONFIG if base != _CONFIG else f"over-{_CONFIG}"
        datasets = {
            f"grain_{split}_files": maxtext_files(of_split, split, self.located)
            for split, of_split in self.plan.splits.items()
        }
        kept = {key: value for key, value in job.parameters.items() if key not in _IN_CONFIG}
        return dataclasses.replace(
            job,
            parameters=kept | {"blend_index_dir": self.located},
            files=(
                config_file(config, base, datasets, "the datasets, over the model"),
                *job.files,
                JobFile(PROGRAM.name, PROGRAM.read_text(encoding="utf-8"), "checks the order of the sequences"),
            ),
            before=(f"{FILES}/{PROGRAM.name}", self.located, self.plan.digest()),
        )

    def write(self) -> None:
        """Writes the order's files unless they are there, and lets MaxText check them.

        Raises:
            BroetchenError: a shard's index cannot be read, a file cannot be written, or MaxText would not follow it.
        """
        sequences = self.plan.splits["train"].sequences
        _LOGGER.info("the exact order of %s sequences is in %s", f"{sequences:,}", self.folder)
        _LOGGER.info("%s", write_order(self.plan, self.run))

    def note(self) -> None:
        """Notes that the run follows this order, for `show --step`; once the run has begun.

        Raises:
            BroetchenError: it cannot be written.
        """
        note_order(self.run, self.folder)

    def script_lines(self, folder: str) -> list[str]:
        """The same for a shell script, with the plan in a folder that is there."""
        plan = JobFile(_PLAN, self.plan.model_dump_json(indent=1) + "\n", "what decides the order of the sequences")
        write = (sys.executable, "-P", "-m", "launch.blend", f"{folder}/{_PLAN}", self.run)
        purpose = "writes the order of the sequences, and checks it"
        return [shell_script.file_lines(folder, plan), shell_script.command_lines(Command(write, purpose))]


def check_formats(data: DataConfig, mixture: Mixture) -> None:
    """Checks that the datasets are of the format that the order needs.

    Raises:
        UsageError: they are not.
    """
    found = mixture.records.format
    if data.order == "exact" and found != FORMAT:
        raise UsageError(
            f"`order: exact` reads datasets of `records.format: {FORMAT}`, and these are of {found}; build them in "
            "that format, or leave `order` out"
        )
    if data.order != "exact" and found == FORMAT:
        raise UsageError(
            f"the datasets are of `records.format: {FORMAT}`, which is read in an exact order; add `order: exact`, or "
            "build them with records.format tokens"
        )


def phases_of(data: DataConfig, mixture: Mixture) -> tuple[Phase, ...]:
    """The phases of a run; one where the config has none.

    Raises:
        UsageError: shares do not go with the datasets.
    """
    if data.phases is None:
        return (Phase(Fraction(1), mixture.shares(data.shares)),)
    names = [one.name for one in mixture.components]
    phases = []
    for phase in data.phases:
        shares = phase.shares
        if isinstance(shares, Mapping):
            if unknown := [name for name in shares if name not in names]:
                raise UsageError(f"a share is for {unknown[0]}, which is none of the datasets: {', '.join(names)}")
            total = sum(shares.values())
            phases.append(Phase(phase.until, {name: share / total for name, share in shares.items()}))
        else:
            phases.append(Phase(phase.until, mixture.shares(shares)))
    if unused := [name for name in names if not any(name in phase.shares for phase in phases)]:
        raise UsageError(f"{unused[0]} is in none of the phases; give it a share in one, or leave the dataset out")
    return tuple(phases)


def mean_shares(phases: Sequence[Phase], names: Sequence[str]) -> Shares:
    """The shares of the whole training."""
    begun, found = Fraction(0), dict.fromkeys(names, Fraction(0))
    for phase in phases:
        for name, share in phase.shares.items():
            found[name] += share * (phase.until - begun)
        begun = phase.until
    return found


def parameters(mixture: Mixture, *, evaluates: bool) -> dict[str, Value]:
    """MaxText's parameters that follow from the data; the config may say otherwise of the last ones."""
    return {
        # Known once MaxText has said how large its batches are; until then it has to see that there are some.
        "grain_train_files": _UNKNOWN,
        "grain_eval_files": _UNKNOWN if evaluates else "",
        "blend_index_dir": _UNKNOWN,
        **kept_parameters(mixture),
    }


def kept_parameters(mixture: Mixture) -> dict[str, Value]:
    """The parameters of an exact order that do not depend on its folder."""
    eos_id = mixture.records.eos_id
    return {
        "dataset_type": "grain",
        "grain_file_type": "mmap_npy",
        "mmap_eod_id": -1 if eos_id is None else eos_id,
        "tokenize_train_data": False,
        "tokenize_eval_data": False,
        "add_bos": False,
        "add_eos": False,
        # As with packed records: no document has to predict the next one, and none sees another one.
        "eod_mask_loss": True,
        "packing_max_segments_per_sample": 0,
    }


def exact_order(
    config: TrainingConfig, settings: Mapping[str, Any], mixture: Mixture, phases: Sequence[Phase], place: Place
) -> ExactOrder:
    """The order of a run whose settings are all right.

    Args:
        settings: all of MaxText's, as it reads the command.

    Raises:
        UsageError: a folder has a name that MaxText cannot read, or a dataset has no eval split.
    """
    sequences = settings["steps"] * settings["global_batch_size_to_load"]
    ends = schedule.phase_ends(sequences, [phase.until for phase in phases])
    shares = [phase.shares for phase in phases]
    splits: dict[Split, SplitPlan] = {"train": split_plan(ends, shares, dataset_plans(mixture, "train", place))}
    if config.data.eval:
        mean = mean_shares(phases, [one.name for one in mixture.components])
        splits["eval"] = split_plan([_eval_sequences(settings)], [mean], dataset_plans(mixture, "eval", place))
    eos_id = mixture.records.eos_id
    plan = BlendPlan(
        length=settings["max_target_length"],
        batch=settings["global_batch_size_to_load"],
        seed=settings["data_shuffle_seed"],
        shuffle=settings["enable_data_shuffling"],
        eos_id=-1 if eos_id is None else eos_id,
        splits=splits,
    )
    folder = order_folder(run_folder(config), plan.digest())
    return ExactOrder(plan, run_folder(config), folder, locate(folder, place))


def _eval_sequences(settings: Mapping[str, Any]) -> int:
    """How many sequences MaxText asks for, of all evaluations; each of them begins with the first."""
    rounds = -(-settings["steps"] // settings["eval_interval"])
    return int(rounds * settings["eval_steps"] * settings["global_batch_size_to_load_eval"])


def findings(
    written: Mapping[str, Any],
    settings: Mapping[str, Any],
    mixture: Mixture,
    phases: Sequence[Phase],
    *,
    evaluates: bool,
) -> Iterator[Finding]:
    """All that is found about a run in an exact order.

    Args:
        written: the parameters that the config has.
        settings: all of MaxText's, as it reads the command.
        mixture, phases: the data.
        evaluates: whether the config asks for evaluation.
    """
    yield from common_findings(written, settings, mixture, evaluates=evaluates)
    yield from interval_findings(settings, evaluates=evaluates)
    if settings["steps"] < 1:
        return
    for key, suited in _UNSUITED.items():
        if settings[key] not in suited:
            yield Finding(key, f"{settings[key]} does not go with `order: exact`; remove it")
    if not 0 <= settings["data_shuffle_seed"] < 2**32:
        yield Finding("data_shuffle_seed", f"{settings['data_shuffle_seed']} is not from 0 to 2³² - 1")
    for split in ("train", "eval"):
        if settings[f"tokenize_{split}_data"]:
            yield Finding(f"tokenize_{split}_data", "true cannot go with datasets of ids; remove it")
    for key in ("add_bos", "add_eos"):
        if settings[key]:
            yield Finding(key, "true does not go with datasets of ids, to which MaxText adds nothing; remove it")
    if mixture.records.eos_id is None and settings["reset_attention_mask"]:
        yield Finding(
            "reset_attention_mask",
            "true needs documents that end with EOS, and these have none; build them with `records.add_eos: true`, or "
            "write `reset_attention_mask: false`, with which a document sees the one before it",
        )
    batch, length = settings["global_batch_size_to_load"], settings["max_target_length"]
    sequences = settings["steps"] * batch
    if empty := _empty_phase(phases, sequences):
        yield Finding(
            "data.phases",
            f"phase {empty} has none of the {sequences:,} sequences; write more `steps`, or a later `until`",
        )
        return
    if not settings["reuse_example_batch"]:
        found = supplies(mixture.components, phases, sequences, length, max(1, settings["num_epoch"]))
        for shortage in shortages(found, phases, batch, length):
            yield Finding("steps", shortage)
        yield from _repeats(found, length)
    if evaluates:
        yield from _evaluation(settings, mixture, phases)
        yield from left_out_findings(settings)


def _empty_phase(phases: Sequence[Phase], sequences: int) -> int | None:
    """The number, from 1, of the first phase that has no sequence; None where all have some."""
    ends = [0, *schedule.phase_ends(sequences, [phase.until for phase in phases])]
    return next((number for number in range(1, len(ends)) if ends[number] == ends[number - 1]), None)


def _repeats(found: Sequence[Supply], length: int) -> Iterator[Finding]:
    for one in found:
        if one.phase is None and one.passes(length) > WORTHWHILE_PASSES:
            yield Finding(
                "steps",
                f"{one.name} is read {float(one.passes(length)):.2f} times: beyond {WORTHWHILE_PASSES} passes repeated "
                f"tokens are worth less and less ({RESEARCH})",
                fatal=False,
            )


def _evaluation(settings: Mapping[str, Any], mixture: Mixture, phases: Sequence[Phase]) -> Iterator[Finding]:
    steps, length = settings["eval_steps"], settings["max_target_length"]
    if settings["eval_interval"] <= 0:
        return
    if steps <= 0:
        yield Finding("eval_steps", "is missing, and says how much MaxText lays out; add `eval_steps: 10`")
        return
    # An evaluation loads batches of the training's size, and begins with the first sequence each time.
    batch = settings["global_batch_size_to_load"]
    needed, laid_out = steps * batch, _eval_sequences(settings)
    if needed > laid_out:
        yield Finding(
            "eval_steps",
            f"{steps} need {needed} sequences, since MaxText loads {batch} a step, and it lays out {laid_out}; write a "
            "smaller `eval_interval`, or less gradient accumulation with a larger `per_device_batch_size`",
        )
        return
    shares = mean_shares(phases, [one.name for one in mixture.components])
    for one in mixture.components:
        available = max(0, (one.eval_tokens - 1) // length)
        share = shares[one.name]
        if math.ceil(share * needed) > available:
            possible = math.floor(available / share) // batch
            yield Finding(
                "eval_steps",
                f"{steps} are more than {one.name} has: an evaluation takes {math.ceil(share * needed)} sequences of "
                f"its eval split, which has {available} ({one.eval_tokens:,} tokens); write "
                f"{f'{possible} or fewer' if possible else 'a smaller batch'}, or build it with more eval_tokens",
            )
