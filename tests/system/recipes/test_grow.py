"""A dataset that is grown from another is, byte for byte, the one that a fresh build gives, and the old one stays."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from beam_pipelines.config.mix import load_config
from beam_pipelines.jobs.build import build
from broetchen import verify
from tests.support.command import run_command
from tests.support.corpora import TOKENIZER, write_parquet
from tests.support.killed_builds import tree
from transforms.arrayrecord.records import Format, holds_ids
from transforms.dataset.manifest import Manifest, read_manifest
from transforms.errors import UsageError

WORDS = ("Brötchen", "und", "the", "straße", "日本", "🙂", "12", "<|eos|>")


def rows_of(file: int, group: int) -> list[str | None]:
    """Eight documents of 5 to 30 words, and in some row groups a row without text."""
    texts: list[str | None] = [
        " ".join(
            WORDS[(file + group * 3 + row * place) % len(WORDS)] for place in range(5 + (group * 7 + row * 5) % 25)
        )
        for row in range(8)
    ]
    return [None, *texts, ""] if group % 3 == 0 else texts


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder, with blanks and brackets in its name, of four files of six row groups each."""
    folder = tmp_path_factory.mktemp("a source [1]")
    for file in range(4):
        write_parquet(folder / "a" / f"{file}.parquet", [rows_of(file, group) for group in range(6)])
    return folder


def write_config(source: Path, path: Path, dataset: Mapping[str, Any], **others: Any) -> Path:
    content = {
        "name": "grown",
        "tokenizer": {"path": str(TOKENIZER), "bos_token": "<|bos|>", "eos_token": "<|eos|>"},
        "records": {"max_tokens": 64},
        "shards": {"target_size": 500},
        "datasets": {"a": {"source": str(source).replace("[", "[[]") + "/a/*.parquet", **dataset}},
    }
    path.write_text(yaml.safe_dump(content | others))
    return path


def grown_is_fresh(folder: Path, old: Path, new: Path) -> tuple[int, Manifest]:
    """Builds the old config, the new one, and the new one from the old; returns how many shards are the old ones."""
    for config, output in ((old, "old"), (new, "fresh")):
        build(load_config(str(config)), str(folder / output), quiet=True)
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (folder / "old").rglob("*")}
    content = tree(folder / "old")
    build(load_config(str(new)), str(folder / "new"), grow=str(folder / "old") + "/", quiet=True)
    assert tree(folder / "new") == tree(folder / "fresh")
    assert tree(folder / "old") == content
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (folder / "old").rglob("*")} == before
    manifest = read_manifest(str(folder / "new" / "a"))
    assert manifest is not None
    inodes = {inode for inode, _ in before.values()}
    return sum(path.stat().st_ino in inodes for path in (folder / "new" / "a").rglob("*-of-*")), manifest


SIZES = {"larger": ((1500, 200), (3000, 300)), "smaller": ((3000, 300), (1400, 250))}


def test_a_larger_one(source: Path, tmp_path: Path) -> None:
    (tokens, held_out), (more, more_held_out) = SIZES["larger"]
    old = write_config(source, tmp_path / "old.yaml", {"tokens": tokens, "eval_tokens": held_out})
    new = write_config(source, tmp_path / "new.yaml", {"tokens": more, "eval_tokens": more_held_out})
    taken, manifest = grown_is_fresh(tmp_path, old, new)
    before = read_manifest(str(tmp_path / "old" / "a"))
    assert before is not None
    # All but the one or two in which the old splits end.
    shards = sum(len(split.shards) for split in before.splits.values())
    assert shards > 5
    assert taken >= shards - 4
    assert sum(manifest.skipped.values()) > 0


# Each format in both sizes and at both ends, though not in all four.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "written", "position"),
    [
        (size, written, ("end", "start")[(bigger + number) % 2])
        for number, written in enumerate(get_args(Format))
        for bigger, size in enumerate(SIZES)
    ],
)
def test_any_format(size: str, written: Format, position: str, source: Path, tmp_path: Path) -> None:
    paths = []
    for name, (tokens, held_out) in zip(("old", "new"), SIZES[size], strict=True):
        dataset = {"tokens": tokens, "eval_tokens": held_out, "eval_position": position}
        records = {"format": written, "max_tokens": 64} | ({"add_eos": True} if holds_ids(written) else {})
        path = tmp_path / f"{name}.yaml"
        paths.append(write_config(source, path, dataset, records=records, on_bad_rows="quarantine"))
    taken, manifest = grown_is_fresh(tmp_path, *paths)
    assert taken >= 2
    assert manifest.quarantine
    assert list(manifest.splits) == (["eval", "train"] if position == "start" else ["train", "eval"])
    assert not verify(tmp_path / "new", against_source=100, config=paths[1]).warnings


