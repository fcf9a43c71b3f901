from __future__ import annotations

import gzip
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from tests.support.corpora import TOKENIZER
from tests.support.small_tokenizers import added_token, byte_level
from transforms.errors import BroetchenError, UsageError
from transforms.files import storage
from transforms.tokenizer.file import load_tokenizer

BOS, EOS = 256, 257
JSON = json.dumps(byte_level(added_tokens=[added_token(BOS, "<|bos|>"), added_token(EOS, "<|eos|>")])).encode()
SHA256 = hashlib.sha256(JSON).hexdigest()
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write_config(folder: Path, **settings: Any) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def test_the_sample():
    tokenizer = load_tokenizer(str(TOKENIZER), bos_token="<|bos|>", eos_token="<|eos|>")
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab_size) == (0, 1, 65536)
    assert tokenizer.sha256 == hashlib.sha256(TOKENIZER.read_bytes()).hexdigest()


def test_a_file_alone(tmp_path):
    path = tmp_path / "tok.json"
    path.write_bytes(JSON)
    tokenizer = load_tokenizer(str(path))
    assert tokenizer.json.encode() == JSON
    assert tokenizer.sha256 == SHA256
    assert tokenizer.vocab_size == 258
    assert (tokenizer.bos_id, tokenizer.bos_token, tokenizer.eos_id, tokenizer.eos_token) == (None,) * 4
    assert tokenizer.config_json is None


@pytest.mark.parametrize("eos", ["<|eos|>", {"content": "<|eos|>", "lstrip": False, "__type": "AddedToken"}])
def test_a_directory_with_its_config(tmp_path, eos):
    (tmp_path / "tokenizer.json").write_bytes(JSON)
    write_config(tmp_path, bos_token=None, eos_token=eos)
    tokenizer = load_tokenizer(str(tmp_path))
    assert (tokenizer.eos_token, tokenizer.eos_id) == ("<|eos|>", EOS)
    assert (tokenizer.bos_token, tokenizer.bos_id) == (None, None)
    assert tokenizer.config_json == (tmp_path / "tokenizer_config.json").read_text()
    assert load_tokenizer(str(tmp_path / "tokenizer.json")) == tokenizer


def test_a_file_in_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "tokenizer.json").write_bytes(JSON)
    write_config(tmp_path, eos_token="<|eos|>")
    monkeypatch.chdir(tmp_path)
    assert load_tokenizer("tokenizer.json").eos_id == EOS
    assert load_tokenizer(".").eos_id == EOS


@pytest.mark.parametrize("name", ["", "tokenizer.json.gz"])
def test_compressed(tmp_path, name):
    (tmp_path / "tokenizer.json.gz").write_bytes(gzip.compress(JSON))
    assert load_tokenizer(str(tmp_path / name)).sha256 == SHA256


def test_in_a_bucket(gcs_prefix):
    storage.write_bytes(f"{gcs_prefix}/tok/tokenizer.json", JSON)
    storage.write_bytes(f"{gcs_prefix}/tok/tokenizer_config.json", b'{"eos_token": "<|eos|>"}')
    for path in (f"{gcs_prefix}/tok", f"{gcs_prefix}/tok/tokenizer.json"):
        tokenizer = load_tokenizer(path)
        assert (tokenizer.sha256, tokenizer.eos_id) == (SHA256, EOS)
    with pytest.raises(UsageError, match=r"there is no gs://.*/nothing/tokenizer.json and no"):
        load_tokenizer(f"{gcs_prefix}/nothing")


def test_names_given_by_the_caller_come_first(tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(JSON)
    write_config(tmp_path, bos_token="<|bos|>", eos_token="<|eos|>")
    tokenizer = load_tokenizer(str(tmp_path), eos_token="<|bos|>")
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.eos_token) == (BOS, BOS, "<|bos|>")


def test_an_unknown_name_of_the_caller_is_an_error():
    with pytest.raises(UsageError, match="eos_token '<end>' is not in its vocabulary"):
        load_tokenizer(str(TOKENIZER), eos_token="<end>")


