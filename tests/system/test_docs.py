"""README.md and docs/ are true: commands run, options exist, links lead somewhere, messages are the program's.

`broetchen train` is run by tests/system/training/test_training_docs.py, the tutorial by
tests/documents/test_tutorial.py.
"""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml
from typer.core import TyperCommand, TyperGroup

from beam_pipelines.cli import app
from beam_pipelines.config.mix import load_config
from beam_pipelines.console import terminal
from beam_pipelines.jobs.build import build
from beam_pipelines.runners.options import _parser
from tests.support.command import run_command
from tests.support.corpora import SAMPLES
from tests.support.documents import DOCUMENTS, ROOT, anchors, blocks, code_spans, commands, links
from transforms.files import storage

ALL_DOCUMENTS = [*DOCUMENTS, *(ROOT / folder / "README.md" for folder in ("benchmarks", "mix_configs", "samples"))]
COMMANDS = [(document, command) for document in DOCUMENTS for command in commands(document)]
#: what stands for something that only the reader has
PLACEHOLDER = re.compile(r"[A-Z]{4,}|…")
#: run where they are described, or by nobody but a person who pays for it
ELSEWHERE = {"train", "demo", "cluster", "init"}


def name_of(item: tuple[Path, list[str]]) -> str:
    return f"{item[0].name}: {' '.join(item[1])}"


@functools.cache
def group() -> TyperGroup:
    found = typer.main.get_command(app)
    assert isinstance(found, TyperGroup)
    return found


def arguments_of(command: list[str]) -> list[str] | None:
    """The arguments of `broetchen`, also by way of `python -m`; None where the command runs another program."""
    match command:
        case ["broetchen", *arguments]:
            return arguments
        case ["python", "-m", "beam_pipelines", *arguments]:
            return arguments
    return None


def is_local(document: Path, command: list[str]) -> bool:
    arguments = arguments_of(command) or ["train"]
    if arguments[0] in ELSEWHERE or any(argument.startswith("--job_endpoint") for argument in arguments):
        return False
    # `show --step` needs a training, an exact order datasets in Megatron's format, and the tutorial has a test of its
    # own.
    return (
        document.name not in ("exact-order.md", "tutorial.md")
        and "--step" not in arguments
        and not PLACEHOLDER.search(" ".join(arguments))
    )


SYNOPSES = [
    (document, span)
    for document in DOCUMENTS
    for span in code_spans(document)
    if re.match(r"broetchen [a-z]", span) or re.match(rf"({'|'.join(group().commands)}) [A-Z\-\[]", span)
]


# --- Commands ---------------------------------------------------------------------------------------------------------


def test_every_command_is_in_the_documents() -> None:
    assert {"broetchen", "python", "make", "docker", "gcloud"} <= {command[0] for _, command in COMMANDS}
    shown = {words[0] for _, command in COMMANDS if (words := arguments_of(command))}
    assert set(group().commands) <= shown | {span.removeprefix("broetchen ").split()[0] for _, span in SYNOPSES}


@pytest.mark.parametrize("item", COMMANDS, ids=name_of)
def test_a_command_is_one(item: tuple[Path, list[str]]) -> None:
    """It parses as it stands: commands, options and choices exist. Values are checked where the command is run."""
    _, command = item
    arguments = arguments_of(command)
    match command:
        case _ if arguments is not None and "…" in arguments:
            check_options(arguments)
        case _ if arguments is not None:
            parse(arguments)
        case ["python", "-m", module, *_]:
            assert importlib.util.find_spec(module), module
        case ["make", target, *_]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M), target
        case ["docker" | "gcloud", *words]:
            named = [word.partition("=")[2] for word in words if word.startswith("--metadata-file=")]
            assert all((ROOT / path).exists() for path in [*named, "Dockerfile"])
        case _:
            pytest.fail(f"nobody knows how to check {command}")


def parse(arguments: list[str]) -> None:
    with group().make_context("broetchen", list(arguments)) as context:
        name, command, rest = group().resolve_command(context, [*context._protected_args, *context.args])
        assert command is not None
        with command.make_context(name, rest, parent=context):
            pass


