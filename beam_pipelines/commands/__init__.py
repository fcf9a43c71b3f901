"""The commands of `broetchen`: the options of each, the job that it starts, and the table that it shows.

Heavy imports wait until a command runs and its config is found good, so that `--help` and errors come at once.
"""
