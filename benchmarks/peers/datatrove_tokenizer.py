"""DataTrove's ``DocumentTokenizer`` on ``LocalPipelineExecutor`` with two workers.

One task per file, so that each ``.ds`` file holds one parquet file's documents, in order. Shuffling is off (on, it
writes everything twice); all else is as DataTrove sets it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def main() -> None:
    """Write the corpus, and the token count that DataTrove names in its metadata files as the statistics."""
    parser = argparse.ArgumentParser(description="Tokenize a parquet corpus with DataTrove's DocumentTokenizer.")
    parser.add_argument("--corpus", type=Path, required=True, help="folder of parquet files with a text column")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json")
    parser.add_argument("--eos-token", default="<|eos|>")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--stats", type=Path, required=True, help="JSON file for the counts")
    arguments = parser.parse_args()

    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    files = sorted(arguments.corpus.glob("*.parquet"))
    LocalPipelineExecutor(
        pipeline=[
            ParquetReader(str(arguments.corpus), glob_pattern="*.parquet"),
            DocumentTokenizer(
                str(arguments.output / "tokens"),
                tokenizer_name_or_path=str(arguments.tokenizer),
                eos_token=arguments.eos_token,
                shuffle_documents=False,
            ),
        ],
        tasks=len(files),
        workers=arguments.workers,
        logging_dir=str(arguments.output / "logs"),
    ).run()
    metadata = sorted((arguments.output / "tokens").glob("*.ds.metadata"))
    stats = {"tokens": sum(int(path.read_text().splitlines()[1]) for path in metadata)}
    arguments.stats.write_text(json.dumps(stats))


if __name__ == "__main__":
    main()
