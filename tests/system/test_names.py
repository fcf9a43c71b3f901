"""Every module that documents, docstrings and comments name is there: by its path, or with dots and an attribute."""

from __future__ import annotations

import ast
import fnmatch
import functools
import importlib.util
import io
import re
import tokenize
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.support.documents import DOCUMENTS, ROOT

PACKAGES = ("transforms", "launch", "beam_pipelines", "broetchen", "benchmarks", "tests", "samples", "mix_configs")
SOURCES = sorted(
    path.relative_to(ROOT)
    for path in [*ROOT.glob("*.py"), *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))]
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)
PLAIN_TEXTS = [
    *DOCUMENTS,
    *(ROOT / package / "README.md" for package in ("benchmarks", "mix_configs", "samples")),
    *(ROOT / name for name in ("Dockerfile", "Makefile", "pyproject.toml", ".ci/run")),
    *sorted(path for package in PACKAGES[:4] for path in (ROOT / package).rglob("*.jinja")),
    *sorted((ROOT / "launch").rglob("*.in")),
]
#: modules of other projects that are not installed here
FOREIGN = {
    "core/splits.py",
    "megatron/core/datasets/indexed_dataset.py",
    "nanochat/tokenizer.py",
    "preprocess_data.py",
    "src/encoder.py",
    "tools/preprocess_data.py",
}

_ADDRESS = re.compile(r"\w+://\S+")
_PATH = re.compile(r"(?<![\w/.}*-])(?:[\w.*-]+/)*[\w*-]+\.py\b")
_DOTTED = re.compile(rf"(?<![\w/.@}}-])(?:{'|'.join(PACKAGES[:6])})(?:\.[A-Za-z_]\w*)+(?![\w/])")
_FOLDER = re.compile(rf"(?<![\w/.}}-])(?:{'|'.join(PACKAGES)})/(?:\w+/)*(?![\w*<{{….-])")
_ENDINGS = (".md", ".yaml", ".json", ".py", ".lock")


# --- What is there ----------------------------------------------------------------------------------------------------


def is_path(name: str, home: Path) -> bool:
    """Whether it is a module: from the root, from `home`, as the one that ends so, or in an installed package."""
    if "*" in name:
        return any(fnmatch.fnmatch(str(path), pattern) for path in SOURCES for pattern in (name, f"*/{name}"))
    if (ROOT / name).is_file() or (ROOT / home / name).is_file():
        return True
    if sum(str(path).endswith(f"/{name}") for path in SOURCES) == 1 or name in FOREIGN:
        return True
    package, _, rest = name.partition("/")
    return bool(rest) and package not in PACKAGES and any((folder / rest).is_file() for folder in installed(package))