@pytest.mark.parametrize(
    ("written", "tokens", "position"),
    [
        ("tokens", 3000, "end"),
        ("tokens", 9000, "start"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("text", 3000, "start"),
                ("text", 9000, "end"),
                ("parquet", 3000, "end"),
                ("parquet", 9000, "start"),
                ("megatron", 3000, "start"),
                ("megatron", 9000, "end"),
            )
        ),
    ],
)
def test_with_all_that_a_recipe_may_ask_for(
    tokens: int, written: str, position: str, source: Path, tmp_path: Path
) -> None:
    """Filtered, by a list as well, traced, with bad rows kept; and so large that the source is to be repeated."""
    (tmp_path / "out.txt").write_text("5\n")
    records = {"format": written, "max_tokens": 64, "trace": True}
    paths = []
    for name, wanted in (("old", 1500), ("new", tokens)):
        dataset = {
            "tokens": wanted,
            "eval_tokens": 200,
            "eval_position": position,
            "max_repeats": 4,
            "filters": [["id", "!=", 3]],
            "exclude": {"column": "id", "values": str(tmp_path / "out.txt")},
            "trace_columns": ["id"],
        }
        path = tmp_path / f"{name}.yaml"
        paths.append(write_config(source, path, dataset, records=records, on_bad_rows="quarantine"))
    taken, manifest = grown_is_fresh(tmp_path, *paths)
    assert taken >= 4  # two shards, and their traces
    assert manifest.quarantine
    assert manifest.filtered >= 20
    assert (manifest.splits["train"].passes is not None) == (tokens == 9000)
    assert manifest.splits["eval"].tokens == 200
    assert not verify(tmp_path / "new", against_source=100, config=paths[1]).warnings


@pytest.mark.slow
def test_eval_at_the_start_is_the_same_in_all_sizes(source: Path, tmp_path: Path) -> None:
    old, new = (
        write_config(
            source, tmp_path / f"{tokens}.yaml", {"tokens": tokens, "eval_tokens": 200, "eval_position": "start"}
        )
        for tokens in (1500, 3000)
    )
    taken, manifest = grown_is_fresh(tmp_path, old, new)
    assert taken >= 3
    held_out = [path.name for path in sorted((tmp_path / "old" / "a").glob("eval-*"))]
    assert held_out
    for name in held_out:
        assert (tmp_path / "old" / "a" / name).read_bytes() == (tmp_path / "new" / "a" / name).read_bytes()
    assert manifest.config["dataset"]["eval_position"] == "start"


@pytest.mark.slow
def test_old_files_followed_by_new_ones(tmp_path: Path) -> None:
    for file in range(2):
        write_parquet(tmp_path / "a" / f"{file}.parquet", [rows_of(file, group) for group in range(6)])
    old = write_config(tmp_path, tmp_path / "old.yaml", {"tokens": 10**6, "on_shortfall": "keep"})
    build(load_config(str(old)), str(tmp_path / "old"), quiet=True)
    for file in range(2, 4):
        write_parquet(tmp_path / "a" / f"{file}.parquet", [rows_of(file, group) for group in range(6)])
    new = write_config(tmp_path, tmp_path / "new.yaml", {"tokens": 4000, "eval_tokens": 100})
    build(load_config(str(new)), str(tmp_path / "fresh"), quiet=True)
    build(load_config(str(new)), str(tmp_path / "new"), grow=str(tmp_path / "old"), quiet=True)
    assert tree(tmp_path / "new") == tree(tmp_path / "fresh")
    assert sum(path.stat().st_nlink > 1 for path in (tmp_path / "new" / "a").glob("train-*")) > 5


