"""Training a tokenizer: the same merges as `tokenizers` itself, for any threads and files; nothing lost; loads."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import tokenizers
import transformers
from hypothesis import example, given
from hypothesis import strategies as st
from maxtext.input_pipeline.tokenizer import build_tokenizer
from rich.console import Console
from tokenizers import Tokenizer, normalizers, pre_tokenizers, trainers

from beam_pipelines.config.mix import MixConfig, load_config
from beam_pipelines.jobs.build import build
from beam_pipelines.tables.tokenizers import print_training
from beam_pipelines.tokenizers.corpus import Corpus, corpus_at, corpus_of_config
from beam_pipelines.tokenizers.train import TrainingSummary, train_tokenizer
from tests.support.command import run_command, without_hint
from tests.support.corpora import SAMPLES, TOKENIZER, documents_of, write_parquet
from tests.support.examples import at_most
from tests.support.trainable_mixes import build_mix, training_config
from transforms.bpe import train as bpe
from transforms.bpe.corpus import TextStream, find_parts, parquet_part
from transforms.bpe.memory import distinct_words, memory_warning
from transforms.bpe.styles import SPECIAL_TOKENS, STYLES, TokenizerStyle, check_bytes, check_round_trip, special_tokens
from transforms.encoding.encoders import GigatokenEncoder, ReferenceEncoder
from transforms.errors import BroetchenError, UsageError
from transforms.files import storage
from transforms.files.listing import list_files
from transforms.quantities import parse_size
from transforms.tokenizer.file import load_tokenizer

SAMPLE = SAMPLES / "corpora" / "fineweb_edu_english"
GERMAN = SAMPLES / "corpora" / "finepdfs_german"
STYLE_NAMES = sorted(STYLES)
WORDS = ["ab", "abc", " ", "12", "\n", "it's", "straße", "ﬁ", "日本", "🙂", "e\u0301", "…", "<|bos|>", "aaaa", "\t"]
TRICKY = "Grüße, 12345 ﬁnal … it's\n\n \tⅣ<|user_start|>hi  there e\u0301 日本 🙂 \u00a0x"


def train(corpus: Path | str, output: Path | str, **others: Any) -> TrainingSummary:
    return train_tokenizer(corpus_at(str(corpus)), str(output), quiet=True, **{"vocab_size": 1000, **others})


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def reference(documents: Sequence[str], style: str, vocab_size: int) -> Tokenizer:
    """A tokenizer as one would train it by calling `tokenizers` alone, of settings written out once more."""
    tokenizer = Tokenizer(tokenizers.models.BPE())
    byte_level = pre_tokenizers.ByteLevel
    if style == "gpt-neox":
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = byte_level(add_prefix_space=True)
    else:
        digits = {"gpt-4": 3, "nanochat": 2}[style]
        contraction = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)" if style == "gpt-4" else r"'(?i:[sdmt]|ll|ve|re)"
        pattern = rf"{contraction}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,{digits}}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|"
        split = pre_tokenizers.Split(tokenizers.Regex(pattern + r"\s*[\r\n]|\s+(?!\S)|\s+"), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level(add_prefix_space=False, use_regex=False)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL_TOKENS, "<|eos|>", "<|pad|>"],
        initial_alphabet=byte_level.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def model_of(tokenizer: Tokenizer) -> Any:
    return json.loads(tokenizer.to_str())["model"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tokenizer of each style, trained on some sample documents."""
    folder = tmp_path_factory.mktemp("trained")
    for style in STYLE_NAMES:
        train(SAMPLE, folder / style, style=style)
    return folder


