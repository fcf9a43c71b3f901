"""The job that a config asks for, checked against MaxText, the data and the last checkpoint, with its cost."""
