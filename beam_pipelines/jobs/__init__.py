"""The jobs on datasets, one module each."""
