"""Tools of the benchmarks: corpora, contenders, the meter, the report."""
