"""Encoders are made once, lent to one at a time; gigatoken is chosen where it gives the ids of `tokenizers` alone."""

from __future__ import annotations

import dataclasses
import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.small_tokenizers import added_token, byte_level
from transforms.encoding import pool
from transforms.encoding.encoders import Encoder, make_encoder
from transforms.encoding.pool import (
    borrow_encoder,
    choose_engine,
    encode_samples,
    expected_engine,
    gigatoken_obstacle,
    know_tokenizer,
    leading_documents,
    token_counts,
    tokenizer_file,
    warm_encoder,
)
from transforms.errors import BroetchenError, UsageError
from transforms.segments import code_points
from transforms.segments.encoded import Encoded
from transforms.tokenizer.file import TokenizerFile, load_tokenizer
from transforms.tokenizer.spec import Engine, SpecialTokens, TokenizerSpec

ENGINES: tuple[Engine, ...] = ("tokenizers", "gigatoken")
FIT = byte_level(
    [(b"a", b"b")],
    normalizer={"type": "NFC"},
    added_tokens=[added_token(257, "<|bos|>"), added_token(258, "<|eos|>")],
)
UNFIT = byte_level(pre_tokenizer=None)
REASON = "needs a pre-tokenizer, and this tokenizer has none"

_written = itertools.count()


def written(
    folder: Path,
    tokenizer: dict[str, Any] = FIT,
    *,
    bos_token: str | None = None,
    eos_token: str | None = None,
    special_tokens: SpecialTokens = "text",
) -> TokenizerSpec:
    """A tokenizer in a file that this process has not met before: what it keeps, it keeps by the file's hash."""
    number = next(_written)
    path = folder / f"{number}.json"
    path.write_text(json.dumps(tokenizer) + " " * number)
    return TokenizerSpec(str(path), load_tokenizer(str(path)).sha256, bos_token, eos_token, special_tokens)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Engine]:
    """The engines of the encoders that the test makes, one after the other."""
    engines: list[Engine] = []

    def make(tokenizer: TokenizerFile, engine: Engine, special_tokens: SpecialTokens) -> Encoder:
        engines.append(engine)
        return make_encoder(tokenizer, engine, special_tokens)

    monkeypatch.setattr(pool, "make_encoder", make)
    return engines


def large(*texts: str) -> pa.LargeStringArray:
    return pa.array(texts, pa.large_string())


def ids_of(encoded: Encoded) -> list[list[int]]:
    return [part.tolist() for part in np.split(encoded.ids, encoded.offsets[1:-1])]


# Tokenizers


def test_a_tokenizer_is_read_once(tmp_path: Path) -> None:
    spec = written(tmp_path, bos_token="<|bos|>", eos_token="<|eos|>")
    loaded = tokenizer_file(spec)
    assert (loaded.sha256, loaded.bos_id, loaded.eos_id) == (spec.sha256, 257, 258)
    Path(spec.path).unlink()
    assert tokenizer_file(spec) is loaded


def test_each_of_bos_and_eos_is_found_by_its_name(tmp_path: Path) -> None:
    bos = tokenizer_file(written(tmp_path, bos_token="<|eos|>"))
    eos = tokenizer_file(written(tmp_path, eos_token="<|bos|>"))
    assert (bos.bos_id, bos.eos_id) == (258, None)
    assert (eos.bos_id, eos.eos_id) == (None, 257)


def test_a_tokenizer_that_has_changed_is_refused_until_the_old_one_is_back(tmp_path: Path) -> None:
    spec = written(tmp_path)
    path = Path(spec.path)
    old = path.read_bytes()
    path.write_text(json.dumps(UNFIT))
    new = load_tokenizer(spec.path).sha256
    for read in (tokenizer_file, lambda spec: expected_engine(spec, "auto")):
        with pytest.raises(BroetchenError) as changed:
            read(spec)
        assert str(changed.value) == (
            f"{path}: has changed since the build began (sha256 {new}, not {spec.sha256}); "
            "put the old file back, or start the build again"
        )
    path.write_bytes(old)
    assert tokenizer_file(spec).json == old.decode()


def test_a_tokenizer_from_another_place_need_not_be_read(tmp_path: Path) -> None:
    spec = written(tmp_path)
    tokenizer = load_tokenizer(spec.path)
    Path(spec.path).unlink()
    know_tokenizer(spec, tokenizer)
    assert tokenizer_file(spec) is tokenizer
    assert token_counts(spec, "tokenizers", large("abc")).tolist() == [2]


def test_another_tokenizer_is_not_taken_for_it(tmp_path: Path) -> None:
    spec = written(tmp_path)
    other = load_tokenizer(written(tmp_path).path)
    with pytest.raises(AssertionError):
        know_tokenizer(spec, other)


# Encoders


