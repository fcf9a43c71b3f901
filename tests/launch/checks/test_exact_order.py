"""`data.order: exact`: its settings, the job that follows, and data that is too little."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from beam_pipelines.jobs.step import show_step
from launch.blend.plan import BlendPlan, split_plan
from launch.blend.supply import Phase, locate, shortages, supplies
from launch.checks.checked_job import checked_job
from launch.checks.exact_order import ExactOrder, findings, mean_shares, phases_of
from launch.config.training import load_training_config
from launch.job import TrainingJob
from launch.maxtext.command import arguments
from launch.maxtext.settings import read
from launch.mixture.datasets import Component, Mixture, Records
from launch.places import LocalPlace, MountedPlace, Mounts
from tests.support.command import run_command
from tests.support.megatron.datasets import numbered_documents, write_dataset
from tests.support.trainable_mixes import build_mix, training_config
from transforms.errors import UsageError
from transforms.files import storage

WHOLE = (Phase(Fraction(1), {"german": Fraction(2, 3), "english": Fraction(1, 3)}),)
SETTINGS: Mapping[str, Any] = {
    "steps": 10,
    "vocab_size": 100,
    "enable_checkpointing": True,
    "checkpoint_period": 5,
    "enable_rampup_batch_size": False,
    "expansion_factor_real_data": -1.0,
    "grain_use_elastic_iterator": False,
    "colocated_python_data_input": False,
    "elastic_enabled": False,
    "use_sft": False,
    "use_dpo": False,
    "use_multimodal": False,
    "data_shuffle_seed": 0,
    "tokenize_train_data": False,
    "tokenize_eval_data": False,
    "add_bos": False,
    "add_eos": False,
    "reset_attention_mask": True,
    "global_batch_size_to_load": 8,
    "global_batch_size_to_load_eval": 8,
    "max_target_length": 64,
    "reuse_example_batch": 0,
    "num_epoch": 1,
    "eval_interval": -1,
    "eval_steps": -1,
    "grain_worker_count": 1,
    "grain_worker_count_eval": 1,
    "per_device_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "micro_batch_size_to_eval_on": 8,
}
WRITTEN = {"steps": 10, "per_device_batch_size": 8}


def mixture(*, tokens: int = 6000, eval_tokens: int = 2000, eos_id: int | None = 3, **changes: Any) -> Mixture:
    component = {"records": 10, "shards": 1, "budget": tokens, "eval_records": 1, "eval_shards": 1} | changes
    components = tuple(
        Component(name=name, folder=f"/{name}", tokens=tokens, eval_tokens=eval_tokens, **component)
        for name in ("german", "english")
    )
    return Mixture(components, False, {}, Records("megatron", None, None, eos_id), "0" * 64, 100, "/tokenizer")


def found(
    data: Mixture, phases: tuple[Phase, ...] = WHOLE, *, evaluates: bool = False, **changes: Any
) -> dict[str, str]:
    all_found = findings(WRITTEN, dict(SETTINGS) | changes, data, phases, evaluates=evaluates)
    return {one.key: one.what for one in all_found}


def test_settings_that_go_with_an_exact_order():
    assert found(mixture()) == {}
    assert found(mixture(), evaluates=True, eval_interval=5, eval_steps=2) == {}
    assert found(mixture(eos_id=None), reset_attention_mask=False) == {}


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("enable_rampup_batch_size", True, "does not go with `order: exact`"),
        ("expansion_factor_real_data", 0.5, "0.5 does not go with `order: exact`"),
        ("use_sft", True, "does not go with `order: exact`"),
        ("tokenize_train_data", True, "true cannot go with datasets of ids"),
        ("add_eos", True, "MaxText adds nothing"),
        ("data_shuffle_seed", -1, "-1 is not from 0 to 2³² - 1"),
        ("vocab_size", 50, "50 is smaller than the tokenizer's 100"),
        ("eval_interval", 5, "5 evaluates on nothing"),
    ],
)
def test_settings_that_do_not(key: str, value: Any, what: str):
    assert what in found(mixture(), **{key: value})[key]


def test_documents_without_an_end_need_to_be_wanted():
    assert "build them with `records.add_eos: true`" in found(mixture(eos_id=None))["reset_attention_mask"]


def test_a_dataset_that_runs_dry_is_named_with_its_numbers():
    # 120 sequences, of which 80 are german's; 4,097 tokens are 64.
    data = mixture(tokens=4097)
    assert found(data, steps=15)["steps"] == (
        "german runs dry after 12 steps: its 4,097 tokens, read once, are 64 sequences of 64, and its shares take 80; "
        "write fewer `steps`, give it a smaller share, or allow 2 passes (`num_epoch: 2`)"
    )
    assert found(data, steps=12) == {}
    assert found(data, steps=15, num_epoch=2) == {}
    # The `max_repeats` of its own config wins.
    assert "read once" in found(mixture(tokens=4097, max_repeats=1), steps=15, num_epoch=2)["steps"]
    assert found(mixture(tokens=4097, max_repeats=1.25), steps=15) == {}
    assert found(data, steps=15, reuse_example_batch=1) == {}


def test_many_passes_are_a_warning():
    (one,) = findings(WRITTEN, dict(SETTINGS) | {"steps": 100, "num_epoch": 9}, mixture(), WHOLE, evaluates=False)
    assert not one.fatal
    assert one.what.startswith("german is read 5.70 times: beyond 4 passes")


def test_a_dataset_that_runs_dry_in_a_later_phase():
    phases = (
        Phase(Fraction(1, 2), {"german": Fraction(1)}),
        Phase(Fraction(1), {"german": Fraction(1, 4), "english": Fraction(3, 4)}),
    )
    data = mixture(tokens=64 * 45 + 1)
    (german,) = shortages(supplies(data.components, phases, 80, 64, 1), phases, 8, 64)
    # 40 in the first phase, and 5 of the 10 in the second, whose 20th sequence is the last with as many.
    assert german.startswith("german runs dry after 7 steps in phase 2: its 2,881 tokens, read once, are 45 sequences")


def test_evaluations_that_the_eval_splits_cannot_meet():
    asked: dict[str, Any] = {"eval_interval": 5, "evaluates": True}
    assert "is missing" in found(mixture(), **asked)["eval_steps"]
    assert "is missing" in found(mixture(), evaluates=True)["eval_interval"]
    # 5 steps are 40 sequences, of which german has 27 to give; 2,000 tokens are 31, 1,000 are 15.
    assert found(mixture(), **asked, eval_steps=5) == {}
    assert found(mixture(eval_tokens=1000), **asked, eval_steps=5)["eval_steps"] == (
        "5 are more than german has: an evaluation takes 27 sequences of its eval split, which has 15 (1,000 tokens); "
        "write 2 or fewer, or build it with more eval_tokens"
    )
    # MaxText loads batches of the training's size, and lays out ones of the evaluation's.
    few = found(mixture(), **asked, eval_steps=2, global_batch_size_to_load=32, steps=2)
    assert few["eval_steps"].startswith("2 need 64 sequences, since MaxText loads 32 a step, and it lays out 16")


def test_paths_that_maxtext_would_cut_are_refused(tmp_path: Path):
    for name, marks in (("a:b", ":"), ("a;b", ";"), ("a|b", "|"), ("a|b;c", "| and ;")):
        with pytest.raises(UsageError) as error:
            locate(str(tmp_path / name), LocalPlace())
        assert f"MaxText takes {marks} in a path for the end of the path; rename the folder" in str(error.value)
    with pytest.raises(UsageError, match="mount the bucket with gcsfuse"):
        locate("gs://bucket/mix", Mounts({}))
    assert locate("gs://bucket/mix", Mounts({"gs://bucket": "/data"})) == "/data/mix"
    assert locate(str(tmp_path / "a, b"), LocalPlace()) == str(tmp_path / "a, b")


def test_fifteen_thousand_shards_are_no_argument(tmp_path: Path):
    dataset = write_dataset(tmp_path / "german", numbered_documents(2, seed=1))
    many = [dataset.shards[0].model_copy(update={"stem": f"train-{number:05d}-of-15000"}) for number in range(15_000)]
    dataset = dataset.model_copy(update={"shards": many})
    train = split_plan([8], [{"german": Fraction(1)}], [dataset])
    plan = BlendPlan(length=4, batch=8, seed=0, shuffle=True, eos_id=0, splits={"train": train})
    order = ExactOrder(plan, str(tmp_path / "run"), str(tmp_path / "run" / "order" / "x"), "/data/order/x")
    job = order.job(TrainingJob("run", {"grain_train_files": "/unknown", "steps": 1}, ()))
    words = arguments(job, "/files")
    assert max(map(len, words)) < 1000
    assert words[:5] == (
        "/files/check_order.py",
        "/data/order/x",
        plan.digest(),
        "-m",
        "maxtext.trainers.pre_train.train",
    )
    assert words[5:] == ("/files/order.yml", "steps=1", "blend_index_dir=/data/order/x")
    base, datasets = job.files[0].content.splitlines()
    assert base == "base_config: base.yml"
    assert datasets.startswith('grain_train_files: "/data/order/x/train/german|/')
    assert datasets.count(f":{tmp_path}/german/train-") == 14_999


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `mix`, of the datasets german and english in Megatron's format."""
    folder = tmp_path_factory.mktemp("exact")
    build_mix(folder, records={"format": "megatron", "add_eos": True})
    return folder


