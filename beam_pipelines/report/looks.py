"""How the charts of a report look: their colours, which a page has by name, and sizes for wide and narrow pages."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

FONT = 9
"""The size of letters, in points."""


@dataclasses.dataclass(frozen=True)
class Look:
    """How a chart is drawn: its colours, and its width in inches.

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


WIDE = Look("#24211d", "#6b645b", "#e4dfd8", "#b4690e", "#d9cfc2", "#ffffff", 9.4)
LOOKS: Mapping[str, Look] = {"wide": WIDE, "narrow": dataclasses.replace(WIDE, inches=4.2)}
"""A look for each width of a page, by its name."""

VARIABLES: Mapping[str, str] = {
    WIDE.ink: "--ink",
    WIDE.muted: "--muted",
    WIDE.grid: "--line",
    WIDE.accent: "--bar",
    WIDE.pale: "--pale",
    WIDE.background: "--card",
}
"""The colours of a look by the variables of the page's style, which has others for a dark page."""
