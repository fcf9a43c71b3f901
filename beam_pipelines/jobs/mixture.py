"""Writes MaxText's mixture file for built datasets: weights a record that give the wanted shares of the tokens."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from beam_pipelines.config.mix import load_config
from beam_pipelines.console.progress import bar
from launch.mixture.datasets import Mixture, read_mixture
from launch.mixture.file import eval_files, mixture_json, train_mixture
from launch.mixture.held_out import held_out_in_train
from launch.mixture.outlook import Outlook, outlook
from launch.mixture.shards import check_shards
from launch.places import Mounts
from transforms.config.file import is_config
from transforms.errors import UsageError
from transforms.files import storage
from transforms.progress.display import counted
from transforms.quantities import parse_percent

if TYPE_CHECKING:
    from launch.mixture.simulation import Simulation

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """A training, as far as it uses up data. Each step takes `batch` sequences of `length` tokens, on all devices.

    `steps` is None where it is not known how many there are.
    """

    steps: int | None
    batch: int
    length: int

    @property
    def step_tokens(self) -> int:
        """Tokens a step, where packing leaves no room unused."""
        return self.batch * self.length

    @property
    def tokens(self) -> int | None:
        """Tokens of all steps; None where it is not known how many there are."""
        return None if self.steps is None else self.steps * self.step_tokens


@dataclass(frozen=True)
class MixtureSummary:
    """The mixture that was written, and the training that follows from it.

    `default_shares` says whether the shares are those that the datasets' configs wanted.
    """

    mixture: Mixture
    default_shares: bool
    outlook: Outlook
    training: Training | None
    simulation: Simulation | None


def write_mixture(
    outputs: Sequence[str],
    output: str | None,
    *,
    datasets: Sequence[str] = (),
    shares: str | None = None,
    mounts: Sequence[str] = (),
    eval_output: str | None = None,
    epochs: int = 1,
    steps: int | None = None,
    batch: int | None = None,
    length: int | None = None,
    simulated: int = 0,
    quiet: bool = False,
) -> MixtureSummary:
    """Writes the mixture file of built datasets, and describes the training that follows.

    Args:
        outputs, datasets: see `launch.mixture.datasets.read_mixture`. A mix config among the outputs (`.yaml`) names
            its datasets, in its order, where `datasets` names none.
        output: the file for the train mixture, JSON; None writes none.
        shares: `30,50,20` or `a=30,b=50,c=20`, in percent; None for those that the datasets' configs wanted.
        mounts: `gs://bucket=/path`, for each bucket that MaxText sees as a folder.
        eval_output: the file for the value of MaxText's `grain_eval_files`; None writes none.
        epochs: MaxText's `num_epoch`.
        steps, batch, length: of the training, to say at which step data ends; see `Training`. `length` is by default
            the most tokens that a record has.
        simulated: how many records to draw through Grain.

    Raises:
        UsageError: the datasets or shares do not go together, or a path cannot be written into the file.
        BroetchenError: an output has no dataset, or not the shards that its manifest names, a shard cannot be read, or
            a file cannot be written.
    """
    place = Mounts.parse(mounts)
    parsed = None if shares is None else parse_shares(shares)
    mixture = chosen_mixture(outputs, datasets)
    if mixture.records.format == "megatron":
        raise UsageError(
            "the datasets are of `records.format: megatron`, which MaxText reads in an exact order; give --blend "
            "FOLDER, with --steps, --batch and --length"
        )
    check_shards(mixture, ("train",) if eval_output is None else ("train", "eval"))
    training = _training(mixture, steps, batch, length)
    wanted = mixture.shares(parsed)
    expected = outlook(mixture.components, wanted, epochs)
    train = mixture_json(train_mixture(mixture.components, wanted, place))
    evaluation = None if eval_output is None else eval_files(mixture.components, wanted, place) + "\n"
    simulation = None
    if simulated:
        # Grain takes seconds to import.
        from launch.mixture.simulation import simulate

        weights = {component.name: component.weight for component in expected.components}
        with bar("drawing records", simulated, counted("records"), quiet=quiet) as progress:
            simulation = simulate(mixture, weights, simulated, epochs=epochs, advance=progress.advance)
    if output is not None:
        storage.write_bytes(output, train.encode())
    if eval_output is not None and evaluation is not None:
        storage.write_bytes(eval_output, evaluation.encode())
    return MixtureSummary(mixture, shares is None, expected, training, simulation)


def parse_percents(percents: Sequence[str]) -> tuple[Fraction, ...]:
    """Shares that are written in percent, with or without the sign, as exact fractions: `["66.7", "33.3%"]`.

    Raises:
        UsageError: one is no percentage or is 0, or they do not add up to 100.
    """
    shares = tuple(parse_percent(f"{percent.strip().removesuffix('%')}%") for percent in percents)
    if 0 in shares:
        raise UsageError(f"a share of {', '.join(percents)} is 0; leave the dataset out instead")
    if (total := sum(shares)) != 1:
        raise UsageError(f"the shares {', '.join(percents)} add up to {float(total * 100):.10g} %, not to 100 %")
    return shares


def chosen_mixture(outputs: Sequence[str], datasets: Sequence[str]) -> Mixture:
    """The datasets of outputs and mix configs, as `write_mixture` has them; warns of texts that one holds out."""
    configs = [one for one in outputs if is_config(one)]
    in_order = [name for config in configs for name in load_config(config).datasets]
    mixture = read_mixture([one for one in outputs if one not in configs], datasets or in_order)
    for overlap in held_out_in_train(mixture.manifests):
        _LOGGER.warning("%s", overlap)
    return mixture


def parse_shares(text: str) -> Mapping[str, Fraction] | Sequence[Fraction]:
    """Shares as the command line has them.

    >>> parse_shares("30,70%"), parse_shares("a=30,b=70")
    ((Fraction(3, 10), Fraction(7, 10)), {'a': Fraction(3, 10), 'b': Fraction(7, 10)})
    """
    parts = [part.strip() for part in text.split(",")]
    if not any("=" in part for part in parts):
        return parse_percents(parts)
    pairs = [part.rpartition("=") for part in parts]
    names = [name.strip() for name, _, _ in pairs]
    for name, part in zip(names, parts, strict=True):
        if not name:
            raise UsageError(f"--shares: {part!r} is not of the form NAME=SHARE, as the others are")
        if names.count(name) > 1:
            raise UsageError(f"--shares: {name} comes twice")
    return dict(zip(names, parse_percents([share for _, _, share in pairs]), strict=True))


def _training(mixture: Mixture, steps: int | None, batch: int | None, length: int | None) -> Training | None:
    if batch is None:
        if steps is not None or length is not None:
            raise UsageError(
                f"--{'steps' if steps is not None else 'length'} says nothing about data without --batch: name the "
                "sequences of a step (per_device_batch_size × devices × gradient_accumulation_steps)"
            )
        return None
    length = length or mixture.records.max_tokens
    if length is None:
        raise UsageError("--batch: the datasets are text, whose records are of any length; name --length as well")
    return Training(steps, batch, length)