@pytest.mark.slow
def test_command_trains_what_transformers_and_maxtext_load(tmp_path: Path) -> None:
    output = tmp_path / "tokenizer[b]"
    done = run_command("train-tokenizer", SAMPLE, "--style", "gpt-neox", "--vocab-size", "2000", "--output", output)
    assert done.returncode == 0, done.stderr
    assert without_hint(done.stderr) == "training\ntraining: merging\nchecking\n"
    for shown in ("gpt-neox", "2,000", "complete", str(output)):
        assert shown in done.stdout
    assert sorted(path.name for path in output.iterdir()) == [
        "manifest.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    file = load_tokenizer(str(output))
    assert (file.bos_token, file.bos_id, file.eos_token, file.eos_id) == ("<|bos|>", 0, "<|eos|>", 9)
    assert file.vocab_size == 2000
    maxtext = build_tokenizer(str(output), "huggingface", add_bos=True, add_eos=True, hf_access_token=None)
    own = Tokenizer.from_file(str(output / "tokenizer.json"))
    assert maxtext.encode(TRICKY) == [0, *own.encode(TRICKY).ids, 9]
    assert (maxtext.bos_id, maxtext.eos_id) == (0, 9)


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLE_NAMES)
def test_transformers_gives_the_same_ids(trained: Path, style: str) -> None:
    loaded = transformers.AutoTokenizer.from_pretrained(str(trained / style))
    file = load_tokenizer(str(trained / style))
    texts = [TRICKY, *documents_of(SAMPLE.glob("*.parquet"))[:5], *documents_of(GERMAN.glob("*.parquet"))[:5]]
    own = ReferenceEncoder(file, "token").encode(pa.array(texts, pa.large_string()))
    assert [loaded(text)["input_ids"] for text in texts] == [
        own.ids[start:end].tolist() for start, end in zip(own.offsets, own.offsets[1:], strict=False)
    ]
    assert loaded.decode(loaded.encode(texts[1])) == STYLES[style].given_back(texts[1])
    assert loaded.all_special_tokens[:2] == ["<|bos|>", "<|eos|>"]
    assert set(loaded.all_special_tokens) == {*SPECIAL_TOKENS, "<|eos|>", "<|pad|>"}
    assert (loaded.pad_token, loaded.pad_token_id) == ("<|pad|>", 10)
    assert [loaded.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS] == list(range(9))


@pytest.mark.slow
@pytest.mark.parametrize("style", ["gpt-4", "gpt-neox"])
def test_gigatoken_takes_it(trained: Path, style: str) -> None:
    file = load_tokenizer(str(trained / style))
    texts = pa.array([TRICKY, *documents_of(GERMAN.glob("*.parquet"))[:20]], pa.large_string())
    found, expected = (engine(file, "text").encode(texts) for engine in (GigatokenEncoder, ReferenceEncoder))
    assert found.ids.tolist() == expected.ids.tolist()


@pytest.mark.parametrize("style", STYLE_NAMES)
def test_merges_are_those_of_tokenizers_itself(trained: Path, style: str) -> None:
    documents = documents_of(SAMPLE.glob("*.parquet"))
    assert len(documents) < 100  # so that none was held out
    found = Tokenizer.from_file(str(trained / style / "tokenizer.json"))
    assert model_of(found) == model_of(reference(documents, style, 1000))


@pytest.mark.slow
def test_threads_files_and_batches_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = documents_of(GERMAN.glob("*.parquet"))
    write_parquet(tmp_path / "one" / "c.parquet", [documents])
    for number, start in enumerate(range(0, len(documents), 40)):
        some = documents[start : start + 40]
        write_parquet(tmp_path / "many" / "c" / f"{number}.parquet", [some[:3], [None, ""], some[3:]])
    outputs = []
    for corpus, threads, parallel in (("one/c.parquet", "1", "false"), ("many/c", "3", "true")):
        monkeypatch.setenv("RAYON_NUM_THREADS", threads)
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", parallel)
        outputs.append(tmp_path / f"out-{threads}")
        arguments = ("train-tokenizer", tmp_path / corpus, "--vocab-size", "3000", "--output", outputs[-1])
        done = run_command(*arguments, module="beam_pipelines")
        assert done.returncode == 0, done.stderr
    first, second = outputs
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    one, many = (read_json(output / "manifest.json") for output in outputs)
    assert one["corpus"]["sha256"] == many["corpus"]["sha256"]
    assert one["round_trip"] == many["round_trip"]
    assert one["round_trip"]["documents"] == len(documents) // 100 > 0
    assert one["trained_on"]["documents"] == len(documents) - len(documents) // 100
    assert str(tmp_path) not in json.dumps(one)


