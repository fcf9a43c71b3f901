"""The inputs, outputs and displays of steps; elements travel as text, numbers, tuples and JSON, never as pickles."""

from __future__ import annotations

import hashlib
import importlib
import json
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.coders import Coder, coders, registry
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor
from apache_beam.pvalue import AsDict
from apache_beam.transforms.display import DisplayData
from apache_beam.typehints import typehints
from apache_beam.typehints.decorators import TypeCheckError

import transforms
from beam_pipelines.jobs.build import demo_config
from beam_pipelines.jobs.specs import dataset_specs, load_config_tokenizer
from transforms.arrayrecord.sink import WriteToArrayRecord
from transforms.budget.token_budget import ShardCount, TokenBudget
from transforms.building.datasets import BuildDatasets
from transforms.coders import JsonCoder
from transforms.counting.count_tokens import BuiltShard, CountBuiltShards, CountSpec, CountTokens
from transforms.counting.text_count import TextCountCoder
from transforms.dataset.against_source import SourceCheck, VerifyAgainstSource
from transforms.dataset.quarantine import QuarantineCheck, VerifyQuarantine
from transforms.dataset.verify import ShardCheck, VerifyShards
from transforms.encoding.tokenize import Tokenize
from transforms.evaluation.evaluate import EvaluateTokenizers
from transforms.evaluation.statistics import StatisticsCoder
from transforms.parquet.read import ReadFooters, ReadParquet, TextSource
from transforms.recipe.plan import PlanDatasets
from transforms.recipe.spec import DatasetSpec
from transforms.tokenizer.spec import TokenizerSpec

TRANSFORMS: dict[str, tuple[Any, Callable[[], beam.PTransform[Any, Any]]]] = {
    "BuildDatasets": (DatasetSpec, BuildDatasets),
    "CountTokens": (str, lambda: CountTokens({})),
    "CountBuiltShards": (BuiltShard, CountBuiltShards),
    "VerifyShards": (ShardCheck, VerifyShards),
    "VerifyAgainstSource": (SourceCheck, VerifyAgainstSource),
    "VerifyQuarantine": (QuarantineCheck, VerifyQuarantine),
    "PlanDatasets": (tuple[str, DatasetSpec], PlanDatasets),
    "EvaluateTokenizers": (str, lambda: EvaluateTokenizers({}, {})),
    "ReadFooters": (TextSource, ReadFooters),
    "ReadParquet": (str, ReadParquet),
    "Tokenize": (str, lambda: Tokenize("samples/tokenizer.json")),
    "TokenBudget": (tuple[str, ShardCount], lambda: TokenBudget({})),
    "WriteToArrayRecord": (bytes, lambda: WriteToArrayRecord("out/train", num_shards=2)),
}


#: what Beam's own coders of known types are made of
PLAIN = (
    coders.BooleanCoder,
    coders.BytesCoder,
    coders.GlobalWindowCoder,
    coders.IterableCoder,
    coders.ListCoder,
    coders.MapCoder,
    coders.NullableCoder,
    coders.PaneInfoCoder,
    coders.StrUtf8Coder,
    coders.TimestampCoder,
    coders.TupleCoder,
    coders.TupleSequenceCoder,
    coders.VarIntCoder,
    JsonCoder,
    StatisticsCoder,
    TextCountCoder,
)


#: a step that gives nothing
EXCEPTION = "Under test/End"


class Outputs(PipelineVisitor):
    """Finds the elements of steps, and the accumulators of combines, by the steps' names."""

    def __init__(self) -> None:
        self.coders: dict[str, Coder] = {}

    def visit_transform(self, step: AppliedPTransform) -> None:
        # A Reshuffle adds Beam's own metadata, of several types.
        if not step.full_label.startswith("Under test") or "/ReshufflePerKey/" in step.full_label:
            return
        for tag, output in step.outputs.items():
            self.coders[f"{step.full_label}[{tag}]"] = registry.get_coder(output.element_type)

    def enter_composite_transform(self, step: AppliedPTransform) -> None:
        if isinstance(step.transform, beam.CombinePerKey):
            self.coders[f"{step.full_label}, accumulator"] = step.transform.fn.get_accumulator_coder()


def parts_of(coder: Coder) -> Iterator[Coder]:
    yield coder
    for part in coder._get_component_coders():
        yield from parts_of(part)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_no_element_is_pickled(name: str) -> None:
    """A pickle runs code, and differs between versions. The elements of a step without a type would be pickled."""
    element, make = TRANSFORMS[name]
    pipeline = beam.Pipeline()
    _ = pipeline | beam.Create([]).with_output_types(element) | "Under test" >> make()
    found = Outputs()
    pipeline.visit(found)
    assert found.coders
    others = {
        f"{label}: {part}"
        for label, coder in found.coders.items()
        for part in parts_of(coder)
        if not isinstance(part, PLAIN) and not label.startswith(EXCEPTION)
    }
    assert not others


