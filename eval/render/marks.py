"""What systems and intervals look like in every figure. No torch here."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from eval.predictions import SYSTEMS
from eval.statistics.estimates import Interval
from sft.page.svg import style_at


def system_style(name: str, number: int) -> tuple[str, str]:
    """(colour, marker) of a system: base and tuned always have theirs, others by their place."""
    return style_at(SYSTEMS.index(name) if name in SYSTEMS else number)


def interval_line(axes: Axes, points: Sequence[tuple[float, Interval]], colour: str, marker: str, **style: Any) -> None:
    """A line through the means at each x, with their intervals; nothing where nothing was measured."""
    known = [(x, found.mean, found.ends) for x, found in points if found.mean is not None]
    axes.plot([x for x, *_ in known], [mean for _, mean, _ in known], color=colour, marker=marker, **style)
    for x, _, ends in known:
        if ends:
            axes.plot([x, x], ends, color=colour, linewidth=1, alpha=0.7)