@pytest.mark.slow
def test_held_out_documents_are_not_trained_on(tmp_path: Path) -> None:
    documents = documents_of(GERMAN.glob("*.parquet"))
    train(GERMAN, tmp_path / "out")
    kept = [document for number, document in enumerate(documents) if number % 100 != 99]
    found = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert model_of(found) == model_of(reference(kept, "gpt-4", 1000))


@pytest.fixture(scope="module")
def tokenizer_of(trained: Path) -> dict[str, Tokenizer]:
    return {style: Tokenizer.from_file(str(trained / style / "tokenizer.json")) for style in STYLE_NAMES}


@given(st.lists(st.text(min_size=1) | st.sampled_from([TRICKY, "<|bos|>", " ", "\r\n", "\u00a0", "ﷺ"]), min_size=1))
def test_every_text_comes_back(tokenizer_of: dict[str, Tokenizer], texts: list[str]) -> None:
    for style, tokenizer in tokenizer_of.items():
        assert check_round_trip(tokenizer, STYLES[style], texts) > 0
        for text in texts:
            ids = tokenizer.encode(text).ids
            assert style == "gpt-neox" or tokenizer.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("style", STYLE_NAMES)
def test_lost_text_is_an_error(style: str) -> None:
    tokenizer = STYLES[style].untrained()
    tokenizer.train_from_iterator(["abc abc"], trainers.BpeTrainer(show_progress=False))
    with pytest.raises(BroetchenError, match=r"no token for 2.. of 256 bytes"):
        check_bytes(tokenizer)
    assert check_round_trip(tokenizer, STYLES[style], [" abc"]) > 0
    with pytest.raises(BroetchenError, match=r"document 8 .* at character 4 .*'d'"):
        check_round_trip(tokenizer, STYLES[style], [" abc", " abcd"], first=7)


def test_text_that_is_lost_stops_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lossy = STYLES["gpt-neox"]
    monkeypatch.setitem(STYLES, "lossy", dataclasses.replace(lossy, name="lossy", nfkc=False, prefix_space=False))
    monkeypatch.setattr(TokenizerStyle, "untrained", lambda style, untrained=TokenizerStyle.untrained: untrained(lossy))
    with pytest.raises(BroetchenError, match=r"does not give back document 0 .* nothing was written"):
        train(SAMPLE, tmp_path / "out", style="lossy")
    assert not list((tmp_path / "out").iterdir())


