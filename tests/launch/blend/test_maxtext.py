"""MaxText's own pipeline follows the order, on 1, 2 and 4 hosts, without padding; and what is no order is refused."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import grain.python as grain
import numpy as np
import pytest
from maxtext.input_pipeline import _mmap_datasource as datasource
from maxtext.input_pipeline.grain_data_processing import _apply_mapdataset_transforms

from launch.blend import schedule
from launch.blend.check import check_blend
from launch.blend.look_up import parts_of_step
from launch.blend.plan import Blend, BlendPlan, maxtext_files, split_plan
from launch.blend.programs.check_order import WrongOrder, check
from launch.blend.write import find_blend, write_blend
from tests.support.megatron.datasets import EOS, numbered_documents, write_dataset
from transforms.errors import BroetchenError

LENGTH, BATCH, STEPS = 32, 8, 50
SHARES = [
    {"german": Fraction(3, 10), "english": Fraction(6, 10), "books": Fraction(1, 10)},
    {"german": Fraction(1, 2), "books": Fraction(1, 2)},
]
SIZES = {"german": 150, "english": 200, "books": 20}


def write(root: Path, steps: int = STEPS, sizes: dict[str, int] = SIZES) -> Blend:
    """Three datasets, of which the books are read several times, in two phases."""
    firsts = itertools.accumulate((count * 90 for count in sizes.values()), initial=1)
    datasets = [
        write_dataset(root / name, numbered_documents(count, seed=count, first=first), shards=3)
        for (name, count), first in zip(sizes.items(), firsts, strict=False)
    ]
    ends = schedule.phase_ends(steps * BATCH, [Fraction(4, 5), Fraction(1)])
    train = split_plan(ends, SHARES, datasets)
    plan = BlendPlan(length=LENGTH, batch=BATCH, seed=5, shuffle=True, eos_id=EOS, splits={"train": train})
    return write_blend(plan, str(root / "order"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("order")
    write(folder)
    return folder


@pytest.fixture
def blend(root: Path) -> Blend:
    found = find_blend(str(root / "order"))
    assert found is not None
    return found


def pipeline(blend: Blend, root: Path, index: int, count: int) -> grain.IterDataset:
    """A host's sequences as MaxText reads them."""
    of_split = blend.plan.splits["train"]
    return datasource.get_mmap_npy_dataset(
        maxtext_files(of_split, "train", str(root / "order")),
        False,
        LENGTH,
        EOS,
        1,
        index,
        count,
        1,
        1,
        None,
        str(root / "order"),
        "train",
        apply_transforms=_apply_mapdataset_transforms,
        num_samples=of_split.sequences,
        seed=blend.plan.seed,
    )


def host(blend: Blend, root: Path, index: int, count: int) -> Iterator[np.ndarray]:
    """The same as arrays: int32 [length + 1]."""
    return (element["text"] for element in pipeline(blend, root, index, count))


def all_hosts(blend: Blend, root: Path, count: int) -> np.ndarray:
    """The sequences of all hosts in the order of the training: [sequences, length + 1]."""
    hosts = [list(host(blend, root, index, count)) for index in range(count)]
    return np.array([sequence for together in zip(*hosts, strict=True) for sequence in together])


def test_the_order_is_the_same_for_any_number_of_hosts(blend: Blend, root: Path):
    alone = all_hosts(blend, root, 1)
    assert alone.shape == (STEPS * BATCH, LENGTH + 1)
    for count in (2, 4):
        assert np.array_equal(all_hosts(blend, root, count), alone)


@pytest.mark.slow
def test_workers_change_nothing(blend: Blend, root: Path):
    importlib.import_module("absl.flags").FLAGS(["a program"])  # Grain's workers ask for them.
    # As MaxText has it: workers before batches (`_mmap_pretrain_pipeline`).
    dataset = pipeline(blend, root, 1, 2).map(_text).mp_prefetch(grain.MultiprocessingOptions(num_workers=2))
    assert np.array_equal(np.array(list(dataset)), all_hosts(blend, root, 2)[1::2])


def _text(element: dict[str, np.ndarray]) -> np.ndarray:
    return element["text"]


