"""A card in a folder: written once its datasets are there, and never over a file of a user's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.transforms.card.cards import manifest_of, mix_of, split_of
from transforms.card.write import NAMES, remove_card, sweep_card, write_card
from transforms.dataset.manifest import write_manifest

MIX = mix_of({"a": {}, "b": {}})


def finish(output: Path, name: str, tokens: int = 100) -> None:
    (output / name).mkdir(exist_ok=True)
    write_manifest(str(output / name), manifest_of(name, {"train": split_of(tokens)}))


def card_of(output: Path) -> dict[str, bytes]:
    return {name: (output / name).read_bytes() for name in NAMES if (output / name).exists()}


@pytest.fixture
def output(tmp_path: Path) -> Path:
    finish(tmp_path, "a")
    write_card(str(tmp_path), MIX)
    return tmp_path


def test_without_a_finished_dataset_there_is_no_card(tmp_path: Path) -> None:
    write_card(str(tmp_path), MIX)
    assert os.listdir(tmp_path) == []


def test_one_by_one_is_the_same_as_at_once(output: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    of_one = card_of(output)
    assert set(of_one) == set(NAMES)
    finish(output, "b")
    write_card(str(output), MIX)
    other = tmp_path_factory.mktemp("other")
    for name in "ba":
        finish(other, name)
    write_card(str(other), MIX)
    assert card_of(output) == card_of(other)
    assert card_of(output)["README.md"] != of_one["README.md"]
    assert card_of(output)["mix.yaml"] == of_one["mix.yaml"]


def test_what_is_right_is_not_written_again(output: Path) -> None:
    before = {name: (output / name).stat().st_mtime_ns for name in NAMES}
    write_card(str(output), MIX)
    assert {name: (output / name).stat().st_mtime_ns for name in NAMES} == before


def test_a_missing_file_is_written(output: Path) -> None:
    before = card_of(output)
    (output / "README.md").unlink()
    write_card(str(output), MIX)
    assert card_of(output) == before


def test_the_card_of_datasets_that_are_gone_goes(output: Path) -> None:
    (output / "a" / "manifest.json").unlink()
    write_card(str(output), MIX)
    assert card_of(output) == {}


def test_a_damaged_dataset_is_left_out_with_a_warning(output: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = card_of(output)
    (output / "b").mkdir()
    (output / "b" / "manifest.json").write_text("{")
    write_card(str(output), MIX)
    assert card_of(output) == before
    assert "b/manifest.json: not a manifest" in caplog.text


def edit(path: Path) -> None:
    path.write_text(path.read_text().replace("my-mix", "My own mix", 1))


def replace(path: Path) -> None:
    path.write_text("mine\n")


def link(path: Path) -> None:
    path.rename(path.with_suffix(".mine"))
    path.symlink_to(path.with_suffix(".mine"))


def link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", [edit, replace, link, link_to_nothing, fifo, folder])
def test_a_users_file_stays_with_a_warning(
    output: Path, name: str, change: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    change(output / name)
    before = (output / name).lstat()
    finish(output, "b")
    write_card(str(output), MIX)
    remove_card(str(output))
    after = (output / name).lstat()
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (before.st_ino, before.st_mode, before.st_mtime_ns)
    assert not (output / "nowhere").exists()
    assert f"{output}/{name}: is not as a build wrote it" in caplog.text
    (other,) = set(NAMES) - {name}
    assert not (output / other).exists()


def test_temporary_files_of_a_card_are_swept_and_no_others(output: Path) -> None:
    mine = [output / f".{name}.tmp-0123" for name in NAMES]
    others = [output / ".other.tmp-0123", output / "README.md.tmp-1", output / ".README.md"]
    for path in [*mine, *others]:
        path.write_text("x")
    sweep_card(str(output))
    assert not [path for path in mine if path.exists()]
    assert [path.exists() for path in others] == [True] * 3
    assert set(card_of(output)) == set(NAMES)
