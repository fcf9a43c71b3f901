"""A command that takes the options of Beam beside its own."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand


class BeamCommand(TyperCommand):
    """A command that also takes all options of Beam, some hundred, and hands them on in `context.args`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = {
            name: not getattr(parameter, "is_flag", False)
            for parameter in self.get_params(ctx)
            for name in [*parameter.opts, *parameter.secondary_opts]
        }
        beams: list[str] = []
        # Beam takes a second to import; most command lines have no option of its.
        if any(argument.startswith("--") and argument.partition("=")[0] not in own for argument in args):
            from beam_pipelines.runners.options import take_beam_options

            args, beams = take_beam_options(args, own)
        super().parse_args(ctx, args)
        ctx.args = beams
        return beams