@pytest.mark.parametrize("engine", ENGINES)
def test_an_encoder_is_lent_again(tmp_path: Path, made: list[Engine], engine: Engine) -> None:
    spec = written(tmp_path)
    with borrow_encoder(spec, engine) as first:
        assert first.name == engine
    with borrow_encoder(spec, engine) as second:
        assert second is first
        assert ids_of(second.encode(large("ab", "c"))) == [[256], [ord("c")]]
    assert made == [engine]


def test_an_encoder_is_lent_to_one_at_a_time(tmp_path: Path, made: list[Engine]) -> None:
    spec = written(tmp_path)
    both = threading.Barrier(2, timeout=30)
    lent: list[Encoder] = []

    def borrow() -> None:
        for _ in range(3):
            with borrow_encoder(spec, "gigatoken") as encoder:
                lent.append(encoder)
                both.wait()  # until the other has one too
            both.wait()

    threads = [threading.Thread(target=borrow) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lent) == 6
    assert all(one is not other for one, other in itertools.batched(lent, 2))
    assert len(set(map(id, lent))) == len(made) == 2


def test_an_encoder_comes_back_from_what_fails(tmp_path: Path, made: list[Engine]) -> None:
    spec = written(tmp_path)
    with pytest.raises(ZeroDivisionError), borrow_encoder(spec, "tokenizers") as first:
        raise ZeroDivisionError
    with borrow_encoder(spec, "tokenizers") as second:
        assert second is first
    assert made == ["tokenizers"]


def test_encoders_of_their_own(tmp_path: Path, made: list[Engine]) -> None:
    """Each engine has one, and each way to take special tokens."""
    text = written(tmp_path)
    token = dataclasses.replace(text, special_tokens="token")
    for _ in range(2):
        for engine in ENGINES:
            with borrow_encoder(text, engine) as encoder:
                assert encoder.name == engine
                assert ids_of(encoder.encode(large("<|bos|>ab"))) == [[*b"<|bos|>", 256]]
            with borrow_encoder(token, engine) as encoder:
                assert encoder.name == engine
                assert ids_of(encoder.encode(large("<|bos|>ab"))) == [[257, 256]]
    assert made == ["tokenizers", "tokenizers", "gigatoken", "gigatoken"]


@pytest.mark.parametrize(
    ("engine", "warmed"), [("auto", "gigatoken"), ("gigatoken", "gigatoken"), ("tokenizers", "tokenizers")]
)
def test_a_warm_encoder_is_there(tmp_path: Path, made: list[Engine], engine: Engine, warmed: Engine) -> None:
    spec = written(tmp_path)
    warm_encoder(spec, engine)
    with borrow_encoder(spec, warmed) as encoder:
        assert encoder.name == warmed
    assert made == [warmed]


def test_what_every_encoder_needs_is_warm_too(tmp_path: Path) -> None:
    """The tables of code points take a tenth of a second."""
    code_points.agreed.cache_clear()
    code_points.inert.cache_clear()
    warm_encoder(written(tmp_path), "auto")
    assert code_points.agreed.cache_info().currsize == 1
    assert code_points.inert.cache_info().currsize == 1


@pytest.mark.parametrize("engine", ["auto", "gigatoken"])
def test_what_cannot_be_warmed_is_left_to_who_needs_it(tmp_path: Path, made: list[Engine], engine: Engine) -> None:
    warm_encoder(written(tmp_path, UNFIT), engine)
    assert made == ["gigatoken"]


# Counts


@pytest.mark.parametrize("engine", ENGINES)
def test_token_counts(tmp_path: Path, made: list[Engine], engine: Engine) -> None:
    counts = token_counts(written(tmp_path), engine, large("abab", "", "ä", "xab"))
    assert counts.dtype == np.int64
    assert counts.tolist() == [2, 0, 2, 2]
    assert made == [engine]


def test_no_documents_need_no_tokenizer() -> None:
    counts = token_counts(TokenizerSpec("nowhere", "0", None, None, "text"), "auto", large())
    assert counts.dtype == np.int64
    assert counts.tolist() == []


# The engine


@pytest.mark.parametrize(
    ("wanted", "expected"), [("auto", "gigatoken"), ("gigatoken", "gigatoken"), ("tokenizers", "tokenizers")]
)
def test_the_engine_to_expect(tmp_path: Path, made: list[Engine], wanted: Engine, expected: Engine) -> None:
    assert expected_engine(written(tmp_path), wanted) == expected
    assert made == []


@pytest.mark.parametrize(
    ("wanted", "expected"), [("auto", "tokenizers"), ("gigatoken", "gigatoken"), ("tokenizers", "tokenizers")]
)
def test_the_engine_to_expect_of_an_unfit_tokenizer(
    tmp_path: Path, made: list[Engine], wanted: Engine, expected: Engine
) -> None:
    """An engine that is asked for by name is expected, though it will be refused."""
    assert expected_engine(written(tmp_path, UNFIT), wanted) == expected
    assert made == []