def test_a_source_that_was_written_once_is_not_taken_for_another(tmp_path: Path) -> None:
    """A document that eval could not be cut from stands at the end of train, out of its order."""
    documents = ["Satz eins und noch mehr.", "Satz zwei und noch etwas mehr.", "Satz drei und viel mehr davon.", "🫨"]
    write_parquet(tmp_path / "a" / "0.parquet", [[document] for document in documents])
    settings = {"records": {"format": "text"}, "shards": {"target_size": 500, "max_records": 1}}
    once = {"tokens": 1000, "eval_tokens": 1, "max_repeats": 100}
    build(load_config(str(write_config(tmp_path, tmp_path / "old.yaml", once, **settings))), str(tmp_path / "old"))
    old = read_manifest(str(tmp_path / "old" / "a"))
    assert old is not None
    assert old.splits["eval"].documents_put_back == 1
    write_parquet(tmp_path / "a" / "1.parquet", [[f"Neu {number} und noch viel mehr davon."] for number in range(9)])
    new = write_config(tmp_path, tmp_path / "new.yaml", {"tokens": 50, "eval_tokens": 1}, **settings)
    build(load_config(str(new)), str(tmp_path / "fresh"), quiet=True)
    build(load_config(str(new)), str(tmp_path / "new"), grow=str(tmp_path / "old"), quiet=True)
    assert tree(tmp_path / "new") == tree(tmp_path / "fresh")


def test_what_is_finished_needs_the_old_one_no_more(source: Path, tmp_path: Path) -> None:
    old = write_config(source, tmp_path / "old.yaml", {"tokens": 500})
    new = write_config(source, tmp_path / "new.yaml", {"tokens": 700})
    build(load_config(str(old)), str(tmp_path / "old"), quiet=True)
    for _ in range(2):
        build(load_config(str(new)), str(tmp_path / "new"), grow=str(tmp_path / "old"), quiet=True)
        shutil.rmtree(tmp_path / "old", ignore_errors=True)
    with pytest.raises(UsageError, match="holds no finished dataset a"):
        build(load_config(str(new)), str(tmp_path / "other"), grow=str(tmp_path / "old"), quiet=True)


@pytest.mark.slow
def test_the_command_says_what_it_can_take_over_and_warns_of_eval(source: Path, tmp_path: Path) -> None:
    old = write_config(source, tmp_path / "old.yaml", {"tokens": 1500, "eval_tokens": 200})
    new = write_config(source, tmp_path / "new.yaml", {"tokens": 3000, "eval_tokens": 200})
    assert run_command("build", old, "--output", tmp_path / "old").returncode == 0
    grow = ("build", new, "--output", tmp_path / "new", "--grow", tmp_path / "old")
    result = run_command(*grow, "--dry-run")
    assert result.returncode == 0, result.stderr
    assert "shards of the old dataset can be taken over as they are" in result.stdout
    assert not (tmp_path / "new").exists()
    result = run_command(*grow)
    assert result.returncode == 0, result.stderr
    assert "200 of the 200 eval tokens" in result.stderr
    # A second run finds all of it done.
    assert run_command(*grow).returncode == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--overwrite"], "--grow and --overwrite exclude each other"),
        (["--output", "{old}/below"], "is not apart from --output"),
        (["--output", "{old}"], "is not apart from --output"),
        (["--output", "{old}/../link/below"], "is not apart from --output"),
        (["--grow", "{old}/nothing"], "holds no finished dataset a"),
        (["--set", "records.max_tokens=32"], "records.max_tokens is 64 there, and 32 here"),
        (["--set", "records.add_eos=true"], "records.add_eos is False there, and True here"),
        (["--set", "datasets.a.text_column=id"], "datasets.a.text_column is text there, and id here"),
        (["--set", "datasets.a.order=shuffled"], "datasets.a.order is sequential there, and shuffled here"),
        (["--set", "shards.target_size=600"], "shards.target_size is 500 there, and 600 here"),
        (["--set", "on_bad_rows=quarantine"], "datasets.a.on_bad_rows is not set there, and quarantine here"),
    ],
)
def test_what_cannot_be_grown_is_refused_in_one_line(
    more: list[str], message: str, finished: Path, source: Path, tmp_path: Path
) -> None:
    (finished.parent / "link").unlink(missing_ok=True)
    (finished.parent / "link").symlink_to(finished)
    new = write_config(source, tmp_path / "new.yaml", {"tokens": 1600, "eval_tokens": 200})
    content = tree(finished)
    more = [part.format(old=finished) for part in more]
    result = run_command("build", new, "--output", tmp_path / "new", "--grow", finished, *more)
    assert result.returncode in (1, 2)
    (line,) = result.stderr.strip().splitlines()
    assert message in line
    assert tree(finished) == content
    assert not (tmp_path / "new").exists()


@pytest.fixture(scope="module")
def finished(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    config = write_config(source, folder / "old.yaml", {"tokens": 1500, "eval_tokens": 200})
    build(load_config(str(config)), str(folder / "old"), quiet=True)
    return folder / "old"