def test_all_transforms_are_here() -> None:
    for module in pkgutil.walk_packages(transforms.__path__, "transforms."):
        importlib.import_module(module.name)
    ours = {one.__name__ for one in beam.PTransform.__subclasses__() if one.__module__.startswith("transforms.")}
    assert ours == set(TRANSFORMS)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_elements_of_another_type_are_refused_before_anything_runs(name: str) -> None:
    """Beam reads no annotations that are strings, as those of a module are that imports them from the future."""
    _, make = TRANSFORMS[name]
    others = beam.Pipeline() | beam.Create([]).with_output_types(complex)
    with pytest.raises(TypeCheckError, match=rf"Input type hint violation at {name}: .*, got <class 'complex'>"):
        _ = others | make()


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_says_what_it_gives(name: str) -> None:
    element, make = TRANSFORMS[name]
    given = beam.Pipeline() | beam.Create([]).with_output_types(element) | make()
    if isinstance(given, beam.PCollection):
        (declared,), _ = make().get_type_hints().output_types
        assert declared == given.element_type != typehints.Any


SPEC = CountSpec("", ("*.parquet",), "text", TokenizerSpec("tokenizer.json", "ab", None, None, "text"), "auto")

SHOWN: dict[str, tuple[beam.PTransform[Any, Any], dict[str, Any]]] = {
    "ReadParquet": (ReadParquet("body"), {"text_column": "body"}),
    "Tokenize": (
        Tokenize("samples/tokenizer.json", max_tokens=9, add_eos=True, eos_token="<|eos|>"),
        {
            "tokenizer": "samples/tokenizer.json",
            "tokenizer_sha256": hashlib.sha256(Path("samples/tokenizer.json").read_bytes()).hexdigest(),
            "max_tokens": 9,
            "eos_id": 1,
            "special_tokens": "text",
            "engine": "auto",
        },
    ),
    "TokenBudget": (
        TokenBudget({"a": {"train": 7, "eval": 2}, "b": {"train": 1}}),
        {"datasets": 2, "tokens": 10},
    ),
    "WriteToArrayRecord": (
        WriteToArrayRecord("out/train", num_shards=2),
        {"file_pattern": "out/train-SSSSS-of-NNNNN.arecord", "num_shards": 2, "compression": "zstd", "group_size": 1},
    ),
    "WriteToArrayRecord, of a size": (
        WriteToArrayRecord("out/train", target_shard_size=9, compression="none", group_size=4),
        {
            "file_pattern": "out/train-SSSSS-of-NNNNN.arecord",
            "target_shard_size": 9,
            "compression": "none",
            "group_size": 4,
        },
    ),
    "CountTokens": (
        CountTokens({f"{name}{number}": SPEC for name in "ab" for number in range(6)}),
        {"sources": "a0, a1, a2, a3, a4, a5, b0, b1, b2, b3 and 2 more", "tokenizers": "tokenizer.json"},
    ),
    "EvaluateTokenizers": (
        EvaluateTokenizers({}, {"english": TextSource("english", ("*.parquet",), "text")}),
        {"tokenizers": "", "groups": "english"},
    ),
}


@pytest.mark.parametrize("name", SHOWN)
def test_the_runners_pages_show_what_a_step_does(name: str) -> None:
    transform, wanted = SHOWN[name]
    items = DisplayData.create_from(transform).items
    assert {item.key: item.value for item in items} == wanted
    assert all(item.label for item in items)
    for item in items:
        item.is_valid()


def test_budgets_that_come_with_the_elements_are_not_shown() -> None:
    budgets = beam.Pipeline() | beam.Create([("a", {"train": 1})])
    assert not DisplayData.create_from(TokenBudget(AsDict(budgets))).items


def test_a_step_without_a_type_is_found() -> None:
    assert not isinstance(registry.get_coder(Any), PLAIN)


def test_a_spec_keeps_the_order_of_its_splits_and_of_what_its_manifest_shows(tmp_path: Path) -> None:
    config = demo_config()
    tokenizer = load_config_tokenizer(config)
    specs = dataset_specs(config, list(config.datasets), tokenizer, output=str(tmp_path), engine="auto", overwrite=True)
    coder = registry.get_coder(DatasetSpec)
    for spec in specs:
        encoded = coder.encode(spec)
        found = coder.decode(encoded)
        assert found == spec
        assert list(found.budgets) == list(spec.budgets) == ["train", "eval"]
        assert json.dumps(found.config) == json.dumps(spec.config) != json.dumps(spec.config, sort_keys=True)
        assert json.loads(encoded)["name"] == spec.name
