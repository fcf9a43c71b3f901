"""array_record's own ``WriteToArrayRecord`` in a Beam pipeline, with ``tokenizers`` in a DoFn.

As a Beam user would write it today: ``ReadFromParquetBatched`` → ``encode_batch_fast`` on each row group →
``tf.train.Example`` → the sink. The sink fixes ``group_size:1`` and leaves the compression at the library's default.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions
from array_record.beam.arrayrecordio import WriteToArrayRecord

RUNNING_MODES = ("multi_processing", "multi_threading", "in_memory")


class EncodeDocuments(beam.DoFn):
    """Arrow tables with a ``text`` column in, serialized ``tf.train.Example`` records out."""

    def __init__(self, tokenizer: str, eos_token: str, max_tokens: int) -> None:
        self._path = tokenizer
        self._eos_token = eos_token
        self._max_tokens = max_tokens
        self._count = Metrics.counter("benchmark", "tokens")

    def setup(self) -> None:
        """Load the tokenizer once per worker."""
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(self._path)
        eos_id = self._tokenizer.token_to_id(self._eos_token)
        if eos_id is None:
            raise ValueError(f"{self._path} has no token {self._eos_token}")
        self._eos_id: int = eos_id

    def process(self, table: pa.Table) -> Iterator[bytes]:
        """Encode one table."""
        from maxtext.input_pipeline.protos import example_pb2

        for encoding in self._tokenizer.encode_batch_fast(table["text"].to_pylist(), add_special_tokens=False):
            ids = encoding.ids
            ids.append(self._eos_id)
            self._count.inc(len(ids))
            for start in range(0, len(ids), self._max_tokens):
                example = example_pb2.Example()
                example.features.feature["text"].int64_list.value.extend(ids[start : start + self._max_tokens])
                yield example.SerializeToString()


def main() -> None:
    """Write the corpus, and Beam's counter of tokens as the statistics."""
    parser = argparse.ArgumentParser(description="Tokenize a parquet corpus with Beam and array_record's own sink.")
    parser.add_argument("--corpus", type=Path, required=True, help="folder of parquet files with a text column")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json")
    parser.add_argument("--eos-token", default="<|eos|>")
    parser.add_argument("--max-tokens", type=int, default=2048, help="ids of a record at most")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--running-mode", default=RUNNING_MODES[0], choices=RUNNING_MODES)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--stats", type=Path, required=True, help="JSON file for the counts")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True)
    options = PipelineOptions(
        flags=[],
        runner="DirectRunner",
        direct_running_mode=arguments.running_mode,
        direct_num_workers=1 if arguments.running_mode == "in_memory" else arguments.workers,
    )
    pipeline = beam.Pipeline(options=options)
    _ = (
        pipeline
        | "Read" >> beam.io.ReadFromParquetBatched(str(arguments.corpus / "*.parquet"), columns=["text"])
        | "Encode" >> beam.ParDo(EncodeDocuments(str(arguments.tokenizer), arguments.eos_token, arguments.max_tokens))
        | "Write" >> WriteToArrayRecord(str(arguments.output / "train"), file_name_suffix=".arecord")
    )
    result = pipeline.run()
    result.wait_until_finish()
    counters = result.metrics().query(MetricsFilter().with_name("tokens"))["counters"]
    arguments.stats.write_text(json.dumps({"tokens": sum(counter.result for counter in counters)}))


if __name__ == "__main__":
    main()
