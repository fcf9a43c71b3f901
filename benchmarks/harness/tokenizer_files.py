"""The tokenizers of the benchmarks by name: that of the samples, and two that are trained when first asked for.

* ``sample``: `samples/tokenizer.json`, the recipe's first: NFKC, GPT-2's split, a space before the first word.
* ``nanochat``: no normalizer, and nanochat's split, where digits stand alone or in pairs.
* ``neox``: the style of ``sample``, with an addition of GPT-NeoX-20b and Pythia: added tokens for runs of 2 to 24
  spaces, which are found after normalization, and no tokens for the 13 bytes that UTF-8 never holds.

The latter two are trained by ``broetchen train-tokenizer`` on the samples, in ten seconds each, and kept.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.corpus import samples_digest
from benchmarks.harness.places import ROOT
from transforms.bpe.styles import STYLES, special_tokens

SAMPLE = ROOT / "samples" / "tokenizer.json"
TRAINED = {"nanochat": "nanochat", "neox": "gpt-neox"}
"""The style of each tokenizer that is trained, by the tokenizer's name."""
NAMES = ("sample", *TRAINED)
VOCAB_SIZE = 65_536
FORMAT = 1  # raise it when the recipe below changes, so that the tokenizers are made again
LONGEST_RUN = 24
# In a vocabulary of byte-level BPE, a byte of 0xAE or above is the character of its number.
NEVER_IN_UTF8 = frozenset(map(chr, (0xC0, 0xC1, *range(0xF5, 0x100))))


@dataclass(frozen=True)
class NamedTokenizer:
    """A tokenizer to measure with.

    Attributes:
        name: for tables.
        path: its tokenizer.json.
        plain_loop: whether the plain loop can encode clean texts with it; of a file that is given this is found out.
    """

    name: str
    path: Path
    plain_loop: bool


def find_tokenizer(name: str, samples: Path, cache: Path) -> NamedTokenizer:
    """A tokenizer by its name, which is trained under `cache` if it was not before; or of a file.

    Args:
        name: one of `NAMES`, or the path of a tokenizer.json.
        samples: folder of the sample corpora, <dataset>/*.parquet.
        cache: folder to keep trained ones in.

    Raises:
        FileNotFoundError: there is no such file, or there are no samples.
        RuntimeError: the training failed.
    """
    if name == "sample":
        return NamedTokenizer(name, SAMPLE, plain_loop=True)
    if name in TRAINED:
        return NamedTokenizer(name, _trained(name, samples, cache), plain_loop=False)
    path = Path(name).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"no tokenizer {name} (wanted {', '.join(NAMES)}, or a tokenizer.json)")
    return NamedTokenizer(path.parent.name if path.stem == "tokenizer" else path.stem, path, plain_loop=True)


def with_runs_of_spaces(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer.json as GPT-NeoX-20b's is: without the 13 bytes, and with the runs of spaces, the longest first.

    Ids stay in their order, without gaps, and the runs come after the vocabulary.
    """
    old: dict[str, int] = tokenizer["model"]["vocab"]
    kept = sorted((token for token in old if not NEVER_IN_UTF8 & set(token)), key=old.__getitem__)
    vocabulary = {token: number for number, token in enumerate(kept)}
    added = [{**token, "id": vocabulary[token["content"]]} for token in tokenizer["added_tokens"]]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
    runs = [
        {"id": number, "content": " " * length, **flags}
        for number, length in enumerate(range(LONGEST_RUN, 1, -1), start=len(vocabulary))
    ]
    return {**tokenizer, "added_tokens": added + runs, "model": {**tokenizer["model"], "vocab": vocabulary}}


def _trained(name: str, samples: Path, cache: Path) -> Path:
    style = STYLES[TRAINED[name]]
    decisive = [FORMAT, samples_digest(samples), style.untrained().to_str(), VOCAB_SIZE, special_tokens()]
    digest = hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:12]
    path = cache / "tokenizers" / f"{name}-{digest}.json"
    if path.exists():
        return path
    work = path.with_suffix(".work")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    command = [sys.executable, "-m", "beam_pipelines", "train-tokenizer", str(samples.resolve() / "*" / "*.parquet")]
    command += [f"--style={style.name}", f"--vocab-size={VOCAB_SIZE}", f"--output={work / 'trained'}", "--quiet"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"could not train the tokenizer {name}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    tokenizer = json.loads((work / "trained" / "tokenizer.json").read_text())
    if name == "neox":
        tokenizer = with_runs_of_spaces(tokenizer)
    finished = work / "tokenizer.json"
    finished.write_text(json.dumps(tokenizer, ensure_ascii=False, indent=1) + "\n")
    finished.rename(path)
    shutil.rmtree(work)
    return path
