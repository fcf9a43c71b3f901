"""Losses from event files, as MaxText's own writer makes them, and their table and plot."""

from __future__ import annotations

import io
import math
import time
from pathlib import Path

import pytest
from rich.console import Console
from tensorboardX import SummaryWriter  # type: ignore[import-untyped]

from launch.local.log import EventFolder, History, Step
from launch.local.losses import plot_losses, print_losses


def write(folder: Path, losses: dict[int, float], *, evals: dict[int, float] | None = None, begun: int = 1) -> Path:
    """An event file as a start of a run leaves it, with a second from step to step; `begun` orders files."""
    with SummaryWriter(str(folder)) as writer:
        for number, loss in losses.items():
            at = 1_000 * begun + number
            writer.add_scalar("learning/loss", loss, number, walltime=at)
            writer.add_scalar("learning/current_learning_rate", 0.5, number, walltime=at)
            writer.add_scalar("learning/total_weights", 100, number, walltime=at)
            writer.add_text("config", "some text", number)
        for number, loss in (evals or {}).items():
            writer.add_scalar("eval/avg_loss", loss, number)
    path = next(path for path in folder.iterdir() if not path.name.startswith("done-"))
    # Its name has the time in seconds, which may be the same for two.
    return path.rename(folder / f"events.out.tfevents.{begun}.test")


def start(tmp_path: Path, number: int, losses: dict[int, float], evals: dict[int, float] | None = None) -> None:
    made = tmp_path / f"start-{number}"
    path = write(made, losses, evals=evals, begun=number)
    (tmp_path / "events").mkdir(exist_ok=True)
    path.rename(tmp_path / "events" / path.name)


def test_a_folder_that_is_not_there_has_no_steps(tmp_path):
    assert EventFolder(tmp_path / "no").read() == History((), {}, 0)


def test_steps_are_read_with_their_losses(tmp_path):
    start(tmp_path, 1, {0: 6.0, 1: 5.5}, {1: 5.75})
    found = EventFolder(tmp_path / "events").read()
    assert found.steps == (Step(0, 0, 1000.0, 6.0, 0.5, 100), Step(1, 0, 1001.0, 5.5, 0.5, 100))
    assert found.eval_losses == {1: 5.75}
    assert found.steps[1].perplexity == pytest.approx(math.exp(5.5))


def test_a_later_start_replaces_the_steps_that_it_does_anew(tmp_path):
    start(tmp_path, 9, {0: 6.0, 1: 5.0, 2: 4.0, 3: 3.0}, {0: 6.5, 2: 4.5})
    # Not after it in the order of names.
    start(tmp_path, 10, {2: 4.25, 3: 3.25}, {2: 4.75})
    found = EventFolder(tmp_path / "events").read()
    assert [(step.number, step.loss, step.start) for step in found.steps] == [
        (0, 6.0, 0),
        (1, 5.0, 0),
        (2, 4.25, 1),
        (3, 3.25, 1),
    ]
    assert found.eval_losses == {0: 6.5, 2: 4.75}
    assert found.starts == 2


def test_a_start_that_has_logged_no_step_replaces_none(tmp_path):
    start(tmp_path, 1, {0: 6.0})
    start(tmp_path, 2, {})
    found = EventFolder(tmp_path / "events").read()
    assert ([step.number for step in found.steps], found.starts) == ([0], 2)


def test_a_file_is_read_on_from_where_it_ended(tmp_path):
    start(tmp_path, 1, {number: 6.0 - number for number in range(5)})
    path = next((tmp_path / "events").iterdir())
    whole = path.read_bytes()
    folder = EventFolder(tmp_path / "events")
    counts = []
    # Wherever a writer is interrupted, what is whole is read, and nothing is lost or read twice.
    for length in range(0, len(whole) + 1, 7):
        path.write_bytes(whole[:length])
        counts.append(len(folder.read().steps))
    path.write_bytes(whole)
    assert counts == sorted(counts)
    assert folder.read() == EventFolder(tmp_path / "events").read()
    assert len(folder.read().steps) == 5


def test_what_is_no_event_file_ends_the_reading(tmp_path):
    start(tmp_path, 1, {0: 6.0})
    path = next((tmp_path / "events").iterdir())
    for rest in (b"\xff" * 40, (3).to_bytes(8, "little") + b"0000" + b"\xff\xff\xff" + b"0000"):
        path.write_bytes(path.read_bytes() + rest)
        assert [step.loss for step in EventFolder(tmp_path / "events").read().steps] == [6.0]


def test_the_rate_is_that_of_the_last_start(tmp_path):
    start(tmp_path, 1, {0: 6.0, 1: 5.0})
    assert EventFolder(tmp_path / "events").read().tokens_per_second() is None
    start(tmp_path, 2, {1: 5.0, 2: 4.0, 3: 4.0, 4: 4.0})
    assert EventFolder(tmp_path / "events").read().tokens_per_second() == 100


def history(steps: int, evals: dict[int, float]) -> History:
    made = [Step(number, int(number > 4), time.time(), 6 / (number + 1), 1e-3, 1000) for number in range(steps)]
    return History(tuple(made), evals, 1)


@pytest.mark.parametrize("steps", [1, 2, 3, 12, 13, 500])
@pytest.mark.parametrize("evals", [{}, {0: 6.0}])
def test_the_table_has_the_first_and_the_last_step(steps, evals):
    console = Console(file=io.StringIO(), width=100)
    print_losses(console, history(steps, evals), rows=12)
    assert isinstance(console.file, io.StringIO)
    rows = [line.split() for line in console.file.getvalue().splitlines() if line.split()[:1] != []]
    shown = [int(row[0]) for row in rows if row[0].isdecimal()]
    assert shown[0] == 0
    assert shown[-1] == steps - 1
    assert min(steps, 11) <= len(shown) <= 12
    assert shown == sorted(set(shown))
    assert ("eval loss" in console.file.getvalue()) == bool(evals)
    assert rows[-1][-1] == f"{steps * 1000:,}"


def test_the_plot_is_a_picture(tmp_path):
    path = tmp_path / "losses.png"
    plot_losses(history(10, {0: 6.0, 5: 2.0}), "a run", str(path))
    assert path.read_bytes().startswith(b"\x89PNG")
    again = tmp_path / "again.png"
    plot_losses(history(10, {0: 6.0, 5: 2.0}), "a run", str(again))
    assert path.read_bytes() == again.read_bytes()
    plot_losses(history(10, {}), "a run", str(again))
    assert path.read_bytes() != again.read_bytes()
