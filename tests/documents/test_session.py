"""How a document's blocks are found, run and compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.documents.session import Block, Session, blocks_of, with_outputs

DOCUMENT = """\
Words.

```
echo one \\
  two
cat > file <<'END'
echo three
END
```

```text
one two
```

```
wc -c file
```

<!-- varies: ^\\d+ -->
```text
7 file
```

```yaml
not: run
```

```
cd folder
pwd
```
"""


def test_blocks_and_what_they_show() -> None:
    blocks = blocks_of(DOCUMENT)
    assert [block.shown for block in blocks] == ["one two\n", "7 file\n", None]
    assert [block.varies for block in blocks] == [None, r"^\d+", None]


def test_blocks_run_in_order_and_in_one_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    session = Session(tmp_path)
    printed = [session.run(block) for block in blocks_of(DOCUMENT)]
    assert printed == ["one two\n", "11 file\n", "…/folder\n"]
    assert [block.agrees(output) for block, output in zip(blocks_of(DOCUMENT), printed, strict=True)] == [True] * 3
    assert with_outputs(DOCUMENT, printed) == DOCUMENT
    changed = with_outputs(DOCUMENT, ["one\n", *printed[1:]])
    assert changed == DOCUMENT.replace("one two\n```\n\n```\nwc", "one\n```\n\n```\nwc")


def test_a_command_that_fails_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="false\nended with 1"):
        Session(tmp_path).run(Block("true\nfalse\n", None, None))
    with pytest.raises(AssertionError, match=r"(?s)broetchen plan .*ended with 2: .*there\.yaml"):
        Session(tmp_path).run(Block("broetchen plan not-there.yaml\n", None, None))


@pytest.mark.parametrize(
    ("shown", "printed", "agrees"),
    [
        ("30 tokens in 1.5 s (2.0 Mtok/s)", "30 tokens in 12 s (0.1 Mtok/s)", True),
        ("a   1 s\n─────\nb", "a  10 s\n──────\nb  ", True),
        ("30 tokens in 1.5 s", "31 tokens in 1.5 s", False),
        ("3 shards", "4 shards", False),
        ("one\ntwo", "one", False),
        ("off by 3e-06", "off by 1e-05", True),
    ],
)
def test_what_may_differ(shown: str, printed: str, agrees: bool) -> None:
    assert Block("", shown, r"by \S+").agrees(printed) == agrees
