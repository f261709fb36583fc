"""Figures of one scored run, as SVG text in `Figure` blocks. No torch here."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from eval.render.blocks import Figure
from eval.render.svg import BAND, LINE, SOFT, TEXT, axes_of, draw, label, legend, system_style
from eval.report.view import (
    BASE,
    HEADLINE,
    SIGNIFICANT,
    TUNED,
    Estimate,
    Results,
    Scope,
    all_scopes,
    best_floor,
    ceiling,
    estimate,
    measured,
    name_of,
    number,
)
from sft.data.records import GROUP_OF

ROW_HEIGHT = 0.5
MIDDLE = 0.13
"""Of a row: its name stands above, its points around here."""
LENGTHS = (1 / 16, 16.0)
_JITTER = 0.025


def forest_figure(results: Results, metric: str = HEADLINE) -> Figure:
    """Every system's mean and interval by category and group, over the band from best floor to oracle."""
    scopes, systems = all_scopes(results), results["systems"]

    def paint(figure: Canvas) -> None:
        axes = _row_axes(figure, scopes, top=0.25 + 0.17 * (len(systems) + 1))
        for y, scope in enumerate(scopes):
            _band(axes, y, best_floor(results, scope, metric).mean, ceiling(results, scope, metric).mean)
            for place, name in enumerate(systems):
                offset = 0.2 * (place - (len(systems) - 1) / 2) / max(1, len(systems) - 1)
                _point(axes, y + MIDDLE + offset, estimate(systems[name], scope, metric), *system_style(name, place))
        axes.set_xlim(left=0)
        axes.set_xlabel(name_of(metric))
        floor = Line2D([], [], color=BAND, linewidth=7, solid_capstyle="butt")
        legend(figure, [*_system_entries(systems), ("best floor (dark) to oracle", floor)])

    words = "; ".join(
        f"{scope.label}: " + ", ".join(f"{s} {number(estimate(v, scope, metric)['mean'])}" for s, v in systems.items())
        for scope in scopes
    )
    height = 0.75 + 0.17 * (len(systems) + 1) + ROW_HEIGHT * len(scopes)
    caption = (
        f"{name_of(metric)} with 95% intervals. The dark line is the best floor: on it or left of it, an answer shows "
        "no understanding. The grey band ends at the best single sentence of the context."
    )
    return Figure(draw("forest", height, paint, f"{name_of(metric)} by category. {words}"), caption)


def delta_figure(results: Results, metric: str = HEADLINE) -> list[Figure]:
    """Paired differences tuned − base with intervals; nothing when there is no pair."""
    scopes, deltas = all_scopes(results), results.get("deltas")
    if not deltas:
        return []
    found = {scope: estimate(deltas, scope, metric) for scope in scopes}

    def paint(figure: Canvas) -> None:
        axes = _row_axes(figure, scopes, top=0.6)
        axes.axvline(0, color=TEXT, linewidth=1)
        colour, marker = system_style(TUNED, 1)
        for y, scope in enumerate(scopes):
            sure = found[scope]["p_holm"] is not None and found[scope]["p_holm"] <= SIGNIFICANT
            _point(axes, y + MIDDLE, found[scope], colour, marker, filled=sure)
        reach = max((abs(x) for x in axes.get_xlim()), default=0.1)
        axes.set_xlim(-reach, reach)
        axes.set_xlabel(f"{name_of(metric)}, {TUNED} − {BASE}")
        filled = Line2D([], [], color=colour, marker=marker)
        hollow = Line2D([], [], color=colour, marker=marker, markerfacecolor="white")
        legend(figure, [("filled: p ≤ .05 after Holm's correction", filled), ("hollow: not", hollow)])

    words = "; ".join(f"{scope.label}: {number(found[scope]['mean'], signed=True)}" for scope in scopes)
    caption = (
        f"Paired differences in {name_of(metric)} on the same rows, with 95% intervals; right of 0, tuning helped."
    )
    svg = draw("deltas", 1.1 + ROW_HEIGHT * len(scopes), paint, f"Differences {TUNED} − {BASE}. {words}")
    return [Figure(svg, caption)]


