"""A build that must end ends, whether its process heeds Ctrl-C or not, and tells why; and nothing else is disturbed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

import pytest

from transforms.errors import BroetchenError
from transforms.locks.interruption import Interruption, interruptible

Handler = Callable[[int, FrameType | None], None] | signal.Handlers


@contextlib.contextmanager
def handled(number: signal.Signals, handler: Handler) -> Iterator[None]:
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def call_from_elsewhere(interruption: Interruption) -> None:
    thread = threading.Thread(target=interruption)
    thread.start()
    thread.join()


def wait_for_the_end() -> None:
    threading.Event().wait(10)
    pytest.fail("still at work")


def custom(number: int, frame: FrameType | None) -> None:
    pytest.fail("a caller's handler of Ctrl-C was called, and nobody has pressed it")


@pytest.mark.parametrize("on_ctrl_c", [signal.default_int_handler, signal.SIG_IGN, signal.SIG_DFL, custom])
def test_it_ends_a_wait_whatever_ctrl_c_does(on_ctrl_c: Handler) -> None:
    """`command &` in a script ignores SIGINT, and a service may have a handler of its own."""
    reason = BroetchenError("the lock is lost")

    def work(interruption: Interruption) -> None:
        assert interruption.in_main_thread is True
        assert interruption.called is False
        threading.Timer(0.01, interruption).start()
        wait_for_the_end()

    with handled(signal.SIGINT, on_ctrl_c):
        with pytest.raises(BroetchenError) as raised, interruptible(reason) as interruption:
            work(interruption)
        assert signal.getsignal(signal.SIGINT) is on_ctrl_c
    assert raised.value is reason
    assert isinstance(reason.__cause__, KeyboardInterrupt)
    assert interruption.called is True


def test_ctrl_c_stays_ignored_where_it_is() -> None:
    with handled(signal.SIGINT, signal.SIG_IGN), interruptible(BroetchenError("the lock is lost")):
        os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_is_no_loss_of_the_lock() -> None:
    def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        wait_for_the_end()

    with (
        handled(signal.SIGINT, signal.default_int_handler),
        pytest.raises(KeyboardInterrupt),
        interruptible(BroetchenError("the lock is lost")),
    ):
        work()


def test_a_block_that_nobody_interrupts_ends_as_it_ends() -> None:
    with interruptible(BroetchenError("the lock is lost")) as interruption:
        pass
    assert interruption.called is False
    with pytest.raises(ValueError, match="of the block"), interruptible(BroetchenError("the lock is lost")):
        raise ValueError("of the block")


def test_the_reason_is_told_whatever_the_interrupt_became() -> None:
    """Beam makes a RuntimeError of an interrupt in a step."""
    reason, wrapped = BroetchenError("the lock is lost"), RuntimeError("while running a step")

    def work(interruption: Interruption) -> None:
        try:
            call_from_elsewhere(interruption)
            wait_for_the_end()
        except KeyboardInterrupt:
            raise wrapped from None

    with pytest.raises(BroetchenError, match="the lock is lost"), interruptible(reason) as interruption:
        work(interruption)
    assert reason.__cause__ is wrapped


def test_an_interrupt_that_is_swallowed_is_told_at_the_end() -> None:
    done = []

    def work(interruption: Interruption) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            call_from_elsewhere(interruption)
            wait_for_the_end()
        done.append("the rest")

    with (
        pytest.raises(BroetchenError, match="is lost"),
        interruptible(BroetchenError("the lock is lost")) as interruption,
    ):
        work(interruption)
    assert done == ["the rest"]


def test_outside_of_the_main_thread_the_block_goes_on_to_its_end() -> None:
    done: list[object] = []

    def work() -> None:
        with interruptible(BroetchenError("the lock is lost")) as interruption:
            assert interruption.in_main_thread is False
            interruption()
            done.append("all of it")

    with (
        handled(signal.SIGURG, lambda number, _: done.append(number)),
        ThreadPoolExecutor(1) as pool,
        pytest.raises(BroetchenError, match="the lock is lost") as raised,
    ):
        pool.submit(work).result(60)
    assert done == ["all of it"]
    assert raised.value.__cause__ is None


def test_outside_of_the_main_thread_a_block_that_nobody_interrupts_ends_as_it_ends() -> None:
    def work() -> str:
        with interruptible(BroetchenError("the lock is lost")):
            return "done"

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result(60) == "done"


@pytest.mark.parametrize("called", ["outer", "inner"])
def test_of_two_blocks_the_one_that_is_called_ends(called: str) -> None:
    """A build watches over its lock and, inside of that, over its worker processes."""
    seen = []

    def work(outer: Interruption) -> None:
        try:
            with interruptible(BroetchenError("the inner one")) as inner:
                call_from_elsewhere({"outer": outer, "inner": inner}[called])
                wait_for_the_end()
        except BaseException as error:
            seen.append(type(error))
            raise

    with (
        pytest.raises(BroetchenError, match=f"the {called} one"),
        interruptible(BroetchenError("the outer one")) as outer,
    ):
        work(outer)
    assert seen == [KeyboardInterrupt if called == "outer" else BroetchenError]


def test_after_the_block_a_call_disturbs_nobody() -> None:
    with interruptible(BroetchenError("the lock is lost")) as interruption:
        pass
    call_from_elsewhere(interruption)
    assert interruption.called is True
    with interruptible(BroetchenError("the next lock is lost")):
        call_from_elsewhere(interruption)


def test_the_signal_of_others_is_theirs() -> None:
    """SIGURG also says that a socket has urgent data, to processes that asked for it."""
    received = []
    with handled(signal.SIGURG, lambda number, frame: received.append((number, frame is None))):
        before = signal.getsignal(signal.SIGURG)
        with interruptible(BroetchenError("the lock is lost")):
            os.kill(os.getpid(), signal.SIGURG)
        assert signal.getsignal(signal.SIGURG) is before
    assert received == [(signal.SIGURG, False)]
    with handled(signal.SIGURG, signal.SIG_IGN):
        with interruptible(BroetchenError("the lock is lost")):
            os.kill(os.getpid(), signal.SIGURG)
        assert signal.getsignal(signal.SIGURG) is signal.SIG_IGN


def test_a_handler_that_python_does_not_know_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a program in Go, which uses this signal for itself, has Python built into it."""
    with monkeypatch.context() as patch:
        patch.setattr(signal, "getsignal", lambda _: None)
        with interruptible(BroetchenError("the lock is lost")):
            os.kill(os.getpid(), signal.SIGURG)
    assert signal.getsignal(signal.SIGURG) is signal.SIG_DFL


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells which signals a process ignores")
def test_processes_that_are_started_inherit_what_they_did() -> None:
    """Beam starts its workers by a command: Ctrl-C ends them or not, as without a lock."""

    def ignored_by_a_child() -> int:
        status = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
        return int(status.partition("SigIgn:")[2].split()[0], 16)

    with handled(signal.SIGINT, signal.SIG_IGN):
        before = ignored_by_a_child()
        with interruptible(BroetchenError("the lock is lost")):
            assert ignored_by_a_child() == before
    assert before & 1 << signal.SIGINT - 1
    with handled(signal.SIGINT, signal.default_int_handler), interruptible(BroetchenError("the lock is lost")):
        assert ignored_by_a_child() & 1 << signal.SIGINT - 1 == 0
