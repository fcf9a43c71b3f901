"""Prices of TPUs: Google's list prices per chip and hour, in US dollars.

They are the on-demand prices of Google's billing catalog, as collected by
https://github.com/skypilot-org/skypilot-catalog (catalogs/v8/gcp/vms.csv, commit 006059e0f18a), looked up on
2026-11-25. https://cloud.google.com/tpu/pricing has today's. Spot machines cost less; how much less changes with month
and region, so that they cost the list price at most. Disks, network and buckets come on top of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from launch.config.accelerators import Accelerator

CHECKED_ON = "2026-11-25"
SOURCE = "Google's list prices"

# By generation and region. Regions whose price the catalog does not know are left out.
_PER_CHIP_HOUR: dict[str, dict[str, str]] = {
    "v4": {"us-central2": "3.22"},
    "v5litepod": {
        "asia-southeast1": "1.56",
        "europe-west4": "1.56",
        "us-central1": "1.20",
        "us-east1": "1.20",
        "us-east5": "1.20",
        "us-south1": "1.416",
        "us-west1": "1.20",
        "us-west4": "1.20",
    },
    "v5p": {"europe-west4": "4.2525", "us-central1": "4.20", "us-east5": "4.20"},
    "v6e": {
        "asia-northeast1": "3.24",
        "asia-south1": "3.24",
        "asia-southeast1": "2.97",
        "europe-west4": "2.97",
        "southamerica-west1": "2.70",
        "us-central1": "2.70",
        "us-east1": "2.70",
        "us-east5": "2.70",
        "us-south1": "2.70",
    },
}


@dataclass(frozen=True)
class Price:
    """Dollars an hour for a whole slice, and where the figure is from."""

    per_hour: Decimal
    source: str
    at_most: bool = False

    def in_words(self) -> str:
        """The price in words.

        >>> Price(Decimal("25.76"), "the config").in_words()
        '$25.76 an hour (the config)'
        """
        return f"{'at most ' if self.at_most else ''}${self.per_hour:,.2f} an hour ({self.source})"


def list_price(accelerator: Accelerator, zone: str, *, spot: bool) -> Price | None:
    """The list price of a slice in the region of `zone`; None where it is not known.

    >>> from launch.config.accelerators import parse_accelerator
    >>> list_price(parse_accelerator("v4-8"), "us-central2-b", spot=False).in_words()
    "$12.88 an hour (Google's list prices, looked up on 2026-11-25)"
    """
    per_chip = _PER_CHIP_HOUR[accelerator.generation.name].get(zone.rpartition("-")[0])
    if per_chip is None:
        return None
    what = f"{SOURCE}{', of which spot is a part' if spot else ''}, looked up on {CHECKED_ON}"
    return Price(Decimal(per_chip) * accelerator.chips, what, at_most=spot)
