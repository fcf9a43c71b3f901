"""The steps that data has, against the batches that MaxText's own input pipeline makes of it."""

from __future__ import annotations

import dataclasses
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from launch.checks.checked_job import checked_job
from launch.checks.steps import data_steps, eval_loading, train_loading
from launch.config.training import load_training_config
from launch.job import TrainingJob
from launch.mixture.datasets import Mixture
from launch.mixture.outlook import outlook
from launch.places import Mounts
from tests.launch.checks.batches import Answer, Case, answers, case
from tests.support.command import run_command
from tests.support.corpora import TOKENIZER, write_parquet
from tests.support.trainable_mixes import training_config

pytestmark = pytest.mark.slow

TOKENS = {"long": 30_000, "short": 10_000, "tiny": 3_000}
WORDS = {"long": 120, "short": 30, "tiny": 60}


def built(folder: Path, **records: Any) -> Path:
    """Three datasets of documents of any length, the smallest of some 60 records."""
    chance = random.Random(3)
    for name, words in WORDS.items():
        texts = [
            " ".join(
                chance.choice(("Straße", "und", "Haus", "word", "of", "it"))
                for _ in range(chance.randint(1, 2 * words))
            )
            for _ in range(800)
        ]
        write_parquet(folder / name / "0.parquet", [texts[:400], texts[400:]])
    content = {
        "name": "counted",
        "tokenizer": {"path": str(TOKENIZER), "eos_token": "<|eos|>"},
        "records": records,
        "datasets": {
            name: {"source": f"{folder}/{name}/*.parquet", "tokens": tokens, "eval_tokens": 4_000}
            for name, tokens in TOKENS.items()
        },
    }
    (folder / "mix.yaml").write_text(yaml.safe_dump(content))
    done = run_command("build", folder / "mix.yaml", "--output", folder / "mix", "--quiet")
    assert done.returncode == 0, done.stderr
    return folder


def job_of(folder: Path) -> tuple[TrainingJob, Mixture]:
    tokenizer = shutil.copytree(next(folder.glob("mix/tokenizer-*")), folder / "tokenizer")
    (tokenizer / "tokenizer_config.json").write_text('{"eos_token": "<|eos|>", "pad_token": "<|bos|>"}')
    config = training_config(
        folder,
        {"steps": 1, "checkpoint_period": 0, "eval_interval": 5, "max_target_length": 128},
        data={"outputs": "mix", "eval": True},
        tokenizer="tokenizer",
    )
    checked = checked_job(load_training_config(config), Mounts({}), 1)
    return checked.job, checked.mixture


def least(answer: Answer, mixture: Mixture, hosts: int, *, evaluation: bool) -> int:
    """The steps that we say there are."""
    shares = mixture.shares()
    if evaluation:
        return data_steps(eval_loading(answer.settings, mixture, shares, hosts)).steps
    found = outlook(mixture.components, shares, answer.settings["num_epoch"])
    return data_steps(train_loading(answer.settings, mixture, found, hosts)).steps


def test_the_steps_of_ids(tmp_path: Path) -> None:
    """Never more than each host has; without packing all of them, else what packing and chance leave."""
    job, mixture = job_of(built(tmp_path, max_tokens=128, add_eos=True))
    # The hosts, whether it is an evaluation, the parameters, and how much of what there is we find at least.
    asked: list[tuple[int, bool, Mapping[str, Any], float]] = [
        (1, False, {"per_device_batch_size": 8}, 0.8),
        (1, False, {"per_device_batch_size": 8, "grain_packing_type": "concat_then_split"}, 0.97),
        (1, False, {"packing": False}, 1),
        (2, False, {"packing": False, "grain_worker_count": 2, "num_epoch": 3}, 1),
        (2, False, {"grain_worker_count": 2, "num_epoch": 2}, 0.6),
        # Few records on many readers: 24 of them, and some 60 records of the smallest dataset.
        (4, False, {"grain_worker_count": 6}, 0.4),
        (4, False, {"packing": False, "grain_worker_count": 16}, 1),
        (1, True, {"gradient_accumulation_steps": 2}, 0.6),
        (2, True, {}, 0.5),
        (4, True, {"packing": False, "gradient_accumulation_steps": 2}, 1),
        (2, True, {"packing": False, "grain_worker_count_eval": 2}, 1),
    ]
    cases = [question(job, tmp_path, hosts, parameters, evaluation) for hosts, evaluation, parameters, _ in asked]
    for (hosts, evaluation, parameters, close), answer in zip(asked, answers(cases, tmp_path), strict=True):
        steps, there = least(answer, mixture, hosts, evaluation=evaluation), min(answer.batches)
        print(hosts, "eval" if evaluation else "train", parameters, answer.batches, steps)
        assert len(answer.batches) == hosts
        assert close * there - 1 <= steps <= there, (hosts, evaluation, parameters, answer.batches)
        if close == 1:
            assert steps == there


def question(job: TrainingJob, folder: Path, hosts: int, parameters: Mapping[str, Any], evaluation: bool) -> Case:
    changed = dataclasses.replace(job, parameters={**job.parameters, **parameters})
    return case(changed, folder / "job", hosts=hosts, devices=hosts, evaluation=evaluation)


def test_the_steps_of_texts(tmp_path: Path) -> None:
    job, mixture = job_of(built(tmp_path, format="text"))
    asked: list[tuple[int, Mapping[str, Any], float]] = [
        (1, {}, 0.6),
        # Each text is a sequence, cut off.
        (1, {"packing": False, "use_truncation": True}, 1),
        (2, {"packing": False, "use_truncation": True, "grain_worker_count": 2}, 1),
        # Each piece of a text is.
        (1, {"packing": False}, 0.5),
        # How much is left of them nobody knows.
        (1, {"use_truncation": True}, 0),
    ]
    cases = [question(job, tmp_path, hosts, parameters, False) for hosts, parameters, _ in asked]
    for (hosts, parameters, close), answer in zip(asked, answers(cases, tmp_path), strict=True):
        steps, there = least(answer, mixture, hosts, evaluation=False), min(answer.batches)
        print(hosts, parameters, answer.batches, steps)
        assert close * there - 1 <= steps <= there, (hosts, parameters, answer.batches)
        if close == 1:
            assert steps == there
