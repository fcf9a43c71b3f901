"""Rows that hold no text: a build fails at them, leaves them out, or keeps them beside the dataset."""

from __future__ import annotations

import itertools
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from beam_pipelines.config.mix import MixConfig, load_config
from beam_pipelines.jobs.build import build
from beam_pipelines.jobs.count import count
from beam_pipelines.jobs.verify import AgainstSource, verify
from tests.support.command import kill_session, started_command
from tests.support.corpora import write_parquet
from tests.support.examples import at_most
from tests.system.builds.test_build import make_config, manifest_of, tree
from transforms.dataset.quarantine import SCHEMA, QuarantineCheck, quarantine_file_problems
from transforms.errors import BroetchenError
from transforms.files import storage
from transforms.files.listing import list_files
from transforms.texts import to_texts

BAD: list[bytes | None] = [None, b"", b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\xaf", b"gut \xf0\x9f"]
GOOD = ["ein Brötchen".encode(), b"two words", "straße".encode(), b"x" * 40]
rows = st.lists(st.sampled_from(BAD) | st.sampled_from(GOOD), max_size=6)


def reason(value: bytes | None) -> str | None:
    if not value:
        return "null" if value is None else "empty"
    try:
        value.decode()
    except UnicodeDecodeError:
        return "not_text"
    return None


def write(folder: Path, corpus: list[list[list[bytes | None]]]) -> None:
    for number, groups in enumerate(corpus):
        write_parquet(folder / "a" / f"{number}.parquet", groups, kind=pa.binary())


def bad_config(folder: Path, policy: str, *, tokens: int, **others: Any) -> MixConfig:
    return make_config(folder, {"a": {"tokens": tokens, "eval_tokens": 1}}, on_bad_rows=policy, **others)


def held(dataset: Path) -> list[dict[str, Any]]:
    paths = sorted((dataset / "_quarantine").glob("*.parquet"))
    return [row for path in paths for row in pq.read_table(path, schema=SCHEMA).to_pylist()]


@given(st.lists(st.one_of(st.none(), st.sampled_from(BAD), st.binary(max_size=4)), max_size=12), st.integers(0, 9))
def test_the_rows_left_out_are_told_in_their_order(values: list[bytes | None], first: int) -> None:
    batch = to_texts(pa.array(values, pa.binary()), first_row=first)
    expected = [
        {"row": first + index, "reason": why, "value": value}
        for index, value in enumerate(values)
        if (why := reason(value))
    ]
    assert batch.left_out is not None
    assert batch.left_out.to_pylist() == expected
    assert batch.left_out.equals(to_texts(pa.array(values, pa.binary()).dictionary_encode(), first_row=first).left_out)


@pytest.mark.slow
@at_most(4, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(st.lists(rows, min_size=1, max_size=3), min_size=1, max_size=3), st.sampled_from(["tokens", "parquet"]))
def test_quarantine_holds_the_rows_that_the_manifest_counts_and_changes_no_shard(
    tmp_path_factory: pytest.TempPathFactory, corpus: list[list[list[bytes | None]]], written: str
) -> None:
    folder = tmp_path_factory.mktemp("bad")
    corpus[-1][-1] += GOOD
    write(folder, corpus)
    others: dict[str, Any] = {"on_shortfall": "keep", "records": {"format": written}, "shards": {"target_size": 50}}
    for policy in ("skip", "quarantine"):
        build(bad_config(folder, policy, tokens=10_000, **others), str(folder / policy), quiet=True)
        verify(str(folder / policy))
    manifest = manifest_of(folder / "quarantine" / "a")
    everything = [
        {"file": f"{folder}/a/{file}.parquet", "row_group": group, "row": row, "reason": why, "value": value}
        for file, groups in enumerate(corpus)
        for group, values in enumerate(groups)
        for row, value in enumerate(values)
        if (why := reason(value))
    ]
    assert held(folder / "quarantine" / "a") == everything
    counted = {why: count for why, count in manifest.skipped.items() if count}
    assert counted == dict(Counter(str(row["reason"]) for row in everything))
    assert manifest.splits == manifest_of(folder / "skip" / "a").splits
    shards = {file: digest for file, digest in tree(folder / "quarantine" / "a").items() if "manifest" not in file}
    kept = {file: digest for file, digest in shards.items() if "_quarantine" not in file}
    assert kept == {file: digest for file, digest in tree(folder / "skip" / "a").items() if "manifest" not in file}
    shutil.rmtree(folder)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Five files of 24 rows, every fourth of which is bad."""
    bad = itertools.cycle(BAD)
    row_groups = [[next(bad) if row % 4 == 0 else GOOD[row % 4] for row in range(12)] for _ in range(2)]
    write(tmp_path, [row_groups] * 5)
    return tmp_path


def test_only_rows_of_shards_that_are_in_the_dataset_are_held(corpus: Path) -> None:
    build(bad_config(corpus, "quarantine", tokens=60), str(corpus / "out"), quiet=True)
    manifest = manifest_of(corpus / "out" / "a")
    assert 0 < len(held(corpus / "out" / "a")) == sum(manifest.skipped.values()) < 30
    found = {str(path.relative_to(corpus / "out" / "a")) for path in (corpus / "out" / "a" / "_quarantine").iterdir()}
    assert found == {entry.file for entry in manifest.quarantine}


def test_readers_of_a_folder_of_parquet_do_not_take_the_quarantine_for_shards(corpus: Path) -> None:
    config = bad_config(corpus, "quarantine", tokens=60, records={"format": "parquet"})
    build(config, str(corpus / "out"), quiet=True)
    found = ds.dataset(corpus / "out" / "a", format="parquet", exclude_invalid_files=True).files
    assert {Path(path).parent.name for path in found} == {"a"}


@pytest.mark.parametrize(
    ("bad", "said"), [(None, "is null"), (b"", "is empty"), (b"gut \xff", r"is not valid UTF-8: b'gut \\xff'")]
)
def test_fail_names_the_row(tmp_path: Path, bad: bytes | None, said: str) -> None:
    write(tmp_path, [[[b"a good one"], [b"another", bad, None]]])
    with pytest.raises(BroetchenError, match=rf"0\.parquet: row group 1, row 1 \(from 0\): column 'text' {said}; fix"):
        build(bad_config(tmp_path, "fail", tokens=1000, on_shortfall="keep"), str(tmp_path / "out"), quiet=True)
    assert not (tmp_path / "out" / "a" / "manifest.json").exists()


@pytest.mark.parametrize("written", ["tokens", "parquet"])
def test_a_document_that_cannot_be_cut_is_a_bad_row(tmp_path: Path, written: str) -> None:
    """A longer one that can be cut is a document."""
    texts = ["ein Brötchen", "x" * (16 << 20) + "y", "zwei Wörter " * ((17 << 20) // 13), "z"]
    write_parquet(tmp_path / "a" / "0.parquet", [texts[:1], texts[1:]])
    others: dict[str, Any] = {"records": {"format": written}, "on_shortfall": "keep", "shards": {"target_size": "9MiB"}}
    output = tmp_path / "out"
    config = bad_config(tmp_path, "quarantine", tokens=10_000_000, **others)
    build(config, str(output), quiet=True)
    manifest = manifest_of(output / "a")
    assert manifest.skipped == {"too_long": 1}
    assert [(row["row_group"], row["row"], row["reason"]) for row in held(output / "a")] == [(1, 0, "too_long")]
    assert held(output / "a")[0]["value"] == texts[1].encode()
    counted = count([config], load_config)["a"]
    assert (counted.skipped, counted.documents) == (1, 3)
    assert counted.tokens == sum(split.tokens for split in manifest.splits.values())
    assert not verify(str(output), against=AgainstSource(2, seed=0)).warnings
    with pytest.raises(
        BroetchenError, match=r"row group 1, row 0 \(from 0\): column 'text' holds more than 16 MiB in one"
    ):
        build(bad_config(tmp_path, "fail", tokens=10_000_000, **others), str(tmp_path / "other"), quiet=True)


def test_a_dataset_can_have_its_own_policy(corpus: Path) -> None:
    datasets: dict[str, dict[str, Any]] = {"a": {"tokens": 30}, "strict": {"tokens": 30, "on_bad_rows": "fail"}}
    shutil.copytree(corpus / "a", corpus / "strict")
    with pytest.raises(BroetchenError, match=r"strict/0\.parquet: row group 0, row 0"):
        build(make_config(corpus, datasets, on_bad_rows="quarantine"), str(corpus / "out"), quiet=True)


def test_fail_does_not_accept_what_skip_has_left(corpus: Path) -> None:
    output = corpus / "out"
    build(bad_config(corpus, "skip", tokens=60), str(output), quiet=True)
    with pytest.raises(BroetchenError, match=r"rows of its source were left out, and now on_bad_rows is fail"):
        build(bad_config(corpus, "fail", tokens=60), str(output), quiet=True)


@pytest.mark.slow
def test_fail_does_not_accept_the_unfinished_work_of_skip(corpus: Path) -> None:
    output = corpus / "out"
    with pytest.raises(BroetchenError, match="the source is exhausted"):
        build(bad_config(corpus, "skip", tokens=10_000), str(output), quiet=True)
    with pytest.raises(BroetchenError, match="row group 0, row 0"):
        build(bad_config(corpus, "fail", tokens=10_000), str(output), quiet=True)


@pytest.mark.slow
def test_without_bad_rows_all_policies_write_the_same(tmp_path: Path) -> None:
    write(tmp_path, [[[*GOOD], [*GOOD]]])
    build(bad_config(tmp_path, "skip", tokens=20), str(tmp_path / "skip"), quiet=True)
    build(bad_config(tmp_path, "fail", tokens=20), str(tmp_path / "fail"), quiet=True)
    assert tree(tmp_path / "skip" / "a") == tree(tmp_path / "fail" / "a")
    build(bad_config(tmp_path, "quarantine", tokens=20), str(tmp_path / "quarantine"), quiet=True)
    assert set(tree(tmp_path / "quarantine")) == set(tree(tmp_path / "skip"))


@pytest.mark.slow
def test_overwriting_takes_the_quarantine_of_another_config_away(corpus: Path) -> None:
    output = corpus / "out"
    build(bad_config(corpus, "quarantine", tokens=60), str(output), quiet=True)
    build(bad_config(corpus, "skip", tokens=60), str(output), overwrite=True, quiet=True)
    assert not (output / "a" / "_quarantine").exists()
    build(bad_config(corpus, "quarantine", tokens=60), str(output), overwrite=True, quiet=True)
    before = tree(output)
    (output / "a" / "_quarantine" / "bad-rows-77777.parquet").write_bytes(b"of an older build")
    (output / "a" / "manifest.json").unlink()
    build(bad_config(corpus, "quarantine", tokens=60), str(output), quiet=True)
    assert tree(output) == before


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (damage, "sha256"),
        (Path.unlink, "missing"),
        (lambda path: shutil.copy(path, path.with_name("more.parquet")), "more.parquet: not in the manifest"),
        (lambda path: pq.write_table(pa.table({"row": [1]}), path), "other columns"),
        (lambda path: path.write_bytes(b""), "cannot be read as parquet"),
    ],
)
def test_verify_finds_a_quarantine_that_is_not_what_was_written(corpus: Path, harm: Any, said: str) -> None:
    build(bad_config(corpus, "quarantine", tokens=60), str(corpus / "out"), quiet=True)
    verify(str(corpus / "out"))
    harm(min((corpus / "out" / "a" / "_quarantine").iterdir()))
    with pytest.raises(BroetchenError, match=said):
        verify(str(corpus / "out"))


@pytest.mark.slow
def test_a_finished_dataset_whose_quarantine_is_gone_is_not_finished(corpus: Path) -> None:
    build(bad_config(corpus, "quarantine", tokens=60), str(corpus / "out"), quiet=True)
    before = tree(corpus / "out")
    min((corpus / "out" / "a" / "_quarantine").iterdir()).unlink()
    with pytest.raises(BroetchenError, match="files that its manifest names are gone"):
        build(bad_config(corpus, "quarantine", tokens=60), str(corpus / "out"), quiet=True)
    build(bad_config(corpus, "quarantine", tokens=60), str(corpus / "out"), overwrite=True, quiet=True)
    assert tree(corpus / "out") == before


@pytest.mark.slow
def test_killed_builds_are_taken_up_again_with_their_quarantine(corpus: Path) -> None:
    config = bad_config(corpus, "quarantine", tokens=200, shards={"target_size": 20})
    build(config, str(corpus / "whole"), quiet=True)
    output = corpus / "out"
    for pattern in ("a/.broetchen/*/bad-rows-00001-*.parquet", "a/_quarantine/*"):
        with started_command("build", corpus / "mix.yaml", "--output", output) as process:
            while process.poll() is None and not any(output.glob(pattern)):
                time.sleep(0.001)
            kill_session(process)
    assert not (output / "a" / "manifest.json").exists()
    build(config, str(output), quiet=True)
    assert tree(output) == tree(corpus / "whole")


def test_left_out_rows_of_a_cut_shard_are_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They get their name before the manifest is there, and a build with another budget needs them again."""
    good = [f"Satz {number} und noch viel mehr davon.".encode() for number in range(12)]
    write(tmp_path, [[[*good[:3], None, *good[3:6], b"", *good[6:]]]])
    larger, smaller = (bad_config(tmp_path, "quarantine", tokens=n, shards={"target_size": 5000}) for n in (90, 40))

    def killed(*_: object) -> None:
        raise BroetchenError("killed")

    with monkeypatch.context() as patched:
        patched.setattr("transforms.building.datasets.finish_dataset", killed)
        with pytest.raises(BroetchenError, match="killed"):
            build(larger, str(tmp_path / "out"), quiet=True)
    assert list((tmp_path / "out" / "a" / "_quarantine").iterdir())
    build(smaller, str(tmp_path / "out"), quiet=True)
    build(smaller, str(tmp_path / "fresh"), quiet=True)
    assert manifest_of(tmp_path / "out" / "a").skipped == {"null": 1}
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


@pytest.mark.slow
def test_quarantine_in_a_bucket(corpus: Path, gcs_prefix: str) -> None:
    config = bad_config(corpus, "quarantine", tokens=60)
    build(config, str(corpus / "out"), quiet=True)
    build(config, f"{gcs_prefix}/out", quiet=True)
    verify(f"{gcs_prefix}/out")
    found = {
        path.removeprefix(f"{gcs_prefix}/out/"): storage.read_bytes(path) for path, _ in list_files(f"{gcs_prefix}/out")
    }
    assert found == {
        str(path.relative_to(corpus / "out")): path.read_bytes()
        for path in (corpus / "out").rglob("*")
        if path.is_file()
    }
    build(bad_config(corpus, "skip", tokens=60), f"{gcs_prefix}/out", overwrite=True, quiet=True)
    assert not list_files(f"{gcs_prefix}/out/a/_quarantine", "*")


def test_a_file_of_left_out_rows_that_cannot_be_opened_is_a_problem_of_its_own(tmp_path: Path) -> None:
    check = QuarantineCheck(str(tmp_path), {"null": 1}, 9, "ab")
    said = f"{tmp_path}: not a regular file but a folder; put the file itself there"
    assert quarantine_file_problems(check) == [said]
