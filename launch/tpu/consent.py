"""Asks before something costs money or is lost."""

from __future__ import annotations

import sys

from launch.config.prices import Price
from transforms.errors import BroetchenError, UsageError


def ask(question: str) -> None:
    """Returns where the answer is yes.

    Raises:
        BroetchenError: it is not.
        UsageError: there is nobody to ask.
    """
    if not sys.stdin.isatty():
        raise UsageError(f"{question} There is no terminal to answer on; give --yes where the answer is yes")
    print(f"{question} [y/N] ", end="", flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise BroetchenError("nothing was done, as the answer was not yes")


def ask_about_cost(what: str, price: Price | None, *, yes: bool) -> None:
    """Tells the cost of `what`, and without `yes` asks whether that is all right.

    Raises:
        BroetchenError: it is not.
        UsageError: nobody knows the cost, or there is nobody to ask.
    """
    if price is None:
        unknown = f"{what}: what it costs is not known here (https://cloud.google.com/tpu/pricing)"
        if not yes:
            raise UsageError(f"{unknown}; write it into the config as `price_per_hour`, or give --yes")
        print(f"{unknown}.")
        return
    print(f"{what}: {price.in_words()}, for as long as it exists.")
    if not yes:
        ask("Create it?")