def test_vocabulary_smaller_than_the_alphabet(tmp_path: Path) -> None:
    done = run_command("train-tokenizer", SAMPLE, "--vocab-size=267", "--output", tmp_path / "o")
    assert done.returncode == 2
    assert "256 bytes and 11 special tokens" in done.stderr
    assert "268 is the least" in done.stderr
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("rows", [[], [None, "", b"\xff"]])
def test_empty_corpus(tmp_path: Path, rows: list[bytes | str | None]) -> None:
    kind = pa.binary()
    write_parquet(tmp_path / "c" / "0.parquet", [rows], kind=kind)
    with pytest.raises(BroetchenError, match="the corpus is empty"):
        train(tmp_path / "c", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_no_corpus_at_all(tmp_path: Path) -> None:
    with pytest.raises(BroetchenError, match="no parquet files"):
        train(tmp_path, tmp_path / "out")
    with pytest.raises(BroetchenError, match="no file matches"):
        train(tmp_path / "c.parquet", tmp_path / "out")
    with pytest.raises(BroetchenError, match="no column 'body'"):
        corpus_at(str(SAMPLE), text_column="body")
    with pytest.raises(UsageError, match=r"--dataset nothing: .* fineweb_edu_english"):
        corpus_at(str(SAMPLES / "corpora"), ["nothing"])


def test_damaged_corpus(tmp_path: Path) -> None:
    path = tmp_path / "c" / "0.parquet"
    write_parquet(path, [["a text"] * 50, [f"another text {number}" for number in range(500)]])
    data = bytearray(path.read_bytes())
    data[len(data) // 2 - 200 : len(data) // 2 + 200] = bytes(400)
    path.write_bytes(data)
    with pytest.raises(BroetchenError, match=r"0\.parquet: row group 1 cannot be read"):
        train(tmp_path / "c", tmp_path / "out")
    path.write_bytes(bytes(data[:-20]))
    done = run_command("train-tokenizer", path, "--output", tmp_path / "out")
    assert done.returncode == 1
    assert "not a parquet file, or cut short" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_output_that_is_there(tmp_path: Path) -> None:
    output = tmp_path / "out"
    train(SAMPLE, output)
    before = (output / "tokenizer.json").read_bytes()
    with pytest.raises(UsageError, match=r"tokenizer\.json: is there already; .*--overwrite"):
        train(SAMPLE, output, style="nanochat")
    assert (output / "tokenizer.json").read_bytes() == before
    train(SAMPLE, output, style="nanochat", overwrite=True)
    assert read_json(output / "manifest.json")["style"] == "nanochat"


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BroetchenError, match="choose another path"):
        train(SAMPLE, tmp_path / "file" / "out")


@pytest.mark.slow
def test_no_file_is_left_where_one_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, data: bytes, write: Any = storage.write_bytes) -> None:
        if path.endswith("manifest.json"):
            raise BroetchenError(f"{path}: disk full")
        write(path, data)

    monkeypatch.setattr(storage, "write_bytes", refuse)
    with pytest.raises(BroetchenError, match="disk full"):
        train(SAMPLE, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.slow
def test_buckets(gcs_prefix: str, trained: Path) -> None:
    train(SAMPLE, f"{gcs_prefix}/tokenizer", style="nanochat")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "manifest.json"):
        assert storage.read_bytes(f"{gcs_prefix}/tokenizer/{name}") == (trained / "nanochat" / name).read_bytes()
    assert len(list_files(f"{gcs_prefix}/tokenizer", "*")) == 4


def test_special_tokens(tmp_path: Path) -> None:
    train(SAMPLE, tmp_path / "one", eos_token="<|bos|>", more_special_tokens=["<|x|>", "<|bos|>"])
    file = load_tokenizer(str(tmp_path / "one"))
    assert (file.bos_id, file.eos_id) == (0, 0)
    manifest = read_json(tmp_path / "one" / "manifest.json")
    assert manifest["special_tokens"] == [*SPECIAL_TOKENS, "<|x|>", "<|pad|>"]
    named = read_json(tmp_path / "one" / "special_tokens_map.json")
    assert named["additional_special_tokens"][-1] == "<|x|>"
    assert (named["eos_token"], named["pad_token"]) == ("<|bos|>", "<|pad|>")
    with pytest.raises(UsageError, match="special token is empty"):
        special_tokens(" ")


def test_corpus_without_enough_pairs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_parquet(tmp_path / "c" / "0.parquet", [["ab ab abc"]])
    summary = train(tmp_path / "c", tmp_path / "out")
    assert summary.vocab_size == read_json(tmp_path / "out" / "manifest.json")["vocab_size"] < 300
    assert "has no more pairs" in caplog.text


def make_config(folder: Path, datasets: dict[str, dict[str, Any]], **others: Any) -> MixConfig:
    content = {
        "name": "test",
        "tokenizer": {"path": str(TOKENIZER)},
        "records": {"format": "text"},
        "datasets": {name: {"source": f"{folder}/{name}/*.parquet", **one} for name, one in datasets.items()},
    }
    path = folder / "mix.yaml"
    path.write_text(json.dumps(content | others))
    return load_config(str(path))


@pytest.fixture
def two_datasets(tmp_path: Path) -> Path:
    write_parquet(tmp_path / "a" / "0.parquet", [[f"{number:08d}" for number in range(100)]])
    write_parquet(tmp_path / "b" / "0.parquet", [[f"b{number:07d}" for number in range(500)]])
    return tmp_path


