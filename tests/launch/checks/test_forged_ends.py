"""Strings of special tokens in texts: MaxText's ids for them, and the warnings before a run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import grain.python as grain
import numpy as np
import pytest
import yaml
from maxtext.input_pipeline.grain_data_processing import pretrain_preprocessing_pipeline

from launch.checks.forged_ends import forged_ends
from launch.config.training import TrainingConfig, load_training_config
from launch.maxtext.tokenizer import TrainingTokenizer, find_tokenizer
from launch.mixture.datasets import Mixture, read_mixture
from tests.support.command import run_command
from tests.support.corpora import write_parquet
from tests.support.small_tokenizers import added_token, byte_level
from transforms.dataset.manifest import Manifest

EOS, PAD = 256, 257
DOCUMENTS = 20
FORGED = 7
LENGTH = 64
NAMED = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|eos|>", "pad_token": "<|pad|>"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`out` with two datasets of 20 texts, and `ids` with one of them, of which 7 texts have EOS's string twice."""
    folder = tmp_path_factory.mktemp("forged")
    (folder / "tokenizer").mkdir()
    tokens = [added_token(EOS, "<|eos|>"), added_token(PAD, "<|pad|>")]
    (folder / "tokenizer" / "tokenizer.json").write_text(json.dumps(byte_level(added_tokens=tokens)))
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(NAMED))
    plain = [f"text {number:02}, of one <|e" for number in range(DOCUMENTS)]
    forged = ["a<|eos|>b<|eos|>c" if number < FORGED else text for number, text in enumerate(plain)]
    for name, texts in (("plain", plain), ("forged", forged)):
        write_parquet(folder / "source" / name / "0.parquet", [texts])
    for output, records, names in (
        ("out", {"format": "text"}, ("plain", "forged")),
        ("ids", {"format": "tokens", "max_tokens": LENGTH, "add_eos": True}, ("forged",)),
    ):
        config = {
            "name": "mix",
            "tokenizer": {"path": "./tokenizer"},
            "records": records,
            "datasets": {
                name: {"source": f"{folder}/source/{name}/*.parquet", "tokens": 10**6, "on_shortfall": "keep"}
                for name in names
            },
        }
        (folder / "mix.yaml").write_text(yaml.safe_dump(config))
        done = run_command("build", folder / "mix.yaml", "--output", folder / output, "--quiet")
        assert done.returncode == 0, done.stderr
        if output == "out":
            assert f"{FORGED} documents hold the string of a special token" in done.stdout
    return folder


def config_of(built: Path, outputs: str = "out", tokenizer: Path | None = None) -> TrainingConfig:
    content = {
        "name": "run",
        "data": {"outputs": str(built / outputs)},
        "model": "tiny-llama",
        "output": "runs",
        "parameters": {"steps": 1, "per_device_batch_size": 1},
    }
    path = built / "run.yaml"
    path.write_text(yaml.safe_dump(content | ({} if tokenizer is None else {"tokenizer": str(tokenizer)})))
    return load_training_config(path)


def loaded(built: Path, outputs: str = "out", tokenizer: Path | None = None) -> tuple[Mixture, TrainingTokenizer]:
    config = config_of(built, outputs, tokenizer)
    mixture = read_mixture(config.outputs())
    return mixture, find_tokenizer(config, mixture)


def said(
    mixture: Mixture, tokenizer: TrainingTokenizer, *, evaluates: bool = False, allowed: bool = False
) -> list[str]:
    return list(forged_ends(mixture, tokenizer, evaluates=evaluates, allowed=allowed))


def copy_of(built: Path, folder: Path, **settings: object) -> Path:
    """The tokenizer with other settings in its tokenizer_config.json."""
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes((built / "tokenizer" / "tokenizer.json").read_bytes())
    (folder / "tokenizer_config.json").write_text(json.dumps(NAMED | settings))
    return folder


def eos_targets(folder: Path, tokenizer: Path, *, tokenize: bool = True) -> int:
    """How often EOS is what MaxText's own pipeline has a model learn, in one pass over a train split."""
    config = SimpleNamespace(
        grain_file_type="arrayrecord",
        tokenizer_path=str(tokenizer),
        tokenizer_type="huggingface",
        add_bos=False,
        add_eos=tokenize,
        hf_access_token="",
        use_truncation=False,
        max_target_length=LENGTH,
        packing=True,
        grain_packing_type="first_fit",
        max_segments_per_seq=-1,
        grain_use_elastic_iterator=False,
        elastic_enabled=False,
        global_batch_size_to_load=1,
        expansion_factor_real_data=-1,
    )
    source = grain.ArrayRecordDataSource([str(path) for path in sorted(folder.glob("train-*.arecord"))])
    dataset = grain.MapDataset.source(source).to_iter_dataset()
    batches = pretrain_preprocessing_pipeline(dataset, config, ["text"], tokenize, 0, 1)
    return sum(
        int(np.count_nonzero((batch["targets"] == EOS) & (batch["targets_segmentation"] != 0))) for batch in batches
    )


