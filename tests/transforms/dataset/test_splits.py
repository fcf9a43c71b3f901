"""A built dataset opened from Python holds the records of a plain loop over the documents, one by one."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import pickle
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grain.python as grain
import numpy as np
import pytest
import yaml

from beam_pipelines.config.mix import load_config
from beam_pipelines.jobs.build import build
from tests.support.corpora import BOS, EOS, TOKENIZER, reference_ids, write_parquet
from transforms.dataset import splits
from transforms.dataset.splits import BuiltDataset, open_dataset
from transforms.errors import BroetchenError, UsageError
from transforms.files import storage

DOCUMENTS = [f"Satz {number} über Brötchen, ﬁn{'!' * (number % 7)} 日本" for number in range(240)]
MAX_TOKENS, TRAIN, EVAL = 8, 1500, 70


def built(folder: Path, record_format: str) -> Path:
    write_parquet(folder / "a" / "0.parquet", [DOCUMENTS[start : start + 20] for start in range(0, 240, 20)])
    content = {
        "name": "opened",
        "tokenizer": {"path": str(TOKENIZER), "bos_token": "<|bos|>", "eos_token": "<|eos|>"},
        "records": {"format": record_format, "max_tokens": MAX_TOKENS, "add_eos": record_format == "tokens"},
        "shards": {"target_size": 700},
        "datasets": {"a": {"source": "a/*.parquet", "tokens": TRAIN, "eval_tokens": EVAL}},
    }
    (folder / "mix.yaml").write_text(yaml.safe_dump(content))
    build(load_config(str(folder / "mix.yaml")), str(folder / "out"), quiet=True)
    return folder / "out" / "a"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: built(tmp_path_factory.mktemp(name), name) for name in ("tokens", "text", "parquet")}


@pytest.fixture(params=["tokens", "text", "parquet"])
def dataset(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Iterator[BuiltDataset]:
    with open_dataset(str(folders[request.param])) as opened:
        yield opened


def test_ids_are_those_of_the_documents_in_their_order(folders: dict[str, Path]) -> None:
    with open_dataset(str(folders["tokens"])) as opened:
        assert list(opened) == ["train", "eval"]
        found = [record.ids for split in opened.values() for record in split]
    wanted = list(itertools.chain.from_iterable(reference_ids(DOCUMENTS)))
    assert np.concatenate(found).tolist() == wanted[: TRAIN + EVAL]
    assert {ids.dtype for ids in found} == {np.dtype(np.int64)}
    assert max(map(len, found)) == MAX_TOKENS


@pytest.mark.parametrize("record_format", ["text", "parquet"])
def test_texts_are_the_documents_and_encode_to_the_budget(folders: dict[str, Path], record_format: str) -> None:
    with open_dataset(str(folders[record_format])) as opened:
        train, evaluation = opened["train"], opened["eval"]
        texts = [record.text for record in train]
        assert texts[:-1] == DOCUMENTS[: len(texts) - 1]
        assert DOCUMENTS[len(texts) - 1].startswith(texts[-1])
        assert sum(len(record.ids) for record in train) == train.tokens == TRAIN
        assert sum(len(record.ids) for record in evaluation) == evaluation.tokens == EVAL
        assert train[3].ids.tolist() == reference_ids([train[3].text], eos=None)[0]


def test_ids_decode_to_their_text_without_what_the_build_added(folders: dict[str, Path]) -> None:
    with open_dataset(str(folders["tokens"])) as opened:
        whole = "".join(record.text for record in opened["train"])
        first = opened["train"][0]
        assert EOS in np.concatenate([opened["train"][number].ids for number in range(5)])
        assert "<|eos|>" not in whole
        assert "<|bos|>" not in whole
        assert first.text.strip().startswith("Satz 0 über")
    assert BOS not in first.ids


def test_a_split_is_a_sequence(dataset: BuiltDataset) -> None:
    train = dataset["train"]
    records = [record.ids.tolist() for record in train]
    assert len(train) == len(records) == dataset.manifest.splits["train"].records
    assert len(dataset.manifest.splits["train"].shards) > 2
    order = np.random.default_rng(0).permutation(len(train))
    assert [train[number].ids.tolist() for number in order] == [records[number] for number in order]
    assert train[-1].ids.tolist() == records[-1]
    assert train[np.int64(2)].ids.tolist() == records[2]
    assert [record.ids.tolist() for record in train[-3:]] == records[-3:]
    assert train[5:5] == []
    for number in (len(train), -len(train) - 1):
        with pytest.raises(IndexError, match=f"a/train: no record {number}; it has {len(train)}"):
            train[number]
    with pytest.raises(KeyError, match="no split 'test'; it has train, eval"):
        dataset["test"]
    assert dataset.get("test") is None


def test_it_begins_a_grain_pipeline(dataset: BuiltDataset) -> None:
    train = dataset["train"]
    assert isinstance(train, grain.RandomAccessDataSource)
    records = sorted(record.ids.tolist() for record in train)
    shuffled = grain.MapDataset.source(train).shuffle(seed=1).map(lambda record: record.ids)
    options = grain.ReadOptions(num_threads=4, prefetch_buffer_size=16)
    assert sorted(ids.tolist() for ids in shuffled.to_iter_dataset(options)) == records
    assert [ids.tolist() for ids in shuffled] != records


def test_threads_read_at_once_and_few_shards_stay_open(dataset: BuiltDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    train = dataset["train"]
    monkeypatch.setattr(train, "_most_open", 2)
    records = [record.ids.tolist() for record in train]
    order = np.random.default_rng(1).permutation(len(train)).tolist() * 2
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: train[number].ids.tolist(), order))
    assert found == [records[number] for number in order]
    assert len(train._open) == 2
    train.close()
    assert not train._open
    assert train[0].ids.tolist() == records[0]


def test_a_split_travels_to_other_processes(dataset: BuiltDataset) -> None:
    train = dataset["train"]
    _ = train[0]
    copy = pickle.loads(pickle.dumps(train))
    assert repr(copy) == repr(train)
    assert copy[5].ids.tolist() == train[5].ids.tolist()
    assert isinstance(copy._lock, type(threading.Lock()))
    assert pickle.loads(pickle.dumps(train[5])).text == train[5].text


def in_a_fork(work: Callable[[], Any]) -> Any:
    """The result of `work` in a fork of this process, with its own copy of the splits, as in PyTorch's DataLoader."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(work()))
    process.start()
    try:
        assert receiver.poll(60), "the fork hangs"
        return receiver.recv()
    finally:
        process.kill()
        process.join()


