"""The card of an output: its README.md, with the head that the hub reads, and the mix.yaml that built it."""
