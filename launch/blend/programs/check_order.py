"""Run by the trainer's Python, before it trains: `check_order.py [--without-shards] FOLDER DIGEST [ARGUMENT…]`.

Checks that the order in FOLDER is the one that was asked for, that no byte of its files has changed, and that MaxText
will follow it: MaxText 0.2.5 replaces files that it does not like by an order of its own, and says so in its log alone.
It asks MaxText's own functions, with the paths of this machine. Then it becomes `python ARGUMENT…`, which trains; where
something is wrong, it ends with status 3, and says what.

`--without-shards`: for a machine that has FOLDER, and not the shards.

It imports nothing of Brötchen's, which the machines that train do not have.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

STATUS = 3
"""How it ends where the order is not to be followed."""

_MOST_BYTES = 256 << 20
_MARGIN = 0.5  # MaxText's `blend_margin`


class WrongOrder(Exception):
    """The order is not there, or MaxText would not follow it."""


def check(folder: Path, digest: str, *, with_shards: bool) -> str:
    """Checks an order, and answers with the findings.

    Raises:
        WrongOrder: it is not the one, or MaxText would not follow it.
    """
    blend = _read(folder, digest)
    for file in blend["files"]:
        _check_file(folder, file)
    plan = blend["plan"]
    found = []
    for split, of_split in plan["splits"].items():
        lengths = [
            _check_indices(folder, plan, split, of_split, number, with_shards=with_shards)
            for number in range(len(of_split["datasets"]))
        ]
        _check_schedule(folder, split, of_split, lengths)
        found.append(f"{split}: {of_split['sequences']:,} sequences of {len(lengths)} datasets")
    return "; ".join(found)


def _read(folder: Path, digest: str) -> Any:
    path = folder / "blend.json"
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise WrongOrder(f"{path} is no order")
        blend = json.loads(path.read_bytes())
        text = json.dumps(blend["plan"], sort_keys=True, separators=(",", ":"))
        names = {file["file"] for file in blend["files"]}
        # A schedule takes two files, and each dataset three.
        wanted = sum(2 + 3 * len(split["datasets"]) for split in blend["plan"]["splits"].values())
    except FileNotFoundError as error:
        raise WrongOrder(f"{path} is not there, so that there is no order to follow") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WrongOrder(f"{path} cannot be read: {error}") from error
    if len(names) != wanted:
        raise WrongOrder(f"{path} names {len(names)} files, and such an order has {wanted}")
    if hashlib.sha256(text.encode()).hexdigest() != digest:
        raise WrongOrder(f"{path} is of another order than this training wants")
    return blend


def _check_file(folder: Path, file: Any) -> None:
    path = folder / file["file"]
    digest = hashlib.sha256()
    try:
        size = path.stat().st_size
        if size == file["bytes"]:
            with path.open("rb") as content:
                while block := content.read(8 << 20):
                    digest.update(block)
    except OSError as error:
        raise WrongOrder(f"{path} cannot be read: {error}") from error
    if size != file["bytes"]:
        raise WrongOrder(f"{path} has {size:,} bytes, and was written with {file['bytes']:,}")
    if digest.hexdigest() != file["sha256"]:
        raise WrongOrder(f"{path} was changed since it was written: its SHA-256 is another")


def _check_indices(folder: Path, plan: Any, split: str, of_split: Any, number: int, *, with_shards: bool) -> int:
    """How many sequences MaxText will find in a dataset."""
    import numpy as np
    from maxtext.input_pipeline import _mmap_index_utils as utils
    from maxtext.input_pipeline._mmap_datasource import _discover_npy_indices, _parse_weighted_mixture

    one = of_split["datasets"][number]
    prefixes = [os.path.join(one["located"], shard["stem"]) for shard in one["shards"]]
    tokens = one["tokens"]
    if with_shards:
        try:
            found = utils.resolve_shard_prefixes(prefixes)
            tokens = utils.get_total_tokens(found)
            documents = utils.get_num_documents(found)
        except (OSError, ValueError) as error:
            raise WrongOrder(f"{one['located']}: a shard of {one['name']} cannot be read: {error}") from error
        wanted = sum(shard["documents"] for shard in one["shards"])
        if (tokens, documents) != (one["tokens"], wanted):
            raise WrongOrder(
                f"{one['located']}: the {split} shards of {one['name']} have {tokens:,} tokens in {documents:,} "
                f"documents, and the order is of {one['tokens']:,} in {wanted:,}"
            )
        if prefixes != sorted(prefixes):
            raise WrongOrder(f"{one['located']}: MaxText reads the shards of {one['name']} in another order")
        prefixes = found
    needed = of_split["sequences"]
    if len(of_split["datasets"]) > 1:
        named = ";".join(f"{other['name']},{other['sequences']}" for other in of_split["datasets"])
        _, weights = _parse_weighted_mixture(named, "mmap_npy")
        needed = utils.compute_blend_buffers(needed, weights, _MARGIN)[number]
    epochs = utils.compute_num_epochs(tokens, needed, plan["length"])
    apart = utils.should_separate_last_epoch(epochs, tokens, needed, plan["length"])
    name = utils.compute_index_hash(
        input_paths=sorted(prefixes),
        num_epochs=epochs,
        separate_final_epoch=apart,
        seed=plan["seed"],
        seq_length=plan["length"],
    )
    below = folder / split / one["name"]
    try:
        _, starts, order = _discover_npy_indices(str(below), expected_hash=name)
        rows = np.load(starts, allow_pickle=False, mmap_mode="r").shape
        length = int(np.load(order, allow_pickle=False, mmap_mode="r").shape[0])
    except (OSError, ValueError) as error:
        raise WrongOrder(
            f"{below}: MaxText does not find its files, and would make an order of its own: {error}"
        ) from error
    if length != one["sequences"] or len(rows) != 2 or rows[0] <= length:
        raise WrongOrder(f"{below}: has {length:,} sequences, and not {one['sequences']:,}")
    return length


def _check_schedule(folder: Path, split: str, of_split: Any, lengths: list[int]) -> None:
    import numpy as np
    from maxtext.input_pipeline import _megatron_blending as blending

    size = of_split["sequences"]
    try:
        pair = blending._find_index_pair_in_dir(str(folder), split)
        arrays = [np.load(path, allow_pickle=False, mmap_mode="r") for path in pair]
        blending._validate_indices(*arrays, lengths, size)
    except (OSError, ValueError) as error:
        raise WrongOrder(
            f"{folder}: MaxText does not take the schedule of {split}, and would follow one of its own: {error}"
        ) from error
    # MaxText holds these files in the end, and nothing that it has made.
    source = blending.MegatronBlendedDataSource(
        map_datasets=[None] * len(lengths),
        weights=[one["sequences"] for one in of_split["datasets"]],
        size=size,
        dataset_lengths=lengths,
        blend_index_dir=str(folder),
        split=split,
    )
    for held, path in zip((source._dataset_index, source._dataset_sample_index), pair, strict=True):
        if not isinstance(held, np.memmap) or Path(str(held.filename)).resolve() != Path(path).resolve():
            raise WrongOrder(f"{path}: MaxText follows a schedule of its own")


def main() -> None:
    """See the module."""
    _, *arguments = sys.argv
    with_shards = arguments[0] != "--without-shards"
    folder, digest, *command = arguments if with_shards else arguments[1:]
    try:
        found = check(Path(folder), digest, with_shards=with_shards)
    except WrongOrder as error:
        what = f"the exact order cannot be followed: {error}; delete {folder}, and start the run again"
        print(f"broetchen: {what}", file=sys.stderr, flush=True)
        sys.exit(STATUS)
    print(f"broetchen: the exact order is whole, and MaxText takes it: {found}", flush=True)
    if command:
        os.execv(sys.executable, [sys.executable, *command])


if __name__ == "__main__":
    main()
