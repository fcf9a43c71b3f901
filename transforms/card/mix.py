"""The mix that a card tells of: its config, and which datasets at an output are of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from transforms.card.seal import sealed
from transforms.dataset.manifest import Manifest

NAME = "mix.yaml"


@dataclasses.dataclass(frozen=True)
class CardMix:
    """The facts for a card, beside the manifests.

    Attributes:
        config: the mix config in plain JSON types, complete and in its order, as `mix.yaml` is to have it.
        decided: by the name of each dataset, `digest_of` the part of the config that decides its bytes.
        tokenizer_sha256: of its tokenizer.json.
    """

    config: Mapping[str, Any]
    decided: Mapping[str, str]
    tokenizer_sha256: str

    @property
    def name(self) -> str:
        return str(self.config["name"])

    @property
    def tokenizer_path(self) -> str:
        """Where the tokenizer lies, as seen from the card."""
        return f"tokenizer-{self.tokenizer_sha256[:12]}/tokenizer.json"

    @property
    def datasets(self) -> Mapping[str, Mapping[str, Any]]:
        """The config of each dataset, by name."""
        found: Mapping[str, Mapping[str, Any]] = self.config["datasets"]
        return found

    def has(self, name: str, manifest: Manifest) -> bool:
        """Whether the dataset in the folder of this name is the mix's, and not left there by another config."""
        return (
            manifest.mix == self.name
            and manifest.dataset == name
            and manifest.tokenizer.sha256 == self.tokenizer_sha256
            and digest_of(manifest.config) == self.decided.get(name)
        )


def digest_of(deciding: Mapping[str, Any]) -> str:
    """A SHA-256 that stands for the part of a config that decides a dataset's bytes, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def mix_text(mix: CardMix, versions: Sequence[str]) -> str:
    """The content of `mix.yaml`.

    Args:
        mix: the mix.
        versions: of Brötchen, by which its datasets were built.
    """
    head = (
        f"# The mix that built this folder, by Brötchen {', '.join(versions)}. It is complete: defaults are\n"
        "# spelled out, and settings of the command line are in it. To build the same again:\n"
        "#     broetchen build mix.yaml --output FOLDER\n"
        "# Relative sources start where the config lay that this was made of: mend them, or copy this file there.\n"
        f"{_of_tokenizer(mix)}"
    )
    body = yaml.safe_dump(
        json.loads(json.dumps(mix.config)), sort_keys=False, allow_unicode=True, width=120, default_flow_style=False
    )
    return sealed(head, body, "# {}")


def _of_tokenizer(mix: CardMix) -> str:
    if "revision" in mix.config["tokenizer"]:
        return f"# The tokenizer is the hub's, at its commit; a copy of it is {mix.tokenizer_path}.\n"
    return "# The tokenizer's path leads to the copy beside this file: copy its folder along.\n"
