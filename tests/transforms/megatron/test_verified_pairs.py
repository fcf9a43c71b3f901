"""The findings of `verify` in shards of Megatron's format: on documents in one part, and on those in several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.megatron.pairs import write_pair
from transforms.checksums import mark_of
from transforms.dataset.documents import DocumentHasher
from transforms.dataset.findings import FileCheck
from transforms.dataset.verify import ShardCheck, document_hashes, shard_problems
from transforms.megatron import reader
from transforms.tokenizer.spec import TokenizerSpec

BOS, EOS, VOCABULARY = 1, 2, 300
TOKENIZER = TokenizerSpec("", "", bos_token=None, eos_token=None, special_tokens="text")


def check_of(folder: Path, pair: Sequence[Sequence[int]], **said: int | None) -> ShardCheck:
    """The check of a pair that is written; `said` are other values of the manifest."""
    write_pair(folder / "a", pair, VOCABULARY)
    content, index = ((folder / f"a.{ending}").read_bytes() for ending in ("bin", "idx"))
    facts: dict[str, int | None] = {
        "tokens": sum(map(len, pair)),
        "records": len(pair),
        "documents": len(pair),
        "bos_id": None,
        "eos_id": EOS,
    } | said
    return ShardCheck(
        str(folder), "a.bin", size=len(content), sha256=mark_of(content).sha256, format="megatron", text_column="",
        max_tokens=2**31 - 1, vocab_size=VOCABULARY, tokenizer=TOKENIZER, engine="auto",
        beside=(FileCheck(f"{folder}/a.idx", len(index), mark_of(index).sha256),), **facts,  # type: ignore[arg-type]
    )  # fmt: skip


def found(folder: Path, pair: Sequence[Sequence[int]], **said: int | None) -> list[str]:
    return [problem.removeprefix(f"{folder}/") for problem in shard_problems(check_of(folder, pair, **said))]


@pytest.fixture(params=[4 << 20, 6])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents of more than three ids come in parts, or none do."""
    monkeypatch.setattr(reader, "_BYTES_AT_ONCE", request.param)


SOUND = [[5, 6, 7, 8, 9, 10, EOS], [EOS], [7, EOS], [5, 6]]


@pytest.mark.usefixtures("parts")
def test_a_sound_pair_is_sound(tmp_path: Path) -> None:
    assert found(tmp_path, SOUND) == []
    framed = [[BOS, *document] for document in SOUND]
    assert found(tmp_path, framed, bos_id=BOS) == []
    assert found(tmp_path, framed, bos_id=BOS, eos_id=None) == []


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize(
    ("documents", "said", "problem"),
    [
        (SOUND, {"tokens": 13}, "a.bin: 12 tokens, not 13"),
        (SOUND, {"records": 5}, "a.bin: 4 records, not 5"),
        (SOUND, {"documents": 3}, "a.bin: 4 documents, not 3"),
        ([[5, 6, 7, 8, 299, 300, EOS]], {}, "a.bin: record 0: an id outside the vocabulary"),
        ([[5, EOS], [5, 6, 7, 8, EOS, 9, 10, EOS]], {}, "a.bin: record 1: EOS (2) within a document"),
        ([[5, EOS], [EOS, 6, 7, 8, 9, 9, 10, EOS]], {}, "a.bin: record 1: EOS (2) within a document"),
        ([[5, 6, 7, 8, BOS, 9, 10]], {"bos_id": BOS, "eos_id": None}, "a.bin: record 0: BOS (1) within a document"),
    ],
)
def test_what_is_wrong_is_told(
    tmp_path: Path, documents: list[list[int]], said: dict[str, int | None], problem: str
) -> None:
    problems = found(tmp_path, documents, **said)
    assert any(line.startswith(problem) for line in problems), problems


def test_an_index_that_is_damaged_is_told_once_by_each_check(tmp_path: Path) -> None:
    check = check_of(tmp_path, SOUND)
    index = tmp_path / "a.idx"
    index.write_bytes(index.read_bytes()[:-1])
    problems = shard_problems(check)
    assert len([problem for problem in problems if "cannot be read as the index of a shard" in problem]) == 1
    assert [problem for problem in problems if problem.startswith(f"{index}: ") and "bytes, not" in problem]
    index.unlink()
    assert any("a.idx" in problem for problem in shard_problems(check))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=12), max_size=6), st.sampled_from([None, EOS]))
def test_documents_are_hashed_alike_in_parts(tmp_path: Path, documents: list[list[int]], eos_id: int | None) -> None:
    """Else one that stands in train and eval would be found in neither."""
    whole = DocumentHasher(None, eos_id)
    check = check_of(tmp_path, documents, eos_id=eos_id)
    expected = document_hashes(check).tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "_BYTES_AT_ONCE", 4)
        with reader.PairReader(check.path) as pair:
            for ids, goes_on in pair.parts():
                whole.add_ids(ids, goes_on=goes_on)
    assert whole.hashes().tolist() == expected
