"""Side-by-side measurements of ``broetchen build`` and its peers; run with ``python -m benchmarks``."""
