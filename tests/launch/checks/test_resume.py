"""Runs that go on from a checkpoint with other readers, or in another order of the data."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import grain
import numpy as np
import pytest
from maxtext.input_pipeline import data_processing_utils

from launch.checks.resume import Readers, changes, check_resume, last_readers, note_order, obstacles, readers_of
from launch.config.training import load_training_config
from tests.support.command import run_command
from tests.support.trainable_mixes import build_mix, training_config
from transforms.files import storage

SETTINGS: dict[str, Any] = {
    "steps": 20,
    "packing": True,
    "grain_packing_type": "first_fit",
    "grain_worker_count": 1,
    "expansion_factor_real_data": -1.0,
}
ORDER: dict[str, Any] = {
    "data_shuffle_seed": 0,
    "enable_data_shuffling": True,
    "sequences": 8,
    "max_target_length": 128,
    "grain_packing_type": "first_fit",
    "order": None,
    "datasets": {"german": {"fingerprint": "01", "weight": 1.5}, "english": {"fingerprint": "02", "weight": 2.5}},
}
# As MaxText 0.2.5 has written them.
ALONE = {
    "parent": {"parents": {"english": {"next_index": 5}, "german": {"next_index": 9}}, "index": 14, "stop": False},
    "next_row": 0,
    "counter": 8,
}
BY_TWO = {
    "next_index_in_cycle": 0,
    "next_index_in_datasets": 2,
    "iterators_in_use_indices": [0, 1],
    "iterators_in_use_states": [ALONE, ALONE],
    "exhausted": [0, 0],
    "future_states": {},
}


class Pipeline:
    """The part of a config that MaxText's own functions for the end of its pipeline take."""

    grain_use_elastic_iterator = False
    grain_ram_budget_mb = 1024
    max_target_length = 8
    max_segments_per_seq = -1
    add_bos = False

    def __init__(self, packing: str) -> None:
        self.packing = packing != "none"
        self.grain_packing_type = packing


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("packing", ["first_fit", "best_fit", "concat_then_split", "none"])
def test_a_state_of_maxtexts_pipeline_tells_how_it_was_read(workers: int, packing: str) -> None:
    """The pipeline is MaxText's own from the mixture on; no worker is started for the state of its beginning."""
    # Grain looks at its flags where workers are wanted, and only programs of absl's have read theirs.
    flags = importlib.import_module("absl.flags").FLAGS
    if not flags.is_parsed():
        flags.mark_as_parsed()
    config = Pipeline(packing)
    part = grain.MapDataset.range(100).map(_as_sequence).to_iter_dataset()
    mixed = grain.IterDataset.mix({"a": part, "b": part}, {"a": 1.0, "b": 2.0})
    batched = data_processing_utils.format_and_batch(mixed, config, 2, 0, ("inputs", "targets"), None)
    read = data_processing_utils.apply_multiprocessing_and_prefetch(batched, config, workers, 1)
    state = json.loads(json.dumps(iter(read).get_state()))
    kind = {"first_fit": "whole", "best_fit": "whole"}.get(packing, packing)
    assert readers_of(4, state) == Readers(4, workers, kind)


def _as_sequence(number: int) -> dict[str, Any]:
    return {key: np.arange(1 + number % 3, dtype=np.int32) for key in ("inputs", "targets")}


def test_what_keeps_a_run_from_going_on() -> None:
    def found(then: Readers, hosts: int = 1, **settings: Any) -> list[str]:
        return [f"{key}: {what}" for key, what in obstacles(3, then, SETTINGS | settings, hosts)]

    assert found(Readers(1, 1, "whole")) == []
    assert found(Readers(1, 1, "whole"), grain_packing_type="best_fit") == []
    assert found(Readers(1, 1, None), packing=False) == []
    (workers,) = found(Readers(1, 4, "whole"), grain_worker_count=0)
    assert workers.startswith(
        "grain_worker_count: 0 cannot go on from the checkpoint of step 3, which was written with 4"
    )
    assert "write 4, or give this run another `name`" in workers
    assert found(Readers(1, 4, "whole"), grain_worker_count=-1) == []  # a warning
    (machines,) = found(Readers(4, 1, "whole"), hosts=2)
    assert machines.startswith("name: its checkpoint of step 3 was written by 4 machines, and 2 machines cannot go on")
    assert "train on 4 again" in machines
    (fewer,) = found(Readers(1, 1, "whole"), hosts=2)
    assert "by 1 machine, and 2 machines cannot go on" in fewer
    # MaxText's own way to read on for others.
    assert found(Readers(4, 1, "whole"), hosts=2, expansion_factor_real_data=0.5) == []
    assert found(Readers(2, 1, "whole"), hosts=4, expansion_factor_real_data=2.0) == []
    assert len(found(Readers(4, 1, "whole"), hosts=1, expansion_factor_real_data=0.5)) == 1
    (packing,) = found(Readers(1, 1, "none"))
    assert packing.startswith("grain_packing_type: the checkpoint of step 3 was written with `packing: false`")
    (packing,) = found(Readers(1, 1, "concat_then_split"), packing=False)
    assert packing.startswith("packing: the checkpoint of step 3 was written with `grain_packing_type: concat_then_spl")


