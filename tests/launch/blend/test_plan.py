"""An exact order as its plan describes it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

from launch.blend.plan import BlendPlan, split_plan
from tests.support.megatron.datasets import numbered_documents, write_dataset

SHARES = {"a": Fraction(1, 3), "b": Fraction(2, 3)}


def plan_of(folder: Path, ends: list[int], shares: list[dict[str, Fraction]], **changes: Any) -> BlendPlan:
    plans = [write_dataset(folder / name, numbered_documents(40, seed)) for seed, name in enumerate(("a", "b"))]
    given: dict[str, Any] = {"length": 16, "batch": 4, "seed": 0, "shuffle": True, "eos_id": 0}
    return BlendPlan(**given | changes, splits={"train": split_plan(ends, shares, plans)})


def test_orders_that_differ_in_length_alone_begin_alike(tmp_path: Path) -> None:
    first = plan_of(tmp_path, [40], [SHARES])
    longer = plan_of(tmp_path, [80], [SHARES])
    assert first.digest() != longer.digest()
    assert first.beginning() == longer.beginning()
    others = [
        plan_of(tmp_path, [40], [{"a": Fraction(1, 2), "b": Fraction(1, 2)}]),
        plan_of(tmp_path, [20, 40], [SHARES, SHARES]),
        *(plan_of(tmp_path, [40], [SHARES], **{key: value}) for key, value in (("seed", 1), ("length", 17))),
        *(plan_of(tmp_path, [40], [SHARES], **{key: value}) for key, value in (("batch", 8), ("shuffle", False))),
    ]
    beginnings = {plan.beginning() for plan in others}
    assert len(beginnings) == len(others)
    assert first.beginning() not in beginnings


def test_phases_that_end_elsewhere_make_another_order(tmp_path: Path) -> None:
    shares = [SHARES, {"a": Fraction(1, 2), "b": Fraction(1, 2)}]
    assert plan_of(tmp_path, [20, 40], shares).beginning() != plan_of(tmp_path, [40, 80], shares).beginning()
    assert plan_of(tmp_path, [20, 40], shares).beginning() == plan_of(tmp_path, [20, 41], shares).beginning()
