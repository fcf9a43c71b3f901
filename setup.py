"""For Beam's `--setup_file`, which takes no other name. The content of the package stands in pyproject.toml."""

from setuptools import setup

setup()
