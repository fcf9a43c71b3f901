"""Mixtures of built datasets: which go together, and their files, read by MaxText itself."""

from __future__ import annotations

import itertools
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from maxtext.input_pipeline.grain_data_processing import get_datasets

from beam_pipelines.config.mix import load_config
from beam_pipelines.jobs.build import build
from launch.mixture.datasets import Mixture, read_mixture
from launch.mixture.file import eval_files, mixture_json, train_mixture
from launch.mixture.outlook import drawn, outlook
from launch.mixture.simulation import simulate
from launch.places import Mounts
from tests.support.corpora import TOKENIZER, write_parquet
from tests.support.reading import read_ids, read_texts
from transforms.arrayrecord.example import decode_ids, decode_text
from transforms.arrayrecord.records import FEATURE
from transforms.errors import BroetchenError, UsageError
from transforms.files import storage

HERE = Mounts({})
TOKENS = {"long": 4000, "short": 3000, "mid": 1000}
# Sentences a document, so that records of the datasets differ in length.
SENTENCES = {"long": 8, "short": 1, "mid": 3}
EQUAL = [Fraction(1, 3)] * 3
HOSTILE = "a b 'c' \"d\" ;e, $(touch canary) [x]* ~ ö"


def build_output(folder: Path, output: str | None = None, **changes: Any) -> str:
    """Three datasets of text like `broetchen build` makes them; `changes` replace top-level keys of the config."""
    for dataset, sentences in SENTENCES.items():
        sentence = f"Auch {dataset} hat seine Sätze, und jeder davon ist gleich lang. "
        groups = [[f"{group} {row}: {sentence * sentences}" for row in range(7)] for group in range(60)]
        write_parquet(folder / dataset / "0.parquet", groups)
    content: dict[str, Any] = {
        "name": "mixed",
        "tokenizer": {"path": str(TOKENIZER), "eos_token": "<|eos|>"},
        "records": {"max_tokens": 256, "add_eos": True},
        "shards": {"target_size": 500},
        "datasets": {
            dataset: {"source": f"{dataset}/*.parquet", "tokens": tokens, "eval_tokens": 900}
            for dataset, tokens in TOKENS.items()
        },
    }
    (folder / "mix.yaml").write_text(yaml.safe_dump(content | changes))
    output = output or str(folder / "out")
    build(load_config(str(folder / "mix.yaml")), output, quiet=True)
    return output


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    return build_output(tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="module")
def mixture(output: str) -> Mixture:
    return read_mixture([output], list(TOKENS))


@pytest.fixture(scope="module")
def text_output(tmp_path_factory: pytest.TempPathFactory) -> str:
    return build_output(tmp_path_factory.mktemp("text"), records={"format": "text"})


def maxtext_records(files_pattern: str, *, mixture_path: Path | None = None, epochs: int = 1) -> Iterator[bytes]:
    """The records that MaxText's input pipeline starts from."""
    dataset = get_datasets(
        files_pattern,
        "arrayrecord",
        shuffle=mixture_path is not None,
        shuffle_seed=0,
        shuffle_buffer_size=100,
        num_epoch=epochs,
        dataloading_host_index=0,
        dataloading_host_count=1,
        grain_worker_count=1,
        grain_num_threads=2,
        grain_prefetch_buffer_size=4,
        grain_data_source_max_workers=2,
        mixture_config_path=None if mixture_path is None else str(mixture_path),
    )
    return iter(dataset)


def ids_of(folder: str, split: str) -> Counter[tuple[int, ...]]:
    return Counter(map(tuple, read_ids(Path(folder), split)))


def counted(records: Iterator[bytes]) -> Counter[tuple[int, ...]]:
    return Counter(tuple(decode_ids(record, FEATURE).tolist()) for record in records)


# --- What the manifests say -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_components_are_as_the_manifests_count_them(output: str, mixture: Mixture) -> None:
    assert [(one.name, one.tokens, one.budget, one.eval_tokens) for one in mixture.components] == [
        (name, tokens, tokens, 900) for name, tokens in TOKENS.items()
    ]
    for one in mixture.components:
        assert one.folder == f"{output}/{one.name}"
        assert one.records == ids_of(one.folder, "train").total()
        assert one.eval_records == ids_of(one.folder, "eval").total()
        assert one.shards == len(list(Path(one.folder).glob("train-*")))
    assert mixture.components[0].shards > 1
    assert (mixture.records.format, mixture.records.max_tokens) == ("tokens", 256)
    assert (mixture.records.add_bos, mixture.records.add_eos, mixture.vocab_size) == (False, True, 65_536)
    assert Path(mixture.tokenizer).read_bytes() == TOKENIZER.read_bytes()
    assert mixture.shares() == {name: Fraction(tokens, 8000) for name, tokens in TOKENS.items()}


