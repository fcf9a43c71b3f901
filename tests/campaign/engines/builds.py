"""Builds the same mix by both engines, with each of some tokenizers, and holds the shards' bytes against each other.

    python -m tests.campaign.engines.builds FOLDER/*.json

The texts are those of `benchmarks.harness.web_texts`, so that all kinds of segments occur.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from beam_pipelines.config.mix import load_config
from beam_pipelines.jobs.build import build
from benchmarks.harness.corpus import CorpusSpec, make_corpus
from tests.support.corpora import SAMPLES
from transforms.encoding.encoders import GigatokenEncoder
from transforms.encoding.pool import reference_share
from transforms.encoding.unfit import GigatokenUnfitError
from transforms.tokenizer.file import load_tokenizer
from transforms.tokenizer.spec import TokenizerSpec


def shards_of(tokenizer: Path, source: str, folder: Path, engine: str, tokens: int) -> tuple[str, int]:
    """The SHA-256 of all shards of a build, in their order, and how many there are."""
    config = {
        "name": "engines",
        "tokenizer": {"path": str(tokenizer)},
        "records": {"max_tokens": 512},
        "shards": {"target_size": "500KB"},
        "datasets": {"texts": {"source": source, "tokens": tokens, "eval_tokens": 1000}},
    }
    path = folder / "mix.yaml"
    path.write_text(yaml.safe_dump(config))
    output = folder / engine
    build(load_config(str(path)), str(output), engine=engine, quiet=True)  # type: ignore[arg-type]
    digest, shards = hashlib.sha256(), sorted((output / "texts").glob("*.arecord"))
    for shard in shards:
        digest.update(shard.name.encode() + shard.read_bytes())
    return digest.hexdigest()[:16], len(shards)


def main() -> int:
    """The command; ends with 1 if shards differ."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaign.engines.builds", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("tokenizers", type=Path, nargs="+", metavar="TOKENIZER_JSON")
    parser.add_argument("--text-mb", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=500_000)
    given = parser.parse_args()
    table = Table()
    for column in ("tokenizer", "shards", "SHA-256", "by the reference"):
        table.add_column(column, justify="right" if column == "shards" else "left")
    different: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        corpus = make_corpus(SAMPLES / "corpora", Path(scratch), CorpusSpec.of_size(given.text_mb, texts="web"))
        for tokenizer in given.tokenizers:
            loaded = load_tokenizer(str(tokenizer))
            name = tokenizer.parent.name if tokenizer.stem == "tokenizer" else tokenizer.stem
            try:
                GigatokenEncoder(loaded, "text")
            except GigatokenUnfitError as error:
                table.add_row(name, "", f"not by gigatoken: it {error.reason}"[:60], "100 %")
                continue
            folder = Path(scratch) / name
            folder.mkdir()
            source = str(corpus.directory / "*.parquet")
            found = {
                engine: shards_of(tokenizer.absolute(), source, folder, engine, given.tokens)
                for engine in ("gigatoken", "tokenizers")
            }
            if len(set(found.values())) > 1:
                different.append(f"{name}: {found}")
            spec = TokenizerSpec(str(tokenizer), loaded.sha256, None, None, "text")
            shares = [reference_share(spec, texts) for texts in corpus.texts(1)]
            digest, shards = found["gigatoken"]
            table.add_row(name, str(shards), digest, f"{sum(shares) / len(shares):.1%}")
    Console().print(table)
    for line in different:
        print("different:", line)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
