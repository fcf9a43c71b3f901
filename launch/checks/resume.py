"""Whether a run can go on from its last checkpoint, and whether it goes on in the same order of the data.

A checkpoint of MaxText's holds where the reading of the data stands, in a file for each process of JAX:
`checkpoints/N/iter/process_0-of-4.json` (`GrainCheckpointable` in `maxtext/common/grain_utility.py`, 0.2.5), with the
state of Grain's iterator. That is nested as the pipeline is, and so of another form with other workers or another kind
of packing. With another number of processes, fewer workers, or other packing MaxText stops where it restores; with more
workers it reads on, from wrong places, and crashes at the next checkpoint (`InterleaveDatasetIterator`,
`grain/_src/python/dataset/transformations/interleave.py`, 0.2.18).

Other facts that decide the order of the data stand in no checkpoint. So a start writes them down beside it
(`order.json`), and the next one warns of differences.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launch.config.training import TrainingConfig
from launch.maxtext.checkpoints import checkpoint_steps, run_folder
from launch.mixture.datasets import Mixture, Shares
from launch.mixture.outlook import outlook
from transforms.config.document import Problem
from transforms.errors import BroetchenError, one_line
from transforms.files import storage
from transforms.files.listing import list_files
from transforms.files.untrusted import parse_json, read_bounded
from transforms.quantities import shown

_LOGGER = logging.getLogger(__name__)

_NOTE = "order.json"
_MOST_BYTES = 64 << 20
_PROCESS = re.compile(r".*/process_\d+-of-(\d{1,6})\.json")

# The settings that change the order, and the consequences.
_REORDERS = {
    "data_shuffle_seed": "some records are read twice from here on, and others never",
    "enable_data_shuffling": "some records are read twice from here on, and others never",
    "sequences": "so the batches from here on are others",
    "max_target_length": "so the sequences from here on are others",
    "grain_packing_type": "so the sequences from here on are others",
}

# How a config asks for the ways of reading that a state shows.
_PACKINGS = {
    "whole": "grain_packing_type: first_fit",
    "concat_then_split": "grain_packing_type: concat_then_split",
    "none": "packing: false",
}


@dataclass(frozen=True)
class Readers:
    """How the data was read when a checkpoint was written.

    Attributes:
        processes: of JAX, one on each machine.
        workers: of Grain in each of them; 0 where the trainer reads by itself.
        packing: "whole" (first_fit, best_fit), "concat_then_split" or "none"; None where the state does not tell.
    """

    processes: int
    workers: int
    packing: str | None


def readers_of(processes: int, state: Mapping[str, Any]) -> Readers:
    """The state of a process's iterator, as far as it is used.

    >>> readers_of(1, {"parent": {}, "next_row": 0, "counter": 8})
    Readers(processes=1, workers=0, packing='whole')
    """
    workers = 0
    inner: Any = state
    # Only Grain's workers are read in turns at this place of the pipeline.
    if isinstance(states := state.get("iterators_in_use_states"), list) and "next_index_in_cycle" in state:
        workers, inner = len(states), next((one for one in states if isinstance(one, dict)), {})
    keys = frozenset(inner)
    packing = None
    if {"parent", "next_row", "counter"} <= keys:
        packing = "whole"
    elif {"parent_state", "remainder_slices"} <= keys:
        packing = "concat_then_split"
    elif {"parents", "index"} <= keys:
        packing = "none"
    return Readers(processes, workers, packing)


def last_readers(run: str, step: int) -> Readers | None:
    """How the data was read when the checkpoint of a step was written; None where it does not say.

    Raises:
        BroetchenError: it cannot be read.
    """
    found = list_files(run, f"checkpoints/{step}/iter/process_*-of-*.json")
    named = [(path, int(match[1])) for path, _ in found if (match := _PROCESS.fullmatch(path))]
    if not named:
        return None
    path, processes = named[0]
    try:
        state = parse_json(read_bounded(path, _MOST_BYTES))
    except ValueError:
        return None
    return readers_of(processes, state) if isinstance(state, dict) else None


def obstacles(step: int, then: Readers, settings: Mapping[str, Any], hosts: int) -> Iterator[tuple[str, str]]:
    """Why a run cannot go on: for each reason the parameter, or "name" for the run itself, and the reason.

    Args:
        step: of the last checkpoint.
        then: how the data was read when it was written.
        settings: all of MaxText's.
        hosts: the machines that train now.
    """
    otherwise = "or give this run another `name`, which begins at step 0"
    # MaxText's own way to go on with another number of machines.
    factor = settings["expansion_factor_real_data"]
    readers = hosts * int(1 / factor) if 0 < factor < 1 else int(hosts // factor) if factor > 1 else hosts
    if readers != then.processes:
        yield (
            "name",
            f"its checkpoint of step {step} was written by {_machines(then.processes)}, and {_machines(hosts)} cannot "
            f"go on from it, since each has its own place in the data; train on {then.processes} again, {otherwise}",
        )
    workers = settings["grain_worker_count"]
    if workers >= 0 and workers != then.workers:
        yield (
            "grain_worker_count",
            f"{workers} cannot go on from the checkpoint of step {step}, which was written with {then.workers}: "
            f"MaxText would read from wrong places, and crash; write {then.workers}, {otherwise}",
        )
    now = _packing(settings)
    if then.packing is not None and then.packing != now:
        wanted = _PACKINGS[then.packing]
        yield (
            "grain_packing_type" if settings["packing"] else "packing",
            f"the checkpoint of step {step} was written with `{wanted}`, and MaxText cannot restore its place in the "
            f"data with another kind of packing; write that, {otherwise}",
        )


def _packing(settings: Mapping[str, Any]) -> str:
    if not settings["packing"]:
        return "none"
    return "concat_then_split" if settings["grain_packing_type"] == "concat_then_split" else "whole"


def _machines(count: int) -> str:
    return f"{count} machine{'s' * (count != 1)}"


def order_of(
    settings: Mapping[str, Any], mixture: Mixture, shares: Shares, hosts: int, exact: str | None = None
) -> dict[str, Any]:
    """The settings that the order of the data depends on, beside those in a checkpoint, in JSON's types.

    Args:
        settings: all of MaxText's.
        mixture, shares: the data.
        hosts: the machines that train.
        exact: the facts that decide the beginning of an exact order (`BlendPlan.beginning`); None where MaxText draws.
    """
    weights = {one.name: one.weight for one in outlook(mixture.components, shares).components}
    return {
        "data_shuffle_seed": settings["data_shuffle_seed"] if settings["enable_data_shuffling"] else None,
        "enable_data_shuffling": settings["enable_data_shuffling"],
        "sequences": settings["global_batch_size_to_load"] // hosts,
        "max_target_length": settings["max_target_length"],
        "grain_packing_type": settings["grain_packing_type"] if settings["packing"] else None,
        "order": exact,
        "datasets": {
            name: {"fingerprint": manifest.fingerprint, "weight": weights[name]}
            for name, manifest in mixture.manifests.items()
        },
    }


def changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The changes of the data's order between two starts: for each the key of the config, and its effect."""
    for key, what in _REORDERS.items():
        if key in then and then[key] != now[key] and None not in (then[key], now[key]):
            name = "per_device_batch_size" if key == "sequences" else key
            unit = " sequences a machine" if key == "sequences" else ""
            yield name, f"{shown(now[key])}{unit}, and it was {shown(then[key])} up to the last checkpoint: {what}"
    if None not in (then.get("order"), now["order"]) and then["order"] != now["order"]:
        what = "is another one than up to the last checkpoint: some sequences may come twice, and others never"
        yield "data.order", f"the exact order {what}"
    before = then.get("datasets")
    if not isinstance(before, Mapping):
        return
    for name, dataset in now["datasets"].items():
        old = before.get(name)
        if not isinstance(old, Mapping):
            yield "data", f"{name} is new since the last checkpoint: it is read from its beginning"
        elif old.get("fingerprint") != dataset["fingerprint"]:
            yield (
                "data",
                f"{name} is another dataset than up to the last checkpoint: it is read on at the same record, so that "
                "what is there may have been read before, and what was not read may be missing",
            )
        elif old.get("weight") != dataset["weight"]:
            yield "data.shares", f"{name} has another share than up to the last checkpoint"
    for name in before:
        if name not in now["datasets"]:
            yield "data", f"{shown(name)} is no longer trained on, which it was up to the last checkpoint"