def test_what_changes_the_order() -> None:
    def found(**new: Any) -> list[str]:
        return [f"{key}: {what}" for key, what in changes(ORDER, ORDER | new)]

    assert found() == []
    assert found(data_shuffle_seed=7) == [
        "data_shuffle_seed: 7, and it was 0 up to the last checkpoint: some records are read twice from here on, and "
        "others never"
    ]
    assert [line.partition(":")[0] for line in found(enable_data_shuffling=False, data_shuffle_seed=None)] == [
        "enable_data_shuffling"
    ]
    assert found(sequences=4)[0].startswith("per_device_batch_size: 4 sequences a machine, and it was 8")
    assert found(max_target_length=64)[0].startswith("max_target_length: 64, and it was 128")
    german, english = ORDER["datasets"]["german"], ORDER["datasets"]["english"]
    assert found(datasets={"german": german | {"fingerprint": "03"}, "english": english})[0].startswith(
        "data: german is another dataset than up to the last checkpoint"
    )
    assert found(datasets={"german": german | {"weight": 2.0}, "english": english}) == [
        "data.shares: german has another share than up to the last checkpoint"
    ]
    new, gone = found(datasets={"german": german, "french": english})
    assert new.startswith("data: french is new since the last checkpoint")
    assert "english' is no longer trained on" in gone.replace('"', "'")
    # Notes of another version, or of somebody else.
    assert list(changes({}, ORDER)) == []
    assert list(changes({"datasets": [1]}, ORDER)) == []


def checkpoint(run: str, step: int, states: dict[str, Any]) -> None:
    storage.makedirs(f"{run}/checkpoints/{step}/iter")
    storage.write_bytes(f"{run}/checkpoints/{step}/commit_success.txt", b"")
    for name, state in states.items():
        content = state if isinstance(state, bytes) else json.dumps(state).encode()
        storage.write_bytes(f"{run}/checkpoints/{step}/iter/{name}", content)


