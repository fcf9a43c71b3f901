"""Pairs of files in Megatron's format, `.bin` and `.idx`: their layout, a writer and a reader of documents."""
