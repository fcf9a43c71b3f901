"""The demo: the recipe's five datasets in small, from corpora and a tokenizer that come with the package."""

from __future__ import annotations

from importlib.resources import files

from beam_pipelines.mix_config import MixConfig, load_config


def demo_config() -> MixConfig:
    """The config of the demo, `mix_configs/demo.yaml`."""
    return load_config(str(files("mix_configs") / "demo.yaml"))
