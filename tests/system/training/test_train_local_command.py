"""`--target local` without a trainer: dry runs, refusals, and which models can be exported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import yaml

from launch.config.training import load_training_config
from launch.export.model import exported_model
from launch.local import environment as environments
from launch.maxtext.model import shipped_models
from tests.support.command import run_command, without_hint
from tests.support.local_training import config_file, data
from transforms.errors import UsageError

pytestmark = pytest.mark.slow

__all__ = ["data"]

TOKEN = "hf_0123456789secret"


@pytest.fixture(scope="module", autouse=True)
def variables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An empty cache, and variables that a trainer must not see."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BROETCHEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HF_TOKEN", TOKEN)
        patch.setenv("M_STEPS", "2")
        yield


def test_a_trainer_that_fails_is_reported_with_the_end_of_its_log(data, tmp_path):
    path = config_file(data, tmp_path)
    content = yaml.safe_load(path.read_text())
    # A Python without MaxText.
    path.write_text(yaml.safe_dump(content | {"local": {"python": "/bin/false"}}))
    ended = run_command("train", path)
    assert ended.returncode == 1
    assert "the trainer ended with status 1; the whole log is in" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_dry_run_shows_a_script_and_leaves_nothing(data, tmp_path, monkeypatch):
    monkeypatch.setenv("BROETCHEN_CACHE", str(tmp_path / "cache"))  # its own, which does not stay empty
    output = tmp_path / "out"
    ended = run_command("train", config_file(data, output), "--dry-run")
    assert ended.returncode == 0, ended.stderr
    assert [path.name for path in output.iterdir()] == ["run.yaml"]
    environment = environments.trainer("cpu")
    assert f"--require-hashes --only-binary :all: --compile-bytecode -r {environment.lock}" in ended.stdout
    assert f"{environment.python} -m maxtext.trainers.pre_train.train {output}/run/job/small.yml" in ended.stdout
    checked = subprocess.run(["sh", "-n"], input=ended.stdout, text=True, capture_output=True, check=False)
    assert (checked.returncode, without_hint(checked.stderr)) == (0, "")
    # An environment that is there is not made again.
    environment.folder.mkdir(parents=True)
    (environment.folder / ".complete").touch()
    assert "--require-hashes" not in run_command("train", config_file(data, output), "--dry-run").stdout


def test_a_dry_run_can_be_pasted(data, tmp_path):
    """The program that it runs sees the job's files, no token, and leaves its log where `logs` finds it."""
    python = tmp_path / "a python"
    python.write_text(f"#!{sys.executable}\nimport os, sys\nprint(*sys.argv[1:], os.environ, sep='\\n')\n")
    python.chmod(0o755)
    path, setting = config_file(data, tmp_path), f"local.python={python}"
    script = run_command("train", path, "--dry-run", "--set", setting).stdout
    done = subprocess.run(["sh", "-eu"], input=script, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    shown = run_command("train", path, "logs", "--set", setting).stdout
    assert "maxtext.trainers.pre_train.train" in shown
    assert "'JAX_PLATFORMS': 'cpu'" in shown
    assert TOKEN not in shown
    assert "M_STEPS" not in shown
    assert (tmp_path / "run" / "job" / "mixture.json").exists()


def test_a_log_is_printed_to_the_letter(data, tmp_path):
    path = config_file(data, tmp_path)
    (tmp_path / "run").mkdir()
    text = "a" + "ö" * 100_000  # at any place that a block may end
    (tmp_path / "run" / "trainer.log").write_text(text, encoding="utf-8")
    assert run_command("train", path, "logs").stdout == text


def test_what_is_not_on_this_machine_is_refused(data, tmp_path):
    path = config_file(data, tmp_path)
    for setting, message in (
        ("output=gs://bucket/training", "keeps its checkpoints; name a folder (--set output=FOLDER)\n"),
        ("local.accelerator=gpu", "nvidia-smi finds no GPU here; write cpu"),
        ("local.python=/no/python", "local.python: /no/python is no program"),
        ("parameters.managed_mldiagnostics=true", "the trainer's environment has no google-cloud-mldiagnostics"),
    ):
        ended = run_command("train", path, "--set", setting)
        assert ended.returncode == 2, setting
        assert message in ended.stderr
    elsewhere = ("output=gs://bucket/training", "tpu_vm={accelerator: v6e-8, zone: europe-west4-a}")
    ended = run_command("train", path, *(word for setting in elsewhere for word in ("--set", setting)))
    assert "output: gs://bucket/training is not on this machine" in ended.stderr
    assert "name a folder (--set output=FOLDER), or give --target tpu-vm\n" in ended.stderr


@pytest.mark.parametrize(
    ("key", "value"),
    [("rope_type", "default"), ("logits_via_embedding", True), ("decoder_block", "gemma"), ("use_qk_norm", True)],
)
def test_a_model_that_the_conversion_would_spoil_is_not_exported(data, tmp_path, key, value):
    config = load_training_config(config_file(data, tmp_path, **{key: value}))
    with pytest.raises(UsageError, match=f"only where they are like Llama, with {key}: "):
        exported_model(config)


def test_nothing_to_export_or_to_show(data, tmp_path):
    path = config_file(data, tmp_path)
    ended = run_command("train", path, "export")
    assert ended.returncode == 1
    assert "has no checkpoint; train first" in ended.stderr
    assert "was never started" in run_command("train", path, "logs").stderr
    assert run_command("train", path, "status").stdout.splitlines()[-1] == "checkpoints  none"
    assert "there are no machines to delete" in run_command("train", path, "delete").stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", shipped_models())
def test_the_shipped_models_can_be_exported(data, tmp_path, name):
    content = yaml.safe_load(config_file(data, tmp_path).read_text())
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content | {"model": name}))
    assert exported_model(load_training_config(tmp_path / "run.yaml")).settings["rope_use_scale"] is False
