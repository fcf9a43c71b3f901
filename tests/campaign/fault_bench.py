"""The bench that all trials of the fault campaign share: the mix, its undisturbed build, and comparisons with it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from beam_pipelines.config.mix import load_config
from beam_pipelines.jobs.build import build
from beam_pipelines.jobs.verify import verify
from tests.support.command import COMMAND, kill_session
from tests.support.forks import Forked, ForkServer
from tests.support.killed_builds import check_nothing_is_half_there, tree, write_mix
from tests.support.services.gcs_emulator import Handler, emulated_bucket
from transforms.files import storage
from transforms.files.listing import list_files

TOKENS = {"a": 60_000, "b": 40_000}
_ENGINE = ("--engine", "tokenizers")
_IN_BUILD = Path(__file__).parent / "in_build"
_ARMS = "tests.campaign.in_build.sitecustomize"


class FaultBench:
    """A folder for a campaign, with a mix, what an undisturbed build of it writes and does, and an emulated bucket.

    Attributes:
        folder: for scratch files.
        bucket: ``gs://…`` of the bucket.
        reference: SHA-256 by name of all files that an undisturbed build leaves.
        operations: of such a build on files, each as "event path within the output", in order.
        requests: and to the bucket, each as "METHOD path".
        seconds: that it takes, forked.
    """

    def __init__(self, folder: Path, bucket: str, server: ForkServer) -> None:
        self.folder, self.bucket, self._server = folder, bucket, server
        self.config = write_mix(folder / "mix", TOKENS)
        self._environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        self._environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
        self.seconds = 0.0
        undisturbed, notes = folder / "undisturbed", folder / "operations"
        for environment in ({"CAMPAIGN_OPERATIONS": str(notes)}, {}):
            shutil.rmtree(undisturbed, ignore_errors=True)
            started = time.monotonic()
            code = self.fork(str(undisturbed), environment).wait()
            assert code == 0, self.errors()
            self.seconds = time.monotonic() - started
        self.reference = tree(undisturbed)
        verify(str(undisturbed))
        self.operations = [line.replace(str(undisturbed), "") for line in notes.read_text().splitlines()]
        self.requests: list[str] = []

        def note(method: str, path: str) -> bool:
            self.requests.append(f"{method} {path}")
            return True

        with requests_seen(before=note):
            output = f"{bucket}/undisturbed"
            code = self.fork(output).wait()
        assert code == 0, self.errors()
        self.check(output)

    def fork(self, output: str, environment: Mapping[str, str] | None = None, *, config: Path | None = None) -> Forked:
        """Starts the build, forked; of another config where one is given."""
        arguments = ["build", str(config or self.config), "--output", output, *_ENGINE]
        given = {"CAMPAIGN_OUTPUT": output, **_store(), **(environment or {})}
        return self._server.start(arguments, errors=self.folder / "errors", environment=given, armed_by=_ARMS)

    def errors(self) -> str:
        """The standard error of the last forked build."""
        return (self.folder / "errors").read_text()

    @contextlib.contextmanager
    def started(
        self,
        output: str,
        *beam_options: str,
        limits: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        name: str = "started",
        config: Path | None = None,
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Starts the installed command, and at the end of the block kills those of its processes that still run.

        After the block `errors_of(name)` has its standard error. `limits` is a command that runs another within
        limits.
        """
        command = [
            *limits,
            str(COMMAND),
            "build",
            str(config or self.config),
            "--output",
            output,
            *_ENGINE,
            *beam_options,
        ]
        given = {"CAMPAIGN_OUTPUT": output, "PYTHONPATH": str(_IN_BUILD), **(environment or {})}
        with (
            open(self.folder / f"{name}.err", "wb", buffering=0) as errors,
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,  # not the file itself, to which the limits would apply
                start_new_session=True,
                env={**self._environment, **_store(), **given},
            ) as process,
        ):
            assert process.stderr is not None
            reader = threading.Thread(target=shutil.copyfileobj, args=(process.stderr, errors, 1))
            reader.start()
            try:
                yield process
            finally:
                kill_session(process)
                reader.join()

    def errors_of(self, name: str = "started") -> str:
        return (self.folder / f"{name}.err").read_text()

    def check_half(self, output: str) -> None:
        """Checks that nothing is half there: of a local output, as the bucket's are looked at by their requests."""
        if storage.is_local(output):
            check_nothing_is_half_there(Path(output), self.reference)
        else:
            final = {name: digest for name, digest in _tree(output).items() if not re.search(r"(^|/)\.", name)}
            assert final.items() <= self.reference.items(), "a file with a final name is not the undisturbed build's"

    def rerun(self, output: str) -> None:
        """Builds once more, without any fault, and checks everything."""
        build(load_config(str(self.config)), output, engine="tokenizers", quiet=True)
        self.check(output)

    def check(self, output: str) -> None:
        """Checks that the output is the undisturbed build's, file by file and without any other, and is verified."""
        found = _tree(output)
        other = {name for name in found.keys() | self.reference.keys() if found.get(name) != self.reference.get(name)}
        assert not other, f"not as an undisturbed build leaves it: {', '.join(sorted(other))}"
        verify(output)

    def clear(self, name: str) -> None:
        """Deletes the output of a trial, in the folder and in the bucket, which gets slower the more it holds."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        storage.delete_tree(f"{self.bucket}/{name}")


def check_clean_failure(code: int | None, errors: str, expected: str) -> None:
    """Checks that a command ended with exit code 1 and an error of one line that matches."""
    assert code == 1, f"exit code {code}: {errors[-2000:]}"
    assert "Traceback" not in errors, errors[-2000:]
    lines = [line for line in errors.splitlines() if line.startswith("broetchen: ")]
    assert len(lines) == 1, errors[-2000:]
    assert re.search(expected, lines[0]), lines[0]


@contextlib.contextmanager
def fault_bench(folder: Path) -> Iterator[FaultBench]:
    """A `FaultBench` in `folder`, with a bucket of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    with emulated_bucket(folder) as bucket, ForkServer() as server:
        yield FaultBench(folder, bucket, server)


@contextlib.contextmanager
def requests_seen(
    *, before: Callable[[str, str], bool] | None = None, after: Callable[[str, str], bool] | None = None
) -> Iterator[None]:
    """Has the bucket call `before` and `after` around each request, in its thread, with its method and path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Handler, "before_request", before and staticmethod(before))
        patch.setattr(Handler, "after_request", after and staticmethod(after))
        yield


def _store() -> dict[str, str]:
    names = ("STORAGE_EMULATOR_HOST", "CLOUD_STORAGE_EMULATOR_ENDPOINT")
    return {name: os.environ[name] for name in names}


def _tree(output: str) -> dict[str, str]:
    if storage.is_local(output):
        return tree(Path(output))
    names = [path for path, _ in list_files(output)]
    return {name.removeprefix(f"{output}/"): hashlib.sha256(storage.read_bytes(name)).hexdigest() for name in names}
