"""The command of a training job, as MaxText reads it."""

from __future__ import annotations

import omegaconf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.job import JobFile, TrainingJob
from launch.maxtext.command import argument, arguments, left_out, trainer_environment
from transforms.errors import UsageError

VALUES = (
    st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text().filter(lambda text: "${" not in text)
)  # fmt: skip


@given(VALUES)
def test_a_value_is_read_as_it_was(value):
    read = omegaconf.OmegaConf.from_cli([argument("key", value)])
    assert omegaconf.OmegaConf.to_container(read, resolve=True) == {"key": value}
    assert type(read["key"]) is type(value)


@pytest.mark.parametrize(
    "text",
    ["true", "No", "null", "~", "", "1", ".5", "0x1f", "1:30", "a: b", "a #b", "[a]", "*a", "gs://b/c", "-",
     "/a b/$(c);'d'\"e\"", "a\nb", "\x00\x7f\x85\u2028\ud7ff\U0001f600", "a=b", "/a/b:c", "nan", "inf", "2025-1-1"],
)  # fmt: skip
def test_text_stays_text(text):
    read = omegaconf.OmegaConf.to_container(omegaconf.OmegaConf.from_cli([argument("key", text)]), resolve=True)
    assert read == {"key": text}


def test_what_omegaconf_would_replace_is_refused():
    with pytest.raises(UsageError, match=r"base_output_directory: .* has `\$\{`"):
        argument("base_output_directory", "/data/${oc.env:HOME}")


def test_the_command_of_a_job_with_its_files_in_a_folder():
    command = TrainingJob(
        "a", {"run_name": "a", "x": "{files}/mixture.json", "steps": 5}, (JobFile("model.yml", "", ""),)
    )
    assert arguments(command, "/a b") == (
        "-m",
        "maxtext.trainers.pre_train.train",
        "/a b/model.yml",
        "run_name=a",
        'x="/a b/mixture.json"',
        "steps=5",
    )


def test_the_trainer_sees_no_variable_that_overrides_a_parameter():
    assert trainer_environment({"PATH": "/bin", "M_STEPS": "5", "HF_TOKEN": "x", "PYTHONPATH": "y"}) == {"PATH": "/bin"}
    assert left_out({"PATH": "/bin", "M_STEPS": "5", "PYTHONPATH": "y"}) == ["HF_TOKEN", "M_STEPS", "PYTHONPATH"]
