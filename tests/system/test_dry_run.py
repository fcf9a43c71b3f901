"""The checks of `build --dry-run`, that it writes nothing, and the outputs that the demo may replace."""

from __future__ import annotations

import hashlib
import importlib.resources
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from beam_pipelines.config.mix import load_config
from beam_pipelines.jobs.build import build, build_demo
from beam_pipelines.jobs.dry_run import dry_run
from beam_pipelines.runners.options import pipeline_options
from tests.support.command import run_command, started_command
from tests.support.corpora import TOKENIZER, write_parquet
from tests.support.services.dataflow_service import DataflowService, dataflow
from tests.support.services.gcs_emulator import Handler
from transforms.errors import BroetchenError, UsageError
from transforms.files import storage
from transforms.files.listing import list_files
from transforms.locks.output import check_free, hold_output

__all__ = ["dataflow"]


@pytest.fixture
def mix(tmp_path: Path) -> Path:
    write_parquet(tmp_path / "a" / "0.parquet", [["Ein Satz, und noch einer dazu. " * 8] * 40] * 3)
    return write_mix(tmp_path, "mix.yaml")


def write_mix(folder: Path, name: str, **changes: Any) -> Path:
    content: dict[str, Any] = {
        "name": "small",
        "tokenizer": {"path": str(TOKENIZER), "eos_token": "<|eos|>"},
        "datasets": {"a": {"source": f"{folder}/a/*.parquet", "tokens": 2000}},
    }
    (folder / name).write_text(yaml.safe_dump(content | changes))
    return folder / name


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "" for path in folder.rglob("*")
    }


@pytest.mark.parametrize("command", ["build", "vocab"])
def test_the_plan_is_shown_and_nothing_is_written(mix: Path, tmp_path: Path, command: str) -> None:
    before = tree(tmp_path)
    done = run_command(command, mix, "--output", tmp_path / "not" / "there", "--dry-run", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert " a " in done.stdout
    assert "2,000" in done.stdout
    assert "All checks have passed. Nothing was built" in done.stdout
    assert "On this machine: about " in done.stdout
    assert "bucket" not in done.stdout
    assert tree(tmp_path) == before


@pytest.mark.slow
def test_what_is_there_is_named_and_stays(mix: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    build(load_config(mix), str(output), quiet=True)
    before = tree(output)
    assert dry_run(load_config(mix), str(output)).finished == ["a"]
    other = load_config(mix, overrides={"datasets.a.tokens": "1500"})
    with pytest.raises(BroetchenError, match="holds a dataset of another config"):
        dry_run(other, str(output))
    found = dry_run(other, str(output), overwrite=True)
    assert not found.finished
    assert "holds a dataset of another config" in found.replaced["a"]
    done = run_command("build", mix, "--set=datasets.a.tokens=1500", "--output", output, "--dry-run", "--overwrite")
    assert "a would be replaced: " in done.stdout
    assert tree(output) == before


WRONG: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "config": ({"recrods": {}}, [], r"recrods"),
    "tokenizer": ({"tokenizer": {"path": "none.json"}}, [], r"none\.json"),
    "source": ({"datasets": {"a": {"source": "none/*.parquet", "tokens": 5}}}, [], r"no file matches"),
    "footer": ({"datasets": {"a": {"source": "mix.yaml", "tokens": 5}}}, [], r"not a parquet file, or cut short"),
    "column": ({"datasets": {"a": {"source": "a/*", "tokens": 5, "text_column": "b"}}}, [], r"no column 'b'"),
    "dataset": ({}, ["--dataset=b"], r"--dataset b: the config has no such dataset"),
    "runner": ({}, ["--runner=Nonsense"], r"--runner Nonsense: Beam has no such runner"),
    "option": ({}, ["--direct_num_worker=2"], r"did you mean --direct_num_workers\?"),
    "job service": ({}, ["--runner=PortableRunner", "--job_endpoint=127.0.0.1:1"], r"no job service answers there"),
    "Beam's own": ({}, ["--dry_run=true"], r"^broetchen: --dry_run: .* build and vocab have --dry-run"),
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.slow) if case == "job service" else case for case in WRONG]
)
def test_what_is_wrong_is_found(mix: Path, tmp_path: Path, case: str) -> None:
    changes, options, words = WRONG[case]
    config = write_mix(tmp_path, "mix.yaml", **changes)
    before = tree(tmp_path)
    done = run_command("build", config, "--output", tmp_path / "out", "--dry-run", "-q", *options)
    assert done.returncode in (1, 2)
    assert len(done.stderr.splitlines()) == 1
    assert re.search(words, done.stderr)
    assert tree(tmp_path) == before


