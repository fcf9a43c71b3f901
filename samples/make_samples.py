"""Rebuilds the sample corpora and the sample tokenizer from a folder of fuller ones.

    python samples/make_samples.py SOURCE

`SOURCE` holds `corpora/<dataset>/000_0000N.parquet` (columns text, id, url, language, license, all strings) and
`tokenizers/neox-65k.json`. Documents keep their order and their text; only the row groups are cut again, small enough
for a plan over a few hundred kilobytes to have something to choose from. The tokenizer loses its white space and its
escapes, and nothing else.
"""

import argparse
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SAMPLES = Path(__file__).resolve().parent
COLUMNS = ("text", "id", "url", "language", "license")
#: dataset -> (files taken, rows in a row group). The demo's budgets are 30, 50, 5, 5 and 10 % of 400,000 tokens.
SELECTION = {
    "fineweb2_german": (2, 100),
    "finepdfs_german": (3, 16),
    "fineweb_english": (2, 100),
    "fineweb_edu_english": (3, 3),
    "finepdfs_english": (3, 14),
}


def make_corpora(source: Path, target: Path) -> None:
    """Writes the selected files of each dataset below `target`, zstd-compressed, with the row groups of SELECTION.

    Raises:
        ValueError: a source file has other columns than the five strings.
    """
    schema = pa.schema([(name, pa.string()) for name in COLUMNS])
    for dataset, (files, rows) in SELECTION.items():
        (target / dataset).mkdir(parents=True, exist_ok=True)
        for number in range(files):
            name = f"000_{number:05d}.parquet"
            table = pq.read_table(source / dataset / name)
            if table.schema.remove_metadata() != schema:
                raise ValueError(f"{dataset}/{name}: columns are {table.schema.names}, expected strings {COLUMNS}")
            pq.write_table(
                table, target / dataset / name, row_group_size=rows, compression="zstd", compression_level=19
            )


def make_tokenizer(source: Path, target: Path) -> None:
    """Writes the tokenizer's JSON without white space and with unescaped characters; the value stays the same."""
    value = json.loads(source.read_text(encoding="utf-8"))
    target.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def main(arguments: list[str]) -> None:
    """Runs the command line given as `arguments`, without the program's name."""
    parser = argparse.ArgumentParser(
        description="Rebuild the sample corpora and tokenizer from a folder of fuller ones."
    )
    parser.add_argument("source", type=Path, help="folder with corpora/ and tokenizers/neox-65k.json")
    source = parser.parse_args(arguments).source
    make_corpora(source / "corpora", SAMPLES / "corpora")
    make_tokenizer(source / "tokenizers" / "neox-65k.json", SAMPLES / "tokenizer.json")


if __name__ == "__main__":
    main(sys.argv[1:])
