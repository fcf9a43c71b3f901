"""The evaluation of tokenizers, end to end: against direct computation, on all kinds of tokenizers, and its outputs."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import logging
import math
import re
import xml.etree.ElementTree
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sentencepiece
import tiktoken.load
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import image
from rich.console import Console

from beam_pipelines.commands.results import give
from beam_pipelines.tables.evaluation_plot import plot_evaluation
from beam_pipelines.tables.tokenizers import print_evaluation
from beam_pipelines.tokenizers.evaluate import ALL, Evaluation, evaluate, read_groups
from tests.support.command import run_command
from tests.support.corpora import SAMPLES, TOKENIZER, documents_of, write_parquet
from tests.support.examples import at_most
from tests.support.small_tokenizers import GPT2, byte_characters, byte_level, train
from tests.transforms.evaluation.test_statistics import naive_lines, naive_words
from transforms.encoding.splits import PROVEN_SPLITS
from transforms.errors import BroetchenError, UsageError
from transforms.evaluation import tokenizers as named
from transforms.evaluation.foreign import TiktokenEncoder, split_as_llama3
from transforms.evaluation.tokenizers import PUBLIC_TOKENIZERS, load_public
from transforms.files import storage
from transforms.files.listing import list_files
from transforms.tokenizer.spec import Engine

GERMAN = documents_of((SAMPLES / "corpora/fineweb2_german").glob("*.parquet"))
ENGLISH = documents_of((SAMPLES / "corpora/fineweb_english").glob("*.parquet"))
ODD = ["日本語の文 🙂\r\n\r\n\tx  y", "Bro\u0308tchen ﬁn <|eos|> ½\x00", "\n\n", " "]
MAXTEXT = Path(next(iter(__import__("maxtext").__path__)), "assets/tokenizers")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, list[str]], list[str]]:
    """Documents by group, and the command line's arguments for them."""
    folder = tmp_path_factory.mktemp("data")
    documents = {"german": GERMAN[:60] + ODD, "english": ENGLISH[:40]}
    write_parquet(folder / "german" / "0.parquet", [GERMAN[:40], [None, "", *GERMAN[40:50]]])
    write_parquet(folder / "german" / "1.parquet", [GERMAN[50:60], ODD])
    write_parquet(folder / "english" / "0.parquet", [ENGLISH[:40]])
    return documents, [f"{name}={folder}/{name}/*.parquet" for name in documents]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small tokenizers: byte-level BPE of either language, and words with an unknown token."""
    folder = tmp_path_factory.mktemp("trained")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "die": 1, "und": 2, "the": 3}, "[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    contents = {
        "bpe-german": json.dumps(train(GERMAN[100:300], GPT2)),
        "bpe-english": json.dumps(train(ENGLISH[100:300], GPT2)),
        "words": words.to_str(),
    }
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(content)
    return {name: folder / f"{name}.json" for name in contents}


def without_speed(evaluation: Evaluation) -> dict[str, Any]:
    found = json.loads(json.dumps(evaluation.to_dict()))
    assert all(row.pop("encode_mb_per_s") > 0 for row in found["results"])
    return found


def naive_metrics(path: Path, documents: Sequence[str]) -> dict[str, float]:
    """The metrics by `tokenizers` and plain loops alone."""
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True
    model = json.loads(tokenizer.to_str())["model"]
    unknown = tokenizer.token_to_id(model["unk_token"]) if model.get("unk_token") else None
    bytes_alone = set() if unknown is not None else {tokenizer.token_to_id(one) for one in byte_characters()[0x80:]}

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [one.ids for one in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    ids = [one for document in encode(documents) for one in document]
    words = [word for text in documents for word in naive_words(text)]
    types = sorted(set(words))
    forms = zip(types, encode(types), encode([f" {word}" for word in types]), strict=True)
    whole = {word: any(len(form) == 1 and form != [unknown] for form in both) for word, *both in forms}
    size = tokenizer.get_vocab_size()
    power = sum((count / len(ids)) ** 2.5 for count in Counter(ids).values())
    return {
        "vocabulary_size": size,
        "tokens": len(ids),
        "bytes_per_token": sum(len(text.encode()) for text in documents) / len(ids),
        "characters_per_token": sum(map(len, documents)) / len(ids),
        "fertility": len(ids) / len(words),
        "whole_word_share": sum(whole[word] for word in words) / len(words),
        "tokens_per_line": len(ids) / sum(len(naive_lines(text)) for text in documents),
        "renyi_efficiency": math.log(power) / -1.5 / math.log(size),
        "vocabulary_utilization": len(set(ids)) / size,
        "type_token_ratio": len(set(ids)) / len(ids),
        "unknown_rate": sum(one == unknown for one in ids) / len(ids),
        "byte_fallback_rate": sum(one in bytes_alone for one in ids) / len(ids),
    }


@pytest.mark.slow
def test_metrics_are_those_of_direct_computation_with_either_engine(
    data: tuple[dict[str, list[str]], list[str]], trained: dict[str, Path]
) -> None:
    documents, arguments = data
    paths = {"sample": TOKENIZER, **trained}
    sources = [f"{name}={path}" for name, path in paths.items()]
    evaluation = evaluate(sources, arguments)
    assert evaluation.groups == ("german", "english", ALL)
    engines = {one.name: one.engine for one in evaluation.tokenizers}
    assert engines == dict.fromkeys(paths, "gigatoken") | {"words": "tokenizers"}
    for tokenizer in evaluation.tokenizers:
        for group, texts in [*documents.items(), (ALL, [*documents["german"], *documents["english"]])]:
            found = dict(evaluation.metrics(tokenizer, group))
            assert (found.pop("encode_mb_per_s") or 0) > 0
            assert found == pytest.approx(naive_metrics(paths[tokenizer.name], texts)), (tokenizer.name, group)
    for group, best in (("german", "bpe-german"), ("english", "bpe-english")):
        fertility = {one.name: evaluation.metrics(one, group)["fertility"] for one in evaluation.tokenizers[1:3]}
        assert min(fertility, key=lambda name: fertility[name] or 0) == best

    slow = evaluate(sources, arguments, engine="tokenizers")
    assert {one.engine for one in slow.tokenizers} == {"tokenizers"}
    assert without_speed(slow)["results"] == without_speed(evaluation)["results"]


@pytest.mark.slow
def test_worker_processes_and_other_row_groups_give_the_same(
    data: tuple[dict[str, list[str]], list[str]], trained: dict[str, Path], tmp_path: Path
) -> None:
    documents, arguments = data
    paths = [str(path) for path in trained.values()]
    expected = without_speed(evaluate(paths, arguments))
    processes = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    assert without_speed(evaluate(paths, arguments, beam_arguments=processes)) == expected
    for name, texts in documents.items():
        for part in range(3):
            write_parquet(tmp_path / name / f"{part}.parquet", [[text] for text in texts[part::3]])
    again = evaluate(paths, [f"{name}={tmp_path}/{name}/*.parquet" for name in documents])
    assert without_speed(again) == expected


def test_buckets_hold_data_tokenizers_and_results(
    data: tuple[dict[str, list[str]], list[str]], trained: dict[str, Path], gcs_prefix: str
) -> None:
    local = data[1][1].removeprefix("english=").replace("*", "0")
    storage.upload(local, f"{gcs_prefix}/data/0.parquet")
    storage.upload(str(trained["words"]), f"{gcs_prefix}/words.json")
    storage.upload(str(MAXTEXT / PUBLIC_TOKENIZERS["llama2"]), f"{gcs_prefix}/llama2.model")
    sources = ["words.json", "llama2.model"]
    evaluation = evaluate(
        [f"{gcs_prefix}/{source}" for source in sources],
        [f"x={gcs_prefix}/data/*.parquet"],
        beam_arguments=["--temp_location", f"{gcs_prefix}/temp"],
    )
    assert [one.name for one in evaluation.tokenizers] == ["words", "llama2.model"]
    assert evaluation.statistics["words", "x"].documents == 40
    give(lambda console: print_evaluation(console, evaluation, "json"), f"{gcs_prefix}/out.json")
    plot_evaluation(evaluation, f"{gcs_prefix}/out.svg")
    # Nothing is left of the work.
    left = {path.removeprefix(f"{gcs_prefix}/") for path, _ in list_files(gcs_prefix)}
    assert left == {"data/0.parquet", *sources, "out.json", "out.svg"}


# --- Public tokenizers ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_all_public_tokenizers_of_maxtext_load_and_encode_as_their_libraries_do(
    data: tuple[dict[str, list[str]], list[str]],
) -> None:
    documents, arguments = data
    evaluation = evaluate([], arguments, with_public=True)
    assert not evaluation.left_out
    assert [one.name for one in evaluation.tokenizers] == list(PUBLIC_TOKENIZERS)
    # All that the package has is evaluated.
    assert {path.name for path in MAXTEXT.iterdir()} == set(PUBLIC_TOKENIZERS.values())
    sizes = {one.name: one.vocabulary.size for one in evaluation.tokenizers}
    assert (sizes["llama2"], sizes["llama3"], sizes["qwen3"], sizes["gemma3"]) == (32_000, 128_256, 151_669, 262_144)
    for tokenizer in evaluation.tokenizers:
        path = MAXTEXT / PUBLIC_TOKENIZERS[tokenizer.name]
        for group, texts in documents.items():
            assert evaluation.statistics[tokenizer.name, group].tokens == direct_tokens(tokenizer.kind, path, texts)
        metrics = evaluation.metrics(tokenizer, ALL)
        assert None not in metrics.values()
        # This model has no bytes to fall back on; all others can express any text.
        lossless = tokenizer.name != "maxtext-default"
        assert (metrics["unknown_rate"] == 0) == lossless
        assert ((metrics["byte_fallback_rate"] or 0) > 0) == lossless


def direct_tokens(kind: str, path: Path, texts: Sequence[str]) -> int:
    if kind == "sentencepiece":
        processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        return sum(len(processor.encode(text)) for text in texts)
    if kind == "tiktoken":
        ranks = tiktoken.load.load_tiktoken_bpe(str(path))
        encoding = tiktoken.Encoding(
            "llama3", pat_str=PROVEN_SPLITS["llama3"][0], mergeable_ranks=ranks, special_tokens={}
        )
        return sum(len(encoding.encode_ordinary(text)) for text in texts)
    tokenizer = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    return sum(len(one.ids) for one in tokenizer.encode_batch(texts, add_special_tokens=False))


def test_a_public_tokenizer_that_does_not_load_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, data: tuple[dict[str, list[str]], list[str]]
) -> None:
    # A later MaxText may have other files.
    chosen = {"llama2": PUBLIC_TOKENIZERS["llama2"], "gone": "tokenizer.gone"}
    monkeypatch.setattr(named, "PUBLIC_TOKENIZERS", chosen)
    assert [one.name for one in load_public()[0]] == ["llama2"]
    with caplog.at_level(logging.WARNING):
        evaluation = evaluate([], data[1][1:], with_public=True)
    assert [one.name for one in evaluation.tokenizers] == ["llama2"]
    assert list(evaluation.left_out) == ["gone"]
    assert (
        "leaving out the public tokenizer gone: the installed version of maxtext has no tokenizer.gone" in caplog.text
    )
    shown = printed(evaluation, "table")
    assert "gone was left out: the installed version of maxtext" in shown


@at_most(30)
@given(st.lists(st.tuples(st.sampled_from(["a", " ", "\n", "\u2003"]), st.integers(1, 120_000)), max_size=7))
def test_documents_are_split_as_llama_3_splits_them(runs: list[tuple[str, int]]) -> None:
    text = "".join(character * length for character, length in runs)
    parts = list(split_as_llama3(text))
    assert "".join(parts) == text
    assert max(map(len, parts), default=0) <= 400_000
    assert all(len(run[0]) <= 25_000 for part in parts for run in re.finditer(r"\s+|\S+", part))
    if len(text) <= 25_000:
        assert len(parts) <= 1


def test_tiktoken_takes_spaces_without_end() -> None:
    encoder = TiktokenEncoder((MAXTEXT / PUBLIC_TOKENIZERS["llama3"]).read_bytes())
    encoded = encoder.encode(pa.array([" " * 1_000_000, "", "x"], pa.large_string()))
    assert list(encoded.offsets[1:] - encoded.offsets[1]) == [0, 0, 1]
    tokens = list(encoder.ranks)
    assert sum(len(tokens[one]) for one in encoded.ids[:-1].tolist()) == 1_000_000


# --- Outputs ----------------------------------------------------------------------------------------------------------


def printed(evaluation: Evaluation, output_format: Any, width: int = 200) -> str:
    console = Console(width=width, file=io.StringIO())
    print_evaluation(console, evaluation, output_format)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


@pytest.fixture(scope="module")
def small(data: tuple[dict[str, list[str]], list[str]], trained: dict[str, Path]) -> Evaluation:
    return evaluate([str(path) for path in trained.values()], data[1])


def test_tables_mark_the_best_and_fit_the_terminal(small: Evaluation) -> None:
    wide = printed(small, "table")
    assert [line.partition(":")[0] for line in wide.splitlines() if "documents" in line] == ["german", "english", ALL]
    row = next(line for line in wide.splitlines() if line.startswith(" bpe-german"))
    fertility = small.metrics(small.tokenizers[0], "german")["fertility"]
    # The words' tokenizer has fewer tokens, of which most are unknown.
    assert f"{fertility:.2f} " in row
    assert f"{fertility:.2f}*" not in row
    assert "0.00 %*" in row  # unknown
    narrow = printed(small, "table", width=80)
    assert max(map(len, narrow.splitlines()[:-1])) <= 80
    assert sorted(re.findall(r"\d[\d.,]* ?%?\*", narrow)) == sorted(re.findall(r"\d[\d.,]* ?%?\*", wide))


@pytest.mark.parametrize("output_format", ["table", "json", "csv"])
def test_a_name_is_printed_as_it_is(small: Evaluation, output_format: str) -> None:
    """A tokenizer that is given without a name has that of its file, which may hold anything."""
    first, *others = small.tokenizers
    called = dataclasses.replace(first, name="a[b]")
    statistics = {
        (called.name if name == first.name else name, group): found for (name, group), found in small.statistics.items()
    }
    evaluation = dataclasses.replace(small, tokenizers=(called, *others), statistics=statistics)
    assert "a[b]" in printed(evaluation, output_format).replace("\n", " ").partition(" by ")[0]


def test_json_and_csv_hold_the_same_numbers(small: Evaluation) -> None:
    parsed = json.loads(printed(small, "json"))
    assert parsed == json.loads(json.dumps(small.to_dict()))
    assert [group["group"] for group in parsed["groups"]] == ["german", "english", ALL]
    rows = list(csv.DictReader(io.StringIO(printed(small, "csv"))))
    assert [{key: str(value) for key, value in row.items()} for row in parsed["results"]] == rows


@pytest.mark.parametrize("name", ["plot.png", "plot.SVG"])
def test_plots_are_valid_and_the_same_each_time(small: Evaluation, tmp_path: Path, name: str) -> None:
    path, again = tmp_path / name, tmp_path / f"again-{name}"
    plot_evaluation(small, str(path))
    plot_evaluation(small, str(again))
    assert path.read_bytes() == again.read_bytes()
    if name.endswith("png"):
        pixels = image.imread(path)
        assert pixels.shape[1] > 1000
        # White to all sides: nothing is cut off.
        edges = (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])
        assert all((edge[..., :3] == 1).all() for edge in edges)
        assert (pixels[..., :3] != 1).any()
    else:
        assert xml.etree.ElementTree.parse(path).getroot().tag.endswith("svg")


def test_plots_of_other_kinds_are_refused(small: Evaluation, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must end in \.png or \.svg"):
        plot_evaluation(small, str(tmp_path / "plot.pdf"))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_command(data: tuple[dict[str, list[str]], list[str]], trained: dict[str, Path], tmp_path: Path) -> None:
    given = ["eval-tokenizer", f"mine={trained['bpe-german']}", "--data", data[1][1], "--format", "json", "--quiet"]
    given += ["--plot", str(tmp_path / "plot.png"), "--output", str(tmp_path / "results.json")]
    done = run_command(*given, module="beam_pipelines")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert json.loads((tmp_path / "results.json").read_text()) == found
    assert [row["tokenizer"] for row in found["results"]] == ["mine", "mine"]
    assert (tmp_path / "plot.png").stat().st_size > 1000


# --- What goes wrong --------------------------------------------------------------------------------------------------


def test_groups_come_from_globs_names_and_configs() -> None:
    config = SAMPLES.parent / "mix_configs/demo.yaml"
    groups = read_groups([str(config), "german=a/*.parquet", "german=b.parquet", "c.parquet"], "body")
    assert [group.name for group in groups][-3:] == ["finepdfs_english", "german", "data"]
    assert (groups[-2].patterns, groups[-2].text_column) == (("a/*.parquet", "b.parquet"), "body")
    assert groups[0].text_column == "text"
    (pattern,) = groups[0].patterns
    assert pattern.endswith("samples/corpora/fineweb2_german/*.parquet")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "no data to evaluate on"),
        (["x="], "names no file"),
        ([f"{ALL}=a.parquet"], "is the name for all groups"),
        (["nowhere.yaml"], "nowhere.yaml"),
        (["s4://bucket/*.parquet"], "Beam has no filesystem"),
    ],
)
def test_data_that_cannot_be_meant(given: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        read_groups(given)


def test_data_without_text(tmp_path: Path) -> None:
    write_parquet(tmp_path / "empty.parquet", [[None, ""]])
    (tmp_path / "cut.parquet").write_bytes((SAMPLES / "corpora/fineweb_english/000_00000.parquet").read_bytes()[:5000])
    for glob, message in (
        ("empty.parquet", "group x: column 'text' holds no text"),
        ("none-*.parquet", "no file matches"),
        ("cut.parquet", "cut short"),
    ):
        with pytest.raises(BroetchenError, match=message):
            evaluate([str(TOKENIZER)], [f"x={tmp_path}/{glob}"])
    with pytest.raises(BroetchenError, match="no column 'body'"):
        evaluate([str(TOKENIZER)], [f"x={tmp_path}/empty.parquet"], text_column="body")


def test_a_row_group_that_is_damaged_is_named(tmp_path: Path, trained: dict[str, Path]) -> None:
    write_parquet(tmp_path / "a.parquet", [["fine " * 1000], [f"damaged {number}" for number in range(5000)]])
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2000] = bytes(2000)
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(BroetchenError, match=r"a\.parquet: row group 1 cannot be read"):
        evaluate([str(trained["words"])], [str(tmp_path / "a.parquet")])


@pytest.mark.parametrize(
    ("source", "kept", "message"),
    [
        (TOKENIZER, 300_000, "tokenizer.json: not JSON .* ends too early"),
        (MAXTEXT / "tokenizer.gemma3", 100_000, "taken for a sentencepiece file, but it cannot be read"),
        (MAXTEXT / "tokenizer_llama3.tiktoken", 100_003, "taken for a tiktoken file, but line 7527 is not a token"),
        (MAXTEXT / "tokenizer_llama3.tiktoken", 1_000, "of the 256 bytes have no token"),
        (MAXTEXT / "tokenizer.gemma3", 0, "holds no pieces|cannot be read"),
    ],
)
def test_truncated_tokenizers(tmp_path: Path, source: Path, kept: int, message: str) -> None:
    path = tmp_path / source.name
    content = source.read_bytes()[:kept]
    path.write_bytes(content if kept != 1_000 else content[: content.rindex(b"\n") + 1])
    with pytest.raises(UsageError, match=message):
        evaluate([str(path)], ["unused.parquet"])


def test_tokenizers_that_cannot_be_meant(tmp_path: Path, trained: dict[str, Path]) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(byte_level(pre_tokenizer=None)))
    refused: list[tuple[list[str], Engine, str]] = [
        ([], "auto", "no tokenizer to evaluate"),
        (["nowhere"], "auto", "there is no nowhere/tokenizer.json"),
        (["owner/name@main"], "auto", "a full commit, 40 hexadecimal digits, not 'main'"),
        ([f"a={TOKENIZER}", f"a={trained['words']}"], "auto", "would both be called 'a'"),
        ([str(tmp_path)], "gigatoken", "--engine gigatoken cannot be used: gigatoken needs a pre-tokenizer"),
    ]
    for sources, engine, message in refused:
        with pytest.raises(UsageError, match=message):
            evaluate(sources, [str(SAMPLES / "corpora/fineweb_edu_english/000_00000.parquet")], engine=engine)


@pytest.mark.parametrize(
    ("tokenizer", "code", "message"),
    [("cut.json", 2, "cut.json: not JSON at line 1"), (TOKENIZER, 1, "none.parquet: no file matches")],
)
def test_the_command_says_what_is_wrong_in_a_line(
    tmp_path: Path, tokenizer: str | Path, code: int, message: str
) -> None:
    (tmp_path / "cut.json").write_bytes(TOKENIZER.read_bytes()[:1000])
    done = run_command("eval-tokenizer", tmp_path / tokenizer, "--data", f"x={tmp_path}/none.parquet", "-q")
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("broetchen: ")
