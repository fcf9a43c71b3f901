"""DataTrove's ``TokensCounter`` on ``LocalPipelineExecutor`` with two workers.

One task per file; all else is as DataTrove sets it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def main() -> None:
    """Count the corpus, and write DataTrove's own statistics of the step in short."""
    parser = argparse.ArgumentParser(description="Count the tokens of a parquet corpus with DataTrove's TokensCounter.")
    parser.add_argument("--corpus", type=Path, required=True, help="folder of parquet files with a text column")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--logs", type=Path, required=True, help="folder for DataTrove's logs and statistics")
    parser.add_argument("--stats", type=Path, required=True, help="JSON file for the counts")
    arguments = parser.parse_args()

    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.tokens import TokensCounter

    LocalPipelineExecutor(
        pipeline=[
            ParquetReader(str(arguments.corpus), glob_pattern="*.parquet"),
            TokensCounter(tokenizer_name_or_path=str(arguments.tokenizer)),
        ],
        tasks=len(list(arguments.corpus.glob("*.parquet"))),
        workers=arguments.workers,
        logging_dir=str(arguments.logs),
    ).run()
    (counter,) = [
        step
        for step in json.loads((arguments.logs / "stats.json").read_text())
        if step["name"].endswith(TokensCounter.name)
    ]
    tokens, documents = counter["stats"]["tokens"]["total"], counter["stats"]["tokens"]["n"]
    arguments.stats.write_text(json.dumps({"tokens": tokens, "documents": documents}))


if __name__ == "__main__":
    main()