def test_config_gives_whole_sources(two_datasets: Path) -> None:
    config = make_config(two_datasets, {"b": {"tokens": 30}, "a": {"tokens": 10}})
    corpus = corpus_of_config(config)
    stream = TextStream(corpus.parts)
    texts = [text for batch in stream for text in batch.to_pylist()]
    assert texts == documents_of([two_datasets / "b" / "0.parquet"]) + documents_of([two_datasets / "a" / "0.parquet"])
    assert {name: (count.documents, count.bytes) for name, count in stream.counts.items()} == {
        "b": (500, 4000),
        "a": (100, 800),
    }
    assert corpus.weights == {"b": 30, "a": 10}
    assert [part.name for part in corpus_of_config(config, ["a"]).parts] == ["a"]
    assert corpus.parts[0].shown == ("0.parquet",)


def test_max_bytes_is_divided_by_the_budgets(two_datasets: Path) -> None:
    corpus = corpus_of_config(make_config(two_datasets, {"a": {"tokens": 1}, "b": {"tokens": 3}}))
    summary = train_tokenizer(
        corpus, str(two_datasets / "out"), vocab_size=400, max_bytes=1001, check_all=True, quiet=True
    )
    counts = {
        part["name"]: part["documents"] for part in read_json(two_datasets / "out" / "manifest.json")["corpus"]["parts"]
    }
    assert counts == {"a": 31, "b": 93}  # of 250 and 751 bytes
    assert summary.checked.text.documents == 124


@pytest.mark.slow
@pytest.mark.parametrize("records", ["text", "parquet"])
def test_built_text_is_the_corpus_and_its_eval_split_the_check(tmp_path: Path, records: str) -> None:
    documents = documents_of(SAMPLE.glob("*.parquet"))
    write_parquet(tmp_path / "a" / "0.parquet", [documents])
    config = make_config(
        tmp_path,
        {"a": {"tokens": 150_000, "eval_tokens": 5000}},
        records={"format": records},
        shards={"target_size": 9999},
    )
    build(config, str(tmp_path / "built"), quiet=True)
    summary = train(tmp_path / "built", tmp_path / "out")
    manifest, built = read_json(tmp_path / "out" / "manifest.json"), read_json(tmp_path / "built/a/manifest.json")
    assert manifest["corpus"]["documents"] == summary.corpus.documents == built["splits"]["train"]["documents"]
    assert summary.checked.what == "evaluation text"
    assert manifest["round_trip"]["documents"] == built["splits"]["eval"]["documents"] > 0
    written = "".join(text for batch in TextStream(find_parts(str(tmp_path / "built"))) for text in batch.to_pylist())
    assert written
    assert "".join(documents).startswith(written)


