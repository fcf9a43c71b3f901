"""The vocabulary corpus, through the command line."""
