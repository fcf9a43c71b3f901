"""`import broetchen` does what the command does, silently, in a process that has threads, and leaves it as it was."""

from __future__ import annotations

import ast
import json
import multiprocessing
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import broetchen
from tests.support.command import run_command
from tests.support.corpora import TOKENIZER, write_parquet
from tests.support.documents import ROOT

TWO = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]


@pytest.fixture(scope="module")
def mix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("face")
    for name in ("german", "english"):
        documents = [[f"{name} {group}, {row} und noch einer mehr." for row in range(20)] for group in range(12)]
        write_parquet(folder / name / "0.parquet", documents)
    content = {
        "name": "face",
        "tokenizer": {"path": str(TOKENIZER), "eos_token": "<|eos|>"},
        "total_tokens": 1000,
        "shards": {"target_size": 2000},
        "datasets": {
            name: {"share": "50%", "eval_tokens": 50, "source": f"{name}/*.parquet"} for name in ("german", "english")
        },
    }
    (folder / "mix.yaml").write_text(yaml.safe_dump(content))
    return folder / "mix.yaml"


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.fixture
def thread() -> Iterator[threading.Thread]:
    """A thread that runs all the while, as a notebook has some."""
    done = threading.Event()
    running = threading.Thread(target=done.wait)
    running.start()
    yield running
    done.set()
    running.join()


def test_changes_are_keys_and_mappings_of_keys(mix: Path) -> None:
    changed = broetchen.load_mix(
        mix,
        total_tokens="2K",
        records={"format": "text"},
        datasets={"german": {"share": "25%"}, "english": {"share": "75 %"}},
    )
    assert changed.total_tokens == 2000
    assert changed.records.format == "text"
    assert changed.records.max_tokens == broetchen.load_mix(mix).records.max_tokens
    assert {name: budget.train for name, budget in changed.budgets().items()} == {"german": 500, "english": 1500}
    dotted: dict[str, Any] = {"records.max_tokens": 7}
    assert broetchen.load_mix(mix, **dotted).records.max_tokens == 7
    assert broetchen.load_mix(mix, source_root="/data").resolve("hf://datasets/a") == "/data/datasets/a"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"total_token": 5}, r"argument total_token\): .*did you mean `total_tokens`"),
        ({"total_tokens": "a lot"}, "total_tokens"),
        ({"datasets": {"french": {"share": "5%"}}}, "dataset that the config does not have"),
        ({"records": {"formats": "text"}}, "records.formats"),
    ],
)
def test_changes_that_cannot_be_are_named(mix: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(broetchen.UsageError, match=message):
        broetchen.load_mix(mix, **changes)


@pytest.mark.parametrize(
    "options", [[], pytest.param(TWO, marks=pytest.mark.slow)], ids=["one process", "two processes"]
)
def test_a_build_beside_threads_is_silent_and_that_of_the_command(
    mix: Path, tmp_path: Path, thread: threading.Thread, capfd: pytest.CaptureFixture[str], options: list[str]
) -> None:
    summary = broetchen.build(mix, str(tmp_path / "face"), beam_options=options)
    assert [sum(split.tokens for split in manifest.splits.values()) for manifest in summary.manifests.values()] == [
        550,
        550,
    ]
    assert summary.built == set(summary.manifests)
    assert not broetchen.build(mix, str(tmp_path / "face"), beam_options=options).built
    manifests = broetchen.verify(str(tmp_path / "face"), beam_options=options)
    assert manifests == dict(sorted(summary.manifests.items()))
    counts = broetchen.count(str(tmp_path / "face"), beam_options=options)
    assert {name: count.tokens for name, count in counts.items()} == {
        f"{name}/{split}": tokens for name in ("english", "german") for split, tokens in (("train", 500), ("eval", 50))
    }
    assert thread.is_alive()
    assert tuple(capfd.readouterr()) == ("", "")
    done = run_command("build", mix, "--output", tmp_path / "command")
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "face") == tree(tmp_path / "command")


def test_a_plan_and_counts_of_a_config_with_changes(mix: Path, capfd: pytest.CaptureFixture[str]) -> None:
    changed = broetchen.load_mix(mix, total_tokens=600)
    outlooks = broetchen.plan(changed, datasets=["german"])
    assert [(outlook.dataset, outlook.need) for outlook in outlooks] == [("german", 350)]
    counts = broetchen.count(
        [changed, mix.parent / "german" / "0.parquet"], tokenizer=str(TOKENIZER), datasets=["german"]
    )
    of_config, of_file = counts.values()
    assert of_config == of_file
    assert of_config.documents == 240
    assert tuple(capfd.readouterr()) == ("", "")


