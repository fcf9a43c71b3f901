"""Small real corpora and a tokenizer, shaped like the full ones: data for the demo, the tests and the benchmarks."""
