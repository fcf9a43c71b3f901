"""The errors that Brötchen shows to its users.

Every error says what is wrong, where, and what to do about it. The command line prints the message alone; a
traceback appears only with `--debug`.
"""


class BroetchenError(Exception):
    """The job failed: a source is short, a file is damaged, an output is not what its manifest says."""

    exit_code = 1


class UsageError(BroetchenError):
    """The command line or the config is wrong; nothing was started."""

    exit_code = 2
