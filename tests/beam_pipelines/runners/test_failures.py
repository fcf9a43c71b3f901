"""The errors that a pipeline's failures are shown as."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from beam_pipelines.runners.failures import plain_errors
from tests.support.command import run_command, started_command, workers_of
from tests.support.corpora import SAMPLES, TOKENIZER, write_parquet
from transforms.errors import BroetchenError, UsageError


def test_an_error_of_ours_comes_without_the_step() -> None:
    with pytest.raises(UsageError, match=r"^no such thing$"), plain_errors():
        raise UsageError("no such thing [while running 'Build/Plan']")


@pytest.mark.parametrize("kind", [BroetchenError, RuntimeError])
def test_an_interrupt_is_one_whatever_failed_because_of_it(kind: type[Exception]) -> None:
    def interrupted() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            with contextlib.suppress(OSError):
                raise OSError
            raise kind("cannot be cleaned up")

    with pytest.raises(KeyboardInterrupt), plain_errors():
        interrupted()


@pytest.mark.parametrize("on_ctrl_c", [signal.default_int_handler, signal.SIG_IGN])
def test_the_death_of_a_worker_ends_the_wait_for_it(
    monkeypatch: pytest.MonkeyPatch, on_ctrl_c: Callable[..., object] | signal.Handlers
) -> None:
    """This holds in the background of a script as well, where SIGINT is ignored."""
    monkeypatch.setattr("beam_pipelines.runners.failures._NOTICED_S", 0.01)

    def run_worker() -> None:
        raise RuntimeError("a worker process ended with -9")

    def run() -> None:
        threading.Thread(target=run_worker, name="run_worker").start()
        threading.Event().wait(10)
        pytest.fail("it waits for ever")

    before = signal.signal(signal.SIGINT, on_ctrl_c)
    try:
        with pytest.raises(BroetchenError, match=r"^a worker process died; "), plain_errors():
            run()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mix that two workers have some seconds to do for."""
    folder = tmp_path_factory.mktemp("workers")
    (text, *_) = (path.read_text() for path in sorted((SAMPLES / "licenses").glob("*.txt")))
    write_parquet(folder / "a.parquet", [[text * 20] * 40 for _ in range(24)])
    content = {
        "name": "workers",
        "tokenizer": {"path": str(TOKENIZER), "eos_token": "<|eos|>"},
        "shards": {"target_size": "64KiB"},
        "datasets": {"licenses": {"source": "a.parquet", "tokens": 12_000_000}},
    }
    path = folder / "mix.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("delay_s", [0.1, 3.0, 6.0])
def test_a_build_does_not_wait_for_a_worker_that_was_killed(config: Path, tmp_path: Path, delay_s: float) -> None:
    options = ("--direct_running_mode=multi_processing", "--direct_num_workers=2", "--engine=tokenizers")
    with started_command("build", config, "--output", tmp_path / "out", *options) as process:
        while process.poll() is None and len(workers_of(process)) < 2:
            time.sleep(0.02)
        time.sleep(delay_s)
        workers = workers_of(process)
        if workers:
            workers[0].kill()
        process.wait(90)
    assert process.returncode in (0, 1)
    done = run_command("build", config, "--output", tmp_path / "out", "--engine=gigatoken")
    assert done.returncode == 0, done.stderr
