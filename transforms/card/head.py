"""The head of a card: YAML by which the hub files a dataset, as its documentation of dataset cards has it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

# https://huggingface.co/docs/hub/repositories-licenses: the hub refuses a card with another.
_LICENSES = frozenset(
    """
    afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0 bigscience-openrail-m bsd
    bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0
    cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0
    cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0
    creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 gemma gfdl gpl gpl-2.0
    gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail
    openrail++ osl-3.0 other pddl postgresql unknown unlicense wtfpl zlib
    """.split()  # noqa: SIM905 (one a line would be sixty)
)
_SPDX = {"odc-by-1.0": "odc-by", "odbl-1.0": "odbl", "pddl-1.0": "pddl"}
_MOST_DIGITS = 12


def head_text(
    name: str,
    datasets: Mapping[str, Mapping[str, Any]],
    *,
    records: int,
    record_format: str,
    splits: Mapping[str, Sequence[str]],
) -> str:
    """The head, between its two lines of dashes.

    Args:
        name: of the mix.
        datasets: the config of each dataset that is there; its `license` and `language`, where it has them, are used.
        records: of all splits.
        record_format: of the mix, `records.format`.
        splits: the names of each dataset's.
    """
    parquet = record_format == "parquet"
    kind = {"parquet": "parquet", "megatron": "megatron"}.get(record_format, "arrayrecord")
    head: dict[str, Any] = {}
    # A license of some of the datasets would be taken for one of all.
    licenses = [str(dataset["license"]) for dataset in datasets.values() if dataset.get("license")]
    if licenses and len(licenses) == len(datasets):
        head |= _license(licenses)
    if languages := _once(code for dataset in datasets.values() for code in dataset.get("language") or ()):
        head["language"] = languages
    head["pretty_name"] = name
    head["size_categories"] = [size_category(records)]
    head["task_categories"] = ["text-generation"]
    head["tags"] = ["broetchen", "pretraining", kind]
    if parquet:
        head["configs"] = [
            {
                "config_name": dataset,
                "data_files": [{"split": split, "path": f"{dataset}/{split}-*.parquet"} for split in splits[dataset]],
            }
            for dataset in datasets
        ]
    else:
        # The hub reads neither ArrayRecord nor Megatron's format: it would show the manifests, which are JSON.
        head["viewer"] = False
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=120)}---\n"


def size_category(records: int) -> str:
    """The hub's name for so many records.

    >>> [size_category(records) for records in (0, 999, 1000, 12_345, 10**12)]
    ['n<1K', 'n<1K', '1K<n<10K', '10K<n<100K', 'n>1T']
    """
    digits = len(str(records)) - 1
    if digits < 3:
        return "n<1K"
    if digits >= _MOST_DIGITS:
        return "n>1T"
    return f"{_power(digits)}<n<{_power(digits + 1)}"


def _power(digits: int) -> str:
    return f"{10 ** (digits % 3)}{'?KMBT'[digits // 3]}"


def _license(named: Sequence[str]) -> dict[str, Any]:
    known = [_SPDX.get(name.lower(), name.lower()) for name in named]
    found = _once(name if name in _LICENSES else "other" for name in known)
    head: dict[str, Any] = {"license": found[0] if len(found) == 1 else found}
    if others := _once(name for name in known if name not in _LICENSES):
        head["license_name"] = "-and-".join(re.sub(r"[^a-z0-9.]+", "-", name).strip("-.") for name in others)
    return head


def _once(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
