"""A manifest knows no history: after any reads and builds before, the same config gives the same tree."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.corpora import write_parquet
from tests.support.killed_builds import tree
from tests.support.small_tokenizers import added_token, byte_level
from tests.transforms.building.conftest import BOS, EOS, Build, MakeBuild, plan_build
from transforms.arrayrecord.records import Format
from transforms.building.shard import build_shard
from transforms.parquet import texts
from transforms.texts import combined_hash, text_hashes

FORMATS: tuple[Format, ...] = get_args(Format)
# Two row groups of each file; what lies behind the cut has rows that are left out, and more row groups.
CORPUS = (
    (("aaaa", None, "bb"), ("cccccc", ""), ("d", None, "eeeee", None, "ffffff", "", "gg", None, "hhhh")),
    (("iii", None), (None, ""), ("jjjj", "kkk", None)),
)


@pytest.fixture
def source(tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A corpus whose rows are read one by one."""
    monkeypatch.setattr(texts, "_MAX_BATCH_ROWS", 1)
    folder = tmp_path / "source"
    for number, row_groups in enumerate(CORPUS):
        write_parquet(folder / "a" / f"{number}.parquet", row_groups)
    return folder


def nothing(build: Build) -> None:
    pass


def all_shards(build: Build) -> None:
    for ordinal in range(len(build.plan.shards)):
        build_shard(build.spec, build.plan.task(ordinal, None))


def each_as_little_as_can_be(build: Build) -> None:
    for ordinal in range(len(build.plan.shards)):
        build_shard(build.spec, build.plan.task(ordinal, 1))


def other_rounds(build: Build) -> None:
    """As where the rounds have met the budget exactly."""
    have = 0
    for ordinal in range(len(build.plan.shards)):
        if have < build.spec.need:
            have += build_shard(build.spec, build.plan.task(ordinal, build.spec.need - have)).tokens


def other_engine(build: Build) -> None:
    plan = dataclasses.replace(build.plan, engine="gigatoken")
    for ordinal in range(2):
        build_shard(build.spec, plan.task(ordinal, None))


def a_larger_budget(build: Build) -> None:
    budgets = {**build.spec.budgets, "train": build.spec.budgets["train"] + 9}
    build.changed(budgets=budgets).publish_plan()


HISTORIES: Sequence[Callable[[Build], None]] = (
    nothing,
    all_shards,
    each_as_little_as_can_be,
    other_rounds,
    other_engine,
    a_larger_budget,
)


@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize("written", FORMATS)
@pytest.mark.parametrize("train", [11, 12, 14, 17])
def test_the_tree_is_the_same(
    make_build: MakeBuild, source: Path, tmp_path: Path, written: Format, history: Callable[[Build], None], train: int
) -> None:
    budget = {"tokens": train, "eval_tokens": 6}
    plain = make_build(written, source=source, output=str(tmp_path / "plain"), dataset=budget)
    plain.run()
    build = make_build(written, source=source, dataset=budget)
    history(build)
    build.run()
    assert tree(build.folder) == tree(plain.folder)


@given(
    rows=st.lists(st.sampled_from(["a", "bb", "cccc", " ", "\n\n", None, ""]), min_size=1, max_size=12),
    train=st.integers(1, 12),
    eval_tokens=st.integers(1, 4),
    history=st.sampled_from([history for history in HISTORIES if history is not other_engine]),
    written=st.sampled_from(FORMATS),
    groups=st.integers(1, 4),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_the_tree_is_the_same_for_any_rows(
    source: Path,
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[str | None],
    train: int,
    eval_tokens: int,
    history: Callable[[Build], None],
    written: Format,
    groups: int,
) -> None:
    """Documents without tokens among them: the tokenizer strips blanks, and adds nothing."""
    folder = tmp_path_factory.mktemp("any")
    tokenizer = folder / "tokenizer.json"
    eos = [added_token(EOS, "<|eos|>"), added_token(BOS, "<|bos|>")]
    strip = {"type": "Strip", "strip_left": True, "strip_right": True}
    tokenizer.write_text(json.dumps(byte_level(added_tokens=eos, normalizer=strip)))
    records = {"format": written, "max_tokens": 4}
    size = -(-len(rows) // groups)
    write_parquet(folder / "a" / "0.parquet", [rows[start : start + size] for start in range(0, len(rows), size)])
    write_parquet(folder / "a" / "1.parquet", [["zzzzzzzzzzzzzzzzzzzz", None]])
    budget = {"tokens": train, "eval_tokens": eval_tokens, "on_shortfall": "keep"}
    builds = []
    for name, before in (("plain", nothing), ("other", history)):
        build = plan_build(folder, tokenizer, str(folder / name), written, budget, records=records)
        before(build)
        build.run()
        builds.append(build)
    assert tree(builds[0].folder) == tree(builds[1].folder)


def test_what_lies_behind_the_cut_is_not_told_of(make_build: MakeBuild, source: Path) -> None:
    """24 tokens: aaaa bb cccccc d e‥ are 5 + 3 + 7 + 2 + 6, and a piece of the next document."""
    build = make_build(source=source, dataset={"tokens": 18, "eval_tokens": 6})
    all_shards(build)
    manifest = build.run()
    assert manifest.rows == 10
    assert dict(manifest.skipped) == {"empty": 1, "null": 3}
    (entry,) = manifest.source
    assert list(entry.row_groups) == [0, 1, 2]
    assert list(entry.starts) == [0, 8, 15]
    documents = [["aaaa", "bb"], ["cccccc"], ["d", "eeeee", "ffffff"]]
    assert list(entry.texts) == [combined_hash(text_hashes(pa.array(d, pa.large_string()))) for d in documents]
    assert [dict(held.rows) for held in manifest.quarantine] == [{"null": 1}, {"empty": 1}, {"null": 2}]


def test_texts_that_change_change_the_manifest(make_build: MakeBuild, source: Path, tmp_path: Path) -> None:
    """Where the file is not compressed, its footer is the same."""
    path = source / "a" / "0.parquet"
    write_parquet(path, CORPUS[0], compression="none", write_statistics=False)
    first = make_build(source=source, output=str(tmp_path / "first"), dataset={"tokens": 12, "eval_tokens": 6}).run()
    content = path.read_bytes()
    assert content.count(b"cccccc") == 1
    path.write_bytes(content.replace(b"cccccc", b"cxxxxc"))
    second = make_build(source=source, output=str(tmp_path / "second"), dataset={"tokens": 12, "eval_tokens": 6}).run()
    assert first.fingerprint == second.fingerprint
    assert first.source[0].footer_sha256 == second.source[0].footer_sha256
    changed = [a != b for a, b in zip(first.source[0].texts, second.source[0].texts, strict=True)]
    assert changed == [False, True, False]


def test_work_on_a_source_that_has_changed_in_letters_is_not_taken_over(
    make_build: MakeBuild, source: Path, tmp_path: Path
) -> None:
    path = source / "a" / "0.parquet"
    write_parquet(path, CORPUS[0], compression="none", write_statistics=False)
    budget = {"tokens": 12, "eval_tokens": 6}
    make_build(source=source, dataset=budget).tokenize()
    path.write_bytes(path.read_bytes().replace(b"cccccc", b"cxxxxc"))
    build = make_build(source=source, dataset=budget)
    build.run()
    fresh = make_build(source=source, output=str(tmp_path / "fresh"), dataset=budget)
    fresh.run()
    assert tree(build.folder) == tree(fresh.folder)
    assert json.loads((build.folder / "manifest.json").read_text())["fingerprint"] == fresh.plan.fingerprint
