"""Beam's pipeline options: all of them pass through; these are the defaults where none is given."""

from __future__ import annotations

from collections.abc import Sequence

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

_LOCAL_RUNNERS = (None, "DirectRunner", "FnApiRunner")


def pipeline_options(arguments: Sequence[str]) -> PipelineOptions:
    """Options from the command line's arguments that are not ours.

    Local runs take Beam's in-process engine by its own name, FnApiRunner: what "DirectRunner" means has come to depend
    on the pipeline and on whether a further engine can be downloaded, and the output of that one is not proven here.
    """
    options = PipelineOptions(list(arguments))
    standard = options.view_as(StandardOptions)
    if standard.runner in _LOCAL_RUNNERS:
        standard.runner = "FnApiRunner"
        direct = options.view_as(DirectOptions)
        if direct.direct_num_workers != 1 and direct.direct_running_mode == "in_memory":
            direct.direct_running_mode = "multi_processing"
    return options
