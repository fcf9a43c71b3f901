"""A tokenizer: its name and settings, and its file."""
