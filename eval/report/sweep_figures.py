"""Figures of a sweep over generation settings, as SVG text in `Figure` blocks. No torch here."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure as Canvas

from eval.metrics.catalogue import HEADLINE
from eval.render import marks
from eval.render.numbers import number
from eval.report.names import group_name, group_title, key_name, metric_word, setting_name, system_name
from eval.scoring.results import ON_CONTEXT, ON_OPEN
from eval.scoring.sweep import Setting, SweepResults, varying
from eval.statistics.estimates import Interval
from sft.config.repetition_penalty import PENALTY, SCOPE, is_neutral
from sft.page import svg
from sft.page.blocks import Figure
from sft.system.texts import text


def labels(sweep: SweepResults) -> list[str]:
    """What readers see for each setting."""
    return [setting_name(setting, sweep.keys) for setting in sweep.settings]


def sweep_figure(sweep: SweepResults, system: str, place: int) -> Figure:
    """Score by setting, open above context: the penalty (or the first other key that varies) from left to right.

    Settings that differ in something else, such as the penalty's scope, are lines of their own; a penalty of
    1.0 has no scope and stands on all of them.
    """
    key, ticks, lines = _lines(sweep.settings)
    swept, styles = sweep.systems[system], [svg.style_at(line) for line in range(len(lines))]

    def paint(figure: Canvas) -> None:
        for place, scope in enumerate((ON_OPEN, ON_CONTEXT)):
            axes = svg.panel(figure, group_title(scope.group), 0.35 + 0.17 * len(lines) + 1.9 * place)
            floor = swept.floors.get(scope.name)
            if floor is not None and floor.mean is not None:
                axes.axhline(floor.mean, color=svg.LINE, linestyle="--", linewidth=1)
            for line, (style, points) in enumerate(zip(styles, lines.values(), strict=True)):
                shift = 0.06 * (line - (len(lines) - 1) / 2)
                means = [(x + shift, swept.scores[at].of(scope, HEADLINE)) for x, at in points]
                marks.interval_line(axes, means, *style)
            axes.set_xticks(range(len(ticks)), ticks if place else [""] * len(ticks))
            axes.set_xlim(-0.3, len(ticks) - 0.7)
            axes.set_ylim(bottom=0)
            axes.set_ylabel(metric_word(HEADLINE))
        axes.set_xlabel(svg.label(key_name(key) if key else text("sweep.setting")))
        svg.legend(figure, [(name, svg.entry(*style)) for name, style in zip(lines, styles, strict=True)])

    words = "; ".join(
        f"{name}: "
        + ", ".join(
            f"{group_name(scope.group)} {number(scores.of(scope, HEADLINE).mean)}" for scope in (ON_OPEN, ON_CONTEXT)
        )
        for name, scores in zip(labels(sweep), swept.scores, strict=True)
    )
    named = {"metric": metric_word(HEADLINE), "system": system_name(system)}
    read = text("figure.sweep_read", values=words, **named)
    drawn = svg.draw(f"sweep{place}", 0.4 + 0.17 * len(lines) + 1.9 * 2, paint, read)
    return Figure(drawn, text("figure.sweep", **named))


def dose_figure(sweep: SweepResults, system: str, place: int) -> list[Figure]:
    """Share of the reference already in the prompt against the score lost; nothing where that was not measured."""
    dose = sweep.systems[system].dose
    if not dose or not dose.points:
        return []

    def paint(figure: Canvas) -> None:
        axes = svg.axes_of(figure, left=0.62, bottom=0.48, top=0.55)
        axes.axhline(0, color=svg.TEXT, linewidth=0.8)
        entries = []
        for scope, colour, marker in ((ON_OPEN, svg.BLUE, "o"), (ON_CONTEXT, svg.VERMILION, "D")):
            points = np.array([point[:2] for point in dose.points if point[2] == scope.group])
            if len(points):
                axes.plot(*points.T, marker, color=colour, alpha=0.3, markersize=3, markeredgewidth=0)
                entries.append((group_title(scope.group), svg.entry(colour, marker, linestyle="")))
        for found in dose.bins:
            axes.plot([found.low, found.high], [found.mean] * 2, color=svg.TEXT, linewidth=2.4)
            if ends := Interval(found.mean, found.ci_low, found.ci_high).ends:
                axes.plot([(found.low + found.high) / 2] * 2, ends, color=svg.TEXT)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel(text("figure.dose_axis"))
        axes.set_ylabel(text("figure.dose_lost", metric=metric_word(HEADLINE)))
        svg.legend(figure, entries)

    first, second = (labels(sweep)[at] for at in (dose.first, dose.second))
    ends = [(f"{one.low:.2f}", f"{one.high:.2f}", number(one.mean, signed=True)) for one in dose.bins]
    words = "; ".join(text("figure.dose_bin", low=low, high=high, mean=mean) for low, high, mean in ends)
    drawn = svg.draw(f"dose{place}", 2.9, paint, text("figure.dose_read", values=words))
    return [Figure(drawn, text("figure.dose", system=system_name(system), first=first, second=second))]


def _lines(settings: Sequence[Setting]) -> tuple[str, list[str], dict[str, list[tuple[int, int]]]]:
    """(key along x, "" for whole settings; tick labels, line's name → (x, number of the setting))."""
    keys = varying(settings)
    numeric = [k for k in keys if all(isinstance(s.get(k, 0), int | float) and k in s for s in settings)]
    key = PENALTY if PENALTY in numeric else next(iter(numeric), "")
    if not key:
        points = {text("sweep.every_setting"): [(at, at) for at in range(len(settings))]}
        return "", [svg.label(setting_name(s, keys), 14) for s in settings], points
    values = sorted({setting[key] for setting in settings})
    others = [k for k in keys if k != key]
    scopes = list(dict.fromkeys(s.get(SCOPE) for s in settings if not _neutral(s, key))) or [None]
    lines: dict[str, dict[int, int]] = {}
    for at, setting in enumerate(settings):
        for scope in scopes if _neutral(setting, key) else [setting.get(SCOPE)]:
            line = lines.setdefault(_line_name(setting | {SCOPE: scope}, others), {})
            line.setdefault(values.index(setting[key]), at)
    named = {name or text("sweep.every_setting"): sorted(line.items()) for name, line in lines.items()}
    return key, [f"{value:g}" for value in values], named


def _neutral(setting: Setting, key: str) -> bool:
    """A penalty of 1.0 changes nothing, so its scope does not matter."""
    return key == PENALTY and is_neutral(setting)


def _line_name(setting: Setting, keys: Sequence[str]) -> str:
    return ", ".join(f"{key_name(key)}: {setting.get(key)}" for key in keys if setting.get(key) is not None)
