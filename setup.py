"""The content of the package, which Dataflow's workers get as a wheel (`beam_pipelines.runners.dataflow`).

The metadata is in pyproject.toml; this file lists code and data, and needs nothing but setuptools.
"""

from setuptools import find_packages, setup

setup(
    packages=find_packages(
        include=["beam_pipelines*", "broetchen*", "launch*", "mix_configs", "samples", "transforms*"]
    ),
    package_data={
        "broetchen": ["py.typed"],
        "transforms": ["py.typed"],
        "beam_pipelines": ["report/*.jinja", "serve/flex_template.json"],
        "launch": ["configs/*.*", "models/*.yml", "tpu/vm/*.sh", "requirements/*.in", "requirements/*.lock"],
        "mix_configs": ["**/*.yaml", "*.json", "README.md"],
        "samples": ["README.md", "tokenizer.json", "corpora/*/*.parquet", "licenses/*.txt"],
    },
)