def test_a_fork_reads_whatever_its_parent_does_meanwhile(dataset: BuiltDataset) -> None:
    train = dataset["train"]
    wanted = [train[number].ids.tolist() for number in (0, -1)]
    with train._lock:  # as another thread of the parent holds it that reads at that moment
        assert in_a_fork(lambda: [train[number].ids.tolist() for number in (0, -1)]) == wanted
    assert [train[number].ids.tolist() for number in (0, -1)] == wanted


def test_a_bucket_holds_the_same(folders: dict[str, Path], gcs_prefix: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(splits, "_OPEN_REMOTE", 2)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    output = folders["tokens"].parent
    for path in output.rglob("*"):
        if path.is_file():
            storage.upload(str(path), f"{gcs_prefix}/{path.relative_to(output)}")
    with open_dataset(f"{gcs_prefix}/a") as remote, open_dataset(str(folders["tokens"])) as local:
        assert [record.ids.tolist() for record in remote["train"]] == [record.ids.tolist() for record in local["train"]]
        assert remote["train"][7].text == local["train"][7].text
        assert len(list(tmp_path.rglob("*.arecord"))) == 2
        # A fork deletes no copy that its parent reads.
        assert in_a_fork(remote.close) is None
        assert len(list(tmp_path.rglob("*.arecord"))) == 2
    assert not list(tmp_path.rglob("*.arecord"))


# --- What goes wrong --------------------------------------------------------------------------------------------------


def test_nothing_is_there_or_too_much(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(BroetchenError, match="no finished dataset here"):
        open_dataset(str(tmp_path))
    for name in ("a", "b"):
        shutil.copytree(folders["tokens"], tmp_path / name)
    with pytest.raises(UsageError, match=r"holds several datasets \(a, b\); open one of them, such as .*/a"):
        open_dataset(str(tmp_path))


def test_a_dataset_without_its_tokenizer_still_gives_what_it_holds(folders: dict[str, Path], tmp_path: Path) -> None:
    for name in ("tokens", "text"):
        copy = Path(shutil.copytree(folders[name], tmp_path / name / "a"))
        # Another hash, since a tokenizer that this process has loaded before is not loaded again.
        manifest = json.loads((copy / "manifest.json").read_text())
        manifest["tokenizer"]["sha256"] = "0" * 64
        (copy / "manifest.json").write_text(json.dumps(manifest))
        with open_dataset(copy) as opened:
            record = opened["train"][0]
            assert repr(record).startswith("Record(8 ids)" if name == "tokens" else "Record('Satz 0 ")
            with pytest.raises(BroetchenError, match="copy its tokenizer's folder beside it"):
                _ = record.text if name == "tokens" else record.ids


def test_a_folder_whose_name_steers_a_terminal(folders: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folders["tokens"], tmp_path / "\x9b31m"))
    with open_dataset(copy) as opened:
        assert repr(opened).startswith(f"BuiltDataset({tmp_path}/\\u009b31m, train: ")


def test_one_dataset_of_an_output_is_opened(folders: dict[str, Path]) -> None:
    with open_dataset(f"{folders['tokens'].parent}/") as opened:
        assert opened.folder == str(folders["tokens"])


@pytest.mark.parametrize("record_format", ["tokens", "text", "parquet"])
@pytest.mark.parametrize("damage", ["gone", "cut", "blank"])
def test_a_shard_that_is_not_the_manifests_is_an_error(
    folders: dict[str, Path], tmp_path: Path, record_format: str, damage: str
) -> None:
    copy = Path(shutil.copytree(folders[record_format], tmp_path / "a"))
    _, second, *_ = sorted(copy.glob("train-*"))
    if damage == "gone":
        second.unlink()
    elif damage == "cut":
        second.write_bytes(second.read_bytes()[:-1])
    else:
        second.write_bytes(bytes(second.stat().st_size))
    with open_dataset(str(copy)) as opened:
        _ = opened["train"][0]
        with pytest.raises(BroetchenError, match=second.name):
            list(opened["train"])