def copy_figure(results: Results) -> list[Figure]:
    """Copying (coverage) against correctness, a point a context row; nothing where it was not measured."""
    scope = Scope("groups", "context")
    found = measured(results, [scope], ("facts_recall", "gold_contained"))
    if not found or not measured(results, [scope], ["coverage"]):
        return []
    correct = found[0]
    points = {name: _pairs(results, name, "coverage", correct) for name in results["systems"]}
    own = estimate(results.get("reference"), scope, "coverage")["mean"]

    def paint(figure: Canvas) -> None:
        height = figure.get_size_inches()[1]
        for place, (name, pairs) in enumerate(points.items()):
            above = 0.3 + 1.95 * place
            axes = axes_of(figure, left=0.5, bottom=height - above - 1.5, top=above)
            _scatter(axes, pairs, system_style(name, place), own)
            axes.set_title(label(name), loc="left", fontsize=9, fontweight="bold", pad=4)
            axes.set_ylabel("correct")
        axes.set_xlabel("share of the answer copied from the context")

    words = "; ".join(f"{name}: mean {_mean_words(pairs)}" for name, pairs in points.items())
    svg = draw("copy", 0.35 + 1.95 * len(points), paint, f"Copying against {name_of(correct)}. {words}")
    caption = (
        f"Copying against correctness ({name_of(correct)}), a dot for each context row, the cross their mean; the "
        "dashed line is how much the references copy. Upper left: right without copying. Lower right: copied the wrong "
        "thing."
    )
    return [Figure(svg, caption)]


def length_figure(results: Results) -> Figure:
    """Distribution of length ratios and the EOS rate, by group and system."""
    systems = list(results["systems"])
    groups = [scope for scope in all_scopes(results) if scope.kind == "groups"]
    category_groups = {scope: _ratios(results, scope) for scope in groups}

    def paint(figure: Canvas) -> None:
        axes = _row_axes(figure, groups, top=0.3 + 0.17 * len(systems), right=0.75, height=0.32)
        axes.set_xscale("log", base=2)
        axes.set_xlim(*LENGTHS)
        axes.axvline(1, color=LINE, linewidth=1, zorder=0)
        ticks = [1 / 16, 1 / 4, 1, 4, 16]
        axes.set_xticks(ticks, ["1/16", "1/4", "1", "4", "16"])
        axes.set_xlabel("length of the answer / of the reference")
        axes.text(1.04, -0.3, "EOS", transform=axes.get_yaxis_transform(), color=SOFT, va="center")
        for y, scope in enumerate(groups):
            for place, name in enumerate(systems):
                at = y + 0.26 * (place - (len(systems) - 1) / 2)
                _box(axes, at + MIDDLE, category_groups[scope][name], *system_style(name, place))
                ended = number(estimate(results["systems"][name], scope, "eos_rate")["mean"], digits=2)
                axes.text(1.04, at + MIDDLE, ended, transform=axes.get_yaxis_transform(), va="center")
        legend(figure, _system_entries(results["systems"]))

    words = "; ".join(
        f"{scope.label} {name}: EOS {number(estimate(results['systems'][name], scope, 'eos_rate')['mean'], digits=2)}"
        for scope in groups
        for name in systems
    )
    svg = draw("length", 0.8 + 0.17 * len(systems) + 0.6 * len(groups), paint, f"Length and termination. {words}")
    caption = (
        "Length of the answers against the reference: median, middle half (thick) and 5% to 95% (thin); EOS is the "
        "share that ended by themselves. Empty answers stand at the left edge."
    )
    return Figure(svg, caption)