def test_phases_are_read_with_datasets_that_are_in_some(built: Path):
    path = training_config(
        built,
        data={
            "outputs": "mix",
            "order": "exact",
            "phases": [
                {"until": "75%", "shares": {"german": 3, "english": 1}},
                {"until": "100%", "shares": {"german": 1}},
            ],
        },
    )
    data = load_training_config(path).data
    components = mixture()
    phases = phases_of(data, components)
    assert [phase.until for phase in phases] == [Fraction(3, 4), 1]
    assert phases[1].shares == {"german": 1}
    assert mean_shares(phases, ["german", "english"]) == {"german": Fraction(13, 16), "english": Fraction(3, 16)}


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ({"phases": [{"until": "100%", "shares": {"german": 1}}]}, "need an order that is exact; add `order: exact`"),
        (
            {"order": "exact", "shares": {"german": 1}, "phases": [{"until": "100%", "shares": {"german": 1}}]},
            "does not go with `phases`",
        ),
        ({"order": "exact", "phases": [{"until": "50%", "shares": [1]}]}, "the last ends at 50%; let it end at 100%"),
        (
            {"order": "exact", "phases": [{"until": "50%", "shares": [1]}, {"until": "50%", "shares": [1]}]},
            "a phase ends at 50%, and the one before it no earlier",
        ),
        ({"order": "exact", "phases": [{"until": "0%", "shares": [1]}]}, '"0%" ends a phase where the training begins'),
        ({"order": "exact", "phases": [{"until": 80, "shares": [1]}]}, "is not a percentage; write it as 80%"),
        ({"order": "exact", "phases": []}, "[] is no list of phases; write [{until: 80%, shares: …}"),
        ({"order": "exact", "phases": {"until": "100%"}}, "is no list of phases"),
    ],
)
def test_phases_that_are_none(tmp_path: Path, data: dict[str, Any], what: str):
    with pytest.raises(UsageError) as error:
        load_training_config(training_config(tmp_path, data={"outputs": "mix", **data}))
    assert what in str(error.value)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ({}, "the datasets are of `records.format: megatron`, which is read in an exact order; add `order: exact`"),
        (
            {"order": "exact", "phases": [{"until": "100%", "shares": {"german": 1}}]},
            "english is in none of the phases; give it a share in one, or leave the dataset out",
        ),
        (
            {"order": "exact", "phases": [{"until": "100%", "shares": {"german": 1, "french": 1}}]},
            "a share is for french, which is none of the datasets",
        ),
    ],
)
def test_data_that_does_not_go_with_the_order(built: Path, data: dict[str, Any], what: str):
    with pytest.raises(UsageError) as error:
        checked_job(load_training_config(training_config(built, data={"outputs": "mix", **data})), LocalPlace(), 1)
    assert what in str(error.value)