def test_shares_by_order_need_an_order(output: str, mixture: Mixture) -> None:
    shares = [Fraction(50), Fraction(30), Fraction(20)]
    wanted = {"long": Fraction(1, 2), "short": Fraction(3, 10), "mid": Fraction(1, 5)}
    assert mixture.shares(shares) == wanted
    assert read_mixture([f"{output}/{name}" for name in TOKENS]).shares(shares) == wanted
    unordered = read_mixture([output])
    assert [one.name for one in unordered.components] == sorted(TOKENS)
    with pytest.raises(UsageError, match=r"not certain which share is whose.*long=…,mid=…,short=…"):
        unordered.shares(shares)
    assert unordered.shares(wanted) == wanted


def test_shares_are_for_the_datasets_that_there_are(mixture: Mixture) -> None:
    with pytest.raises(UsageError, match="2 shares are not one for each of 3 datasets: long, short, mid"):
        mixture.shares([Fraction(1, 2)] * 2)
    with pytest.raises(UsageError, match="is for other, which is none"):
        mixture.shares({"long": Fraction(1), "short": Fraction(1), "other": Fraction(1)})
    with pytest.raises(UsageError, match="short has no share"):
        mixture.shares({"long": Fraction(1), "mid": Fraction(1)})


def test_names_that_are_not_there(output: str) -> None:
    with pytest.raises(UsageError, match="there is no dataset other; there is long, mid, short"):
        read_mixture([output], ["long", "other"])
    with pytest.raises(UsageError, match="dataset long comes twice; name it once"):
        read_mixture([output], ["long", "long"])
    with pytest.raises(BroetchenError, match="no finished dataset here"):
        read_mixture([str(Path(output).parent / "elsewhere")])
    with pytest.raises(UsageError, match="no output was named"):
        read_mixture([])


def test_datasets_of_other_builds_combine_under_names_of_their_own(output: str, tmp_path: Path) -> None:
    other = build_output(tmp_path, name="another", shards={"target_size": "8KiB"})
    with pytest.raises(UsageError, match=f"two datasets are called long: .*other-name={other}/long"):
        read_mixture([output, other])
    with pytest.raises(UsageError, match="there are 3 datasets, which cannot all be called old"):
        read_mixture([output, f"old={other}"])
    both = read_mixture([f"{output}/long/", f"old.long={other}/long"])
    assert [one.name for one in both.components] == ["long", "old.long"]
    # A name may stand for a folder.
    assert read_mixture([f"{output}/mid", f"{output}/../out/long"]).in_given_order


@pytest.mark.slow
def test_tokens_and_text_do_not_go_together(output: str, text_output: str) -> None:
    message = "other and long do not go together: records.format is text for the one .*, and tokens for the other"
    with pytest.raises(UsageError, match=message):
        read_mixture([f"{output}/long", f"other={text_output}/long"])


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("tokenizer", "sha256", "0" * 64, f"the tokenizer's sha256 is {'0' * 64} for the one"),
        ("tokenizer", "special_tokens", "token", "tokenizer.special_tokens is token for the one .* and text for the"),
        ("tokenizer", "bos_id", 0, "the BOS id of records.add_bos is 0 for the one .* and None for the other"),
        ("tokenizer", "eos_id", 2, "the EOS id of records.add_eos is 2 for the one .* and 1 for the other"),
        ("records", "max_tokens", 128, "records.max_tokens is 128 for the one .* and 256 for the other"),
    ],
)
def test_datasets_that_do_not_go_together(
    output: str, tmp_path: Path, section: str, key: str, value: object, message: str
) -> None:
    copy = shutil.copytree(f"{output}/mid", tmp_path / "mid")
    content = json.loads((copy / "manifest.json").read_bytes())
    (content if section == "tokenizer" else content["config"])[section][key] = value
    (copy / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=f"mid and long do not go together: {message}"):
        read_mixture([f"{output}/long", str(copy)])


@pytest.mark.slow
def test_parquet_is_none_of_maxtexts_mixtures(tmp_path: Path) -> None:
    output = build_output(tmp_path, records={"format": "parquet"})
    with pytest.raises(UsageError, match="its shards are parquet files"):
        read_mixture([output])


# --- The train mixture ------------------------------------------------------------------------------------------------