@pytest.mark.parametrize(
    "options", [[], pytest.param(TWO, marks=pytest.mark.slow)], ids=["one process", "two processes"]
)
def test_errors_are_raised_and_not_printed(
    mix: Path, tmp_path: Path, thread: threading.Thread, capfd: pytest.CaptureFixture[str], options: list[str]
) -> None:
    with pytest.raises(broetchen.UsageError, match="no such dataset"):
        broetchen.build(mix, str(tmp_path), datasets=["french"])
    with pytest.raises(broetchen.UsageError, match="--runners"):
        broetchen.build(mix, str(tmp_path), beam_options=["--runners=x"])
    with pytest.raises(broetchen.BroetchenError, match="no finished dataset here"):
        broetchen.verify(str(tmp_path))
    short = broetchen.load_mix(mix, total_tokens="1M")
    with pytest.raises(broetchen.BroetchenError, match="exhausted"):
        broetchen.build(short, str(tmp_path / "short"), beam_options=options)
    assert tuple(capfd.readouterr()) == ("", "")


def test_arguments_of_other_types(mix: Path, tmp_path: Path) -> None:
    changed = broetchen.load_mix(mix, total_tokens=np.int64(600), tokenizer={"path": TOKENIZER})
    assert changed.total_tokens == 600
    names = (name for name in ["german"])
    broetchen.build(changed, tmp_path / "out", datasets=names)
    assert list(broetchen.verify(tmp_path / "out")) == [str(tmp_path / "out" / "german")]
    counts = broetchen.count(mix.parent / "german" / "0.parquet", tokenizer=TOKENIZER, ledger=tmp_path / "ledger")
    outlooks = broetchen.plan(changed, ledger=tmp_path / "ledger")
    assert {outlook.dataset: outlook.available_error for outlook in outlooks} == {"german": 0, "english": 0}
    assert len(counts) == 1
    for wrong, message in (
        ({"datasets": "german"}, r"datasets='german': is one text; give a list"),
        ({"beam_options": "--runner=x"}, r"beam_options='--runner=x': is one text"),
        ({"engine": "fast"}, r"engine='fast': there is no such engine; there are auto, tokenizers, gigatoken"),
    ):
        arguments: dict[str, Any] = wrong
        with pytest.raises(broetchen.UsageError, match=message):
            broetchen.build(changed, tmp_path / "other", **arguments)
    assert not (tmp_path / "other").exists()


def test_jobs_of_several_threads_and_of_a_pool(mix: Path, tmp_path: Path) -> None:
    hook = threading.excepthook
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda number: broetchen.build(mix, tmp_path / f"{number}"), range(3)))
    assert tree(tmp_path / "0") == tree(tmp_path / "1") == tree(tmp_path / "2") != {}
    assert threading.excepthook is hook
    with multiprocessing.get_context("spawn").Pool(1) as processes:
        assert len(processes.apply(broetchen.verify, (tmp_path / "0",), {"beam_options": TWO})) == 2


# Runs as a script: its standard streams and descriptors are looked at before and after.
SCRIPT = """
    import json, logging, os, signal, sys, threading
    import broetchen

    def state():
        return {
            "descriptors": {name: os.readlink(f"/proc/self/fd/{name}") for name in ("0", "1", "2")},
            "handlers": [repr(handler) for handler in logging.getLogger().handlers],
            "level": logging.getLogger().level,
            "hook": threading.excepthook is threading.__excepthook__,
            "signal": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        }

    if __name__ == "__main__":
        before = state()
        broetchen.build(sys.argv[1], sys.argv[2])
        assert state() == before, (before, state())
        os.write(1, b"alone on standard output")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_script_keeps_its_streams_log_and_signals(mix: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py", mix, tmp_path / "out"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "alone on standard output", "")


def test_the_faces_come_at_once_and_all_of_their_names_are_there() -> None:
    program = """
import json, sys
import broetchen, transforms
late = [name for name in ("apache_beam", "pyarrow", "pydantic", "tokenizers") if name in sys.modules]
faces = (broetchen, transforms)
names = {face.__name__: [name for name in face.__all__ if getattr(face, name).__doc__] for face in faces}
print(json.dumps([late, names]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    late, names = json.loads(done.stdout)
    assert late == []
    assert {"build", "count", "load_mix", "open_dataset", "plan", "verify"} < set(names["broetchen"])
    assert {"BuildDatasets", "DatasetCut", "Manifest", "ReadParquet", "ShardCount", "TokenBudget", "Tokenize",
            "WriteToArrayRecord", "read_manifest", "BroetchenError"} < set(names["transforms"])  # fmt: skip
    for face in names:
        shown = ast.parse((ROOT / face / "__init__.py").read_text(encoding="utf-8"))
        typed = [
            alias.name
            for block in shown.body
            if isinstance(block, ast.If)
            for line in block.body
            if isinstance(line, ast.ImportFrom)
            for alias in line.names
        ]
        assert sorted(typed) == names[face] == dir(sys.modules[face])
        assert names[face] == sorted(names[face])
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            getattr(sys.modules[face], "nothing")  # noqa: B009
