"""The real MaxText on this machine: an exact order, beside a run that draws records; and the documents of each step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch.blend.write import find_blend, last_order
from tests.support.command import run_command
from tests.support.local_training import LENGTH, build_data, config_file, data, history, trainer
from transforms.dataset.splits import open_dataset

pytestmark = pytest.mark.slow

__all__ = ["data", "trainer"]

BATCH = 8
STEPS = 6


@pytest.fixture(scope="module")
def exact(data: Path, trainer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in an exact order, of all steps at once."""
    build_data(data, "megatron")
    output = tmp_path_factory.mktemp("exact")
    ended = run_command("train", config_file(data, output, "megatron", steps=STEPS), timeout=600)
    assert ended.returncode == 0, ended.stderr
    assert "the exact order is whole, and MaxText takes it: train: 48 sequences of 1 datasets" in ended.stderr
    return output


def test_the_same_model_trains_on_records_that_are_drawn_and_in_an_exact_order(data, exact, tmp_path):
    ended = run_command("train", config_file(data, tmp_path, steps=STEPS), timeout=600)
    assert ended.returncode == 0, ended.stderr
    drawn, ordered = history(tmp_path), history(exact)
    for found in (drawn, ordered):
        assert [step.number for step in found.steps] == list(range(STEPS))
        assert found.steps[-1].loss < found.steps[0].loss - 1
    # The model begins alike; what it sees is of the same kind.
    assert abs(drawn.steps[0].loss - ordered.steps[0].loss) < 0.3
    # Drawn records leave room in sequences; in the exact order, only what follows a document's end is no target.
    assert all(step.tokens < BATCH * LENGTH for step in drawn.steps)
    ends = [of_step(data, exact, step)[1] for step in range(STEPS)]
    assert [step.tokens for step in ordered.steps] == [BATCH * LENGTH - count for count in ends]


def of_step(data: Path, exact: Path, step: int) -> tuple[int, int]:
    """How many tokens `show` lists for a step, and how many of them end a document."""
    shown = run_command("show", data / "megatron", "--step", str(step), "--run", exact / "run.yaml", "--json")
    assert shown.returncode == 0, shown.stderr
    parts = json.loads(shown.stdout)
    with open_dataset(str(data / "megatron" / "german")) as dataset:
        sizes = {part["record"]: len(dataset["train"][part["record"]].ids) for part in parts}
    tokens = sum(part["last_token"] - part["first_token"] for part in parts)
    return tokens, sum(part["last_token"] == sizes[part["record"]] for part in parts)


def test_each_step_holds_a_batch_of_full_sequences(data, exact):
    assert [of_step(data, exact, step)[0] for step in range(STEPS)] == [BATCH * LENGTH] * STEPS


def test_a_run_that_is_stopped_and_made_longer_trains_on_what_it_would_have(data, exact, tmp_path):
    for steps in (3, STEPS):
        ended = run_command("train", config_file(data, tmp_path, "megatron", steps=steps), timeout=600)
        assert ended.returncode == 0, ended.stderr
    assert [step.start for step in history(tmp_path).steps] == [0] * 3 + [1] * 3
    assert [step.loss for step in history(tmp_path).steps] == pytest.approx(
        [step.loss for step in history(exact).steps], abs=1e-4
    )


def test_an_order_that_was_changed_is_not_trained_in(data, exact):
    folder = last_order(str(exact / "run"))
    assert folder is not None
    blend = find_blend(folder)
    assert blend is not None
    path = Path(folder, blend.files[0].file)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    # It is found before anything starts, and by the program that the trainer's command begins with.
    ended = run_command("train", config_file(data, exact, "megatron", steps=STEPS + 1), "--dry-run")
    assert ended.returncode == 0
    python = trainer_python()
    checked = run_program(python, exact / "run" / "job" / "check_order.py", folder, blend.digest, "-c", "print(7)")
    assert checked == (3, f"broetchen: the exact order cannot be followed: {path} was changed since it was written")


def trainer_python() -> Path:
    from launch.local import environment

    return environment.trainer("cpu").python


def run_program(python: Path, *arguments: object) -> tuple[int, str]:
    import subprocess

    ended = subprocess.run([python, *map(str, arguments)], capture_output=True, text=True, check=False)
    return ended.returncode, ended.stderr.strip().rpartition("\n")[2].partition(": its SHA")[0]
