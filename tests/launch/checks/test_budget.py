"""The budget of a run, in figures, and the table that shows it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from beam_pipelines.tables.training import budget_comment
from launch.checks.budget import Budget, budget, flops_a_token, parameters
from launch.checks.checked_job import CheckedJob
from launch.config.prices import Price
from launch.job import TrainingJob
from launch.mixture.datasets import Component, Mixture, Records
from transforms.arrayrecord.index import index_bytes
from transforms.dataset.manifest import Manifest

# Of launch/models/nano-german-slm.yml.
NANO: dict[str, Any] = {
    "decoder_block": "llama2",
    "num_experts": 1,
    "num_decoder_layers": 12,
    "emb_dim": 768,
    "mlp_dim": 2048,
    "mlp_activations": ["silu", "linear"],
    "num_query_heads": 12,
    "num_kv_heads": 4,
    "head_dim": 64,
    "vocab_size": 65_536,
    "logits_via_embedding": False,
}
SETTINGS: dict[str, Any] = NANO | {
    "steps": 1000,
    "num_epoch": 1,
    "global_batch_size_to_load": 256,
    "global_batch_size_to_train_on": 256,
    "expansion_factor_real_data": -1.0,
    "grain_worker_count": 3,
    "max_target_length": 2048,
    "packing": True,
    "use_truncation": False,
}
COMPONENTS = (
    Component("web", "/mix/web", 800_000_000, 1_600_000, 8, 800_000_000),
    Component("pdf", "/mix/pdf", 800_000_000, 400_000, 4, 800_000_000),
)


def manifest(group: object) -> Manifest:
    return Manifest.model_construct(config={"shards": {"group_size": group}})


def figures(
    settings: Mapping[str, Any] | None = None,
    price: Price | None = None,
    *,
    peak: float | None = 1000.0,
    group: object = 1,
) -> Budget:
    mixture = Mixture(
        COMPONENTS,
        True,
        {one.name: manifest(group) for one in COMPONENTS},
        Records("tokens", 2048, None, 1),
        "s",
        65_536,
        "t",
    )
    job = TrainingJob("a run", {}, ())
    checked = CheckedJob(job, SETTINGS | dict(settings or {}), mixture, mixture.shares(), 2, {})
    return budget(checked, peak_tflops=peak, price=price)


def test_parameters_of_a_llama_are_counted() -> None:
    """Two tables of 65,536 × 768, and 12 layers of 4 × 768² in parts for attention, 3 × 768 × 2,048, and norms."""
    layer = 768 * 768 * 2 + 2 * 768 * 256 + 3 * 768 * 2048 + 2 * 768
    assert parameters(NANO) == 2 * 65_536 * 768 + 12 * layer + 768 == 176_179_968
    assert parameters(NANO | {"logits_via_embedding": True}) == 176_179_968 - 65_536 * 768
    for other in ({"decoder_block": "gemma2"}, {"num_experts": 8}):
        assert parameters(NANO | other) is None


def test_what_a_token_takes() -> None:
    """6 for each weight of a matrix that multiplies, and half of the attention to all positions, thrice."""
    matrices = 65_536 * 768 + 12 * (768 * 768 * 2 + 2 * 768 * 256 + 3 * 768 * 2048)
    assert flops_a_token(SETTINGS, 176_179_968) == 6 * matrices + 3 * 12 * (4 * 2048 * 768) // 2


def test_the_figures_of_a_run() -> None:
    found = figures(price=Price(Decimal("10"), "the config"))
    assert (found.steps, found.data.tokens, found.data.readers.count, found.hosts) == (1000, 1000 * 256 * 2048, 6, 2)
    assert found.data.data_steps is not None
    assert found.data.data_steps > 3000
    # Both have half of the tokens, and a record of the one has a quarter of the other's.
    assert [one.tokens for one in found.data.datasets] == [pytest.approx(found.data.tokens / 2, rel=0.01)] * 2
    assert [one.passes for one in found.data.datasets] == [pytest.approx(0.328, rel=0.01)] * 2
    assert [one.a_reader for one in found.data.datasets] == [266_666, 66_666]
    assert found.data.step_records == pytest.approx(256 * 2048 / 800, rel=0.01)
    assert found.data.index_bytes == 4 * (index_bytes(1_600_000, 8, 1) + index_bytes(400_000, 4, 1))
    seconds = 256 * 2048 * flops_a_token(SETTINGS, 176_179_968) / (1000e12 * 0.4)
    assert found.step_seconds == pytest.approx(seconds)
    assert found.hours == pytest.approx(1000 * seconds / 3600)
    assert found.tokens_a_second == pytest.approx(256 * 2048 / seconds)
    assert found.needed_reads == pytest.approx(found.data.step_records / 2 / seconds)
    assert found.total_price is not None
    assert float(found.total_price) == pytest.approx(10 * 1000 * seconds / 3600)
    # 200,000 records a file in one, 100,000 in the other; of five reads, four are of the first.
    assert found.data.host_reads == pytest.approx(3 / ((4 * 0.38e-3 + 0.19e-3) / 5), rel=0.05)


def test_the_trainer_alone_reads_without_workers_and_groups_have_one_offset() -> None:
    alone = figures({"grain_worker_count": 0})
    assert (alone.data.readers.count, alone.data.index_processes) == (2, 1)
    assert figures({"grain_worker_count": 0}, group=16).data.index_bytes == index_bytes(1_600_000, 8, 16) + index_bytes(
        400_000, 4, 16
    )
    assert figures(group="a lie").data.index_bytes == figures(group=None).data.index_bytes == figures().data.index_bytes


def test_records_are_sequences_without_packing() -> None:
    found = figures({"packing": False})
    assert found.data.step_records == 256
    assert found.data.tokens == pytest.approx(1000 * 256 * 800, rel=0.01)
    assert found.tokens_a_second is not None


def test_the_table_is_a_comment_of_a_script() -> None:
    shown = budget_comment("a run", figures(price=Price(Decimal("12.88"), "list", at_most=True)))
    assert all(line.startswith("#") for line in shown.splitlines())
    assert subprocess.run(["sh", "-eu"], input=shown, text=True, capture_output=True).stdout == ""
    for words in (
        "steps 1,000 the data has 3,",
        "tokens 524,288,000 524,288 a step",
        "readers 6 2 hosts × 3 workers",
        "of 1,600,000 records each reader has 266,666 or more",
        "61.3 MiB for indexes of ArrayRecord on each host, in 4 processes",
        "176,179,968 from MaxText's settings",
        "assumed: 40.00 % of the chips' best",
        "at most $",
        "for those hours: at most $12.88 an hour (list)",
    ):
        assert words in " ".join(shown.replace("#", "").split()), words


def test_what_is_not_known_is_said() -> None:
    shown = budget_comment("a run; rm -rf [b]x[/b]\ntouch CANARY", figures({"decoder_block": "gemma2"}))
    assert all(line.startswith("#") for line in shown.splitlines())
    assert "unknown   only MaxText can count them for this model" in shown
    assert "unknown   the first steps show it" in shown
    assert "[b]x[/b]" in shown
    assert "price" not in budget_comment("a", figures(peak=None))
    assert "unknown   https://cloud.google.com/tpu/pricing" in budget_comment("a", figures())