def test_datasets_of_records_have_no_exact_order(tmp_path: Path):
    build_mix(tmp_path)
    ended = run_command("train", training_config(tmp_path, data={"outputs": "mix", "order": "exact"}), "--dry-run")
    assert ended.returncode == 2
    assert "`order: exact` reads datasets of `records.format: megatron`, and these are of tokens" in ended.stderr
    ended = run_command(
        "mix", tmp_path / "mix", "--blend", tmp_path / "order", "--steps", "2", "--batch", "2", "--length", "8"
    )
    assert ended.returncode == 2
    assert "--blend is for datasets of `records.format: megatron`, and these are of tokens" in ended.stderr


@pytest.mark.slow
def test_maxtext_reads_the_job_as_it_was_meant(built: Path, tmp_path: Path):
    path = training_config(
        built,
        {"steps": 3, "eval_interval": 2, "eval_steps": 1, "per_device_batch_size": 2, "data_shuffle_seed": 5},
        data={"outputs": "mix", "order": "exact", "eval": True, "shares": {"german": 1, "english": 2}},
        output=str(tmp_path / "training"),
    )
    done = checked_job(load_training_config(path), LocalPlace(), 1)
    assert done.order is not None
    plan = done.order.plan
    assert (plan.length, plan.batch, plan.seed, plan.splits["train"].sequences) == (64, 2, 5, 6)
    assert plan.splits["eval"].sequences == 4
    assert {one.name: one.sequences for one in plan.splits["train"].datasets} == {"german": 2, "english": 4}
    settings = {
        "grain_file_type": "mmap_npy",
        "eod_mask_loss": True,
        "packing_max_segments_per_sample": 0,
        "mmap_eod_id": plan.eos_id,
        "tokenize_train_data": False,
    }
    assert {key: done.settings[key] for key in settings} == settings
    # MaxText's settings in the end have the datasets from the config file.
    read_again = read(done.job, 1)
    assert read_again.problems == ()
    assert read_again.settings["grain_train_files"].count("/mix/german/train-00000-of-00001") == 1
    assert read_again.settings["blend_index_dir"] == done.order.located
    done.order.write()
    assert Path(done.order.folder, "blend.json").exists()
    # Only a run that has begun follows it.
    waiting = run_command("show", built / "mix" / "german", "--step", "1", "--run", path)
    assert (waiting.returncode, "was not written yet" in waiting.stderr) == (1, True)
    done.order.note()
    shown = run_command("show", built / "mix" / "german", "--step", "1", "--run", path, "--json")
    assert shown.returncode == 0, shown.stderr
    assert '"dataset": "german"' in shown.stdout
    assert '"dataset": "english"' not in shown.stdout
    shown = run_command("show", tmp_path, "--step", "0", "--run", path)
    assert (shown.returncode, "none of the datasets of that training" in shown.stderr) == (2, True)
    shown = run_command("show", built / "mix", "--step", "3", "--run", path)
    assert (shown.returncode, "the training has steps 0 to 2" in shown.stderr) == (2, True)


