"""Makes the pictures of docs/pictures/: `make pictures`, or `python -m tests.documents.pictures [NAME …]` for some.

Terminals are recorded from one of their own. So that a build can be watched, its corpora are those of the benchmarks,
made of the samples. The report's pages are what Chromium shows of them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.harness.corpus import CorpusSpec, make_corpus
from tests.documents import screen
from tests.documents.session import log
from tests.support.command import run_command, shown_on_terminal
from tests.support.corpora import SAMPLES
from tests.support.documents import ROOT

FOLDER = ROOT / "docs" / "pictures"
COLUMNS = 112
_TEXT_MB = 60
BUILD = "broetchen build my-mix.yaml --output my-mix"
# The bar of all datasets, between 30 and 79 %.
_HALF = r"(?m)^all.* [3-7]\d ?%"
_PROMPT = "\x1b[1;32m$\x1b[0m "

_MIX = """\
name: my-mix
tokenizer: {path: tokenizer.json, eos_token: <|eos|>}
total_tokens: 20M
records: {max_tokens: 2048, add_eos: true}
shards: {target_size: 4MiB}
datasets:
  german: {share: 60%, eval_tokens: 10K, source: german/*.parquet}
  english: {share: 40%, eval_tokens: 10K, source: english/*.parquet}
"""


def corpora(folder: Path) -> None:
    """Writes a mix config into the folder, its tokenizer, and two corpora of some 14 million tokens each."""
    for name, sample in (("german", "fineweb2_german"), ("english", "fineweb_english")):
        samples = folder / "samples-of" / name
        samples.mkdir(parents=True)
        (samples / sample).symlink_to(SAMPLES / "corpora" / sample)
        corpus = make_corpus(samples, folder / "made", CorpusSpec(_TEXT_MB, files=8))
        corpus.directory.rename(folder / name)
    shutil.copy(SAMPLES / "tokenizer.json", folder)
    (folder / "my-mix.yaml").write_text(_MIX, encoding="utf-8")


def typed(command: str) -> str:
    return f"{_PROMPT}\x1b[1m{command}\x1b[0m"


def session(command: str, *, until: str | None = None, interrupt_at: str | None = None) -> list[str]:
    """The lines of a command and its screen, at its end or as soon as a regular expression matches the screen.

    Raises:
        RuntimeError: the command has never shown the text at which to leave or interrupt it.
    """
    _, shown = shown_on_terminal(*command.split()[1:], columns=COLUMNS, interrupt_at=interrupt_at)
    found = list(screen.states(shown))
    if awaited := until or interrupt_at:
        matching = [lines for lines in found if re.search(awaited, screen.plain(lines))]
        if not matching:
            raise RuntimeError(f"{command} never showed {awaited}: {screen.plain(found[-1])}")
        found = matching[:1] if until else found
    lines = found[-1]
    while lines and not screen.plain(lines[-1:]).strip():
        lines = lines[:-1]
    return [typed(command), *lines]


def demo(folder: Path) -> list[str]:
    return session("broetchen demo")


def build(folder: Path) -> list[str]:
    return session(BUILD, until=_HALF)


def resume(folder: Path) -> list[str]:
    command = "broetchen build my-mix.yaml --output resumed"
    stopped = session(command, interrupt_at=_HALF)
    return [*stopped, "", *session(command)]


def verify(folder: Path) -> list[str]:
    if not (folder / "my-mix").exists():
        session(BUILD)
    return session("broetchen verify my-mix")


def count(folder: Path) -> list[str]:
    return session("broetchen count my-mix.yaml")


def error(folder: Path) -> list[str]:
    path = folder / "my-mix.yaml"
    path.write_text(_MIX.replace("total_tokens", "total_token").replace("40%", "30%"), encoding="utf-8")
    lines = session("broetchen build my-mix.yaml --output other")
    path.write_text(_MIX, encoding="utf-8")
    return lines


#: in the order in which they are made: later ones look at what earlier ones have built
TERMINALS: dict[str, Callable[[Path], Sequence[str]]] = {
    "demo": demo,
    "build": build,
    "resume": resume,
    "verify": verify,
    "count": count,
    "error": error,
}
#: name -> Chromium's preferred colour scheme (1 is light), width and height of the window
PAGES = {"report": (1, 1000, 1350), "report-dark": (0, 1000, 900), "report-phone": (1, 500, 900)}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def screenshot(page: Path, image: Path, scheme: int, width: int, height: int) -> None:
    """Writes a PNG of a page as a window of this size shows it.

    Raises:
        RuntimeError: there is no Chromium, or it made none.
    """
    if CHROMIUM is None:
        raise RuntimeError("the pictures of pages need chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [
                CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                f"--user-data-dir={profile}", f"--blink-settings=preferredColorScheme={scheme}",
                f"--window-size={width},{height}", f"--screenshot={image}", page.as_uri(),
            ],
            capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    if not image.exists():
        raise RuntimeError(f"chromium made no {image.name}: {done.stderr[-500:]}")


def main(names: Sequence[str] = ()) -> int:
    """See the module."""
    FOLDER.mkdir(exist_ok=True)
    wanted = set(names) or {*TERMINALS, *PAGES}
    with tempfile.TemporaryDirectory(prefix="pictures-") as temporary:
        folder = Path(temporary)
        os.chdir(folder)
        # The demo needs none, and takes its samples from where they are.
        if wanted - {"demo", *PAGES}:
            corpora(folder)
        for name, record in TERMINALS.items():
            if name in wanted:
                log(name)
                lines = [line.replace(temporary, "…") for line in record(folder)]
                picture = screen.picture(name, f"broetchen {name}", lines, COLUMNS)
                (FOLDER / f"{name}.svg").write_text(picture, encoding="utf-8")
        if not wanted.isdisjoint(PAGES):
            if not (folder / "demo-output").exists():
                run_command("demo")
            run_command("report", "demo-output", timeout=600)
            for name, look in PAGES.items():
                if name in wanted:
                    log(name)
                    screenshot(folder / "report.html", FOLDER / f"{name}.png", *look)
        os.chdir(ROOT)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