@functools.cache
def installed(package: str) -> list[Path]:
    """The folders of a package that is installed; nothing is imported."""
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    return [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []


@functools.cache
def body_of(module: str) -> tuple[ast.stmt, ...] | None:
    """The statements of a module or package; none for a folder without a module, and None where there is nothing."""
    path = ROOT.joinpath(*module.split("."))
    for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
        if file.is_file():
            return tuple(ast.parse(file.read_text(encoding="utf-8")).body)
    return () if path.is_dir() else None


def named_in(statements: tuple[ast.stmt, ...] | list[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """The names that statements bind, each with its statement; in a class also those of its instances."""
    for statement in statements:
        match statement:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                yield statement.name, statement
            case ast.Import() | ast.ImportFrom():
                yield from ((alias.asname or alias.name, statement) for alias in statement.names)
            case ast.Assign() | ast.AnnAssign() | ast.AugAssign() | ast.TypeAlias():
                for node in ast.walk(statement):
                    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                        yield node.id, statement
            case ast.If() | ast.Try() | ast.With():
                yield from named_in([child for child in ast.walk(statement) if isinstance(child, ast.stmt)][1:])


def attributes_of(statement: ast.stmt) -> set[str]:
    """The attributes of a class; those of anything else are not known here."""
    if not isinstance(statement, ast.ClassDef):
        return set()
    own = {
        node.attr
        for node in ast.walk(statement)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }
    return own | {name for name, _ in named_in(statement.body)}


def is_dotted(name: str) -> bool:
    """Whether a dotted name is a module, an attribute of one, or an attribute of a class in one."""
    parts = name.split(".")
    known = next((end for end in range(len(parts), 1, -1) if body_of(".".join(parts[:end])) is not None), 1)
    body, attributes = body_of(".".join(parts[:known])), parts[known:]
    if body is None or len(attributes) > 2:
        return False
    if not attributes or re.fullmatch(r"__\w+__", attributes[0]):
        return True
    found = [statement for bound, statement in named_in(body) if bound == attributes[0]]
    return bool(found) and (len(attributes) == 1 or any(attributes[1] in attributes_of(one) for one in found))


# --- What is named ----------------------------------------------------------------------------------------------------


def names_nothing(text: str, home: Path, *, paths: bool = True) -> list[str]:
    """The names in a text that lead nowhere; `home` is the folder of the file that it stands in."""
    text = _ADDRESS.sub("", text)
    wrong = [name for name in _PATH.findall(text) if not is_path(name, home)] if paths else []
    wrong += [name for name in _FOLDER.findall(text) if not (ROOT / name).is_dir()] if paths else []
    dotted = [name for name in _DOTTED.findall(text) if not name.endswith(_ENDINGS)]
    return wrong + [name for name in dotted if not is_dotted(name)]


def texts_of(source: str) -> Iterator[tuple[int, str, bool]]:
    """The comments and strings of a module, with their lines, and whether they are prose: comments and docstrings."""
    docstrings = {
        (node.body[0].value.lineno, node.body[0].value.col_offset)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
        and isinstance(node.body[0].value, ast.Constant)
    }
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING, tokenize.FSTRING_MIDDLE):
            prose = token.type == tokenize.COMMENT or token.start in docstrings
            for offset, line in enumerate(token.string.splitlines()):
                yield token.start[0] + offset, line, prose


def test_documents_name_what_is_there() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {name}"
        for path in PLAIN_TEXTS
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for name in names_nothing(line, path.parent)
    ]
    assert not wrong, "\n".join(wrong)


def test_docstrings_and_comments_name_what_is_there() -> None:
    """Other strings do as well, as far as they name modules with dots, for `python -m` or imports by name."""
    wrong = [
        f"{path}:{number}: {name}"
        for path in SOURCES
        for number, line, prose in texts_of((ROOT / path).read_text(encoding="utf-8"))
        for name in names_nothing(line, path.parent, paths=prose)
    ]
    assert not wrong, "\n".join(wrong)


# --- The layout -------------------------------------------------------------------------------------------------------

ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def layers_of(lines: Iterable[str]) -> list[set[str]]:
    return [{room.strip() for room in line.split("|")} for line in lines]


@pytest.mark.parametrize("package", ["transforms", "launch", "beam_pipelines"])
def test_the_architecture_shows_the_layers_and_rooms_that_there_are(package: str) -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = [contract["layers"] for contract in contracts if contract.get("containers") == [package]]
    (shown,) = re.findall(rf"^### {package}\n\n```text\n(.*?)\n```$", ARCHITECTURE, re.M | re.S)
    assert layers_of(shown.splitlines()) == layers_of(layers)
    rooms = set.union(*layers_of(layers)) - {"__main__"}
    listed = re.findall(rf"^\| `{package}/(\w+)(?:/|\.py)` \|", ARCHITECTURE, re.M)
    assert sorted(listed) == sorted(rooms)


# --- The check itself -------------------------------------------------------------------------------------------------


HERE = "tests" + ".system.test_names"


@pytest.mark.parametrize(
    ("text", "home", "wrong"),
    [
        ("`transforms/errors.py`, see `files/storage.py`, or storage.py alone", "docs", []),
        ("`support/documents.py` beside this folder", "tests", []),
        ("`apache_beam/pipeline.py` is Beam's, https://example.org/nowhere.py on the web", "docs", []),
        ("transforms.errors, `transforms.errors.BroetchenError`, and [it](benchmarks.md)", "docs", []),
        (f"`{HERE}.is_dotted`, `tests.support.documents.ROOT`", "docs", []),
        ("`transforms/elsewhere" + ".py` was moved", "docs", ["transforms/elsewhere" + ".py"]),
        ("`apache_beam/elsewhere" + ".py` was moved as well", "docs", ["apache_beam/elsewhere" + ".py"]),
        ("elsewhere" + ".py, and __init__.py, which many have", "docs", ["elsewhere" + ".py", "__init__.py"]),
        ("`transforms/recipe/`, `launch/vm_{name}/`, launch/configs/*.yaml", "docs", []),
        ("`transforms/nowhere" + "/`", "docs", ["transforms/nowhere" + "/"]),
        ("files/else*" + ".py", "docs", ["files/else*" + ".py"]),
        (f"see {HERE}.nothing.", "docs", [f"{HERE}.nothing"]),
        (f"`{HERE[:-1]}.is_dotted`", "docs", [f"{HERE[:-1]}.is_dotted"]),
        ("`transforms.errors" + ".BroetchenError.nothing`", "docs", ["transforms.errors" + ".BroetchenError.nothing"]),
    ],
)
def test_the_check_finds_what_is_wrong(text: str, home: str, wrong: list[str]) -> None:
    assert names_nothing(text, Path(home)) == wrong


def test_the_check_reads_comments_docstrings_and_strings() -> None:
    source = '"""Of a module."""\n\n\ndef f() -> str:\n    """Of a function."""\n    return "x"  # and behind it\n'
    assert list(texts_of(source)) == [
        (1, '"""Of a module."""', True),
        (5, '"""Of a function."""', True),
        (6, '"x"', False),
        (6, "# and behind it", True),
    ]
