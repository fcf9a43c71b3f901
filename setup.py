"""What goes into the package: `--setup_file=setup.py` is how Beam ships the project to Dataflow's workers.

The metadata is in pyproject.toml; this file lists code and data, and needs nothing but setuptools.
"""

from setuptools import setup

setup(
    packages=[
        "beam_pipelines",
        "beam_pipelines.commands",
        "launch",
        "launch.programs",
        "mix_configs",
        "samples",
        "transforms",
    ],
    package_data={
        "beam_pipelines": ["*.jinja", "flex_template.json"],
        "launch": ["configs/*.yaml", "models/*.yml", "vm/*.sh", "*.in", "*.lock"],
        "mix_configs": ["**/*.yaml", "README.md"],
        "samples": ["README.md", "tokenizer.json", "corpora/*/*.parquet", "licenses/*.txt"],
    },
)
