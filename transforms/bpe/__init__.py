"""Training byte-level BPE: the corpus, the styles of tokenizers, and the memory that a training takes."""