def test_an_unknown_name_in_the_config_is_left_out(tmp_path, caplog):
    (tmp_path / "tokenizer.json").write_bytes(JSON)
    write_config(tmp_path, bos_token="<s>", eos_token="<|eos|>")
    with caplog.at_level(logging.WARNING):
        tokenizer = load_tokenizer(str(tmp_path))
    assert (tokenizer.bos_token, tokenizer.bos_id, tokenizer.eos_id) == (None, None, EOS)
    assert "leaving out bos_token '<s>'" in caplog.text


def test_added_tokens_count_for_the_size_of_the_vocabulary(tmp_path):
    tokenizer = json.loads(JSON)
    # `tokenizers` gives an added token that the model does not have the next free id, in spite of the file's.
    tokenizer["added_tokens"].append(added_token(70_000, "<|tool|>"))
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    loaded = load_tokenizer(str(tmp_path), eos_token="<|tool|>")
    assert (loaded.eos_id, loaded.vocab_size) == (258, 259)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (JSON[:1000], r"not JSON at line \d+, column \d+ .*ends too early: copy it again"),
        (b"", "ends too early"),
        (b"<html>", "not JSON at line 1, column 1 .*is it the right file"),
        (b"[]", "holds no JSON object"),
        (b"{}", "tokenizers cannot load it: Model missing"),
        (b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["b c"]}}', "tokenizers cannot load it: "),
        (b"\xff\xfe{}", "not UTF-8 at byte 0"),
    ],
)
def test_damaged_files(tmp_path, content, message):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"(?s)tokenizer.json: .*{message}"):
        load_tokenizer(str(path))


def test_a_damaged_config(tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(JSON)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": ')
    with pytest.raises(UsageError, match=r"tokenizer_config.json: not JSON"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9], lambda data: data[:5000] + b"x" + data[5001:], lambda _: b"x"]
)
def test_damaged_gzip(tmp_path, damage):
    path = tmp_path / "tokenizer.json.gz"
    path.write_bytes(damage(gzip.compress(JSON)))
    with pytest.raises(UsageError, match="not a whole gzip file"):
        load_tokenizer(str(path))


@pytest.mark.parametrize("path", ["nothing.json", "no/such/folder", "no/thing.json", "s4://bucket/tokenizer.json"])
def test_nothing_there(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError):
        load_tokenizer(path)


@pytest.mark.parametrize("revision", [None, "main", "0123456", COMMIT.upper()])
def test_a_hub_id_needs_a_full_commit(revision):
    with pytest.raises(UsageError, match="needs `revision`: a full commit, 40 hexadecimal digits"):
        load_tokenizer("owner/name", revision=revision)


def test_a_name_that_no_repository_can_have():
    with pytest.raises(UsageError, match=rf"owner/na--me@{COMMIT}/tokenizer.json: is no hub id"):
        load_tokenizer("owner/na--me", revision=COMMIT)


def test_a_file_has_no_revision():
    with pytest.raises(UsageError, match="`revision` is for a hub id"):
        load_tokenizer(str(TOKENIZER), revision=COMMIT)


@pytest.mark.parametrize("repository", ["owner/name", "gpt2"])
def test_a_hub_id_from_the_cache(tmp_path, monkeypatch, repository):
    snapshot = tmp_path / "--".join(["models", *repository.split("/")]) / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "tokenizer.json").write_bytes(JSON)
    write_config(snapshot, eos_token="<|eos|>")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    tokenizer = load_tokenizer(repository, revision=COMMIT)
    assert (tokenizer.sha256, tokenizer.eos_id) == (SHA256, EOS)


def test_a_hub_that_cannot_be_reached(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BroetchenError, match=rf"owner/name@{COMMIT}/tokenizer.json: the hub cannot be reached"):
        load_tokenizer("owner/name", revision=COMMIT)
