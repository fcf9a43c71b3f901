"""How many batches MaxText's own input pipeline gives each host of a run: its functions, in a process of their own.

JAX has one process here, which is told that it is one of several: by its number MaxText chooses records and the size of
a batch. And workers are threads instead of processes, which is Grain's own way where Python has no lock: these read the
same parts of the records, and start at once. Nothing else of the pipeline is changed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from launch.job import TrainingJob
from launch.maxtext.command import config_arguments


@dataclass(frozen=True)
class Case:
    """A question: the batches of each host.

    Attributes:
        arguments: of MaxText, its config file first.
        hosts: how many there are.
        devices: of all hosts.
        evaluation: whether the batches of an evaluation are meant, else those of the training.
    """

    arguments: Sequence[str]
    hosts: int
    devices: int
    evaluation: bool = False


def case(job: TrainingJob, folder: Path, *, hosts: int, devices: int, evaluation: bool) -> Case:
    """A question about a job, whose files are written into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in job.files:
        file.write(folder)
    return Case(config_arguments(job, str(folder)), hosts, devices, evaluation)


@dataclass(frozen=True)
class Answer:
    """The batches of each host, and all of MaxText's settings."""

    batches: Sequence[int]
    settings: Mapping[str, Any]


def answers(cases: Sequence[Case], scratch: Path) -> list[Answer]:
    """The answers to all cases; one process answers those with as many devices."""
    found: dict[int, Answer] = {}
    for devices in sorted({one.devices for one in cases}):
        chosen = [index for index, one in enumerate(cases) if one.devices == devices]
        question, answer = scratch / f"question-{devices}.json", scratch / f"answer-{devices}.json"
        question.write_text(json.dumps([asdict(cases[index]) for index in chosen]))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("M_", "XLA_"))}
        environment = kept | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
        ended = subprocess.run(
            [sys.executable, "-m", "tests.launch.checks.batches", str(question), str(answer)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr[-3000:]
        given = json.loads(answer.read_text())
        found |= {index: Answer(**one) for index, one in zip(chosen, given, strict=True)}
    return [found[index] for index in range(len(cases))]


# --- In the process of its own ----------------------------------------------------------------------------------------


def _count(asked: Mapping[str, Any]) -> dict[str, Any]:
    import jax
    from grain._src.python.dataset.transformations import prefetch, process_prefetch
    from maxtext.configs import pyconfig
    from maxtext.input_pipeline import grain_data_processing

    def threads(ds: Any, num_workers: int = 0, buffer_size: int = 1, **_: Any) -> Any:
        return prefetch.multithread_prefetch(ds, num_threads=num_workers, buffer_size=buffer_size)

    process_prefetch.multiprocess_prefetch = threads
    quiet = ("skip_jax_distributed_system=true", "log_config=false")
    config = pyconfig._initialize_pydantic(["", *asked["arguments"], *quiet])
    settings = json.loads(config.model_dump_json())
    kind = "eval" if asked["evaluation"] else "train"
    iterator_of = getattr(grain_data_processing, f"make_grain_{kind}_iterator")
    counts = []
    hosts = range(asked["hosts"])
    jax.process_count = lambda *_: len(hosts)
    for host in hosts:
        jax.process_index = lambda *_, host=host: host
        made = iterator_of(config, SimpleNamespace(size=asked["devices"]), list(hosts))
        counts.append(sum(1 for _ in made.local_iterator))
        made.local_iterator.close()
    return {"batches": counts, "settings": settings}


def main() -> None:
    """Answers the questions in the file that the first argument names, in the file of the second."""
    question, answer = map(Path, sys.argv[1:3])
    answer.write_text(json.dumps([_count(asked) for asked in json.loads(question.read_text())]))


if __name__ == "__main__":
    main()
