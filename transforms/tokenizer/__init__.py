"""A tokenizer: how it is named, and the file that it is."""
