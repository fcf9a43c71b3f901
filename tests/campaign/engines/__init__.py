"""Whether the engines give the same ids: random tokenizers, and random texts, by the million."""
