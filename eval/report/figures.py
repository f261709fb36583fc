"""Figures of one scored run, as SVG text in `Figure` blocks. No torch here."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from eval.metrics.catalogue import COVERAGE, EOS_RATE, FACTS_RECALL, GOLD_CONTAINED, HEADLINE, LENGTH_RATIO
from eval.metrics.metric import Metric
from eval.predictions import TUNED
from eval.render import marks
from eval.render.numbers import number
from eval.report.names import change_name, metric_word, scope_name, system_name
from eval.report.view import SIGNIFICANT, measured
from eval.scoring.results import ON_CONTEXT, Results, Scope, ScoredRow, best
from eval.statistics.estimates import Interval
from sft.page import svg
from sft.page.blocks import Figure
from sft.system.texts import text

ROW_HEIGHT = 0.5
MIDDLE = 0.13
"""Of a row: its name stands above, its points around here."""
LENGTHS = (1 / 16, 16.0)
_JITTER = 0.025


def forest_figure(results: Results) -> Figure:
    """Every system's mean and interval by category and group, over the band from best floor to oracle."""
    scopes, systems, metric = results.rows.scopes(), results.systems, metric_word(HEADLINE)
    floors = results.floors_of(next(reversed(systems)))

    def paint(figure: Canvas) -> None:
        axes = _row_axes(figure, scopes, top=0.25 + 0.17 * (len(systems) + 1))
        for y, scope in enumerate(scopes):
            _band(axes, y, *(best(limits, scope, HEADLINE).mean for limits in (floors, results.ceilings)))
            for place, (name, scores) in enumerate(systems.items()):
                offset = 0.2 * (place - (len(systems) - 1) / 2) / max(1, len(systems) - 1)
                _point(axes, y + MIDDLE + offset, scores.of(scope, HEADLINE), *marks.system_style(name, place))
        axes.set_xlim(left=0)
        axes.set_xlabel(metric)
        floor = (text("figure.forest_band"), svg.entry(svg.BAND, linewidth=7, solid_capstyle="butt"))
        svg.legend(figure, [*_system_entries(systems), floor])

    words = "; ".join(
        f"{scope_name(scope)}: "
        + ", ".join(f"{system_name(name)} {number(s.of(scope, HEADLINE).mean)}" for name, s in systems.items())
        for scope in scopes
    )
    height = 0.75 + 0.17 * (len(systems) + 1) + ROW_HEIGHT * len(scopes)
    drawn = svg.draw("forest", height, paint, text("figure.forest_read", metric=metric, values=words))
    return Figure(drawn, text("figure.forest", metric=metric))


def delta_figure(results: Results) -> list[Figure]:
    """Paired differences tuned − base with intervals; nothing when there is no pair."""
    if not results.deltas.groups:
        return []
    scopes, difference = results.rows.scopes(), change_name()
    found = [results.deltas.of(scope, HEADLINE) for scope in scopes]

    def paint(figure: Canvas) -> None:
        axes = _row_axes(figure, scopes, top=0.6)
        axes.axvline(0, color=svg.TEXT, linewidth=1)
        colour, marker = marks.system_style(TUNED, 1)
        for y, delta in enumerate(found):
            sure = delta.p_holm is not None and delta.p_holm <= SIGNIFICANT
            _point(axes, y + MIDDLE, delta, colour, marker, filled=sure)
        reach = max(map(abs, axes.get_xlim()))
        axes.set_xlim(-reach, reach)
        axes.set_xlabel(text("figure.deltas_axis", metric=metric_word(HEADLINE), difference=difference))
        filled, hollow = (svg.entry(colour, marker, markerfacecolor=face) for face in (colour, "white"))
        svg.legend(figure, [(text("figure.deltas_filled"), filled), (text("figure.deltas_hollow"), hollow)])

    words = "; ".join(
        f"{scope_name(scope)}: {number(delta.mean, signed=True)}" for scope, delta in zip(scopes, found, strict=True)
    )
    read = text("figure.deltas_read", difference=difference, values=words)
    drawn = svg.draw("deltas", 1.1 + ROW_HEIGHT * len(scopes), paint, read)
    return [Figure(drawn, text("figure.deltas", metric=metric_word(HEADLINE)))]


def copy_figure(results: Results) -> list[Figure]:
    """Copying (coverage) against correctness, a point a context row; nothing where it was not measured."""
    correct = next(iter(measured(results.systems, [ON_CONTEXT], (FACTS_RECALL, GOLD_CONTAINED))), None)
    if not correct or not measured(results.systems, [ON_CONTEXT], [COVERAGE]):
        return []
    points = {name: _scores(results.samples, name, COVERAGE, correct) for name in results.systems}
    own = results.reference.of(ON_CONTEXT, COVERAGE).mean

    def paint(figure: Canvas) -> None:
        for place, (name, pairs) in enumerate(points.items()):
            axes = svg.panel(figure, system_name(name), 0.3 + 1.95 * place, height=1.5)
            _scatter(axes, pairs, own, *marks.system_style(name, place))
            axes.set_ylabel(text("figure.copy_correct"))
        axes.set_xlabel(text("figure.copy_axis"))

    means = {name: np.mean(pairs, axis=0) if pairs else None for name, pairs in points.items()}
    words = "; ".join(f"{system_name(name)}: {_copied(mean)}" for name, mean in means.items())
    read = text("figure.copy_read", metric=metric_word(correct), values=words)
    drawn = svg.draw("copy", 0.35 + 1.95 * len(points), paint, read)
    return [Figure(drawn, text("figure.copy", metric=metric_word(correct)))]


