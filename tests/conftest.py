"""Fixtures for all tests, and how Hypothesis runs."""

import os
import shutil
import signal
from pathlib import Path

import pytest
from huggingface_hub import close_session
from hypothesis import Phase, settings

from tests.support.services.gcs_emulator import gcs_bucket, gcs_prefix
from transforms.files import hub

__all__ = ["gcs_bucket", "gcs_prefix"]

# No test depends on how fast the machine is. In CI the examples are always the same ones; elsewhere they are new ones.
settings.register_profile("broetchen", deadline=None, derandomize=os.environ.get("CI") == "true", print_blob=True)
# `make test-slow`: more of them.
settings.register_profile("thorough", settings.get_profile("broetchen"), max_examples=250)
# `make mutants`: it matters only that a test fails, not by which example.
settings.register_profile(
    "mutants",
    settings.get_profile("broetchen"),
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile("broetchen")

# Some tests press Ctrl-C or hang up. In the background of a script, or by nohup, this process would ignore both, and
# what it starts would as well.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """As many as there are processors, and for slow tests, many of which wait for what they have started, one more."""
    return (os.cpu_count() or 1) + (config.option.markexpr != "not slow")


@pytest.fixture
def hf_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`HF_HOME`: empty, and for all tests of a process the same, as clients read it when they are imported.

    This process also forgets what it remembers of a hub's files, and connections to the last hub are closed: another
    one at its address would not get their requests.
    """
    hub._file.cache_clear()
    close_session()
    folder = tmp_path_factory.getbasetemp() / "hf-home"
    shutil.rmtree(folder, ignore_errors=True)
    monkeypatch.setenv("HF_HOME", str(folder))
    return folder
