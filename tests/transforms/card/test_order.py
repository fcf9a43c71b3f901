"""The order in which datasets are shown, from a config that lies in an output and may be anybody's."""

from __future__ import annotations

from pathlib import Path

import pytest

from transforms.card.order import config_order, in_config_order


def test_datasets_come_as_the_config_has_them(tmp_path: Path) -> None:
    (tmp_path / "mix.yaml").write_text("name: x\ndatasets:\n  web: {tokens: 1}\n  books: {tokens: 2}\n  2024: {}\n")
    found = {f"{tmp_path}/{name}": name for name in ("2024", "another", "books", "web", "zoo")}
    assert list(in_config_order(f"{tmp_path}/", found).values()) == ["web", "books", "2024", "another", "zoo"]


@pytest.mark.parametrize(
    "content",
    [b"", b"[", b"datasets: [a, b]", b"datasets: 7", b"- a", b"\xff", b"a: &a [*a]", b"x: y\n" * 300_000, None],
)
def test_what_is_no_config_orders_nothing(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "mix.yaml").write_bytes(content)
    assert sorted(["b", "a", "c"], key=config_order(str(tmp_path))) == ["a", "b", "c"]


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("datasets: {b: {}, a: {}}")
    (tmp_path / "mix.yaml").symlink_to(tmp_path / "elsewhere")
    assert sorted(["b", "a"], key=config_order(str(tmp_path))) == ["a", "b"]
