"""MaxText's settings for a command: its own reading of the parameters, in a process of its own.

The installed MaxText is asked, not a copy of its schema: the command line is read by `pyconfig`, as the trainer reads
it. That needs neither the trainer's environment nor its devices, only some three seconds. It is a process apart since
MaxText reads environment variables and the number of JAX's devices, and sets some of both.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from launch.job import TrainingJob
from launch.maxtext.command import config_arguments
from transforms.errors import BroetchenError, one_line
from transforms.files.scratch import temporary_folder
from transforms.quantities import shown

_TIMEOUT_SECONDS = 300

# Only variables that a Python process needs: no M_… of MaxText's, no XLA_FLAGS.
_KEPT = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "VIRTUAL_ENV")

# Of a choice among more than these, only the nearest are named.
_MAX_CHOICES = 10
_CHOICE = re.compile(r"'([^']*)'")

_MAX_MESSAGE = 300
# MaxText's message about an unknown key in a config file; keys of the command line are not shown to it.
_STRANGER = re.compile(r"'([^']*)' not in '")

# Without the first, it would start a cluster, and without the second print a thousand lines.
_QUIET = ("skip_jax_distributed_system=true", "log_config=false")


@dataclass(frozen=True)
class Reading:
    """MaxText's settings, all of them, derived ones included; or its objections to the command.

    Attributes:
        settings: by name, in JSON's types. Empty where there are problems.
        problems: for each the parameter, or None for the whole, and the objection.
    """

    settings: Mapping[str, Any]
    problems: tuple[tuple[str | None, str], ...]


def read(job: TrainingJob, devices: int) -> Reading:
    """Lets MaxText read the command of a job.

    Args:
        job: its files need not be anywhere yet.
        devices: how many JAX is to see.

    Raises:
        UsageError: a parameter has text that MaxText would replace.
        BroetchenError: MaxText is not installed, or ends without an answer.
    """
    with temporary_folder("settings") as folder:
        question, answer, job_folder = (Path(folder, name) for name in ("question.json", "answer.json", "job"))
        job_folder.mkdir()
        for file in job.files:
            file.write(job_folder)
        arguments = config_arguments(job, str(job_folder))
        question.write_text(json.dumps({"arguments": arguments, "keys": list(job.parameters)}))
        environment = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith("PYTHON")}
        environment |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
        try:
            ended = subprocess.run(
                [sys.executable, "-P", "-m", "launch.maxtext.settings", question, answer],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise BroetchenError(f"MaxText did not read its parameters in {_TIMEOUT_SECONDS} s; try again") from error
        if ended.returncode or not answer.exists():
            last = ended.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise BroetchenError(
                f"MaxText cannot check its parameters here: {one_line(last) or f'it ended with {ended.returncode}'}; "
                "install broetchen with all its dependencies"
            )
        given = json.loads(answer.read_text())
    return Reading(given["settings"], tuple((key, what) for key, what in given["problems"]))


# --- In the process of its own ----------------------------------------------------------------------------------------


def _answer(arguments: Sequence[str], keys: Sequence[str]) -> dict[str, Any]:
    from maxtext.configs import pyconfig, types

    known = types.MaxTextConfig.model_fields
    problems: list[tuple[str | None, str]] = [(key, _unknown(key, known)) for key in keys if key not in known]
    # MaxText stops at the first key that it does not know; without them it says what else there is.
    config_file, *others = arguments
    asked = [argument for argument in others if argument.partition("=")[0] in known]
    try:
        # The trainer calls `initialize`, which is this but for its way to report an error: that writes to
        # /dev/termination-log. The first argument is the program.
        config = pyconfig._initialize_pydantic(["", config_file, *asked, *_QUIET])
    except Exception as error:
        problems += _refusals(error, keys, known)
    else:
        problems += _index_problems(config.grain_index_storage_option)
    return {"settings": {} if problems else json.loads(config.model_dump_json()), "problems": problems}


def _index_problems(option: str | None) -> list[tuple[str | None, str]]:
    """The objection of the installed reader of ArrayRecord to a `grain_index_storage_option`.

    MaxText hands it on unseen (`get_datasets` in `maxtext/input_pipeline/grain_data_processing.py`, 0.2.5), and how the
    reader takes it changes with its version; so a file of one record is opened by that very function, and read.
    """
    if option is None:
        return []
    from array_record.python.array_record_module import ArrayRecordWriter
    from maxtext.input_pipeline.grain_data_processing import get_datasets

    with temporary_folder("index") as folder:
        path = str(Path(folder, "0.arecord"))
        writer = ArrayRecordWriter(path, "group_size:1")
        writer.write(b"a record")
        writer.close()
        try:
            dataset = get_datasets(
                path,
                "arrayrecord",
                shuffle=False,
                shuffle_seed=0,
                shuffle_buffer_size=1,
                num_epoch=1,
                dataloading_host_index=0,
                dataloading_host_count=1,
                grain_worker_count=0,
                grain_num_threads=1,
                grain_prefetch_buffer_size=1,
                grain_data_source_max_workers=1,
                grain_index_storage_option=option,
            )
            read = list(dataset) == [b"a record"]
            said = "" if read else "it reads other records"
        except Exception as error:
            said = _short(str(error) or type(error).__name__)
    if not said:
        return []
    reader = f"array_record {version('array_record')}"
    return [("grain_index_storage_option", f"{option} does not work with {reader}, which says: {said}; leave it out")]


def _unknown(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    advice = f"did you mean `{near[0]}`?" if near else "see its base.yml for those that it has"
    return f"is no parameter of MaxText {_version()}; {advice}"


def _refusals(error: BaseException, keys: Sequence[str], known: Mapping[str, Any]) -> list[tuple[str | None, str]]:
    from pydantic import ValidationError

    if stranger := _STRANGER.match(str(error)):
        return [("model_name", f"its file has `{stranger[1]}`, which {_unknown(stranger[1], known)}")]
    if not isinstance(error, ValidationError):
        return [(None, f"MaxText refuses them: {_short(str(error) or type(error).__name__)}")]
    by_key: dict[str | None, list[Any]] = {}
    for one in error.errors():
        key = str(one["loc"][0]) if one["loc"] else None
        by_key.setdefault(key, []).append(one)
    return [
        (key, _refusal(key, found, known))
        if key is not None and key in keys
        else (None, f"MaxText refuses them: {_said(found)}")
        for key, found in by_key.items()
    ]


def _refusal(key: str, found: Sequence[Any], known: Mapping[str, Any]) -> str:
    value = found[0]["input"]
    choices = [choice for one in found for choice in _CHOICE.findall(str(one.get("ctx", {}).get("expected", "")))]
    if len(choices) > _MAX_CHOICES:
        near = difflib.get_close_matches(str(value), choices, n=3)
        return f"{shown(value)} is none of the {len(choices)} that MaxText {_version()} knows" + (
            f"; did you mean {' or '.join(near)}?" if near else ""
        )
    meaning = known[key].description
    return f"{shown(value)} is not what MaxText {_version()} takes: {_said(found)}" + (
        f" ({one_line(meaning).rstrip('.')})" if meaning else ""
    )


def _said(found: Sequence[Any]) -> str:
    """Pydantic's message about one parameter, whose type may be a choice of several."""
    messages = (_short(one["msg"].removeprefix("Value error, ")) for one in found)
    return " or ".join(dict.fromkeys(message[:1].lower() + message[1:] for message in messages))


def _short(message: str) -> str:
    """MaxText lists all of its fields in one message, and all TPUs in another."""
    return textwrap.shorten(one_line(message), _MAX_MESSAGE, placeholder=" …")


def _version() -> str:
    return version("maxtext")


def main() -> None:
    """Answers the question in the file that the first argument names, in the file of the second."""
    question, answer = map(Path, sys.argv[1:3])
    asked = json.loads(question.read_text())
    answer.write_text(json.dumps(_answer(asked["arguments"], asked["keys"])))


if __name__ == "__main__":
    main()