def check_resume(
    config: TrainingConfig, settings: Mapping[str, Any], hosts: int, order: Mapping[str, Any]
) -> list[Problem]:
    """The obstacles to going on from a run's last checkpoint. Changes of the data's order are warned of.

    Where its checkpoints cannot be looked at from here, it warns of that.

    Args:
        config: the run.
        settings: all of MaxText's.
        hosts: the machines that train.
        order: of `order_of`.
    """
    run = run_folder(config)
    try:
        step = max(checkpoint_steps(run), default=None)
        if step is None or step >= settings["steps"] - 1:
            return []
        then = last_readers(run, step)
    except BroetchenError as error:
        _LOGGER.warning("%s: whether it can go on from its checkpoints is not known: %s", config.name, error)
        return []
    try:
        note = order_before(_read_note(run), step)
    except BroetchenError as error:
        _LOGGER.warning("%s: whether it goes on in the same order is not known: %s", config.name, error)
        note = {}
    if then is not None and settings["grain_worker_count"] < 0:
        _LOGGER.warning(
            "%s: grain_worker_count: each machine chooses it by itself, and the checkpoint of step %d was written with "
            "%d; write that, as MaxText crashes with another one",
            *(config.name, step, then.workers),
        )
    for key, what in changes(note, order):
        _LOGGER.warning("%s: %s: %s", config.name, key, what)
    found = () if then is None else obstacles(step, then, settings, hosts)
    problems = [Problem(("name",) if key == "name" else ("parameters", key), what) for key, what in found]
    # Where no start has noted anything, the state may tell: only records that are drawn are packed.
    was_exact = note.get("order") is not None if note else None if then is None or then.packing is None else False
    if was_exact is not None and was_exact != (order["order"] is not None):
        was = "by" if was_exact else "in another way than"
        problems.append(
            Problem(
                ("data", "order"),
                f"the checkpoint of step {step} was written while the data was read {was} `order: exact`, and MaxText "
                "cannot go on from it in the other way; set it as it was, or give this run another `name`",
            )
        )
    return problems