def test_maxtext_reads_just_the_train_splits(mixture: Mixture, tmp_path: Path) -> None:
    """Mixed as they are, all records come, each once, but for the last few."""
    path = tmp_path / "mixture.json"
    path.write_text(mixture_json(train_mixture(mixture.components, mixture.shares(), HERE)))
    found = counted(maxtext_records("", mixture_path=path))
    expected = sum((ids_of(one.folder, "train") for one in mixture.components), Counter[tuple[int, ...]]())
    assert found <= expected
    assert found.total() == outlook(mixture.components, mixture.shares()).records
    assert found.total() >= expected.total() - 10


@pytest.mark.slow
@pytest.mark.parametrize("shares", [EQUAL, [Fraction(50), Fraction(5), Fraction(45)]])
def test_maxtext_draws_the_wanted_shares_of_the_tokens(
    mixture: Mixture, shares: list[Fraction], tmp_path: Path
) -> None:
    wanted = mixture.shares(shares)
    path = tmp_path / "mixture.json"
    path.write_text(mixture_json(train_mixture(mixture.components, wanted, HERE)))
    names = {record: one.name for one in mixture.components for record in ids_of(one.folder, "train")}
    found = counted(itertools.islice(maxtext_records("", mixture_path=path, epochs=1000), 4000))
    tokens: Counter[str] = Counter()
    for record, count in found.items():
        tokens[names[record]] += len(record) * count
    for name, share in wanted.items():
        assert tokens[name] / tokens.total() == pytest.approx(float(share), abs=0.005)


def test_maxtext_finds_shards_below_hostile_names(output: str, tmp_path: Path) -> None:
    folder = tmp_path / HOSTILE
    shutil.copytree(output, folder)
    # A pattern that is not quoted would also find these.
    shutil.copytree(output, tmp_path / HOSTILE.replace("[x]*", "xy"))
    (folder / "mid" / "train-00000-of-00099.arecord").write_bytes(b"left by another build")
    mixture = read_mixture([str(folder / name) for name in TOKENS])
    path = tmp_path / "mixture.json"
    path.write_text(mixture_json(train_mixture(mixture.components, mixture.shares(), HERE)))
    expected = outlook(mixture.components, mixture.shares()).records
    assert sum(1 for _ in maxtext_records("", mixture_path=path)) == expected
    with pytest.raises(UsageError, match="a comma or a semicolon in the path"):
        eval_files(mixture.components, mixture.shares(), HERE)
    # A pattern alone may have a comma in it, and still no semicolon.
    (only,) = read_mixture([str(folder / "mid")]).components
    with pytest.raises(UsageError, match="a comma or a semicolon in the path"):
        eval_files([only], {"mid": Fraction(1)}, HERE)
    (only,) = read_mixture([str(folder.rename(tmp_path / HOSTILE.replace(";", "")) / "mid")]).components
    assert counted(maxtext_records(eval_files([only], {"mid": Fraction(1)}, HERE))) == ids_of(only.folder, "eval")


# --- The eval files ---------------------------------------------------------------------------------------------------


def test_maxtext_evaluates_the_eval_splits(mixture: Mixture) -> None:
    shares = mixture.shares()
    found = counted(maxtext_records(eval_files(mixture.components, shares, HERE)))
    expected = [ids_of(one.folder, "eval") for one in mixture.components]
    assert found <= sum(expected, Counter[tuple[int, ...]]())
    # Each has 900 tokens, and half of them are to be of the first: that one is read whole.
    assert expected[0] <= found
    tokens = [sum(len(record) * count for record, count in (found & part).items()) for part in expected]
    for part, one in zip(tokens, mixture.components, strict=True):
        assert part / sum(tokens) == pytest.approx(float(shares[one.name]), abs=0.05)


def test_a_single_eval_split_is_a_pattern_alone(mixture: Mixture) -> None:
    only = mixture.components[0]
    text = eval_files([only], {only.name: Fraction(1)}, HERE)
    assert text == f"{only.folder}/eval-*-of-{only.eval_shards:05d}.arecord"
    assert counted(maxtext_records(text)) == ids_of(only.folder, "eval")


