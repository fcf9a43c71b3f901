"""`verify` finds whatever is wrong with a built dataset, and names the file."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from beam_pipelines.config.mix import load_config
from beam_pipelines.jobs.build import build
from beam_pipelines.jobs.verify import verify
from tests.support.command import run_command
from tests.support.corpora import TOKENIZER, write_parquet
from tests.support.reading import read_ids, read_texts
from transforms.arrayrecord.example import encode_ids, encode_texts
from transforms.arrayrecord.records import FEATURE
from transforms.arrayrecord.writer import ShardWriter
from transforms.errors import BroetchenError

MAX_TOKENS, VOCABULARY = 16, 65_536
SHARD = "train-00001-of-00005.arecord"


def build_dataset(folder: Path, record_format: str) -> Path:
    """A dataset of five train shards and one of eval."""
    documents = [[f"Satz {group}, {row} und noch einer mehr." for row in range(20)] for group in range(12)]
    write_parquet(folder / "a" / "0.parquet", documents)
    content = {
        "name": "verified",
        "tokenizer": {"path": str(TOKENIZER), "eos_token": "<|eos|>"},
        "records": {"format": record_format, "max_tokens": MAX_TOKENS, "add_eos": record_format == "tokens"},
        "shards": {"target_size": 500},
        "datasets": {"a": {"source": "a/*.parquet", "tokens": 900, "eval_tokens": 60}},
    }
    (folder / "mix.yaml").write_text(yaml.safe_dump(content))
    build(load_config(str(folder / "mix.yaml")), str(folder / "out"), quiet=True)
    return folder / "out"


@pytest.fixture(scope="module")
def tokens_output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_dataset(tmp_path_factory.mktemp("tokens"), "tokens")


@pytest.fixture(scope="module")
def text_output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_dataset(tmp_path_factory.mktemp("text"), "text")


@pytest.fixture
def output(tokens_output: Path, tmp_path: Path) -> Path:
    """A copy of the dataset in `tokens` format, to spoil."""
    return Path(shutil.copytree(tokens_output, tmp_path / "out"))


@pytest.fixture
def dataset(output: Path) -> Path:
    return output / "a"


def change_manifest(dataset: Path, change: Callable[[Any], None]) -> None:
    manifest = json.loads((dataset / "manifest.json").read_bytes())
    change(manifest)
    (dataset / "manifest.json").write_text(json.dumps(manifest))


def replace_shard(dataset: Path, records: Iterable[bytes], *, count_records: bool = False) -> None:
    """Puts other records into a shard and mends its size and checksum in the manifest, so that only they can tell."""
    path = dataset / SHARD
    with ShardWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    written = writer.close()

    def mend(manifest: Any) -> None:
        split = manifest["splits"]["train"]
        entry = next(entry for entry in split["shards"] if entry["file"] == SHARD)
        split["bytes"] += written.bytes - entry["bytes"]
        entry |= {"bytes": written.bytes, "sha256": written.sha256}
        if count_records:
            split["records"] += written.records - entry["records"]
            entry["records"] = written.records

    change_manifest(dataset, mend)


def ids_of(dataset: Path) -> list[list[int]]:
    """The ids of each record of the shard."""
    only = dataset.parent / "only"
    only.mkdir()
    shutil.copy(dataset / SHARD, only / "train-00000-of-00001.arecord")
    return read_ids(only, "train")


def encoded(records: Sequence[Sequence[int]]) -> list[bytes]:
    bounds = np.array([0, *itertools.accumulate(map(len, records))], np.int64)
    return list(encode_ids(np.array([token for record in records for token in record], np.uint32), bounds, FEATURE))


def problems_of(output: Path) -> str:
    with pytest.raises(BroetchenError) as caught:
        verify(str(output))
    return str(caught.value)


def test_sound_datasets_are_sound(tokens_output: Path, text_output: Path) -> None:
    for output in (tokens_output, text_output):
        (folder,) = verify(str(output))
        assert folder == str(output / "a")
        assert list(verify(folder)) == [folder]


def test_a_mended_manifest_of_the_same_records_is_sound(output: Path, dataset: Path) -> None:
    """What the tests below change is nothing but the records."""
    replace_shard(dataset, encoded(ids_of(dataset)))
    verify(str(output))


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_a_flipped_bit(output: Path, dataset: Path, place: float) -> None:
    content = bytearray((dataset / SHARD).read_bytes())
    content[int(len(content) * place)] ^= 4
    (dataset / SHARD).write_bytes(content)
    found = hashlib.sha256(content).hexdigest()
    assert f"{dataset / SHARD}: sha256 {found}, not " in problems_of(output)


def test_a_shard_cut_short(output: Path, dataset: Path) -> None:
    content = (dataset / SHARD).read_bytes()
    (dataset / SHARD).write_bytes(content[: len(content) // 2])
    problems = problems_of(output)
    assert f"{dataset / SHARD}: {len(content) // 2:,} bytes, not {len(content):,}" in problems
    assert f"{dataset / SHARD}: 0 records, not " in problems or f"{dataset / SHARD}: cannot be read" in problems


def test_a_missing_shard_and_one_too_many(output: Path, dataset: Path) -> None:
    (dataset / SHARD).rename(dataset / "train-00009-of-00010.arecord")
    problems = problems_of(output).splitlines()
    assert problems == [
        f"{dataset / SHARD}: missing",
        f"{dataset}/train-00009-of-00010.arecord: not in the manifest",
    ]


def test_an_id_outside_the_vocabulary(output: Path, dataset: Path) -> None:
    records = ids_of(dataset)
    records[3][0] = VOCABULARY
    replace_shard(dataset, encoded(records))
    problem = f"{dataset / SHARD}: record 3: an id outside the vocabulary: "
    assert any(line.startswith(problem) for line in problems_of(output).splitlines())


def test_the_last_id_of_the_vocabulary_is_none_of_that(output: Path, dataset: Path) -> None:
    records = ids_of(dataset)
    records[3][0] = VOCABULARY - 1
    replace_shard(dataset, encoded(records))
    verify(str(output))


def test_a_record_that_is_too_long(output: Path, dataset: Path) -> None:
    records = ids_of(dataset)
    ids = [token for record in records for token in record]
    longer = [ids[: MAX_TOKENS + 1], *[ids[i : i + MAX_TOKENS] for i in range(MAX_TOKENS + 1, len(ids), MAX_TOKENS)]]
    replace_shard(dataset, encoded(longer), count_records=True)
    problems = problems_of(output)
    assert f"{dataset / SHARD}: record 0: {MAX_TOKENS + 1} ids, not 1 to {MAX_TOKENS}" in problems


def test_another_number_of_records(output: Path, dataset: Path) -> None:
    records = ids_of(dataset)
    replace_shard(dataset, encoded([records[0][:1], records[0][1:], *records[1:]]))
    problems = problems_of(output)
    assert problems == f"{dataset / SHARD}: {len(records) + 1:,} records, not {len(records):,}"


def test_a_token_less(output: Path, dataset: Path) -> None:
    records = ids_of(dataset)
    tokens = sum(map(len, records))
    replace_shard(dataset, encoded([*records[:-1], records[-1][:-1]]))
    assert problems_of(output) == f"{dataset / SHARD}: {tokens - 1:,} tokens, not {tokens:,}"


def test_a_record_that_is_none(output: Path, dataset: Path) -> None:
    records = encoded(ids_of(dataset))
    replace_shard(dataset, [*records[:-1], b"no example"])
    assert f"{dataset / SHARD}: record {len(records) - 1}: " in problems_of(output)


def test_text_for_ids(output: Path, dataset: Path) -> None:
    count = len(ids_of(dataset))
    replace_shard(dataset, encode_texts([b"some text"] * count, FEATURE))
    assert f"{dataset / SHARD}: record 0: " in problems_of(output)


def set_budget(manifest: Any) -> None:
    manifest["splits"]["train"]["budget"] += 1


def set_budget_and_tokens(manifest: Any) -> None:
    for key in ("budget", "tokens"):
        manifest["splits"]["train"][key] += 1
    manifest["splits"]["train"]["shards"][0]["tokens"] += 1


def set_missing(manifest: Any) -> None:
    manifest["splits"]["train"]["budget"] += 1
    manifest["splits"]["train"]["missing"] = 1
    manifest["config"]["dataset"]["tokens"] += 1


def set_records(manifest: Any) -> None:
    manifest["splits"]["eval"]["records"] += 1


def forget_a_shard(manifest: Any) -> None:
    shard = manifest["splits"]["train"]["shards"].pop()
    for key in ("budget", "tokens"):
        manifest["splits"]["train"][key] -= shard["tokens"]


def forget_eval(manifest: Any) -> None:
    del manifest["splits"]["eval"]


ALTERED: dict[Callable[[Any], None], str] = {
    set_budget: "a: train adds up to 900 tokens, and the manifest says 900 of 901",
    set_budget_and_tokens: "a: the manifest's budgets are {'train': 901, 'eval': 60}, and its config's {'train': 900,",
    set_missing: "a: tokens are missing, and its config does not keep a short source",
    set_records: "a: eval adds up to ",
    forget_a_shard: "train-00004-of-00005.arecord: not in the manifest",
    forget_eval: "eval-00000-of-00001.arecord: not in the manifest",
}


@pytest.mark.parametrize("change", ALTERED, ids=lambda change: change.__name__)
def test_an_altered_manifest(output: Path, dataset: Path, change: Callable[[Any], None]) -> None:
    change_manifest(dataset, change)
    assert ALTERED[change] in problems_of(output)


def test_a_damaged_manifest_is_named(output: Path, dataset: Path) -> None:
    path = dataset / "manifest.json"
    content = path.read_text()
    for damaged in (content[: len(content) // 2], "[]", content.replace('"tokens"', '"tockens"')):
        path.write_text(damaged)
        assert problems_of(output).startswith(f"{path}: not a manifest that this version reads (")


def test_a_manifest_whose_config_lacks_something_is_named(output: Path, dataset: Path) -> None:
    change_manifest(dataset, lambda manifest: manifest["config"].pop("records"))
    assert f"{dataset}/manifest.json: not a manifest" in problems_of(output)


def test_no_dataset_at_all(tmp_path: Path) -> None:
    assert f"{tmp_path}: no finished dataset here" in problems_of(tmp_path)


@pytest.mark.parametrize("engine", ["tokenizers", "gigatoken"])
def test_a_changed_document_of_a_text_dataset(text_output: Path, tmp_path: Path, engine: Any) -> None:
    output = Path(shutil.copytree(text_output, tmp_path / "out"))
    only = tmp_path / "only"
    only.mkdir()
    shutil.copy(output / "a" / SHARD, only / "train-00000-of-00001.arecord")
    texts = [text.encode() for text in read_texts(only, "train")]
    texts[2] += b" Nachtrag"
    replace_shard(output / "a", encode_texts(texts, FEATURE))
    with pytest.raises(BroetchenError, match=rf"{SHARD}: [\d,]+ tokens, not [\d,]+$"):
        verify(str(output), engine=engine)


def test_the_command_prints_a_line_for_each_problem(output: Path, dataset: Path) -> None:
    (dataset / "eval-00000-of-00001.arecord").unlink()
    (dataset / SHARD).write_bytes(b"")
    result = run_command("verify", output, "--direct_running_mode=multi_threading")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("broetchen: ")
    assert "Traceback" not in result.stderr
    assert f"{dataset}/eval-00000-of-00001.arecord: missing\n" in result.stderr
    assert f"{dataset / SHARD}: 0 bytes, not " in result.stderr