def test_what_stands_in_the_way_of_gigatoken(tmp_path: Path, made: list[Engine]) -> None:
    fit, unfit = written(tmp_path), written(tmp_path, UNFIT)
    for _ in range(2):
        assert gigatoken_obstacle(fit) is None
        assert gigatoken_obstacle(unfit) == REASON
    assert made == ["gigatoken", "gigatoken"]  # found out once for each


Samples = Iterator[tuple[pa.LargeStringArray, Encoded]]


def right() -> tuple[pa.LargeStringArray, Encoded]:
    return large("ab", "c"), Encoded.of([[256], [ord("c")]])


def never_taken() -> Samples:
    raise AssertionError("taken, though it was not needed")
    yield


@pytest.mark.parametrize("tokenizer", [FIT, UNFIT], ids=["fit", "unfit"])
def test_tokenizers_are_chosen_unseen(tmp_path: Path, made: list[Engine], tokenizer: dict[str, Any]) -> None:
    assert choose_engine("x", written(tmp_path, tokenizer), "tokenizers", never_taken()) == ("tokenizers", None)
    assert made == []


@pytest.mark.parametrize("wanted", ["auto", "gigatoken"])
@pytest.mark.parametrize("samples", [0, 1, 2])
def test_gigatoken_is_chosen_where_it_gives_the_same(
    tmp_path: Path, made: list[Engine], wanted: Engine, samples: int
) -> None:
    chosen = choose_engine("x", written(tmp_path), wanted, (right() for _ in range(samples)))
    assert chosen == ("gigatoken", None)
    assert made == ["gigatoken"]


def differing() -> Samples:
    yield right()
    yield large("c", "ab"), Encoded.of([[ord("c")], [256, 7]])
    yield from never_taken()


def test_auto_takes_tokenizers_where_gigatoken_gives_other_ids(tmp_path: Path) -> None:
    reason = "gives other ids in document 1, position 1: the end, not 7"
    assert choose_engine("x", written(tmp_path), "auto", differing()) == ("tokenizers", reason)


def test_auto_takes_tokenizers_where_gigatoken_is_unfit(tmp_path: Path) -> None:
    assert choose_engine("x", written(tmp_path, UNFIT), "auto", never_taken()) == ("tokenizers", REASON)


def test_gigatoken_by_name_is_refused_where_it_cannot_be_used(tmp_path: Path) -> None:
    for tokenizer, samples, reason in (
        (FIT, differing(), "gives other ids in document 1, position 1: the end, not 7"),
        (UNFIT, never_taken(), REASON),
    ):
        with pytest.raises(UsageError) as refused:
            choose_engine("config.yaml", written(tmp_path, tokenizer), "gigatoken", samples)
        assert str(refused.value) == (
            f"config.yaml: --engine gigatoken cannot be used: gigatoken {reason}; take --engine auto"
        )


# Samples


def test_samples_are_encoded_as_they_are_asked_for(tmp_path: Path, made: list[Engine]) -> None:
    spec = written(tmp_path)
    texts = [large("ab", "ä"), large("c")]

    def asked_for() -> Iterator[pa.LargeStringArray]:
        yield from texts
        raise AssertionError("asked for more")

    samples = encode_samples(spec, asked_for())
    first, ids = next(samples)
    assert first is texts[0]
    assert ids_of(ids) == [[256], [0xC3, 0xA4]]
    with borrow_encoder(spec, "tokenizers"):  # which is free meanwhile
        assert made == ["tokenizers"]
    second, ids = next(samples)
    assert second is texts[1]
    assert ids_of(ids) == [[ord("c")]]
    assert made == ["tokenizers"]
    with pytest.raises(AssertionError, match="asked for more"):
        next(samples)


def test_samples_of_ids_choose_gigatoken(tmp_path: Path, made: list[Engine]) -> None:
    spec = written(tmp_path)
    assert choose_engine("x", spec, "auto", encode_samples(spec, [large("abab ä"), large()])) == ("gigatoken", None)
    assert made == ["gigatoken", "tokenizers"]


@given(st.lists(st.text("aäあ😀", max_size=4), max_size=8), st.integers(0, 40), st.integers(0, 3))
def test_leading_documents(texts: list[str], text_bytes: int, left_out: int) -> None:
    """No more than are needed for so many bytes, and at least one."""
    expected: list[str] = []
    for text in texts[left_out:]:
        expected.append(text)
        if len("".join(expected).encode()) >= text_bytes:
            break
    assert leading_documents(large(*texts).slice(left_out), text_bytes).to_pylist() == expected