def test_shares_are_exact_at_every_prefix_of_each_phase_as_maxtext_reads_them(blend: Blend, root: Path):
    # Ids tell which dataset they are of; EOS does not.
    bounds = [150 * 90, 350 * 90]
    read = all_hosts(blend, root, 1)[:, :-1]
    datasets = np.searchsorted(bounds, read.max(axis=1), side="right")
    begin = 0
    for end, shares in zip(blend.plan.splits["train"].ends(), SHARES, strict=True):
        for number, name in enumerate(SIZES):
            had = np.cumsum(datasets[begin:end] == number)
            share = shares.get(name, Fraction(0))
            assert all(abs(count - share * prefix) < 1 for prefix, count in enumerate(had.tolist(), 1))
        begin = end
    # No place is padded: each EOS that was read is one of a document.
    parts = [part for step in range(STEPS) for part in parts_of_step(blend, str(root / "order"), step)]
    assert sum(part.last_token - part.first_token for part in parts) == read.size


def documents(root: Path, name: str) -> list[np.ndarray]:
    found = []
    for path in sorted((root / name).glob("*.idx")):
        reader = datasource.MMapIndexedDataset(str(path.with_suffix("")))
        found += [np.array(reader[number]) for number in range(len(reader))]
        reader.close()
    return found


def test_a_step_holds_the_documents_that_are_said(blend: Blend, root: Path):
    names = [one.name for one in blend.plan.splits["train"].datasets]
    texts = {name: documents(root, name) for name in names}
    read = all_hosts(blend, root, 1)
    for step in (0, 17, STEPS - 1):
        parts = list(parts_of_step(blend, str(root / "order"), step))
        assert [part.row for part in parts] == sorted(part.row for part in parts)
        for row in range(BATCH):
            own = [part for part in parts if part.row == row]
            assert {part.sequence for part in own} == {step * BATCH + row}
            ids = np.concatenate(
                [texts[names[part.dataset]][part.record][part.first_token : part.last_token] for part in own]
            )
            assert np.array_equal(ids, read[step * BATCH + row, :-1])
            assert [part.position for part in own] == [
                0,
                *itertools.accumulate(part.last_token - part.first_token for part in own[:-1]),
            ]
    with pytest.raises(IndexError):
        next(parts_of_step(blend, str(root / "order"), STEPS))


def test_a_dataset_that_is_read_once_gives_each_token_once(tmp_path: Path):
    dataset = write_dataset(tmp_path / "german", numbered_documents(60, seed=1), shards=2)
    sequences = (dataset.tokens - 1) // LENGTH
    plan = BlendPlan(
        length=LENGTH,
        batch=1,
        seed=0,
        shuffle=True,
        eos_id=EOS,
        splits={"train": split_plan([sequences], [{"german": Fraction(1)}], [dataset])},
    )
    blend = write_blend(plan, str(tmp_path / "order"))
    assert "of 1 datasets" in check_blend(blend, str(tmp_path / "order"))
    read = all_hosts(blend, tmp_path, 1)[:, :-1]
    found = read[read != EOS]
    assert len(set(found.tolist())) == len(found)
    # All but the last tokens, which fill no sequence.
    assert dataset.tokens - LENGTH <= read.size < dataset.tokens


