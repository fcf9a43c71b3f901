"""The program that a flex template starts: `broetchen build`, whose launcher can pass nothing but options.

    python beam_pipelines/serve/flex_template.py --config=gs://… --output=gs://… [options of `broetchen build`]

`flex_template.json` beside this file describes the parameters to the service; docs/dataflow.md says how to use it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from beam_pipelines.cli import main


def build_arguments(options: Sequence[str]) -> list[str]:
    """The command line of the build that the launcher's options ask for: `--config` becomes the argument that it is.

    >>> build_arguments(["--runner=DataflowRunner", "--config=gs://b/mix.yaml", "--output=gs://b/out"])
    ['build', '--runner=DataflowRunner', '--output=gs://b/out', 'gs://b/mix.yaml']
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", action="append", default=[])
    given, others = parser.parse_known_args(list(options))
    return ["build", *others, *given.config]


if __name__ == "__main__":
    main(build_arguments(sys.argv[1:]))
