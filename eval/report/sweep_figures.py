"""Figures of a sweep over generation settings, as SVG text in `Figure` blocks. No torch here."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from eval.render.blocks import Figure
from eval.render.svg import BLUE, COLOURS, LINE, MARKERS, TEXT, VERMILION, axes_of, draw, label, legend
from eval.report.view import HEADLINE, TITLES, Results, Scope, estimate, name_of, number
from sft.config.repetition_penalty import PENALTY, SCOPE, is_neutral, setting_label
from sft.data.records import GROUP_OF

GROUPS_DRAWN = ("open", "context")


def varying(settings: Sequence[dict[str, Any]]) -> list[str]:
    """Keys whose value differs between settings, or that some of them lack; in the order they were given."""
    keys = list(dict.fromkeys(key for setting in settings for key in setting))
    return [key for key in keys if any(setting.get(key) != settings[0].get(key) for setting in settings)]


def sweep_figure(sweep: Results, system: str, place: int) -> Figure:
    """Score by setting, open above context: the penalty (or the first other key that varies) from left to right.

    Settings that differ in something else, such as the penalty's scope, are lines of their own; a penalty of
    1.0 has no scope and stands on all of them.
    """
    key, ticks, lines = _lines(sweep["settings"])
    scores = sweep["systems"][system]

    def paint(figure: Canvas) -> None:
        height = figure.get_size_inches()[1]
        for panel, group in enumerate(GROUPS_DRAWN):
            above = 0.35 + 0.17 * len(lines) + 1.9 * panel
            axes = axes_of(figure, left=0.5, bottom=height - above - 1.45, top=above)
            floor = scores["floors"].get(group)
            if floor is not None and floor["mean"] is not None:
                axes.axhline(floor["mean"], color=LINE, linestyle="--", linewidth=1)
            for number_, points in enumerate(lines.values()):
                found = [(x, _group_score(scores, at, group)) for x, at in points]
                _line(axes, found, number_, len(lines))
            axes.set_title(TITLES[group], loc="left", fontsize=9, fontweight="bold", pad=4)
            axes.set_xticks(range(len(ticks)), ticks if panel else [""] * len(ticks))
            axes.set_xlim(-0.3, len(ticks) - 0.7)
            axes.set_ylim(bottom=0)
            axes.set_ylabel(name_of(HEADLINE))
        axes.set_xlabel(label(key.replace("_", " ")))
        handles = [_handle(number_) for number_ in range(len(lines))]
        legend(figure, list(zip(lines, handles, strict=True)))

    words = "; ".join(
        f"{setting_label(setting, sweep['keys'])}: "
        + ", ".join(f"{group} {number(_group_score(scores, at, group)['mean'])}" for group in GROUPS_DRAWN)
        for at, setting in enumerate(sweep["settings"])
    )
    svg = draw(f"sweep{place}", 0.4 + 0.17 * len(lines) + 1.9 * 2, paint, f"{name_of(HEADLINE)} of {system}. {words}")
    caption = f"{system}: {name_of(HEADLINE)} by setting, same rows, with 95% intervals; dashed: the best floor."
    return Figure(svg, caption)


def dose_figure(sweep: Results, system: str, place: int) -> list[Figure]:
    """Share of the reference already in the prompt against the score lost; nothing where that was not measured."""
    dose = sweep["systems"][system].get("dose")
    if not dose or not dose["points"]:
        return []

    def paint(figure: Canvas) -> None:
        axes = axes_of(figure, left=0.62, bottom=0.48, top=0.55)
        axes.axhline(0, color=TEXT, linewidth=0.8)
        entries = []
        for group, colour, marker in (("open", BLUE, "o"), ("context", VERMILION, "D")):
            points = np.array([point[:2] for point in dose["points"] if GROUP_OF[point[2]] == group])
            if len(points):
                axes.plot(*points.T, marker, color=colour, alpha=0.3, markersize=3, markeredgewidth=0)
                entries.append((TITLES[group], Line2D([], [], color=colour, marker=marker, linestyle="")))
        for found in dose["bins"]:
            middle = (found["low"] + found["high"]) / 2
            axes.plot([found["low"], found["high"]], [found["mean"]] * 2, color=TEXT, linewidth=2.4)
            if found["ci_low"] is not None:
                axes.plot([middle] * 2, [found["ci_low"], found["ci_high"]], color=TEXT)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("share of the reference's tokens in the prompt")
        axes.set_ylabel(f"{name_of(HEADLINE)} lost")
        legend(figure, entries)

    first, second = (setting_label(sweep["settings"][dose[end]], sweep["keys"]) for end in ("first", "second"))
    words = "; ".join(f"{b['low']:.2f} to {b['high']:.2f}: {number(b['mean'], signed=True)}" for b in dose["bins"])
    svg = draw(f"dose{place}", 2.9, paint, f"Score lost by share of the reference in the prompt. {words}")
    caption = (
        f"{system}: what a row loses from ({first}) to ({second}), the setting with the lowest score on context, "
        "against how much of its reference a penalty over the prompt touches. Bars: means of fifths of the rows, 95% "
        "intervals. Rising to the right speaks for the penalty as the cause."
    )
    return [Figure(svg, caption)]


def _lines(settings: Sequence[dict[str, Any]]) -> tuple[str, list[str], dict[str, list[tuple[int, int]]]]:
    """(key along x, tick labels, line's name → (x, number of the setting))."""
    keys = varying(settings)
    numeric = [k for k in keys if all(isinstance(s.get(k, 0), int | float) and k in s for s in settings)]
    key = PENALTY if PENALTY in numeric else next(iter(numeric), "")
    if not key:
        points = {"every setting": [(at, at) for at in range(len(settings))]}
        return "setting", [label(setting_label(s, keys), 14) for s in settings], points
    values = sorted({setting[key] for setting in settings})
    others = [k for k in keys if k != key]
    scopes = list(dict.fromkeys(s.get(SCOPE) for s in settings if not _neutral(s, key))) or [None]
    lines: dict[str, dict[int, int]] = {}
    for at, setting in enumerate(settings):
        for scope in scopes if _neutral(setting, key) else [setting.get(SCOPE)]:
            line = lines.setdefault(_line_name(setting | {SCOPE: scope}, others), {})
            line.setdefault(values.index(setting[key]), at)
    named = {name or "every setting": sorted(line.items()) for name, line in lines.items()}
    return key, [f"{value:g}" for value in values], named


def _neutral(setting: dict[str, Any], key: str) -> bool:
    """A penalty of 1.0 changes nothing, so its scope does not matter."""
    return key == PENALTY and is_neutral(setting)


def _line_name(setting: dict[str, Any], keys: Sequence[str]) -> str:
    return ", ".join(f"{key.replace('_', ' ')}: {setting.get(key)}" for key in keys if setting.get(key) is not None)


def _group_score(scores: Results, at: int, group: str) -> Results:
    return estimate(scores["scores"][at], Scope("groups", group), HEADLINE)


def _handle(number_: int) -> Line2D:
    return Line2D([], [], color=COLOURS[number_ % len(COLOURS)], marker=MARKERS[number_ % len(MARKERS)])


def _line(axes: Axes, points: Sequence[tuple[int, Results]], number_: int, lines: int) -> None:
    known = [(x + 0.06 * (number_ - (lines - 1) / 2), found) for x, found in points if found["mean"] is not None]
    colour, marker = COLOURS[number_ % len(COLOURS)], MARKERS[number_ % len(MARKERS)]
    axes.plot([x for x, _ in known], [found["mean"] for _, found in known], color=colour, marker=marker)
    for x, found in known:
        if found["ci_low"] is not None:
            axes.plot([x, x], [found["ci_low"], found["ci_high"]], color=colour, linewidth=1, alpha=0.7)
