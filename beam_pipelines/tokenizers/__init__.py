"""The jobs on tokenizers: training, evaluation, and the files that they write."""