# --- Buckets ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_datasets_in_a_bucket(gcs_prefix: str, tmp_path: Path) -> None:
    remote = build_output(tmp_path, f"{gcs_prefix}/out {HOSTILE[4:8]}")
    mixture = read_mixture([f"{remote}/"], list(TOKENS))
    assert storage.read_bytes(mixture.tokenizer) == TOKENIZER.read_bytes()
    shares = mixture.shares(EQUAL)
    one, *_ = mixture.components
    bucket = "/".join(gcs_prefix.split("/")[:3])
    mixed = train_mixture(mixture.components, shares, HERE)["long"]["path"]
    assert mixed == f"{remote}/long/train-*-of-{one.shards:05d}.arecord"
    mounted = train_mixture(mixture.components, shares, Mounts({bucket: "/mnt/[b]"}))["long"]["path"]
    assert mounted == f"/mnt/[[]b]{str(mixed).removeprefix(bucket)}"
    # From a bucket, simulated records are the first ones, in their order.
    weights = {one.name: one.weight for one in outlook(mixture.components, shares).components}
    drawn_records = simulate(mixture, weights, 50)
    assert (drawn_records.drawn, drawn_records.shuffled) == (50, False)
    assert all(
        count < one.records for count, one in zip(drawn_records.records.values(), mixture.components, strict=True)
    )


def test_wildcards_in_a_bucket_cannot_be_quoted(mixture: Mixture) -> None:
    place = Mounts({})
    for folder in ("gs://b/x[1]", "gs://b/{a}", "gs://b/*"):
        one = mixture.components[0].__class__("a", folder, 10, 1, 1, 10)
        with pytest.raises(UsageError, match="cannot be told from a wildcard"):
            train_mixture([one], {"a": Fraction(1)}, place)


# --- Simulation -------------------------------------------------------------------------------------------------------


def test_a_simulation_draws_what_maxtext_draws(mixture: Mixture, tmp_path: Path) -> None:
    """As many records of each component. Which, hangs on the order in which MaxText finds the shards."""
    shares = mixture.shares(EQUAL)
    found = outlook(mixture.components, shares)
    told: list[int] = []
    simulation = simulate(
        mixture, {one.name: one.weight for one in found.components}, found.records + 500, advance=told.append
    )
    assert simulation.drawn == sum(told) == found.records < simulation.wanted_records
    path = tmp_path / "mixture.json"
    path.write_text(mixture_json(train_mixture(mixture.components, shares, HERE)))
    records = counted(maxtext_records("", mixture_path=path))
    for one in mixture.components:
        assert simulation.records[one.name] == (ids_of(one.folder, "train") & records).total()


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [1, 1000])
def test_simulated_text_is_counted_by_its_tokenizer(text_output: str, epochs: int) -> None:
    mixture = read_mixture([text_output], list(TOKENS))
    assert (mixture.records.format, mixture.records.max_tokens) == ("text", None)
    shares = mixture.shares() if epochs == 1 else mixture.shares(EQUAL)
    found = outlook(mixture.components, shares, epochs)
    weights = {one.name: one.weight for one in found.components}
    records = min(found.records, 3000)
    simulation = simulate(mixture, weights, records, epochs=epochs)
    assert simulation.drawn == records
    names = sorted(weights)
    counts = drawn([next(one.integer for one in found.components if one.name == name) for name in names], records)
    assert [simulation.records[name] for name in names] == list(counts)
    for name, share in shares.items():
        assert simulation.share(name) == pytest.approx(float(share), abs=0.005)
    if epochs == 1:
        first = found.first
        assert simulation.tokens[first.name] == first.component.tokens


def test_maxtext_reads_text_mixtures(text_output: str, tmp_path: Path) -> None:
    mixture = read_mixture([text_output])
    path = tmp_path / "mixture.json"
    path.write_text(mixture_json(train_mixture(mixture.components, mixture.shares(), HERE)))
    texts = {text for one in mixture.components for text in read_texts(Path(one.folder), "train")}
    found = [decode_text(record, FEATURE).decode() for record in maxtext_records("", mixture_path=path)]
    assert set(found) <= texts
    assert len(found) == outlook(mixture.components, mixture.shares()).records


def test_damaged_shards_are_found(output: str, tmp_path: Path) -> None:
    copy = shutil.copytree(output, tmp_path / "out")
    mixture = read_mixture([str(copy)])
    weights = {one.name: one.weight for one in outlook(mixture.components, mixture.shares()).components}
    shard = next((copy / "mid").glob("train-00000-*"))
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    with pytest.raises(BroetchenError, match=r"mid: its shards have|mid: a shard cannot be opened"):
        simulate(mixture, weights, 20)
    shard.write_bytes(b"x" * len(content))
    with pytest.raises(BroetchenError, match="broetchen verify"):
        simulate(mixture, weights, 200)
    shard.unlink()
    with pytest.raises(BroetchenError, match="train-00000"):
        simulate(mixture, weights, 20)