def test_a_place_where_nothing_can_be_written(mix: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BroetchenError, match="is a file, not a folder; choose another path"):
        dry_run(load_config(mix), str(tmp_path / "file" / "out"))


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_a_place_where_another_build_is_at_work(mix: Path, tmp_path: Path, gcs_prefix: str, where: str) -> None:
    output = str(tmp_path / "out") if where == "folder" else f"{gcs_prefix}/out"
    words = rf"another build is at work there \(process {os.getpid()}"
    with hold_output(output), pytest.raises(BroetchenError, match=words):
        dry_run(load_config(mix), output)
    check_free(output)


@pytest.mark.slow
def test_the_lock_of_a_build_that_was_killed_is_none(mix: Path, tmp_path: Path) -> None:
    code = ("build", mix, "--output", tmp_path / "out", "--engine=tokenizers")
    with started_command(*code) as process:
        while process.poll() is None and not (tmp_path / "out" / ".broetchen.lock").exists():
            pass
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    dry_run(load_config(mix), str(tmp_path / "out"))


def test_a_bucket_that_may_not_be_written(mix: Path, gcs_prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dry_run(load_config(mix), f"{gcs_prefix}/out")
    with pytest.raises(BroetchenError, match=r"^gs://no-such-bucket/out: cannot be written \(HTTP 404 Not Found\)"):
        dry_run(load_config(mix), "gs://no-such-bucket/out")
    answer = Handler.do_GET

    def may_read(handler: Handler) -> None:
        # As of an account that may look and not write: it is asked for what is left of the permissions.
        handler.path = re.sub(r"permissions=storage\.objects\.(create|delete)&?", "", handler.path)
        answer(handler)

    monkeypatch.setattr(Handler, "do_GET", may_read)
    with pytest.raises(BroetchenError, match=r"it lacks storage\.objects\.create, storage\.objects\.delete; give it"):
        dry_run(load_config(mix), f"{gcs_prefix}/out")
    monkeypatch.undo()
    assert not list_files(f"{gcs_prefix}/out")


@pytest.mark.slow
def test_a_job_that_dataflow_runs_there_already(mix: Path, gcs_prefix: str, dataflow: DataflowService) -> None:
    source = next(iter((mix.parent / "a").glob("*.parquet")))
    storage.upload(str(source), f"{gcs_prefix}/a.parquet")
    config = load_config(mix, overrides={"datasets.a.source": f"{gcs_prefix}/a.parquet"})
    output = f"{gcs_prefix}/out"
    dry_run(config, output, beam_arguments=dataflow.options())
    assert not dataflow.jobs
    named = [*dataflow.options(), "--job_name=broetchen-1"]
    dataflow.create(
        {
            "name": "broetchen-1",
            "clientRequestId": "1",
            "environment": {"sdkPipelineOptions": {"options": {"pipelineUrl": ""}}},
        }
    )
    with pytest.raises(BroetchenError, match="runs there already; wait until it is done, or cancel it"):
        dry_run(config, output, beam_arguments=named)
    with pytest.raises(UsageError, match="is on this machine, where Dataflow's workers cannot read it"):
        dry_run(load_config(mix), output, beam_arguments=dataflow.options())


@pytest.mark.parametrize("value", ["true", "false", "1"])
def test_beams_own_dry_run_is_refused(value: str) -> None:
    for runner in ("DirectRunner", "FlinkRunner", "DataflowRunner"):
        with pytest.raises(UsageError, match=r"--dry_run: .*build and vocab have --dry-run"):
            pipeline_options([f"--runner={runner}", f"--dry_run={value}"])


# --- The demo ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_demo_replaces_a_demo_alone(tmp_path: Path) -> None:
    output = tmp_path / "out"
    config = Path(str(importlib.resources.files("mix_configs"))) / "demo.yaml"
    build(load_config(config, overrides={"total_tokens": "60K"}), str(output), datasets=["fineweb_english"], quiet=True)
    built = build_demo(str(output), quiet=True)
    assert str(output / "fineweb_english") in built.built
    manifest = output / "fineweb_english" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"demo"', '"real"', 1))
    before = tree(output)
    done = run_command("demo", "--output", output)
    assert done.returncode == 2
    assert done.stderr == (
        f"broetchen: {output}/fineweb_english: holds a dataset of the mix real, and the demo replaces nothing but a "
        f"demo; "
        "choose another --output\n"
    )
    assert tree(output) == before


@pytest.mark.parametrize("spoil", [lambda text: text[:-9], lambda text: "{}"])
def test_the_demo_does_not_replace_what_it_cannot_read(tmp_path: Path, spoil: Callable[[str], str]) -> None:
    folder = tmp_path / "finepdfs_german"
    folder.mkdir()
    (folder / "manifest.json").write_text(spoil('{"format": "broetchen-dataset", "mix": "demo"}'))
    before = tree(tmp_path)
    with pytest.raises(UsageError, match=r"the demo replaces nothing but a demo: choose another --output$"):
        build_demo(str(tmp_path), quiet=True)
    assert tree(tmp_path) == before
