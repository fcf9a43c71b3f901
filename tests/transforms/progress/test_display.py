"""The display of a work, on a terminal and elsewhere."""

from __future__ import annotations

import io
import logging
import threading
import time

import pytest
from rich.console import Console

from transforms.progress.display import BYTES, TOKENS, Frame, Meter, Row, bar, counted, display


def plain() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=200)


def test_a_rate_is_that_of_this_run_and_of_the_time_in_which_it_works() -> None:
    meter = Meter()
    for second in range(100):  # planning, with what an earlier build has done
        meter.tell(second, 1_000)
    meter.tell(101, 1_050)
    meter.tell(103, 1_150)
    assert meter.rate() == pytest.approx(150 / 4)


def test_a_rate_follows_the_last_minutes() -> None:
    meter = Meter()
    for second in range(1000):
        meter.tell(second, second * 10 if second < 500 else 5000 + (second - 500) * 2)
    assert meter.rate() == pytest.approx(2)
    meter.tell(1000, 0)  # a worker is lost
    assert meter.rate() is None


def test_lines_where_there_is_no_terminal(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO)
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with display("build", TOKENS, console=plain(), quiet=False, first="planning") as shown:
        assert caplog.messages == ["build: planning"]
        for second, done in ((1.0, 0), (2.0, 100), (20.0, 1900), (32.0, 3100)):
            clock[0] = second
            part = Row("a", done, 4000, "3.1K tokens, published", ended=done == 3100)
            shown.show(Frame("encoding", Row("all", done, 4000), [part], work=done))
    assert caplog.messages == [
        "build: planning",
        "build: encoding",
        "a: 3.1K tokens, published",
        "build: 3.10K of 4.00K tokens (78 %), 100 tok/s, 10 s left",
    ]


def test_bars_on_a_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with display("build", TOKENS, console=console, quiet=False, first="planning [b]") as shown:
        shown.show(Frame("encoding", Row("all", 40, 100, "encoding"), [Row("a[b]", 40, 100, "[x] shards")]))
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "planning [b]" in said
    assert "a[b]" in said
    assert "[x] shards" in said
    assert "40 %" in said


def test_quiet_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with bar("reading", 10, BYTES, console=console, quiet=True) as shown:
        shown.advance(10)
        shown.state("merging")
    assert (console.file.getvalue(), caplog.messages) == ("", [])  # type: ignore[attr-defined]


def test_a_bar_of_one_process(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with bar("drawing", 30, counted("records"), console=plain(), quiet=False) as shown:

        def count() -> None:
            for _ in range(10):
                shown.advance(1)

        threads = [threading.Thread(target=count) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        shown.state("writing")
    assert caplog.messages == ["drawing", "drawing: writing"]
    assert shown._done == 30


def test_a_look_that_fails_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    looks = iter([ValueError(), OSError()])

    def look() -> Frame:
        if (error := next(looks, None)) is not None:
            raise error
        return Frame("reading", Row("reading", 1, 1))

    with display("verify", TOKENS, console=plain(), quiet=False) as shown, shown.follow(look, 0.01):
        for _ in range(500):
            if caplog.messages:
                break
            threading.Event().wait(0.01)
    assert caplog.messages == ["verify: reading"]
