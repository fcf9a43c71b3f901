"""A manifest of text counts the documents with the string of a special token, as they are written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.corpora import write_parquet
from tests.support.killed_builds import tree
from tests.support.reading import read_texts
from tests.transforms.building.conftest import Build, MakeBuild, corpus, make_build
from transforms.arrayrecord.records import Format
from transforms.building.shard import build_shard
from transforms.dataset.consistency import manifest_problems, unchecked_of
from transforms.dataset.manifest import Manifest, SplitEntry, manifest_path, read_manifest, write_manifest
from transforms.dataset.verify import shard_checks, shard_problems

__all__ = ["corpus", "make_build"]

# A byte is a token, and each row group a shard: of 16, 18, 16 and 21 tokens.
ROWS = (
    (("a<|eos|>b", "plain", "<|"), ("<|bos|><|eos|>", "none")),
    (("eos|>", "x<|eos|>yzzz"), ("0123456789", "4567890", "<|e8")),
)
TEXT: tuple[Format, ...] = ("text", "parquet")
NO = None


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for number, row_groups in enumerate(ROWS):
        write_parquet(tmp_path / "source" / "a" / f"{number}.parquet", row_groups)
    return tmp_path / "source"


def sizes(train: int, evaluation: int) -> dict[str, Any]:
    return {"tokens": train, "eval_tokens": evaluation}


def counted(manifest: Manifest) -> dict[str, list[int | None]]:
    """The number of each shard, and last that of the split, by split."""
    return {
        name: [*(shard.documents_with_special_strings for shard in split.shards), split.documents_with_special_strings]
        for name, split in manifest.splits.items()
    }


def without_counts(manifest: Manifest) -> Manifest:
    """As an earlier version has written it."""

    def plain(part: Any, **others: Any) -> Any:
        left = {key: getattr(part, key) for key in part.model_fields_set - {"documents_with_special_strings"}}
        return type(part)(**left | others)

    def bare(split: SplitEntry) -> Any:
        return plain(split, shards=[plain(shard) for shard in split.shards])

    return plain(manifest, splits={name: bare(split) for name, split in manifest.splits.items()})


def problems(build: Build, manifest: Manifest) -> list[str]:
    folder = str(build.folder)
    found = [problem for check in shard_checks(folder, manifest, "tokenizers") for problem in shard_problems(check)]
    return [*manifest_problems(folder, manifest), *found]


@pytest.mark.parametrize("written", TEXT)
def test_documents_are_counted_by_shard_and_split(make_build: MakeBuild, source: Path, written: Format) -> None:
    # Train ends in the third shard, within its second document and before the string there is whole.
    build = make_build(written, source, dataset=sizes(34 + 8, 22))
    manifest = build.run()
    assert counted(manifest) == {"train": [1, 1, 0, 2], "eval": [0, 0, 0]}
    assert problems(build, manifest) == []
    assert unchecked_of("", manifest) == []
    # As before, but for a character more, with which it is.
    longer = make_build(written, source, output=f"{source}/longer", dataset=sizes(34 + 13, 22)).run()
    assert counted(longer) == {"train": [1, 1, 1, 3], "eval": [0, 0, 0]}


def test_the_rest_of_a_document_counts_where_it_is_written(make_build: MakeBuild, source: Path) -> None:
    build = make_build("text", source, dataset=sizes(34 + 6, 22))
    assert counted(build.run()) == {"train": [1, 1, 0, 2], "eval": [1, 0, 1]}
    assert read_texts(build.folder, "eval")[0] == "<|eos|>yzzz"


def test_ids_have_no_such_count(make_build: MakeBuild, source: Path) -> None:
    build = make_build("tokens", source, dataset=sizes(34, 22))
    manifest = build.run()
    assert counted(manifest) == {"train": [NO] * (len(manifest.splits["train"].shards) + 1), "eval": [NO] * 3}
    assert "special_strings" not in Path(manifest_path(str(build.folder))).read_text()
    assert unchecked_of("", manifest) == []


@pytest.mark.parametrize("written", TEXT)
def test_a_wrong_count_is_found(make_build: MakeBuild, source: Path, written: Format) -> None:
    build = make_build(written, source, dataset=sizes(34, 22))
    manifest = build.run()
    split = manifest.splits["train"]

    def changed(total: int | None, *shards: int | None) -> list[str]:
        entries = [
            shard.model_copy(update={"documents_with_special_strings": count})
            for shard, count in zip(split.shards, shards, strict=True)
        ]
        update = {"documents_with_special_strings": total, "shards": entries}
        return problems(build, manifest.model_copy(update={"splits": {"train": split.model_copy(update=update)}}))

    def said(found: Sequence[str], what: str) -> bool:
        return any(what in problem for problem in found)

    assert said(changed(1, 0, 1), "1 documents hold the string of a special token, not 0")
    assert said(changed(3, 1, 1), "train adds up to 2 documents with the string of a special token, and the manifest")
    assert said(changed(None, 1, 1), "train adds up to 2 documents")
    assert said(changed(1, 1, None), "train adds up to 1 documents")
    assert not said(changed(2, 1, 1), "special")


def test_what_an_earlier_version_did_not_count_is_said(make_build: MakeBuild, source: Path) -> None:
    build = make_build("text", source, dataset=sizes(34, 22))
    old = without_counts(build.run())
    write_manifest(build.spec.folder, old)
    read = read_manifest(build.spec.folder)
    assert read is not None
    assert counted(read) == {"train": [NO] * 3, "eval": [NO] * 3}
    assert problems(build, old) == []
    assert "how many documents hold the string of a special token" in unchecked_of("", old)[0]


@pytest.mark.parametrize("written", TEXT)
@pytest.mark.parametrize("told", [True, False])
def test_what_is_taken_over_has_the_counts_of_a_fresh_build(
    make_build: MakeBuild, source: Path, tmp_path: Path, written: Format, told: bool
) -> None:
    old = make_build(written, source, output=str(tmp_path / "old"), dataset=sizes(45, 5))
    manifest = old.run()
    if not told:
        write_manifest(old.spec.folder, without_counts(manifest))
    new = make_build(written, source, output=str(tmp_path / "new"), dataset=sizes(60, 5))
    new = new.changed(grow=str(tmp_path / "old"))
    assert [count.ordinal for count in new.tokenize() if not count.has_rows]
    new.run()
    fresh = make_build(written, source, output=str(tmp_path / "fresh"), dataset=sizes(60, 5))
    fresh.run()
    assert tree(new.folder) == tree(fresh.folder)


def test_work_of_an_earlier_version_is_done_again(make_build: MakeBuild, source: Path, tmp_path: Path) -> None:
    """Its counts lack the number, and are whole: nothing is damaged."""
    build = make_build("text", source, dataset=sizes(34, 22))
    counts = build.tokenize()
    path = Path(build.plan.work_folder) / "shard-00000.json"
    older = json.loads(path.read_bytes())
    del older["with_special"], older["seal"]
    content = json.dumps(older, separators=(",", ":"), ensure_ascii=False)
    seal = hashlib.sha256(content.encode()).hexdigest()
    path.write_text(f'{content[:-1]},"seal":"{seal}"}}')
    again = build_shard(build.spec, build.plan.task(0, None))
    assert again.with_special == 1
    assert again.attempt != counts[0].attempt
    assert build.work.finished(0) == again
    manifest = build.run()
    fresh = make_build("text", source, output=str(tmp_path / "fresh"), dataset=sizes(34, 22))
    assert manifest == fresh.run()
    assert tree(build.folder) == tree(fresh.folder)


def test_ids_of_an_earlier_version_are_taken_as_they_are(make_build: MakeBuild, source: Path) -> None:
    build = make_build("tokens", source, dataset=sizes(34, 22))
    first = build.tokenize()[0]
    assert first.with_special is None
    assert build_shard(build.spec, build.plan.task(0, None)) == first