@pytest.mark.slow
def test_an_order_of_datasets_in_a_bucket_is_written_there(built: Path, gcs_prefix: str, tmp_path: Path):
    for source in (built / "mix").rglob("*"):
        if source.is_file():
            storage.write_bytes(f"{gcs_prefix}/mix/{source.relative_to(built / 'mix')}", source.read_bytes())
    path = training_config(
        tmp_path,
        {"steps": 3, "per_device_batch_size": 1},
        data={"outputs": f"{gcs_prefix}/mix", "order": "exact"},
        output=f"{gcs_prefix}/training",
    )
    place = MountedPlace("a TPU VM")
    done = checked_job(load_training_config(path), place, 4)
    assert done.order is not None
    mounted = gcs_prefix.replace("gs://", "/mnt/broetchen/")
    assert done.order.located == f"{mounted}/training/a-run/order/{done.order.plan.digest()[:16]}"
    datasets = next(file.content for file in done.job.files if file.name == "order.yml")
    assert f"{done.order.located}/train/german|{mounted}/mix/german/train-00000-of-00001,8" in datasets
    assert arguments(done.job, "/job")[:3] == ("/job/check_order.py", done.order.located, done.order.plan.digest())
    done.order.write()
    done.order.note()
    parts = list(show_step(f"{gcs_prefix}/mix", str(path), 2))
    assert sum(part.last_token - part.first_token for part in parts) == 4 * 64
    assert {part.folder for part in parts} <= {f"{gcs_prefix}/mix/{name}" for name in ("german", "english")}
    # Files that exist already are not written again.
    done.order.write()
