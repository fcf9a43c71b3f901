"""`broetchen show`: records of a built dataset with their text, ids and origin."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from beam_pipelines.config.mix import load_config
from beam_pipelines.jobs.show import show, show_documents
from tests.campaign.hostile_build import build_by_steps
from tests.support.command import run_command
from tests.support.corpora import TOKENIZER, reference_ids
from transforms.errors import BroetchenError, UsageError
from transforms.files import storage

# The first is cut into records, and at the end of train; the second would steer a terminal.
TEXTS = ["Ein langer Satz, der zwei Records braucht.", "rot \x1b[31m und \u202e falsch\nherum", "Drei", "Vier"]
URLS = ["https://a.example/1", "https://a.example/2\x1b[2J", "https://a.example/3", None]
IDS = reference_ids(TEXTS)
TRAIN = len(IDS[0]) + len(IDS[1]) + 1


def make_output(
    folder: Path, *, record_format: str = "tokens", columns: list[str] | None = None, trace: bool = True
) -> Path:
    """A dataset `a` of one shard of train, which ends within the third document, and one of eval."""
    source = folder / "in" / "a folder [1].parquet"
    source.parent.mkdir(parents=True)
    year = pa.array([2020, 2021, 2022, None], pa.int32())
    pq.write_table(pa.table({"url": URLS, "year": year, "text": TEXTS}), source)
    content = {
        "name": "shown",
        "tokenizer": {"path": str(TOKENIZER), "eos_token": "<|eos|>"},
        "records": {"format": record_format, "max_tokens": 9, "add_eos": record_format == "tokens", "trace": trace},
        "datasets": {
            "a": {"source": "in/*.parquet", "tokens": TRAIN, "eval_tokens": 1, "trace_columns": columns or []},
        },
        "on_shortfall": "keep",
    }
    (folder / "mix.yaml").write_text(yaml.safe_dump(content))
    build_by_steps(load_config(folder / "mix.yaml"), str(folder / "out"))
    return folder / "out" / "a"


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_output(tmp_path_factory.mktemp("a b"), columns=["url", "year"])


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_output(tmp_path_factory.mktemp("plain"), trace=False)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run_command("show", *arguments)


def rows(*arguments: str | Path) -> list[dict[str, Any]]:
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_a_record_with_its_origin(traced: Path) -> None:
    done = run(traced, "--record", "1", "--ids")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:6] == [
        f"a train, record 1 (record 1 of train-00000-of-00001.arecord, {len(IDS[0]) - 9} tokens)",
        f"  from: in/a folder [1].parquet, row group 0, row 0, tokens 9 to {len(IDS[0])} of the document",
        "  url: https://a.example/1",
        "  year: 2020",
        f"  ids: {' '.join(map(str, IDS[0][9:]))}",
        "",
    ]
    first, second = rows(traced, "-n", "2")
    assert (first["text"] + second["text"]).strip() == TEXTS[0]
    assert [row["origin"]["last_token"] for row in (first, second)] == [9, len(IDS[0])]


def test_nothing_of_a_source_steers_the_terminal(traced: Path) -> None:
    done = run(traced, "--id", "2021")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout
    assert "url: https://a.example/2\\u001b[2J" in done.stdout
    assert "rot \\u001b[31m und \\u202e" in done.stdout
    assert " falsch\nherum" in done.stdout


def test_all_records_of_a_document_are_found_by_a_value_in_a_column(traced: Path) -> None:
    found = rows(traced, "--id", "https://a.example/1", "--ids")
    assert [row["record"] for row in found] == [0, 1]
    assert [token for row in found for token in row["ids"]] == IDS[0]
    assert rows(traced, "--id", "2020", "--column", "year", "--ids") == found
    assert rows(traced, "--id", "2020", "-n", "1", "--ids") == found[:1]
    # The document at the cut is in both splits.
    found = rows(traced, "--id", "2022", "--ids")
    assert [(row["split"], row["ids"]) for row in found] == [("train", IDS[2][:1]), ("eval", IDS[2][1:2])]
    assert rows(traced, "--id", "2022", "--split", "eval", "--ids") == found[1:]


@pytest.mark.parametrize("record_format", ["text", "parquet"])
def test_text_is_shown_with_the_characters_that_it_is_of(tmp_path: Path, record_format: str) -> None:
    output = make_output(tmp_path, record_format=record_format, columns=["url"])
    (found,) = rows(output, "--id", "https://a.example/1", "--ids")
    assert found["text"] == TEXTS[0]
    assert found["ids"] == IDS[0][:-1]
    assert (found["origin"]["first_character"], found["origin"]["last_character"]) == (0, len(TEXTS[0]))
    assert rows(output)[0]["tokens"] is None
    assert f", characters 0 to {len(TEXTS[0])} of the document" in run(output).stdout


def test_without_a_trace_text_and_ids_are_shown(plain: Path) -> None:
    (found,) = rows(plain, "--record", "1", "--ids")
    assert (found["origin"], found["ids"]) == (None, IDS[0][9:])
    assert "  from: not known, since the dataset has no trace\n" in run(plain).stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--record", "99"), "--record 99: train of {} has records 0 to "),
        (("--split", "test"), "--split test: {} has no such split; it has train, eval"),
        (("--id", "nobody"), "{}: no record whose url or year is 'nobody'"),
        (("--id", "2022", "--column", "url"), "{}: no record whose url is '2022'"),
        (("--id", "2020", "--split", "eval"), "eval of {}: no record whose url or year is '2020'"),
        (("--id", "a", "--column", "id"), "--column id: not in the trace of {}, which has url, year"),
        (("--id", "a", "--record", "1"), "--record counts records and --id looks for a document: give one of them"),
        (("--column", "url"), "--column url: goes with --id VALUE; add it, or leave this out"),
    ],
)
def test_what_is_not_there_is_said(traced: Path, arguments: tuple[str, ...], said: str) -> None:
    done = run(traced, *arguments)
    assert done.returncode in (1, 2)
    assert done.stderr.startswith(f"broetchen: {said.format(traced)}")
    assert not done.stdout


def test_documents_of_a_dataset_without_a_trace_cannot_be_found(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(BroetchenError, match=r"has no trace to find documents by; show records by --record"):
        list(show_documents(str(plain), "a"))
    with pytest.raises(BroetchenError, match=r"its trace has no columns of the source"):
        list(show_documents(str(make_output(tmp_path)), "a"))


def test_a_trace_that_is_not_the_shards(traced: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(traced.parent, output)
    trace = output / "a" / "_trace" / "train-00000-of-00001.parquet"
    shutil.copy(output / "a" / "_trace" / "eval-00000-of-00001.parquet", trace)
    with pytest.raises(BroetchenError, match=r"is no trace of \d+ records, as its manifest says"):
        list(show(str(output / "a")))
    trace.write_bytes(b"no parquet")
    with pytest.raises(BroetchenError, match=r"train-00000-of-00001\.parquet: cannot be read"):
        list(show(str(output / "a")))
    trace.unlink()
    with pytest.raises(BroetchenError, match=r"train-00000-of-00001\.parquet"):
        list(show_documents(str(output / "a"), "2020"))


def test_several_datasets_are_not_one(traced: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(traced, tmp_path / name)
    with pytest.raises(UsageError, match="holds several datasets"):
        list(show(str(tmp_path)))


def test_in_a_bucket(traced: Path, gcs_prefix: str) -> None:
    for path in traced.parent.rglob("*"):
        if path.is_file():
            storage.upload(str(path), f"{gcs_prefix}/out/{path.relative_to(traced.parent)}")
    remote = f"{gcs_prefix}/out/a"
    assert list(show(remote, number=3, with_ids=True)) == list(show(str(traced), number=3, with_ids=True))
    assert list(show_documents(remote, "2022")) == list(show_documents(str(traced), "2022"))
