"""A bound on a source by footers alone: whether it has the bytes that its budget takes, before any text is read."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable

from transforms.budget.repeats import REPEATED, exact
from transforms.parquet.footer import SourceFile
from transforms.quantities import format_short, format_size
from transforms.recipe.spec import DatasetSpec

_LOGGER = logging.getLogger(__name__)

# A token of a text stands for one of its bytes at least, BOS and EOS aside: the ids of bytes that have no other are the
# worst case. Only a normalizer that lengthens text makes more of it.
_LEAST_BYTES = 1
# German and English texts take 3.9 to 4.9 bytes with a vocabulary of 65,536 (mix_configs/README.md), and more rarely
# fewer than 3: tables of digits do, and scripts that a tokenizer does not know. So this is a hint, and no bound.
_FEW_BYTES = 3
# Of less text, a sample tells the same in a moment.
_GUESSED_BYTES = 64 << 20


def warn_of_footers(spec: DatasetSpec, source: Iterable[SourceFile]) -> None:
    """Warns of a source that can hardly hold its budget by the text that its footers tell of, or that cannot at all.

    Where parquet stores texts that repeat once, as a dictionary, footers tell of less than there is.
    """
    if spec.on_shortfall == "fail" and (what := footer_problem(spec, source)) is not None:
        _LOGGER.warning("dataset %s: %s", spec.name, what)


def footer_problem(spec: DatasetSpec, source: Iterable[SourceFile]) -> str | None:
    """A message about a source by its footers; None where it has a byte and more for each token that is wanted.

    Of a source of 64 MiB and more: 3 bytes.
    """
    groups = [group for file in source for group in file.row_groups if not group.ruled_out]
    rows, text_bytes = sum(group.rows for group in groups), sum(group.text_bytes for group in groups)
    added = sum(token is not None for token in (spec.records.bos_id, spec.records.eos_id))
    # Of the train split at least the tokens that make its budget when read as often as the config allows.
    once = math.ceil(spec.budgets[REPEATED] / exact(spec.max_repeats))
    wanted = once + sum(tokens for split, tokens in spec.budgets.items() if split != REPEATED) - added * rows
    if text_bytes >= (_FEW_BYTES if text_bytes >= _GUESSED_BYTES else _LEAST_BYTES) * wanted:
        return None
    held = f"by its footers the source has {format_size(text_bytes)} of text in {rows:,} rows for"
    needs = f"{format_short(wanted)} tokens{', repeated as often as max_repeats allows' * (spec.max_repeats > 1)}"
    if text_bytes < _LEAST_BYTES * wanted:
        return (
            f"{held} {needs}, and a token takes a byte at least: it will lack "
            f"{format_short(wanted - text_bytes // _LEAST_BYTES)} or more; name more files, or lower the budget"
        )
    return (
        f"{held} {needs}, {text_bytes / wanted:.1f} bytes each, and a token mostly takes {_FEW_BYTES} or more: it will "
        "probably fall short; name more files, or lower the budget"
    )