def test_built_ids_are_no_corpus(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a" / "0.parquet", [["some text"] * 9])
    config = make_config(tmp_path, {"a": {"tokens": 9}}, records={"format": "tokens"})
    build(config, str(tmp_path / "built"), quiet=True)
    with pytest.raises(UsageError, match="was built as ids"):
        corpus_at(str(tmp_path / "built"))


def test_evaluation_text_of_ones_own(tmp_path: Path, two_datasets: Path) -> None:
    done = run_command(
        *(
            "train-tokenizer",
            SAMPLE,
            "--vocab-size=400",
            "--eval-data",
            two_datasets / "b",
            "--output",
            tmp_path / "out",
        )
    )
    assert done.returncode == 0, done.stderr
    manifest = read_json(tmp_path / "out" / "manifest.json")
    assert (manifest["round_trip"]["text"], manifest["round_trip"]["documents"]) == ("evaluation text", 500)
    assert manifest["trained_on"]["documents"] == manifest["corpus"]["documents"]


@given(st.lists(st.text(min_size=1), min_size=1, max_size=9), st.data())
def test_the_hash_of_a_stream_is_that_of_its_documents(
    tmp_path_factory: pytest.TempPathFactory, documents: list[str], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("stream")
    cut = data.draw(st.integers(0, len(documents)))
    write_parquet(folder / "0.parquet", [documents[:cut], documents[cut:]])
    write_parquet(folder / "one" / "0.parquet", [documents])
    write_parquet(folder / "joined" / "0.parquet", [["".join(documents)], ["more"]])
    hashes = []
    for path in (folder, folder / "one", folder / "joined"):
        stream = TextStream([parquet_part("a", {f"{path}/*.parquet": "*.parquet"}, "text")])
        for _ in stream:
            pass
        hashes.append(stream.sha256)
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.slow
def test_large_corpus_is_announced() -> None:
    texts = documents_of(SAMPLE.glob("*.parquet"))
    assert memory_warning(texts, 10**9, 10**12) is None
    warning = memory_warning(texts, 10**12, 10**9)
    assert warning is not None
    assert "1000.00 GB of text" in warning
    fitting = int(warning.partition("--max-bytes ")[2].partition("MB")[0]) * 10**6
    assert memory_warning(texts, fitting, 10**9) is None
    words = distinct_words(texts, sum(len(text.encode()) for text in texts))
    assert 10_000 < words < distinct_words(texts, 10**8) < 10**7


def test_unknown_style(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gpt-neox, gpt-4, nanochat"):
        train_tokenizer(Corpus([], {"a": Fraction(1)}), str(tmp_path / "out"), style="gpt-9")


@pytest.mark.slow
def test_gigatoken_trains_the_same_tokenizer(tmp_path: Path) -> None:
    outputs = [tmp_path / trainer for trainer in bpe.TRAINERS]
    for output in outputs:
        train(GERMAN, output, style="gpt-neox", trainer=output.name, vocab_size=8000)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "manifest.json"):
        assert (outputs[0] / name).read_bytes() == (outputs[1] / name).read_bytes()


def by_trainer(texts: list[str], vocab_size: int) -> list[str]:
    batches = [pa.array(texts[::2], pa.large_string()), pa.array(texts[1::2], pa.large_string())]
    by_name = bpe.TRAINERS
    return [trainer(STYLES["gpt-neox"], batches, vocab_size, special_tokens()).to_str() for trainer in by_name.values()]


def repeats(text: str) -> bool:
    """Whether a part of a word may stand there three times in a row as one token."""
    return re.search(rb"(.+?)\1\1", text.encode(), re.DOTALL) is not None


@at_most(3)  # each starts a process
@example(["\U0001f642<|bos|>ab"])  # A special token's string beside letters, of which gigatoken merges more.
@given(
    st.lists(st.lists(st.sampled_from(WORDS)).map("".join).filter(lambda text: text and not repeats(text)), min_size=1)
)
def test_gigatoken_trains_the_same_tokenizer_on_any_text(texts: list[str]) -> None:
    expected, found = by_trainer(texts, 400)
    assert found == expected


def test_gigatoken_trains_the_same_tokenizer_where_a_syllable_is_repeated() -> None:
    texts = [
        "ab",
        "ab",
        "ab",
        "ab",
        "ab",
        "ab",
        "aaaaababababab",
        "ab",
        "ab",
        "aaaaabab",
        "ab",
        "ab",
        "ababab\u2026ab",
        "ab",
        "abab",
        "ab",
        "ab",
        "\u2026\u2026",
        "abab",
        "abaaaaababab",
        "ab",
        "ab",
        "ab",
        "ab",
        "ab",
        "ab<|bos|>ab\t",
        "ababababababababab",
        "<|bos|>abstra\xdfeababab",
        "abababab",
        "ababababababaaaaab",
        "ab",
        "ab",
        "ab",
        "ab",
        "ababababababab",
        "ab",
        "<|bos|>ababab<|bos|>\t",
        "\u2026ababababababcab\ufb01",
        "\u65e5\u672cab",
        "abe\u0301abab\u65e5\u672c",
    ]
    expected, found = by_trainer(texts, 400)
    assert found == expected


def test_gigatoken_leaves_to_tokenizers_what_it_may_not_know(caplog: pytest.LogCaptureFixture) -> None:
    expected, found = by_trainer(["ab ab \U00018dc3ab", "next"] * 5, 300)
    assert found == expected
    assert "U+18DC3, which is in the corpus" in caplog.text
    expected, found = by_trainer(["ab"], 400)
    assert found == expected
    assert "no more pairs to merge" in caplog.text
    with pytest.raises(UsageError, match="splits text as GPT-2 does, and style nanochat does not"):
        bpe.train_by_gigatoken(STYLES["nanochat"], [], 300, special_tokens())
    with pytest.raises(BroetchenError, match="the corpus is empty"):
        bpe.train_by_gigatoken(STYLES["gpt-neox"], [], 300, special_tokens())


def test_a_corpus_with_more_of_a_pair_than_is_counted_is_refused(tmp_path: Path, caplog, monkeypatch) -> None:
    monkeypatch.setattr("beam_pipelines.tokenizers.train.MOST_OCCURRENCES", 20_000)
    with pytest.raises(
        BroetchenError, match=r"the pair .* occurs more than 20,000 times, after 0\.00 GB .* --max-bytes"
    ):
        train(SAMPLE, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    # A warning named a size that fits, before the training began.
    (warning,) = (record.message for record in caplog.records if "likely too large to train on" in record.message)
    fitting = parse_size(warning.partition("--max-bytes ")[2].partition(" ")[0])
    # As much as it says can be counted.
    monkeypatch.setattr("beam_pipelines.tokenizers.train.MOST_OCCURRENCES", 2_000_000)
    assert fitting == 1_000_000
    train(SAMPLE, tmp_path / "out")


def test_a_word_that_is_too_long_is_left_out_and_told(tmp_path: Path) -> None:
    documents = documents_of(SAMPLE.glob("*.parquet"))[:150]
    write_parquet(tmp_path / "plain" / "0.parquet", [documents])
    write_parquet(tmp_path / "long" / "0.parquet", [[*documents[:20], "ACGT" * 25_000, *documents[20:]]])
    plain, long = (train(tmp_path / name, tmp_path / f"{name}-out") for name in ("plain", "long"))
    assert (plain.long_words, plain.long_word_bytes) == (0, 0)
    assert (long.long_words, long.long_word_bytes) == (1, 100_000)
    assert "long_words" not in read_json(tmp_path / "plain-out" / "manifest.json")["corpus"]
    assert read_json(tmp_path / "long-out" / "manifest.json")["corpus"]["long_words"] == {"words": 1, "bytes": 100_000}
    shown = io.StringIO()
    print_training(Console(file=shown, width=120), long)
    share = 100_000 / long.corpus.bytes
    assert f"1 words of more than 4,096 bytes were not trained on: {100 * share:.2f} %" in shown.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(("eos", "written"), [("<|bos|>", "tokens"), ("<|endoftext|>", "text")])
def test_what_is_trained_can_be_built_and_trained_with(tmp_path: Path, eos: str, written: str) -> None:
    """There is no word on padding, of which MaxText has a model learn nothing."""
    done = run_command(
        "train-tokenizer", SAMPLE, "--vocab-size=2000", f"--eos-token={eos}", "--output", tmp_path / "tokenizer"
    )
    assert done.returncode == 0, done.stderr
    assert load_tokenizer(str(tmp_path / "tokenizer")).vocab_size == 2000
    records = {"format": written, **({"max_tokens": 64, "add_eos": True} if written == "tokens" else {})}
    build_mix(tmp_path, tokenizer={"path": str(tmp_path / "tokenizer")}, records=records)
    path = training_config(tmp_path, model="tiny-llama")
    ready = run_command("train", path, "--dry-run", "--set", "parameters.vocab_size=2048")
    assert ready.returncode == 0, ready.stderr
    assert "padding" not in ready.stderr


def test_padding_is_not_the_end(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--eos-token <\|pad\|>: is for padding"):
        train(SAMPLE, tmp_path / "out", eos_token="<|pad|>")