def test_passes_are_to_the_token(tmp_path: Path):
    dataset = write_dataset(tmp_path / "german", numbered_documents(7, seed=2))
    # Two passes and a half.
    sequences = (5 * dataset.tokens // 2 - 1) // LENGTH
    other = write_dataset(tmp_path / "english", numbered_documents(200, seed=3, first=1000))
    shares = {"german": Fraction(1, 2), "english": Fraction(1, 2)}
    train = split_plan([2 * sequences], [shares], [dataset, other])
    plan = BlendPlan(length=LENGTH, batch=2, seed=0, shuffle=True, eos_id=EOS, splits={"train": train})
    blend = write_blend(plan, str(tmp_path / "order"))
    check_blend(blend, str(tmp_path / "order"))
    read = all_hosts(blend, tmp_path, 1)[:, :-1]
    german = read[(read.max(axis=1) < 1000)]
    assert len(german) == sequences
    counts = np.bincount(german[german != EOS], minlength=dataset.tokens)
    all_ids = np.concatenate(documents(tmp_path, "german"))
    # After two passes, each token but for those of the last sequence came twice; then each comes once more at most.
    assert set(counts[all_ids[all_ids != EOS]].tolist()) == {2, 3}


def test_more_steps_go_on_where_fewer_end(tmp_path: Path):
    dataset = [write_dataset(tmp_path / name, numbered_documents(100, seed=4)) for name in ("a", "b")]
    shares = {"a": Fraction(2, 3), "b": Fraction(1, 3)}
    read = []
    for steps in (5, 9):
        train = split_plan([steps * BATCH], [shares], dataset)
        plan = BlendPlan(length=LENGTH, batch=BATCH, seed=0, shuffle=True, eos_id=EOS, splits={"train": train})
        folder = tmp_path / str(steps)
        blend = write_blend(plan, str(folder / "order"))
        read.append(all_hosts(blend, folder, 1))
    assert np.array_equal(read[1][: 5 * BATCH], read[0])


def test_a_written_order_is_left_as_it_is_and_a_broken_one_is_written_again(tmp_path: Path):
    blend = write(tmp_path)
    path = tmp_path / "order" / blend.files[0].file
    written = path.stat().st_mtime_ns
    assert write(tmp_path) == blend
    assert path.stat().st_mtime_ns == written
    path.unlink()
    assert write(tmp_path) == blend
    assert path.exists()
    assert not [one for one in (tmp_path / "order").rglob("*") if one.is_file() and "tmp" in one.suffix]


def harmed(root: Path, harm: str) -> None:
    folder = root / "order"
    blend = json.loads((folder / "blend.json").read_text())
    schedule_file = folder / "order-BlendedDataset-train-dataset_sample_index.npy"
    if harm == "a changed byte":
        content = bytearray(schedule_file.read_bytes())
        content[-3] ^= 1
        schedule_file.write_bytes(content)
    elif harm == "a short file":
        schedule_file.write_bytes(schedule_file.read_bytes()[:-8])
    elif harm == "a missing file":
        schedule_file.unlink()
    elif harm == "no order":
        (folder / "blend.json").unlink()
    elif harm == "another order":
        blend["plan"]["seed"] += 1
        (folder / "blend.json").write_text(json.dumps(blend))
    elif harm == "a missing shard":
        (root / "german" / "train-00001-of-00003.idx").unlink()
    elif harm == "another shard":
        write_dataset(root / "german", numbered_documents(150, seed=9), shards=3)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("a changed byte", "was changed since it was written"),
        ("a short file", "has 3,320 bytes, and was written with 3,328"),
        ("a missing file", "cannot be read"),
        ("no order", "there is no order to follow"),
        ("another order", "is of another order than this training wants"),
        ("a missing shard", "a shard of german cannot be read"),
        ("another shard", "the train shards of german have"),
    ],
)
def test_an_order_that_maxtext_would_not_follow_stops_the_run(tmp_path: Path, harm: str, message: str):
    blend = write(tmp_path)
    assert check(tmp_path / "order", blend.digest, with_shards=True) == "train: 400 sequences of 3 datasets"
    harmed(tmp_path, harm)
    with pytest.raises(WrongOrder, match=message):
        check(tmp_path / "order", blend.digest, with_shards=True)


def test_a_schedule_that_maxtext_replaces_is_refused_though_its_checksum_is_right(tmp_path: Path):
    blend = write(tmp_path)
    name = blend.files[-1].file
    path = tmp_path / "order" / name
    places = np.load(path)
    places[[0, 2]] = places[[2, 0]]
    np.save(path, places)
    content = json.loads((tmp_path / "order" / "blend.json").read_text())
    content["files"][-1]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "order" / "blend.json").write_text(json.dumps(content))
    changed = find_blend(str(tmp_path / "order"))
    assert changed is not None
    with pytest.raises(BroetchenError, match=r"MaxText does not take the schedule of train, .* not contiguous"):
        check_blend(changed, str(tmp_path / "order"))


def test_indices_under_a_name_that_maxtext_does_not_look_for_are_refused(tmp_path: Path):
    blend = write(tmp_path)
    for path in (tmp_path / "order" / "train" / "german").iterdir():
        path.rename(path.with_name(path.name.replace(path.name[:4], "0000")))
    content = json.loads((tmp_path / "order" / "blend.json").read_text())
    for file in content["files"]:
        if "/german/" in file["file"]:
            file["file"] = file["file"][:13] + "0000" + file["file"][17:]
    (tmp_path / "order" / "blend.json").write_text(json.dumps(content))
    with pytest.raises(WrongOrder, match="would make an order of its own"):
        check(tmp_path / "order", blend.digest, with_shards=True)


def test_without_the_shards_their_files_are_not_asked_for(tmp_path: Path):
    blend = write(tmp_path)
    (tmp_path / "german" / "train-00001-of-00003.idx").unlink()
    assert check(tmp_path / "order", blend.digest, with_shards=False)


def test_an_index_of_other_documents_is_no_order(tmp_path: Path):
    blend = write(tmp_path)
    path = tmp_path / "german" / "train-00000-of-00003.idx"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BroetchenError, match=r"train-00000-of-00003\.idx: it has"):
        write_blend(blend.plan, str(tmp_path / "other"))