def _row_axes(
    figure: Canvas, scopes: Sequence[Scope], top: float, right: float = 0.12, height: float = ROW_HEIGHT
) -> Axes:
    """Axes with a row a scope from top to bottom, each under its name; groups end with a line."""
    axes = axes_of(figure, left=0.15, bottom=0.48, top=top, right=right)
    axes.set_ylim(len(scopes) - 0.5, -0.5)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    for y, scope in enumerate(scopes):
        is_group = scope.kind == "groups"
        axes.text(
            0, y - 0.25, label(scope.label), transform=axes.get_yaxis_transform(), fontsize=9, va="center",
            fontweight="bold" if is_group else "normal",
        )  # fmt: skip
        if is_group and y + 1 < len(scopes):
            axes.axhline(y + 0.42, color=LINE, linewidth=0.6)
    return axes


def _band(axes: Axes, y: float, floor: float | None, top: float | None) -> None:
    if floor is None:
        return
    if top is not None and top > floor:
        axes.barh(y + MIDDLE, top - floor, left=floor, height=0.42, color=BAND, zorder=0)
    axes.plot([floor, floor], [y + MIDDLE - 0.21, y + MIDDLE + 0.21], color=SOFT, linewidth=2.2, zorder=1)


def _point(axes: Axes, y: float, found: Estimate, colour: str, marker: str, filled: bool = True) -> None:
    if found["mean"] is None:
        return
    if found["ci_low"] is not None:
        axes.plot([found["ci_low"], found["ci_high"]], [y, y], color=colour, zorder=2)
    axes.plot(
        [found["mean"]], [y], color=colour, marker=marker, markerfacecolor=colour if filled else "white", zorder=3
    )


def _system_entries(systems: Mapping[str, Any]) -> list[tuple[str, Line2D]]:
    styles = [(name, system_style(name, place)) for place, name in enumerate(systems)]
    return [(name, Line2D([], [], color=colour, marker=marker)) for name, (colour, marker) in styles]


def _pairs(results: Results, system: str, first: str, second: str) -> list[tuple[float, float]]:
    rows = [row["scores"] for row in results["samples"] if row["system"] == system]
    return [(r[first], r[second]) for r in rows if r.get(first) is not None and r.get(second) is not None]


def _mean_words(pairs: Sequence[tuple[float, float]]) -> str:
    if not pairs:
        return "no rows"
    copied, correct = np.mean(pairs, axis=0)
    return f"{copied:.2f} copied, {correct:.2f} correct"


def _scatter(axes: Axes, pairs: Sequence[tuple[float, float]], style: tuple[str, str], own: float | None) -> None:
    colour, marker = style
    if pairs:
        points = np.array(pairs)
        # Many rows share a value: a little seeded noise shows how many.
        noise = np.random.default_rng(0).uniform(-_JITTER, _JITTER, points.shape)
        moved = points + noise
        axes.plot(*moved.T, marker, color=colour, alpha=0.35, markersize=3.5, markeredgewidth=0)
        axes.plot(*points.mean(axis=0), "P", color="white", markersize=13)
        axes.plot(*points.mean(axis=0), "P", color=colour, markersize=10)
    if own is not None:
        axes.axvline(own, color=SOFT, linewidth=1, linestyle="--", zorder=0)
    axes.set_xlim(-0.05, 1.05)
    axes.set_ylim(-0.08, 1.08)
    axes.set_yticks([0, 0.5, 1])


def _ratios(results: Results, scope: Scope) -> dict[str, list[float]]:
    """System → length ratios of the group's answers."""
    found: dict[str, list[float]] = {name: [] for name in results["systems"]}
    for row in results["samples"]:
        ratio = row["scores"].get("length_ratio")
        if GROUP_OF[row["category"]] == scope.name and ratio is not None:
            found[row["system"]].append(ratio)
    return found


def _box(axes: Axes, y: float, ratios: Sequence[float], colour: str, marker: str) -> None:
    if not ratios:
        return
    low, first, middle, third, high = np.clip(np.quantile(ratios, (0.05, 0.25, 0.5, 0.75, 0.95)), *LENGTHS)
    axes.plot([low, high], [y, y], color=colour, linewidth=1.2)
    axes.plot([first, third], [y, y], color=colour, linewidth=5, solid_capstyle="butt", alpha=0.55)
    axes.plot([middle], [y], marker=marker, color=colour)
