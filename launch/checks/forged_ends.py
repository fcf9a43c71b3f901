"""Whether MaxText takes strings in texts for special tokens, so that a document ends where it does not. Without I/O.

With records of text MaxText tokenizes, and its tokenizer (`HFTokenizer` in `maxtext/input_pipeline/tokenizer.py`,
0.2.5) takes the string of a special token for the token, unless tokenizer_config.json says `split_special_tokens`. How
many documents hold such a string, a build has counted (`transforms.encoding.special_strings`).
"""

from __future__ import annotations

from collections.abc import Iterator

from launch.maxtext.tokenizer import TrainingTokenizer
from launch.mixture.datasets import Mixture
from transforms.errors import listed

ALLOW = "special_strings: allow"


def forged_ends(mixture: Mixture, tokenizer: TrainingTokenizer, *, evaluates: bool, allowed: bool) -> Iterator[str]:
    """The objections to training on text as MaxText tokenizes it, with advice; nothing for records of ids.

    Args:
        mixture: the datasets.
        tokenizer: as MaxText loads it.
        evaluates: whether the eval splits are read.
        allowed: whether it is meant so, and only to be said.
    """
    if mixture.records.format != "text" or tokenizer.splits_special_tokens:
        return
    splits = ("train", "eval") if evaluates else ("train",)
    holding, unknown = [], []
    for name, manifest in mixture.manifests.items():
        for split in splits:
            if (entry := manifest.splits.get(split)) is None:
                continue
            if entry.documents_with_special_strings is None:
                unknown.append(name)
            elif entry.documents_with_special_strings:
                holding.append(f"{name}, {split}: {entry.documents_with_special_strings:,} of {entry.documents:,}")
    if holding:
        yield (
            f"documents hold the string of a special token ({'; '.join(holding)}), and MaxText takes it for the token, "
            f"so that a text may end where it does not{_advice(allowed=allowed)}"
        )
    if unknown:
        names = list(dict.fromkeys(unknown))
        yield (
            f"the manifest of {listed(names)} does not say how many documents hold the string of a special token, "
            "which MaxText takes for the token: an earlier version has built it"
            f"{_advice('build it again', allowed=allowed)}"
        )
    if tokenizer.uncounted:
        yield (
            f"{tokenizer.folder}: its tokenizer_config.json makes special tokens of {listed(tokenizer.uncounted)}, and "
            "its tokenizer.json does not, so that no build has looked for their strings in texts"
            f"{_advice('leave them out there', allowed=allowed)}"
        )


def _advice(*first: str, allowed: bool) -> str:
    """The remedies, where there are any."""
    if allowed:
        return ""
    ways = [
        *first,
        "build the datasets with `records.format: tokens`, which takes such strings for text "
        "(`tokenizer.special_tokens: text`)",
        'name as `tokenizer` a copy of it with `"split_special_tokens": true` in its tokenizer_config.json, so that '
        "MaxText takes them for text",
        f"write `{ALLOW}` into `data`",
    ]
    return f"; {'; or '.join(ways)}"