def _copied(mean: Sequence[float] | None) -> str:
    if mean is None:
        return text("figure.copy_no_rows")
    copied, right = (f"{one:.2f}" for one in mean)
    return text("figure.copy_means", copied=copied, correct=right)


def length_figure(results: Results) -> Figure:
    """Distribution of length ratios and the EOS rate, by group and system."""
    systems = list(results.systems)
    groups = [scope for scope in results.rows.scopes() if scope.is_group]
    ended = {
        (scope, name): number(scores.of(scope, EOS_RATE).mean, digits=2)
        for scope in groups
        for name, scores in results.systems.items()
    }

    def paint(figure: Canvas) -> None:
        axes = _row_axes(figure, groups, top=0.3 + 0.17 * len(systems), right=0.75)
        axes.set_xscale("log", base=2)
        axes.set_xlim(*LENGTHS)
        axes.axvline(1, color=svg.LINE, linewidth=1, zorder=0)
        ticks = [1 / 16, 1 / 4, 1, 4, 16]
        axes.set_xticks(ticks, ["1/16", "1/4", "1", "4", "16"])
        axes.set_xlabel(text("figure.length_axis"))
        beside = axes.get_yaxis_transform()
        axes.text(1.04, -0.3, "EOS", transform=beside, color=svg.SOFT, va="center")
        for y, scope in enumerate(groups):
            rows = [row for row in results.samples if row.group == scope.name]
            for place, name in enumerate(systems):
                at = y + 0.26 * (place - (len(systems) - 1) / 2)
                _box(axes, at + MIDDLE, _scores(rows, name, LENGTH_RATIO), *marks.system_style(name, place))
                axes.text(1.04, at + MIDDLE, ended[scope, name], transform=beside, va="center")
        svg.legend(figure, _system_entries(systems))

    words = "; ".join(f"{scope_name(scope)} {system_name(name)}: EOS {share}" for (scope, name), share in ended.items())
    read = text("figure.length_read", values=words)
    drawn = svg.draw("length", 0.8 + 0.17 * len(systems) + 0.6 * len(groups), paint, read)
    return Figure(drawn, text("figure.length"))


def _row_axes(figure: Canvas, scopes: Sequence[Scope], top: float, right: float = 0.12) -> Axes:
    """Axes with a row a scope from top to bottom, each under its name; groups end with a line."""
    axes = svg.axes_of(figure, left=0.15, bottom=0.48, top=top, right=right)
    axes.set_ylim(len(scopes) - 0.5, -0.5)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    beside = axes.get_yaxis_transform()
    for y, scope in enumerate(scopes):
        weight = "bold" if scope.is_group else "normal"
        axes.text(0, y - 0.25, svg.label(scope_name(scope)), transform=beside, va="center", fontweight=weight)
        if scope.is_group and y + 1 < len(scopes):
            axes.axhline(y + 0.42, color=svg.LINE, linewidth=0.6)
    return axes


def _band(axes: Axes, y: float, floor: float | None, top: float | None) -> None:
    if floor is None:
        return
    if top is not None and top > floor:
        axes.barh(y + MIDDLE, top - floor, left=floor, height=0.42, color=svg.BAND, zorder=0)
    axes.plot([floor, floor], [y + MIDDLE - 0.21, y + MIDDLE + 0.21], color=svg.SOFT, linewidth=2.2, zorder=1)


def _point(axes: Axes, y: float, found: Interval, colour: str, marker: str, filled: bool = True) -> None:
    if found.mean is None:
        return
    if found.ends:
        axes.plot(found.ends, [y, y], color=colour, zorder=2)
    axes.plot([found.mean], [y], color=colour, marker=marker, markerfacecolor=colour if filled else "white", zorder=3)


def _system_entries(systems: Iterable[str]) -> list[tuple[str, Line2D]]:
    return [(system_name(name), svg.entry(*marks.system_style(name, place))) for place, name in enumerate(systems)]


def _scores(rows: Iterable[ScoredRow], system: str, *metrics: Metric) -> list[tuple[Any, ...]]:
    """A system's scores by these metrics, of the rows where all of them were measured."""
    found = [tuple(row.scores[metric.key] for metric in metrics) for row in rows if row.system == system]
    return [scores for scores in found if None not in scores]


def _scatter(axes: Axes, pairs: Sequence[tuple[float, ...]], own: float | None, colour: str, marker: str) -> None:
    if pairs:
        points = np.array(pairs)
        # Many rows share a value: a little seeded noise shows how many.
        noise = np.random.default_rng(0).uniform(-_JITTER, _JITTER, points.shape)
        axes.plot(*(points + noise).T, marker, color=colour, alpha=0.35, markersize=3.5, markeredgewidth=0)
        for shade, size in (("white", 13), (colour, 10)):
            axes.plot(*points.mean(axis=0), "P", color=shade, markersize=size)
    if own is not None:
        axes.axvline(own, color=svg.SOFT, linewidth=1, linestyle="--", zorder=0)
    axes.set_xlim(-0.05, 1.05)
    axes.set_ylim(-0.08, 1.08)
    axes.set_yticks([0, 0.5, 1])


def _box(axes: Axes, y: float, ratios: Sequence[tuple[float, ...]], colour: str, marker: str) -> None:
    if not ratios:
        return
    low, first, middle, third, high = np.clip(np.quantile(ratios, (0.05, 0.25, 0.5, 0.75, 0.95)), *LENGTHS)
    axes.plot([low, high], [y, y], color=colour, linewidth=1.2)
    axes.plot([first, third], [y, y], color=colour, linewidth=5, solid_capstyle="butt", alpha=0.55)
    axes.plot([middle], [y], marker=marker, color=colour)
