"""Mistakes of new users, by the command line: one clear message, its exit code, and no traceback."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.campaign.mistakes.cases import LOCAL, NETWORK, SERVICES, Mistake
from tests.campaign.mistakes.places import why_not
from tests.campaign.mistakes.trials import made, services, wrong
from tests.support.command import run_command

_LONG = [one for one in LOCAL if one.before or one.interrupted or one.place != "here"]
_QUICK = [one for one in LOCAL if one not in _LONG]
# Of each way to have no network one, and all that is asked over it.
_NO_NETWORK = [NETWORK[number] for number in (0, 5, 10, 15, 19)]


def by_name(mistakes: Sequence[Mistake]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("mistake", mistakes, ids=[one.name for one in mistakes])


@by_name(_QUICK)
def test_a_mistake_is_told(mistake: Mistake, tmp_path: Path) -> None:
    result = run_command(*mistake.make(tmp_path))
    assert not [*wrong(mistake, result.stderr, result.returncode)], result.stderr
    assert mistake.code == 1 or not (tmp_path / "out").exists(), "something was begun"


def test_all_that_is_wrong_with_sources_is_told_at_once(tmp_path: Path) -> None:
    config = tmp_path / "mix.yaml"
    (mistake,) = (one for one in LOCAL if one.name == "wrong text_column")
    mistake.make(tmp_path)
    config.write_text(config.read_text() + "  other: {tokens: 1, source: [no/such/*.parquet, /tmp]}\n")
    result = run_command("build", config, "--output", tmp_path / "out", "--dry-run", "--quiet")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 3, result.stderr
    for key in ("german.text_column: ", "other.source[0]: ", "other.source[1]: "):
        assert result.stderr.count(f"datasets.{key}") == 1, result.stderr


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with services(tmp_path_factory.mktemp("services")) as addresses:
        yield addresses


@pytest.mark.slow
@by_name(_LONG)
def test_a_mistake_that_takes_a_build_is_told(mistake: Mistake, tmp_path: Path, there: dict[str, str]) -> None:
    if reason := why_not(mistake.place):
        pytest.skip(reason)
    told = made(mistake, tmp_path, there)
    assert not told.wrong, told.message


@pytest.mark.slow
@by_name([*SERVICES, *_NO_NETWORK])
def test_what_a_service_answers_is_told(mistake: Mistake, tmp_path: Path, there: dict[str, str]) -> None:
    if reason := why_not(mistake.place):
        pytest.skip(reason)
    started = time.monotonic()
    told = made(mistake, tmp_path, there)
    assert not told.wrong, told.message
    # On a machine with other work all takes longer, and nothing takes the minutes that clients wait by themselves.
    assert time.monotonic() - started < 60
