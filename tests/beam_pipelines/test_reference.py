"""The tables of config keys in docs/: they are those of the schemas, and their examples are taken."""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from jsonschema import ValidationError as JsonSchemaError

from beam_pipelines import reference
from beam_pipelines.config.mix import MixConfig
from launch.config.training import PhaseConfig, TrainingConfig, load_training_config
from tests.support.command import run_command
from tests.support.documents import DOCUMENTS, ROOT
from transforms.config.document import ConfigKind
from transforms.config.file import open_document
from transforms.config.section import Section
from transforms.errors import UsageError


def sections(hint: Any) -> Iterator[type[Section]]:
    """The sections that a type has in it, and those of their keys."""
    if isinstance(hint, type) and issubclass(hint, Section):
        yield hint
        for part in typing.get_type_hints(hint).values():
            yield from sections(part)
    for part in typing.get_args(hint):
        yield from sections(part)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_documents_tables_are_those_of_the_schema(document: Path) -> None:
    """If it fails: make docs."""
    text = document.read_text(encoding="utf-8")
    assert reference.with_tables(text) == text


def test_each_section_of_a_config_has_its_table() -> None:
    text = "".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    tables = re.findall(r"^<!-- schema: (\w+) -->$", text, re.M)
    assert sorted(tables) == sorted({section.__name__ for section in sections(MixConfig | TrainingConfig)})


def test_a_section_that_is_none() -> None:
    with pytest.raises(UsageError, match=r"no section Mix in the schema; it has MixConfig, "):
        reference.with_tables("<!-- schema: Mix -->\n<!-- end -->\n")


@pytest.mark.parametrize("name", ["config.md", "training-tpu.md"])
def test_a_document_is_rewritten(tmp_path: Path, name: str) -> None:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    emptied = re.sub(r"(?<= -->\n)\|.*?(?=<!-- end -->)", "", text, flags=re.S)
    assert emptied != text
    (tmp_path / name).write_text(emptied, encoding="utf-8")
    ended = run_command(tmp_path / name, module="beam_pipelines.reference")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / name).read_text(encoding="utf-8") == text


SCHEMA_LINE = re.compile(r"# yaml-language-server: \$schema=(\S+)\n")
CONFIGS = [*sorted((ROOT / "mix_configs").rglob("*.yaml")), *sorted((ROOT / "launch" / "configs").glob("*.yaml"))]


@pytest.mark.parametrize("file", reference.SCHEMAS)
def test_a_committed_schema_is_that_of_the_config(file: str) -> None:
    """If it fails: make docs."""
    text = (ROOT / file).read_text(encoding="utf-8")
    assert reference.json_schema(reference.SCHEMAS[file]) == text
    Draft202012Validator.check_schema(json.loads(text))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_a_shipped_config_names_its_schema_and_is_what_it_wants(config: Path) -> None:
    line = SCHEMA_LINE.match(config.read_text(encoding="utf-8"))
    assert line is not None
    schema = (config.parent / line[1]).resolve()
    assert schema.relative_to(ROOT).as_posix() in reference.SCHEMAS
    Draft202012Validator(json.loads(schema.read_text(encoding="utf-8"))).validate(yaml.safe_load(config.read_text()))


@pytest.mark.parametrize(
    ("config", "change", "said"),
    [
        ("mix_configs/demo.yaml", {"nam": "x"}, "'nam' was unexpected"),
        ("mix_configs/demo.yaml", {"records": {"format": "bagz"}}, "'bagz' is not one of"),
        ("mix_configs/demo.yaml", {"datasets": {}}, "{} should be non-empty"),
        ("launch/configs/demo.yaml", {"data": {"outputs": []}}, r"\[\] is not valid"),
        ("launch/configs/demo.yaml", {"parameters": {"steps": [1]}}, r"\[1\] is not valid"),
        ("launch/configs/demo.yaml", {"data": {"outputs": "a", "shares": {"b": True}}}, "is not valid"),
    ],
)
def test_an_editor_sees_mistakes(config: str, change: dict[str, Any], said: str) -> None:
    content = yaml.safe_load((ROOT / config).read_text()) | change
    line = SCHEMA_LINE.match((ROOT / config).read_text())
    assert line is not None
    schema = json.loads(((ROOT / config).parent / line[1]).read_text())
    with pytest.raises(JsonSchemaError, match=said):
        Draft202012Validator(schema).validate(content)


TPU = {"accelerator": "v6e-8", "zone": "europe-west4-a"}
TRAINING = {
    "name": "a-run",
    "data": {"outputs": "mix"},
    "model": "nano-german-slm",
    "output": "training",
    "parameters": {},
    "tpu_vm": TPU,
    "xpk": TPU | {"cluster": "my-cluster"},
    "local": {},
}


def training_examples() -> Iterator[tuple[str, str]]:
    for key, field in TrainingConfig.model_fields.items():
        yield from ((key, example) for example in field.examples or ())
        for section in sections(field.annotation):
            for inner, its in section.model_fields.items():
                for example in its.examples or ():
                    yield _phase(inner, example) if section is PhaseConfig else (f"{key}.{inner}", example)


def _phase(key: str, example: str) -> tuple[str, str]:
    """A phase is not a key, but a part of a list."""
    phase = {"until": "100%", "shares": "{web: 1}"} | {key: example}
    last = "" if phase["until"] == "100%" else ", {until: 100%, shares: {web: 1}}"
    return "data.phases", f"[{{until: {phase['until']}, shares: {phase['shares']}}}{last}]"


@pytest.mark.parametrize(("key", "example"), list(training_examples()))
def test_an_example_of_a_training_config_is_taken(tmp_path: Path, key: str, example: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(TRAINING))
    overrides = {key: example} | ({"data.order": "exact"} if key == "data.phases" else {})
    load_training_config(path, overrides=overrides)
    content = open_document(ConfigKind("training config", "", floats=True), path, overrides).data
    schema = json.loads((ROOT / "launch/configs/training.schema.json").read_text())
    Draft202012Validator(schema).validate(content)
