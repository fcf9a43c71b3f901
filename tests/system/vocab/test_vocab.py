"""The vocabulary corpus: the main job with text for its output."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from beam_pipelines.jobs.build import build
from beam_pipelines.jobs.verify import verify
from tests.support.command import run_command
from tests.support.corpora import SAMPLES, reference_ids, write_parquet
from tests.support.examples import at_most
from tests.support.reading import read_texts
from tests.system.builds.test_build import RUNS, draw_mix, flat, make_config, manifest_of, mixes, tree
from transforms.errors import BroetchenError
from transforms.files import storage

ROWS = {"format": "parquet"}


def read_rows(folder: Path, split: str) -> list[dict[str, object]]:
    paths = sorted(folder.glob(f"{split}-*.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


@pytest.mark.slow
@at_most(8, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(mixes, st.data())
def test_rows_are_exact_and_keep_their_columns(
    tmp_path_factory: pytest.TempPathFactory, mix: list[list[list[list[str | None]]]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    budgets, _ = draw_mix(folder, mix, data)
    if not budgets:
        return
    for output, records in (("out", ROWS), ("text", {"format": "text"})):
        build(make_config(folder, budgets, records=records, on_shortfall="keep"), str(folder / output), quiet=True)
    for dataset in budgets:
        for name, split in manifest_of(folder / "out" / dataset).splits.items():
            rows = read_rows(folder / "out" / dataset, name)
            texts = [str(row["text"]) for row in rows]
            assert len(flat(reference_ids(texts, eos=None))) == split.budget - split.missing == split.tokens
            # The two containers hold the same documents.
            assert texts == read_texts(folder / "text" / dataset, name)
            assert all(isinstance(row["id"], int) for row in rows)
            assert len(rows) == split.documents == split.records
    verify(str(folder / "out"))
    shutil.rmtree(folder)


@pytest.mark.slow
def test_every_runner_gives_the_same_bytes(tmp_path: Path) -> None:
    for file in range(2):
        write_parquet(
            tmp_path / "a" / f"{file}.parquet", [[f"Zeile {file} {g} {r} " * 9 for r in range(12)] for g in range(4)]
        )
    config = make_config(
        tmp_path, {"a": {"tokens": 1900, "eval_tokens": 70}}, records=ROWS, shards={"target_size": 800}
    )
    outputs = []
    for number, run in enumerate(("in memory", "threads", "processes")):
        build(config, str(tmp_path / str(number)), beam_arguments=RUNS[run], quiet=True)
        outputs.append(tree(tmp_path / str(number)))
    assert outputs[0] == outputs[1] == outputs[2]
    assert sum(name.startswith("a/train-") for name in outputs[0]) > 2


@pytest.mark.slow
def test_a_bucket_gets_the_same_bytes(tmp_path: Path, gcs_prefix: str) -> None:
    rows = [f"Zeile {number} mit Wörtern {number * 7}" for number in range(60)]
    write_parquet(tmp_path / "a" / "0.parquet", [rows[:20], rows[20:40], rows[40:]])
    config = make_config(tmp_path, {"a": {"tokens": 300, "eval_tokens": 20}}, records=ROWS)
    build(config, str(tmp_path / "out"), quiet=True)
    build(config, f"{gcs_prefix}/out", quiet=True)
    local = {path.relative_to(tmp_path / "out" / "a"): path for path in (tmp_path / "out" / "a").glob("*.*")}
    assert len(local) > 3
    for name, path in local.items():
        assert storage.read_bytes(f"{gcs_prefix}/out/a/{name}") == path.read_bytes()
    verify(f"{gcs_prefix}/out")


def test_files_with_other_columns_are_fitted_or_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    pq.write_table(pa.table({"text": ["eins zwei"], "score": [1]}), tmp_path / "a" / "0.parquet")
    pq.write_table(pa.table({"text": ["drei vier"], "lang": ["de"]}), tmp_path / "a" / "1.parquet")
    tokens = len(flat(reference_ids(["eins zwei", "drei vier"], eos=None)))
    build(make_config(tmp_path, {"a": {"tokens": tokens}}, records=ROWS), str(tmp_path / "out"), quiet=True)
    assert read_rows(tmp_path / "out" / "a", "train") == [
        {"text": "eins zwei", "score": 1, "lang": None},
        {"text": "drei vier", "score": None, "lang": "de"},
    ]
    pq.write_table(pa.table({"text": ["drei vier"], "score": ["viel"]}), tmp_path / "a" / "1.parquet")
    with pytest.raises(BroetchenError, match=r"1\.parquet: column 'score' is string, and in other files, as .*"):
        build(make_config(tmp_path, {"a": {"tokens": tokens}}, records=ROWS), str(tmp_path / "other"), quiet=True)


@pytest.mark.slow
@pytest.mark.parametrize(("container", "extension"), [("parquet", "parquet"), ("arrayrecord", "arecord")])
def test_the_command_builds_text_of_any_config(tmp_path: Path, container: str, extension: str) -> None:
    config = SAMPLES.parent / "mix_configs" / "demo.yaml"
    done = run_command(
        "vocab", config, "--output", tmp_path / "corpus", "--format", container, "--set", "total_tokens=50_000"
    )
    assert done.returncode == 0, done.stderr
    for name, budget in (("fineweb2_german", 15_000), ("finepdfs_german", 25_000), ("fineweb_english", 2_500)):
        folder = tmp_path / "corpus" / name
        assert list(folder.glob(f"train-*.{extension}"))
        texts = (
            [str(row["text"]) for row in read_rows(folder, "train")]
            if container == "parquet"
            else read_texts(folder, "train")
        )
        assert len(flat(reference_ids(texts, eos=None))) == budget
    if container == "parquet":
        rows = read_rows(tmp_path / "corpus" / "fineweb2_german", "train")
        assert set(rows[0]) == {"text", "id", "url", "language", "license"}
    verified = run_command("verify", tmp_path / "corpus")
    assert verified.returncode == 0, verified.stderr