def test_maxtext_ends_texts_at_strings_unless_it_is_told_to_take_them_for_text(built, tmp_path):
    tokenizer = built / "tokenizer"
    assert eos_targets(built / "out" / "plain", tokenizer) == DOCUMENTS
    assert eos_targets(built / "out" / "forged", tokenizer) == DOCUMENTS + 2 * FORGED
    splitting = copy_of(built, tmp_path / "splitting", split_special_tokens=True)
    assert eos_targets(built / "out" / "forged", splitting) == DOCUMENTS
    assert eos_targets(built / "ids" / "forged", tokenizer, tokenize=False) == DOCUMENTS


def test_what_maxtext_would_do_is_said_before(built, tmp_path):
    mixture, tokenizer = loaded(built)
    (found,) = said(mixture, tokenizer)
    assert found.startswith(
        "documents hold the string of a special token (forged, train: 7 of 20), and MaxText takes it"
    )
    for way in (
        "`records.format: tokens`",
        '"split_special_tokens": true',
        "write `special_strings: allow` into `data`",
    ):
        assert way in found
    (meant,) = said(mixture, tokenizer, allowed=True)
    assert meant.endswith("so that a text may end where it does not")
    assert said(*loaded(built, "out/plain")) == []
    assert said(*loaded(built, "ids")) == []
    splitting = copy_of(built, tmp_path / "splitting", split_special_tokens=True)
    assert said(*loaded(built, tokenizer=splitting)) == []
    assert len(said(*loaded(built, tokenizer=copy_of(built, tmp_path / "words", split_special_tokens="yes")))) == 1


def changed(mixture: Mixture, name: str, split: str, documents: int | None) -> Mixture:
    """A mixture of which one dataset has another split, of 9 documents, with such a count."""
    manifest: Manifest = mixture.manifests[name]
    entry = manifest.splits["train"].model_copy(
        update={"documents": 9, "documents_with_special_strings": documents},
    )
    manifests = {**mixture.manifests, name: manifest.model_copy(update={"splits": {**manifest.splits, split: entry}})}
    return dataclasses.replace(mixture, manifests=manifests)


def test_eval_counts_where_it_is_read(built):
    mixture, tokenizer = loaded(built, "out/plain")
    mixture = changed(mixture, "plain", "eval", 2)
    assert said(mixture, tokenizer) == []
    assert "(plain, eval: 2 of 9)" in said(mixture, tokenizer, evaluates=True)[0]


def test_what_no_manifest_says_is_not_taken_for_none(built):
    mixture, tokenizer = loaded(built)
    (found,) = said(changed(mixture, "forged", "train", None), tokenizer)
    assert found.startswith("the manifest of forged does not say how many documents hold the string of a special token")
    assert "; build it again; or " in found
    both = said(changed(mixture, "plain", "train", None), tokenizer)
    assert [message.split(" ")[0] for message in both] == ["documents", "the"]


@pytest.mark.parametrize(
    ("settings", "uncounted"),
    [
        ({}, ()),
        ({"pad_token": "[PAD]", "unk_token": {"content": "<unk>"}}, ("[PAD]", "<unk>")),
        ({"additional_special_tokens": ["<|eos|>", "der"], "extra_special_tokens": {"image": "[I]"}}, ("der", "[I]")),
        ({"added_tokens_decoder": {"256": {"content": "<|eos|>", "special": True}, "9": {"content": "x"}}}, ("x",)),
        ({"eos_token": "e", "add_bos_token": True, "added_tokens_decoder": [1], "extra_special_tokens": 3}, ("e",)),
        ({"bos_token": None, "mask_token": 7}, ()),
    ],
)  # fmt: skip
def test_tokens_that_only_the_loader_makes_special_were_not_looked_for(built, tmp_path, settings, uncounted):
    mixture, tokenizer = loaded(built, "out/plain", copy_of(built, tmp_path / "copy", **settings))
    assert tokenizer.uncounted == uncounted
    found = said(mixture, tokenizer)
    assert len(found) == bool(uncounted)
    if uncounted:
        assert f"makes special tokens of {', '.join(uncounted)}, and its tokenizer.json does not" in found[0]
        assert "; leave them out there; or " in found[0]


@pytest.mark.slow
def test_train_refuses_and_names_the_switch(built):
    config_of(built)
    refused = run_command("train", built / "run.yaml", "--dry-run")
    assert refused.returncode == 2
    what = "data.special_strings: documents hold the string of a special token (forged, train: 7 of 20)"
    assert what in refused.stderr
    allowed = run_command("train", built / "run.yaml", "--dry-run", "--set", "data.special_strings=allow")
    assert "write `special_strings: allow`" not in allowed.stderr
    assert what in allowed.stderr
