"""The commands of `broetchen`: what each takes, which job it starts, and which table it shows.

Heavy imports wait until a command runs and its config is found good, so that `--help` and errors come at once.
"""
