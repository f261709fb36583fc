"""The pictures of a training run: loss by step with each group's validation loss, and what else a step's log holds."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sft.data.records import GROUPS
from sft.page.svg import entry, style_at
from sft.system.files import write_whole
from sft.system.visible import counted
from sft.training.best import best_of
from sft.training.log import read_lines, validation_losses, validation_rows

Records = Sequence[dict[str, Any]]
"""A run's log."""

TRAINING, RATE = "0.45", "tab:orange"
"""Colours."""
DASHES = ("-", "--", "-.")
"""The groups' lines differ by dash and marker as well as by colour."""


class Curve(NamedTuple):
    """A line of a picture: its (step, value) points, and how it is drawn."""

    name: str
    points: list[tuple[int, float]]
    style: dict[str, Any]

    def draw(self, axes: Axes) -> None:
        """Draw it."""
        axes.plot([step for step, _ in self.points], [value for _, value in self.points], **self.style)

    @property
    def handle(self) -> Line2D:
        """What stands for it in a legend."""
        return entry(self.style["color"], **{key: value for key, value in self.style.items() if key != "color"})


def whole_steps(axes: Axes) -> None:
    """Steps are whole numbers, also where there are few of them. To be called when all are drawn."""
    left, right = axes.get_xlim()
    if right - left < 1:  # a single step, and the locator would divide the little space around it
        axes.set_xlim(left - 1, right + 1)
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True))


def curve(records: Records, key: str, name: str = "", colour: str = TRAINING, unit: float = 1) -> Curve:
    """What a step's log says under `key`, in so large units, by step."""
    points = [(record["step"], record[key] / unit) for record in records if "loss" in record and key in record]
    return Curve(name, points, {"color": colour, "linewidth": 1})


def validation_curves(records: Records) -> dict[str, Curve]:
    """Each group's validation loss by step; a curve is named by its group."""
    curves: dict[str, Curve] = {}
    for place, group in enumerate(GROUPS):
        losses = [(record["step"], validation_losses(record)) for record in records]
        points = [(step, found[group]) for step, found in losses if group in found]
        colour, marker = style_at(place)
        style = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.4, "linestyle": DASHES[place]}
        if points:
            curves[group] = Curve(group, points, style)
    return curves


def best_point(records: Records, by: str | None) -> list[Curve]:
    """The lowest validation loss of group `by`, ringed and named by it; nothing for None, or before a validation."""
    best = best_of(records, by) if by else None
    ring = {"color": "black", "marker": "o", "markersize": 9, "fillstyle": "none", "linestyle": "none"}
    return [Curve(by, [(best.step, best.loss)], ring)] if by and best else []


def rows_of_groups(records: Records) -> dict[str, int]:
    """How many rows each group's validation loss rests on, where a record says so."""
    return {group: rows for record in records for group, rows in validation_rows(record).items()}


def plot_loss(log: Path, picture: Path, run: str, by: str | None) -> None:
    """Draw `log` (JSON lines as the trainer writes them) of the run of that name into the PNG file `picture`.

    `by` is the group whose best step is marked (`training.keep_best`); None: none.
    """
    records = read_lines(log)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    rows = rows_of_groups(records)
    curves = [curve(records, "loss", "training"), *validation_curves(records).values()]
    for one in curves:
        on = f" ({counted(rows[one.name], 'row')})" if one.name in rows else ""
        one._replace(style=one.style | {"label": f"{'validation: ' * (one.name in GROUPS)}{one.name}{on}"}).draw(axes)
    for one in best_point(records, by):
        one._replace(style=one.style | {"label": f"best {one.name}"}).draw(axes)
    # matplotlib's own font has no Japanese.
    axes.set_title(f"{run}: loss by step" if run.isascii() else "loss by step", parse_math=False)
    axes.set_xlabel("optimizer step")
    whole_steps(axes)
    axes.set_ylabel("loss (nats a supervised token)")
    rates = axes.twinx()
    learning_rate = curve(records, "learning_rate", "learning rate", RATE)
    learning_rate._replace(style=learning_rate.style | {"linestyle": ":", "label": "learning rate (right)"}).draw(rates)
    rates.set_ylabel("learning rate")
    rates.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    lines = [*axes.get_lines(), *rates.get_lines()]
    axes.legend(lines, [str(line.get_label()) for line in lines], frameon=False)
    axes.grid(alpha=0.3)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=120, format="png")
    write_whole(picture, drawn.getvalue())