@pytest.fixture(params=["disk", "bucket"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "disk":
        return str(tmp_path / "a b'c [x]* ö")
    return f"{request.getfixturevalue('gcs_prefix')}/a b'c [x]* ö"


def test_the_last_checkpoint_counts(output: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = load_training_config(training_config(tmp_path, output=output))
    run = f"{output}/a-run"
    assert check_resume(config, SETTINGS, 1, ORDER) == []
    checkpoint(run, 3, {"process_0-of-1.json": ALONE})
    checkpoint(run, 12, {f"process_{number}-of-2.json": BY_TWO for number in range(2)})
    assert last_readers(run, 12) == Readers(2, 2, "whole")
    assert last_readers(run, 3) == Readers(1, 0, "whole")
    problems = check_resume(config, SETTINGS, 1, ORDER)
    assert [problem.loc for problem in problems] == [("name",), ("parameters", "grain_worker_count")]
    assert "step 12" in str(config.refusal(problems))
    # It is done.
    assert check_resume(config, SETTINGS | {"steps": 13}, 1, ORDER) == []
    assert caplog.messages == []
    assert check_resume(config, SETTINGS | {"grain_worker_count": -1}, 2, ORDER) == []
    assert "was written with 2; write that" in caplog.text
    caplog.clear()
    # A start compares its order with a note: that of the start that the checkpoint is from.
    other = ORDER | {"data_shuffle_seed": 9}
    storage.delete([f"{run}/checkpoints/12/commit_success.txt", f"{run}/checkpoints/3/commit_success.txt"])
    note_order(config, other)
    note_order(config, ORDER)
    checkpoint(run, 12, {})
    note_order(config, other)
    note_order(config, other)
    starts = json.loads(storage.read_bytes(f"{run}/order.json"))["starts"]
    assert [(one["after"], one["data_shuffle_seed"]) for one in starts] == [(-1, 0), (12, 9)]
    assert check_resume(config, SETTINGS | {"grain_worker_count": 2}, 2, ORDER) == []
    assert caplog.messages == []
    check_resume(config, SETTINGS | {"grain_worker_count": 2}, 2, other)
    assert caplog.messages == [
        "a-run: data_shuffle_seed: 9, and it was 0 up to the last checkpoint: some records are read twice from here "
        "on, and others never"
    ]
    caplog.clear()
    for unknown in (b"[]", b'{"starts": [1, {"after": "3"}, {"after": true}]}'):
        storage.write_bytes(f"{run}/order.json", unknown)
        assert check_resume(config, SETTINGS | {"grain_worker_count": 2}, 2, other) == []
    assert caplog.messages == []
    storage.write_bytes(f"{run}/order.json", b"{")
    # A note that cannot be read hides no obstacle, and the next start writes it again.
    assert [problem.loc for problem in check_resume(config, SETTINGS, 1, ORDER)] == [
        ("name",),
        ("parameters", "grain_worker_count"),
    ]
    assert "order.json: is not what a start wrote" in caplog.text
    note_order(config, other)
    assert json.loads(storage.read_bytes(f"{run}/order.json"))["starts"][0]["data_shuffle_seed"] == 9


@pytest.mark.parametrize("states", [{}, {"process_0.json": ALONE}, {"process_0-of-1.json": b"{"}, {"a.json": b""}])
def test_a_state_of_another_form_tells_nothing(tmp_path: Path, states: dict[str, Any]) -> None:
    checkpoint(str(tmp_path), 3, states)
    assert last_readers(str(tmp_path), 3) is None


@pytest.mark.slow
def test_the_command_refuses_and_warns(tmp_path: Path) -> None:
    build_mix(tmp_path)
    path = training_config(tmp_path, {"steps": 40, "grain_worker_count": 2, "per_device_batch_size": 2})
    checkpoint(str(tmp_path / "training" / "a-run"), 4, {"process_0-of-1.json": BY_TWO})
    allowed = run_command("train", path, "--dry-run")
    assert allowed.returncode == 0, allowed.stderr
    assert not (tmp_path / "training" / "a-run" / "order.json").exists()
    refused = run_command("train", path, "--dry-run", "--set", "parameters.grain_worker_count=3")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "3 cannot go on from the checkpoint of step 4, which was written with 2" in refused.stderr
    assert "run.yaml (--set parameters.grain_worker_count)" in refused.stderr
    note = {"starts": [{"after": -1, "data_shuffle_seed": 3, "enable_data_shuffling": True}]}
    (tmp_path / "training" / "a-run" / "order.json").write_text(json.dumps(note))
    warned = run_command("train", path, "--dry-run")
    assert warned.returncode == 0
    assert "a-run: data_shuffle_seed: 0, and it was 3 up to the last checkpoint" in warned.stderr


def test_another_way_to_read_is_refused_and_another_exact_order_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = load_training_config(training_config(tmp_path))
    run = str(tmp_path / "training" / "a-run")
    exact = ORDER | {"order": "01"}
    for noted, now in ((ORDER, exact), (exact, ORDER)):
        storage.write_bytes(f"{run}/order.json", json.dumps({"starts": [{"after": -1, **noted}]}).encode())
        checkpoint(run, 3, {})
        (problem,) = check_resume(config, SETTINGS, 1, now)
        assert problem.loc == ("data", "order")
        assert "cannot go on from it in the other way" in problem.what
        assert check_resume(config, SETTINGS, 1, noted) == []
    assert caplog.messages == []
    # Where no start has noted anything, the state may tell: only records that are drawn are packed.
    storage.delete([f"{run}/order.json"])
    exact_state = {"next_index": 8}
    for state, now, refused in ((ALONE, exact, 1), (ALONE, ORDER, 0), (exact_state, ORDER, 0), (exact_state, exact, 0)):
        checkpoint(run, 3, {"process_0-of-1.json": state})
        problems = check_resume(config, SETTINGS | {"grain_worker_count": 0}, 1, now)
        assert [problem.loc for problem in problems] == [("data", "order")] * refused
    checkpoint(run, 3, {"process_0-of-1.json": b"{"})
    caplog.clear()
    storage.write_bytes(f"{run}/order.json", json.dumps({"starts": [{"after": -1, **exact}]}).encode())
    assert check_resume(config, SETTINGS, 1, exact | {"order": "02"}) == []
    assert "a-run: data.order: the exact order is another one than up to the last checkpoint: some" in caplog.text
