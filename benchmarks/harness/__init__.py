"""What the benchmarks measure with: corpora, contenders, the meter, the report."""
