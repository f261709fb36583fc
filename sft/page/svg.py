"""A drawing surface that gives the same SVG text on every machine, without pyplot's global state. No torch here."""

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sft.system.visible import narrow, visible

WIDTH = 3.9
"""Inches of every figure: at 9 points, text is still 10 pixels high on a phone of 360."""

DPI = 200
"""Of pictures."""

FONTS = (
    '"Hiragino Sans", "Hiragino Kaku Gothic ProN", "Noto Sans CJK JP", "Noto Sans JP", "Yu Gothic", Meiryo, sans-serif'
)

# Okabe and Ito's palette, which colour-blind readers can tell apart; shapes differ as well.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#E69F00", "#56B4E9"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
MARKERS = ("o", "D", "s", "^", "v", "P")

_STYLE = Path(__file__).with_name("figures.mplstyle")
_COLOUR = matplotlib.rc_params_from_file(_STYLE)
TEXT, SOFT, LINE = _COLOUR["text.color"], _COLOUR["axes.labelcolor"], _COLOUR["axes.edgecolor"]
BAND = "#dfe3e8"
LEGEND_CELLS = 40


def draw(name: str, height: float, paint: Callable[[Figure], None], description: str) -> str:
    """`paint` a figure of `height` inches; returns `<svg …>` without XML prologue, as wide as its place.

    Text stays text, in fonts that have Japanese. `name` keeps the ids of several figures in one page apart;
    `description` is read to those who cannot see it.
    """
    with _painted(name, height, paint) as figure:
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(file.getvalue(), name, description)


def draw_png(height: float, paint: Callable[[Figure], None]) -> bytes:
    """The same figure as a picture, for places that do not show SVG. DejaVu, its font, has no Japanese."""
    with _painted("png", height, paint) as figure:
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


@contextlib.contextmanager
def _painted(salt: str, height: float, paint: Callable[[Figure], None]) -> Iterator[Figure]:
    """A painted figure, to be saved while the style holds."""
    with matplotlib.rc_context({"svg.hashsalt": salt}, _STYLE), warnings.catch_warnings():
        # Layout does not need the glyphs: the browser brings them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(WIDTH, height))
        paint(figure)
        yield figure


def style_at(place: int) -> tuple[str, str]:
    """(colour, marker) by place."""
    return COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]


def label(text: str, cells: int = LEGEND_CELLS) -> str:
    """Somebody's name, short enough for a legend, and not hidden by matplotlib for its first letter."""
    return narrow(text, cells)


def axes_of(figure: Figure, left: float, bottom: float, top: float, right: float = 0.12) -> Axes:
    """Axes with margins in inches, so that labels have the same room in every figure."""
    width, height = figure.get_size_inches()
    box = (left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height)
    return figure.add_axes(box)


def panel(
    figure: Figure, title: str, above: float, height: float = 1.45, left: float = 0.5, right: float = 0.12
) -> Axes:
    """Axes of `height` inches under a title, `above` inches from the top, for figures with several of them."""
    whole = figure.get_size_inches()[1]
    axes = axes_of(figure, left=left, bottom=whole - above - height, top=above, right=right)
    axes.set_title(label(title), loc="left", fontsize=9, fontweight="bold", pad=4)
    return axes


def entry(colour: str, marker: str = "", **style: Any) -> Line2D:
    """What stands for a line or its points in a legend."""
    return Line2D([], [], color=colour, marker=marker, **style)


def legend(figure: Figure, entries: Sequence[tuple[str, Line2D]]) -> None:
    """One entry a line at the top left, above the axes."""
    height = figure.get_size_inches()[1]
    for number, (text, handle) in enumerate(entries):
        y = 1 - (0.14 + 0.17 * number) / height
        handle.set_transform(figure.transFigure)
        handle.set_data([0.04, 0.07, 0.10], [y, y, y])
        handle.set_markevery([1])
        figure.add_artist(handle)
        figure.text(0.13, y, label(text), va="center_baseline")


def _inline(svg: str, name: str, description: str) -> str:
    size = re.findall(r'viewBox="[^"]*"', svg)[0]
    svg = svg[svg.index(">", svg.index("<svg")) + 1 :].rstrip()
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sid="(?:figure|axes|patch|text|line2d|matplotlib\.axis|xtick|ytick|legend)_\d+"', "", svg)
    svg = re.sub(r"(\sid=\"|url\(#|xlink:href=\"#)", rf"\g<1>{name}-", svg)
    svg = svg.replace("'DejaVu Sans'", FONTS.replace('"', "'"))
    words = visible(description).replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {spaces} {size} width="100%" role="img" aria-label="{words}">{svg}'
