"""The ceiling: the libraries that ``broetchen build`` stands on, in a plain loop, and nothing else.

pyarrow → ``unicodedata`` NFKC → gigatoken → ``tf.train.Example`` → ArrayRecord. Two spawned processes take the files
one by one. No budget, no checksums, no bound on gigatoken's cache, no check against the reference tokenizer, no
publishing.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import unicodedata
from functools import partial
from pathlib import Path
from typing import Any


def write_file(
    path: Path, tokenizer_json: str, normalize: bool, eos_id: int, max_tokens: int, output: Path
) -> list[int]:
    """Write one ArrayRecord file from one parquet file; returns the tokens of each row group, EOS included."""
    import gigatoken
    import pyarrow.parquet as pq
    from array_record.python.array_record_module import ArrayRecordWriter
    from maxtext.input_pipeline.protos import example_pb2

    tokenizer = gigatoken.Tokenizer.from_json(tokenizer_json)
    writer = ArrayRecordWriter(str(output / f"{path.stem}.arecord"), "group_size:1,zstd")
    tokens = []
    parquet = pq.ParquetFile(path)
    for row_group in range(parquet.num_row_groups):
        column: Any = parquet.read_row_group(row_group, columns=["text"])["text"]
        texts: list[str] = column.to_pylist()
        if normalize:
            texts = [unicodedata.normalize("NFKC", text) for text in texts]
        written = 0
        for ids in tokenizer.encode_batch_list(texts, parallel=False):
            ids.append(eos_id)
            written += len(ids)
            for start in range(0, len(ids), max_tokens):
                example = example_pb2.Example()
                example.features.feature["text"].int64_list.value.extend(ids[start : start + max_tokens])
                writer.write(example.SerializeToString())
        tokens.append(written)
    writer.close()
    return tokens


def for_gigatoken(path: Path, eos_token: str) -> tuple[str, bool, int]:
    """The tokenizer.json as gigatoken takes it, whether to apply NFKC first, and the id of EOS.

    gigatoken knows no NFKC, so it is taken out here. Special tokens go too: the corpus has none in its text.
    """
    tokenizer: dict[str, Any] = json.loads(path.read_text())
    eos_id = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}[eos_token]
    normalizer = tokenizer["normalizer"]
    if normalizer not in (None, {"type": "NFKC"}):
        raise SystemExit(f"{path}: the plain loop knows no normalizer but NFKC, not {normalizer}")
    tokenizer |= {"normalizer": None, "added_tokens": []}
    return json.dumps(tokenizer), normalizer is not None, eos_id


def main() -> None:
    """Write the corpus, and the tokens of each row group as the statistics."""
    parser = argparse.ArgumentParser(description="Tokenize a parquet corpus into ArrayRecord in a plain loop.")
    parser.add_argument("--corpus", type=Path, required=True, help="folder of parquet files with a text column")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json")
    parser.add_argument("--eos-token", default="<|eos|>")
    parser.add_argument("--max-tokens", type=int, default=2048, help="ids of a record at most")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--stats", type=Path, required=True, help="JSON file for the counts")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True)
    tokenizer_json, normalize, eos_id = for_gigatoken(arguments.tokenizer, arguments.eos_token)
    files = sorted(arguments.corpus.glob("*.parquet"))
    work = partial(
        write_file,
        tokenizer_json=tokenizer_json,
        normalize=normalize,
        eos_id=eos_id,
        max_tokens=arguments.max_tokens,
        output=arguments.output,
    )
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:  # gigatoken dies in a forked child
        counts = pool.map(work, files, chunksize=1)
        pool.close()
        pool.join()
    by_file = {path.name: tokens for path, tokens in zip(files, counts, strict=True)}
    arguments.stats.write_text(json.dumps({"tokens": sum(map(sum, counts)), "row_group_tokens": by_file}))


if __name__ == "__main__":
    main()
