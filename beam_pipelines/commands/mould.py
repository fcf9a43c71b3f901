"""The mould of all commands: how their options are named, how their help reads, and which options of Beam they take."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

HELP_NAMES = {"help_option_names": ["-h", "--help"]}
"""The context of every command."""

_BEAM_OPTIONS = (
    "All options of Beam pass through: docs/runners.md says which matter, and "
    "https://beam.apache.org/releases/pydoc/current lists them under apache_beam.options.pipeline_options."
)


class OwnCommand(TyperCommand):
    """A command whose help shows a switch by its name alone."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, `--help` among them."""
        return without_types(super().get_params(ctx))


class OwnGroup(TyperGroup):
    """The same for a group of commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The parameters, `--help` among them."""
        return without_types(super().get_params(ctx))


class BeamCommand(OwnCommand):
    """A command that also takes all options of Beam, some hundred, and hands them on in `context.args`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keeps Beam's options for `context.args`, and parses the others."""
        own = {
            name: not getattr(parameter, "is_flag", False)
            for parameter in self.get_params(ctx)
            for name in [*parameter.opts, *parameter.secondary_opts]
        }
        beams: list[str] = []
        # Beam takes a second to import; most command lines have no option of its. A shell that completes a line asks
        # for none.
        foreign = any(argument.startswith("--") and argument.partition("=")[0] not in own for argument in args)
        if foreign and not ctx.resilient_parsing:
            from beam_pipelines.runners.options import take_beam_options

            args, beams = take_beam_options(args, own)
        super().parse_args(ctx, args)
        ctx.args = beams
        return beams


def add(
    group: typer.Typer, function: Callable[..., Any], name: str | None = None, *, takes_beams: bool = False
) -> None:
    """Makes a command of a function, whose docstring is its help.

    Args:
        group: the one that it becomes a command of.
        function: the command.
        name: by default the function's.
        takes_beams: whether it takes the options of Beam.
    """
    text = paragraphs(inspect.getdoc(function) or "")
    if takes_beams:
        text += f"\n\n{_BEAM_OPTIONS}"
    made = BeamCommand if takes_beams else OwnCommand
    group.command(name, cls=made, help=text)(function)


def paragraphs(text: str) -> str:
    r"""A docstring with each paragraph on one line, for a terminal to break.

    >>> paragraphs("One.\n\nTwo and\nthree.")
    'One.\n\nTwo and three.'
    """
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def without_types(parameters: list[Any]) -> list[Any]:
    """Takes the `<bool>` away that Typer shows beside a switch, which has no value."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False) and parameter.metavar is None:
            parameter.metavar = ""
    return parameters