def check_options(arguments: list[str]) -> None:
    """Checks the options of a command line that is not whole."""
    command, rest = group().commands[arguments[0]], arguments[1:]
    if isinstance(command, TyperGroup):
        command = command.commands[rest[0]]
    own = {option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]}
    beams = set() if type(command) is TyperCommand else set(_parser()._option_string_actions)
    given = {option for word in arguments for option in re.findall(r"--[a-z][\w-]*", word)}
    assert given <= own | beams | {"--help"}


def test_the_check_finds_what_is_wrong() -> None:
    for wrong in (["plann", "mix.yaml"], ["plan"], ["plan", "mix.yaml", "--outputs=x"], ["count", "a", "--format=xml"]):
        with pytest.raises(Exception, match=r"plann|config|outputs|xml"):
            parse(wrong)
    with pytest.raises(AssertionError):
        check_options(["build", "…", "--sdk_container_images=x"])


@pytest.mark.parametrize("item", SYNOPSES, ids=lambda item: f"{item[0].name}: {item[1]}")
def test_the_options_of_a_synopsis_exist(item: tuple[Path, str]) -> None:
    """`build CONFIG --output URI` in the middle of a sentence, or in a table."""
    check_options(item[1].removeprefix("broetchen ").split())


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, gcs_bucket: str) -> Path:
    """The files that the documents presuppose: corpora, a tokenizer, a config, and datasets that were built of them."""
    folder = tmp_path_factory.mktemp("documents")
    for language, sample in (("german", "fineweb2_german"), ("english", "fineweb_english")):
        for source in sorted((SAMPLES / "corpora" / sample).glob("*.parquet")):
            (folder / "corpora" / language).mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / "corpora" / language / source.name)
            storage.write_bytes(f"{gcs_bucket}/{language}/{source.name}", source.read_bytes())
    german = folder / "corpora" / "german" / "000_00000.parquet"
    shutil.copy(german, folder / "corpora" / "news.parquet")
    (folder / "corpora" / "fineweb-2" / "deu_Latn" / "train").mkdir(parents=True)
    shutil.copy(german, folder / "corpora" / "fineweb-2" / "deu_Latn" / "train" / "000_00000.parquet")
    shutil.copy(SAMPLES / "tokenizer.json", folder)
    for name in ("german", "nanochat"):
        (folder / "tokenizers" / name).mkdir(parents=True)
        shutil.copy(SAMPLES / "tokenizer.json", folder / "tokenizers" / name)
    (readme,) = blocks(ROOT / "README.md", "yaml")
    (folder / "my-mix.yaml").write_text(readme)
    mix = {
        "name": "mix",
        "tokenizer": {"path": "./tokenizer.json", "eos_token": "<|eos|>"},
        "total_tokens": "60K",
        "records": {"trace": True},
        "datasets": {
            name: {
                "share": "50%",
                "eval_tokens": "1K",
                "source": f"corpora/{name}/*.parquet",
                "trace_columns": ["id", "url", "license"],
            }
            for name in ("german", "english")
        },
    }
    (folder / "mix.yaml").write_text(yaml.safe_dump(mix))
    built = load_config(str(folder / "mix.yaml"))
    build(built, str(folder / "my-mix"), quiet=True)
    for path in (folder / "my-mix").rglob("*"):
        if path.is_file():
            storage.write_bytes(f"{gcs_bucket}/{path.relative_to(folder)}", path.read_bytes())
    build(
        load_config(str(folder / "mix.yaml"), overrides={"records.format": "parquet"}),
        str(folder / "vocab-corpus"),
        quiet=True,
    )
    build(load_config(str(ROOT / "mix_configs" / "demo.yaml")), str(folder / "demo-output"), quiet=True)
    for name in ("mix_configs", "samples", "launch"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture
def working(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the inputs, which is the working directory."""
    folder = tmp_path / "working"
    shutil.copytree(inputs, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(terminal, "start", lambda **how: None)
    yield folder
    left = [path.name for path in folder.rglob("*") if ".tmp-" in path.name]
    assert not left


RUN = [document for document in DOCUMENTS if any(is_local(*item) for item in COMMANDS if item[0] == document)]


@pytest.mark.slow
@pytest.mark.parametrize("document", RUN, ids=lambda document: document.name)
def test_the_commands_of_a_document_run(
    document: Path, working: Path, gcs_bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs them one after another, as by a reader who copies them."""
    if document.name == "README.md":
        shutil.rmtree(working / "my-mix")
    for command in commands(document):
        if is_local(document, command):
            words = [re.sub(r"gs://(my-)?bucket", gcs_bucket, word) for word in command]
            if words[0] == "broetchen":
                group().main(words[1:], standalone_mode=False)
            else:
                ended = run_command(*words[3:], module=words[2])
                assert ended.returncode == 0, ended.stderr
    assert capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    "document", [document for document in DOCUMENTS if blocks(document, "python")], ids=lambda document: document.name
)
def test_the_programs_of_a_document_run(document: Path, working: Path) -> None:
    """One after another, in one namespace, as in a notebook."""
    names: dict[str, object] = {"__name__": "__main__"}
    for program in blocks(document, "python"):
        exec(compile(program, document.name, "exec"), names)
    if document == ROOT / "docs" / "README.md":
        assert [path.name for path in sorted((working / "out").iterdir())] == [
            f"train-0000{index}-of-00002.arecord" for index in range(2)
        ]


# --- Links ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", ALL_DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_the_links_of_a_document_lead_somewhere(document: Path) -> None:
    for link in links(document):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


def test_the_index_names_every_document() -> None:
    index = ROOT / "docs" / "README.md"
    named = {link.partition("#")[0] for link in links(index)}
    assert {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"} <= named


# --- Single documents -------------------------------------------------------------------------------------------------


def rendered(node: ast.AST) -> str:
    """A text as the source has it, with "…" for what is filled in."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(map(rendered, parts))
        case ast.BinOp(left=left, right=right):
            return rendered(left) + rendered(right)
    return "…"


def texts_of_the_source() -> str:
    """Every text of our code, a line each."""
    nodes = (
        node
        for package in ("beam_pipelines", "broetchen", "launch", "transforms")
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant | ast.JoinedStr)
    )
    return "\n".join(" ".join(rendered(node).split()) for node in nodes)


#: those of other programs
FOREIGN = {"Inputs to PackedBatch must be truncated"}


def test_every_message_of_the_troubleshooting_is_one_of_ours() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?`) \| ", text, re.M)
    messages = [message for row in rows for message in re.split(r"`, `", row.strip("`"))]
    assert len(messages) > 50
    source = texts_of_the_source()
    for message in set(messages) - FOREIGN:
        parts = [re.escape(part.strip()) for part in message.split("…") if part.strip(" ;.:,()")]
        assert parts, message
        assert re.search(".*?".join(parts), source), message
    assert not re.search("no message says this", source)


def test_every_test_that_a_document_names_is_there() -> None:
    named = [
        (document, *found)
        for document in DOCUMENTS
        for found in re.findall(r"\[`(test_\w+)`\]\(\.\./(tests/[\w/]+\.py)\)", document.read_text(encoding="utf-8"))
    ]
    assert len(named) > 20
    for document, test, path in named:
        source = (ROOT / path).read_text(encoding="utf-8")
        assert re.search(rf"^def {test}\(", source, re.M), f"{document.name}: {test}"


def test_the_comparison_is_with_the_installed_versions() -> None:
    text = (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| version \|.*$", text, re.M)
    for name, label in (("datatrove", "dt"), ("array_record", "ar")):
        assert f"[{importlib.metadata.version(name)}][{label}]" in row


def test_documents_name_no_machine() -> None:
    for document in DOCUMENTS:
        assert not re.search(r"/(work|home|root)/", document.read_text(encoding="utf-8")), document.name


def test_the_documents_are_in_the_repository() -> None:
    """None is left out by .gitignore."""
    if not (ROOT / ".git").exists():
        pytest.skip("no repository here")
    ignored = subprocess.run(
        ["git", "check-ignore", *map(str, DOCUMENTS)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ignored.stdout == ""
