"""The jobs on tokenizers: training, evaluation, and what each writes."""
