"""Training byte-level BPE: the corpus, the styles of tokenizers, and the limits of words, pairs and memory."""
