"""How a command ended, and whether a command may end so."""

from __future__ import annotations

import atexit
import contextlib
import functools
import html
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from tests.campaign.hostile_case import Outcome, Wrong
from tests.support.forks import ForkServer

#: seconds, for what ends in less than five
_MOST_S = 60
_MOST_LINE = 2000
_CONTROLS = frozenset({"Cc", "Cf", "Cs"})


@functools.cache
def _server() -> ForkServer:
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(ForkServer())


def _held(pid: int) -> int:
    """The most memory that a process has had, in bytes; 0 where it has ended."""
    with contextlib.suppress(OSError):
        if found := re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{pid}/status").read_text()):
            return int(found[1]) << 10
    return 0


def command(folder: Path, arguments: Sequence[str | Path], secrets: Sequence[str], page: Path | None = None) -> Outcome:
    """Runs `broetchen`; its output, and the text of `page`, have to be fit to be seen.

    Raises:
        Wrong: it hangs, crashes, or says something that it should not.
    """
    output, errors = folder / "stdout", folder / "stderr"
    with contextlib.chdir(folder):
        running = _server().start([str(argument) for argument in arguments], output=output, errors=errors)
    first = most = _held(running.pid)
    for _ in range(_MOST_S * 50):
        if running.poll(0.02) is not None:
            break
        most = max(most, _held(running.pid))
    else:
        running.kill()
        raise Wrong(f"hangs: no end after {_MOST_S} s")
    said, blamed = (path.read_bytes().decode("utf-8", "surrogateescape") for path in (output, errors))
    _check_ending(running.returncode, blamed, many=arguments[0] in ("verify", "train"))
    shown = page.read_text("utf-8", "surrogateescape") if page is not None and page.exists() else ""
    check_shown(said + blamed, secrets)
    check_shown(html.unescape(re.sub(r"<[^>]*>|data:image[^\"]*", "", shown)), secrets)
    if "<script" in shown:
        raise Wrong("the page has a script")
    return Outcome("built" if running.returncode == 0 else "error", blamed.strip(), most - first)


def _check_ending(code: int | None, blamed: str, *, many: bool) -> None:
    if code not in (0, 1, 2):
        raise Wrong(f"exit code {code}: {blamed[-1500:]}")
    if "Traceback" in blamed or re.search(r"broetchen: unexpected \w+", blamed):
        raise Wrong(f"not an error to show: {blamed[-1500:]}")
    lines = blamed.splitlines()
    if code and sum(line.startswith("broetchen: ") for line in lines) != 1:
        raise Wrong(f"not one error: {blamed[-1500:]}")
    if code and not many and not lines[-1].startswith("broetchen: "):
        raise Wrong(f"more than one line: {blamed[-1500:]}")
    if longest := [line for line in lines if len(line) > _MOST_LINE]:
        raise Wrong(f"a line of {len(longest[0]):,} characters: {longest[0][:500]}")


def check_shown(text: str, secrets: Sequence[str]) -> None:
    """Checks that a text steers no terminal, and says nothing of files outside the output.

    Raises:
        Wrong: it does.
    """
    found = {character for character in text if unicodedata.category(character) in _CONTROLS}
    if controls := found - set("\n\t\u200c\u200d\u00ad"):
        where = text.index(controls.pop())
        raise Wrong(f"a control character is shown: {text[max(0, where - 200) : where + 50]!r}")
    if told := [secret for secret in secrets if secret in text]:
        where = text.index(told[0])
        raise Wrong(f"{told[0]!r} is shown: {text[max(0, where - 300) : where + 100]!r}")