def note_order(config: TrainingConfig, order: Mapping[str, Any]) -> None:
    """Writes down beside the checkpoints the facts that decide the order of the data; where it cannot, it warns."""
    run = run_folder(config)
    try:
        step = max(checkpoint_steps(run), default=-1)
        # Starts after the newest checkpoint have left none, so that their notes go.
        try:
            noted = _read_note(run)
        except BroetchenError as error:
            _LOGGER.warning("%s: its note is written again: %s", config.name, error)
            noted = []
        earlier = [one for one in noted if one["after"] < step]
        starts = [*earlier, {"after": step, **order}]
        storage.write_bytes(_note(run), f"{json.dumps({'starts': starts}, indent=1, sort_keys=True)}\n".encode())
    except BroetchenError as error:
        _LOGGER.warning("%s: a later start will not notice another order of the data: %s", config.name, error)


def order_before(starts: Sequence[Mapping[str, Any]], step: int) -> Mapping[str, Any]:
    """The order in which the data was read up to the checkpoint of a step; empty where that is not known.

    Args:
        starts: the orders of the starts of a run, in turn, each with the step that it went on `after`.
        step: of a checkpoint.

    >>> order_before([{"after": -1, "seed": 1}, {"after": 3, "seed": 2}], 3)
    {'after': -1, 'seed': 1}
    """
    return next((one for one in reversed(starts) if one["after"] < step), {})


def _note(run: str) -> str:
    return storage.join(run, _NOTE)


def _read_note(run: str) -> list[Mapping[str, Any]]:
    """The notes that the starts of a run have written."""
    path = _note(run)
    if not storage.exists(path):
        return []
    try:
        note = parse_json(read_bounded(path, _MOST_BYTES))
    except ValueError as error:
        raise BroetchenError(f"{path}: is not what a start wrote ({one_line(error)}); delete it") from error
    starts = note.get("starts") if isinstance(note, dict) else None
    found = starts if isinstance(starts, list) else []
    return [one for one in found if isinstance(one, dict) and type(one.get("after")) is int]
