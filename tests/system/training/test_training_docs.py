"""docs/training*.md are true: every command is run, dry where it would start something, and configs are whole."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import typer
import yaml

from beam_pipelines.cli import app
from beam_pipelines.config.mix import load_config
from beam_pipelines.console import terminal
from beam_pipelines.jobs.build import build
from launch.config.training import SET_BY, load_training_config
from tests.support import documents
from tests.support.documents import ROOT
from tests.support.services.recording_gcloud import Recorder
from transforms.errors import BroetchenError, UsageError
from transforms.files import storage

DOCUMENTS = [document for document in documents.DOCUMENTS if document.name.startswith("training")]
ACTIONS = {"status", "logs", "stop", "delete", "export"}
# The demo mix, a factor larger, is the recipe's 200B mix.
LARGER = 500_000


def commands() -> list[list[str]]:
    """The arguments of each `broetchen train` in a block of the documents; what would start something is a dry run.

    The tutorial's own runs are no part of them, as tests/documents/test_tutorial.py trains them.
    """
    unique = {
        dry(words[1:]): None
        for document in [*DOCUMENTS, ROOT / "docs" / "tutorial.md"]
        for words in documents.commands(document)
        if words[:2] == ["broetchen", "train"] and (document in DOCUMENTS or words[2].startswith("launch/"))
    }
    return [list(command) for command in unique]


def dry(arguments: list[str]) -> tuple[str, ...]:
    if "--dry-run" in arguments or not ACTIONS.isdisjoint(arguments):
        return tuple(arguments)
    return (*arguments, "--dry-run")


@pytest.fixture(scope="module")
def working(tmp_path_factory: pytest.TempPathFactory, gcs_bucket: str) -> Path:
    """A folder as the documents mean it: the shipped configs, the demo's output, and the recipe's mix in a bucket."""
    folder = tmp_path_factory.mktemp("working")
    build(load_config(str(ROOT / "mix_configs" / "demo.yaml")), str(folder / "demo-output"), quiet=True)
    ordered = load_config(str(ROOT / "mix_configs" / "demo.yaml"), overrides={"records.format": "megatron"})
    build(ordered, str(folder / "train-demo" / "mix"), quiet=True)
    for path in sorted(path for path in (folder / "demo-output").glob("*/*") if path.is_file()):
        content = path.read_bytes()
        if path.name == "manifest.json":
            manifest = json.loads(content)
            for split in manifest["splits"].values():
                for count in ("budget", "tokens", "records"):
                    split[count] *= LARGER
            content = json.dumps(manifest).encode()
        storage.write_bytes(f"{gcs_bucket}/30-50-5-5-10/{path.parent.name}/{path.name}", content)
    shutil.copytree(ROOT / "launch", folder / "launch", ignore=shutil.ignore_patterns("__pycache__", "*.py"))
    for config in (folder / "launch" / "configs").glob("*.yaml"):
        config.write_text(config.read_text().replace("gs://my-bucket", gcs_bucket))
    return folder


@pytest.fixture(autouse=True)
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder(tmp_path / "cloud")
    for name, value in recorder.environment().items():
        monkeypatch.setenv(name, value)
    return recorder


def test_there_are_commands():
    assert len(commands()) >= 10
    assert {command[2] for command in commands() if len(command) > 2 and command[2] in ACTIONS} == ACTIONS


@pytest.mark.slow
@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_a_command_of_the_documents(command, working, tmp_path, monkeypatch, cloud, capsys, gcs_bucket):
    working = Path(shutil.copytree(working, tmp_path / "working"))
    monkeypatch.chdir(working)
    arguments = [argument.replace("gs://my-bucket", gcs_bucket) for argument in command]
    acts = any(action in arguments for action in ACTIONS)
    before = sorted(path for path in working.rglob("*") if "__pycache__" not in path.parts)
    if "export" in arguments:
        # It needs a trainer's environment, which is not made here.
        arguments += ["--set", f"local.python={sys.executable}"]
    monkeypatch.setattr(terminal, "start", lambda **how: None)
    error: BroetchenError | None = None
    try:
        typer.main.get_command(app).main(arguments, standalone_mode=False)
    except BroetchenError as caught:
        error = caught
    # A run that is not started has a status, but no logs.
    if error is not None:
        assert acts, error
        assert not isinstance(error, UsageError), error
        assert re.search("there is no|was never started|not there|no checkpoint", str(error)), error
    assert acts or "maxtext.trainers.pre_train.train" in capsys.readouterr().out
    assert cloud.calls("gcloud", "create") == []
    assert sorted(path for path in working.rglob("*") if "__pycache__" not in path.parts) == before


def tables(text: str) -> dict[str, list[list[str]]]:
    """The rows of the tables by the headings above them, cells stripped."""
    parts = re.split(r"^##+ (.*)$", text, flags=re.M)
    return {
        title: [[cell.strip() for cell in row.strip("|").split(" | ")] for row in re.findall(r"^\| `.*\|$", body, re.M)]
        for title, body in zip(parts[1::2], parts[2::2], strict=True)
    }


def test_the_document_lists_the_parameters_that_follow():
    text = (ROOT / "docs" / "training.md").read_text()
    row = tables(text)["Parameters that follow from the rest"][0]
    assert {name.strip("` ") for name in row[0].split(",")} == set(SET_BY)


def test_the_document_lists_the_shipped_configs():
    listed = re.findall(r"^\| \[`([^`]*)`\]", (ROOT / "docs" / "training.md").read_text(), re.M)
    assert sorted(listed) == sorted(path.name for path in (ROOT / "launch" / "configs").glob("*.yaml"))


def test_the_documents_configs_are_whole(tmp_path):
    for path in DOCUMENTS:
        for block in re.findall(r"^```yaml\n(.*?)^```$", path.read_text(), re.M | re.S):
            if "parameters" in yaml.safe_load(block):
                (tmp_path / "run.yaml").write_text(block)
                assert load_training_config(tmp_path / "run.yaml").parameters
