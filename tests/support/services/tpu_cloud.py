"""Parts for tests of runs on TPUs: a Google Cloud that is played, data in a bucket, names that no shell may read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import launch.tpu.target
from beam_pipelines.config.mix import load_config
from beam_pipelines.jobs.build import build
from launch.checks.checked_job import CheckedJob, checked_job
from launch.config.training import load_training_config
from launch.job import TrainingJob
from launch.tpu.vm import TpuVm
from tests.support.corpora import TOKENIZER, write_parquet
from tests.support.services.recording_gcloud import Recorder

# Each of these would leave a file behind, were it ever read by a shell.
HOSTILE = "a b'c\"d;touch CANARY;$(touch CANARY)`touch CANARY`&|<>*?[~#!{\\"
SECTION: dict[str, Any] = {"accelerator": "v6e-8", "zone": "europe-west4-a", "project": "my-project-123"}
JOBS = "/opt/broetchen/jobs"


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder(tmp_path / "cloud")
    for name, value in recorder.environment().items():
        monkeypatch.setenv(name, value)
    return recorder


@pytest.fixture(scope="module")
def corpus(gcs_bucket: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small dataset in a bucket, in a folder with a hostile name."""
    folder = tmp_path_factory.mktemp("corpus")
    write_parquet(folder / "german" / "0.parquet", [["Ein Satz, und noch einer dazu. " * 8] * 60] * 2)
    mix = {
        "name": "small",
        "tokenizer": {"path": str(TOKENIZER), "eos_token": "<|eos|>"},
        "records": {"max_tokens": 64, "add_eos": True},
        "datasets": {"german": {"source": "german/*.parquet", "tokens": 6000}},
    }
    (folder / "mix.yaml").write_text(yaml.safe_dump(mix))
    output = f"{gcs_bucket}/{HOSTILE.translate(str.maketrans('', '', '*?[{#'))}/mix"
    build(load_config(str(folder / "mix.yaml")), output, quiet=True)
    return output


def config_file(folder: Path, corpus: str, **changes: Any) -> Path:
    bucket = corpus.split("/")[2]
    content = {
        "name": "Nano_Demo.1",
        "data": {"outputs": corpus},
        "model": "nano-german-slm",
        "output": f"gs://{bucket}/{HOSTILE.replace('$', '')}",
        "parameters": {
            "steps": 4,
            "per_device_batch_size": 1,
            "max_target_length": 64,
            "checkpoint_period": 2,
            "profiler": "",
            "jax_cache_dir": HOSTILE,
        },
        "tpu_vm": SECTION,
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    return path


@dataclass
class Jobs:
    """The real job of a config, made once for all tests: MaxText takes seconds to check it."""

    checked: CheckedJob | None = None
    buckets: tuple[str, ...] = ()

    def __call__(self, config: Any, place: Any, devices: int, *, hosts: int = 1) -> CheckedJob:
        if self.checked is None:
            self.checked = checked_job(config, place, devices, hosts=hosts)
            self.buckets = tuple(place.buckets)
        place.buckets[:] = self.buckets
        return self.checked

    @property
    def made(self) -> TrainingJob | None:
        return None if self.checked is None else self.checked.job


JOBS_MADE = Jobs()

MakeVm = Callable[..., TpuVm]


@pytest.fixture
def make_vm(tmp_path: Path, corpus: str, cloud: Recorder, monkeypatch: pytest.MonkeyPatch) -> MakeVm:
    monkeypatch.setattr(launch.tpu.target, "checked_job", JOBS_MADE)

    def make(**section: Any) -> TpuVm:
        config = load_training_config(config_file(tmp_path, corpus, tpu_vm=SECTION | section))
        return TpuVm(config, poll_s=0)

    return make


@pytest.fixture(autouse=True)
def no_canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No shell has read a hostile name."""
    working = tmp_path / "working"
    working.mkdir()
    monkeypatch.chdir(working)
    yield
    assert not [path for path in tmp_path.rglob("*") if "CANARY" in path.name and path.is_file()]


def start(vm: TpuVm) -> None:
    vm.start(yes=True)


def verbs(cloud: Recorder) -> list[str]:
    return [" ".join(call[2:4]) for call in cloud.calls("gcloud")]
