"""The tutorial: its blocks do what it says, here as they are, and those about larger machines in miniature."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.documents.__main__ import AT_SCALE, TUTORIAL, samples_in
from tests.documents.session import Session, blocks_of
from tests.support.documents import ROOT

HERE, _, SCALE = TUTORIAL.read_text(encoding="utf-8").partition(AT_SCALE)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # it trains, and makes the trainer's environment where there is none
def test_the_blocks_print_what_is_shown(tmp_path: Path) -> None:
    session = Session(samples_in(tmp_path))
    for block in blocks_of(HERE):
        printed = session.run(block)
        assert block.agrees(printed), f"`make tutorial` writes again what is shown.\n{block.commands}\n{printed}"


def test_it_shows_what_the_commands_print() -> None:
    shown = [block for block in blocks_of(HERE) if "broetchen" in block.commands]
    silent = [block.commands.split()[1] for block in shown if block.shown is None]
    assert silent == ["init", "report"]
    assert all(block.shown is None or block.shown.strip() for block in shown)


@pytest.mark.slow
def test_the_blocks_at_scale_run_in_miniature(tmp_path: Path, gcs_bucket: str) -> None:
    """They run with configs of the same names and datasets, over the samples, and into a bucket.

    The dry runs of trainings are among those of tests/system/training/test_training_docs.py.
    """
    folder = samples_in(tmp_path)
    demo = (ROOT / "mix_configs" / "demo.yaml").read_text(encoding="utf-8")
    tokenizer = "path: ../samples/tokenizer.json"
    assert tokenizer in demo
    recipe = folder / "mix_configs" / "30-50-5-5-10"
    recipe.mkdir(parents=True)
    # The vocabulary's corpus has text, held out for the check of the round trip, and nothing that ends documents.
    (folder / "mix_configs" / "vocab-corpus.yaml").write_text(demo.replace("add_eos: true", "add_eos: false"))
    (recipe / "mix.yaml").write_text(
        demo.replace(tokenizer, "path: ./tokenizer.json").replace("../samples", "../../samples")
    )
    session = Session(folder, lambda commands: commands.replace("gs://my-bucket", gcs_bucket))
    builds, mix, trainings = blocks_of(SCALE)
    session.run(builds)
    session.run(mix)
    assert set(re.findall(r"^\w+ \w+", trainings.commands, re.M)) == {"broetchen train"}
    assert (folder / "report-200B.html").is_file()
