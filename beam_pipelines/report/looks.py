"""How the charts of a report look: colours for light and dark pages, and sizes for wide and narrow ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

FONT = 9
"""The size of letters, in points."""


@dataclasses.dataclass(frozen=True)
class Look:
    """How a chart is drawn: colours for a light or a dark page, and its width in inches.

    Lengths in a chart are in points, so that a narrow chart on a phone has letters of the size of its page.
    """

    ink: str
    muted: str
    grid: str
    accent: str
    pale: str
    background: str
    inches: float

    @property
    def is_narrow(self) -> bool:
        """Whether it is for a phone."""
        return self.inches < 6

    def settings(self) -> dict[str, object]:
        """Matplotlib's settings (`rc_context`) to draw with."""
        return {
            # By default each drawing would have other ids, and letters would be drawn as curves.
            "svg.hashsalt": "broetchen",
            "svg.fonttype": "none",
            "font.family": "sans-serif",
            "font.size": FONT,
            # A dollar sign in the name of a dataset is just that.
            "text.parse_math": False,
            "text.color": self.ink,
            "axes.labelcolor": self.muted,
            "axes.edgecolor": self.grid,
            "axes.facecolor": "none",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.spines.left": False,
            "axes.axisbelow": True,
            "xtick.color": self.grid,
            "ytick.color": self.grid,
            "xtick.labelcolor": self.muted,
            "ytick.labelcolor": self.ink,
            "ytick.left": False,
            "grid.color": self.grid,
            "grid.linewidth": 0.7,
            "legend.frameon": False,
            "legend.labelcolor": self.ink,
        }


LIGHT = Look("#24211d", "#6b645b", "#e4dfd8", "#b4690e", "#d9cfc2", "#ffffff", 9.4)
_DARK = Look("#eee9e2", "#a49c91", "#3b3732", "#e39a3b", "#5a534a", "#1f1d1a", 9.4)
_NARROW = 4.2

LOOKS: Mapping[tuple[Literal["light", "dark"], Literal["wide", "narrow"]], Look] = {
    ("light", "wide"): LIGHT,
    ("dark", "wide"): _DARK,
    ("light", "narrow"): dataclasses.replace(LIGHT, inches=_NARROW),
    ("dark", "narrow"): dataclasses.replace(_DARK, inches=_NARROW),
}
"""Every look that a page may have."""
