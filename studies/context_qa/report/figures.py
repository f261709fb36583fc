"""The study's figures, drawn in the style of the evaluation's. No torch here."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eval.metrics.floors import CEILINGS
from eval.predictions import BASE
from eval.render import marks
from sft.config.repetition_penalty import DEFAULT_SCOPE, NO_PENALTY, PENALTY, SCOPE
from sft.page import svg
from studies.context_qa.placebo.scores import SCOPES as SCOPES_PENALISED
from studies.context_qa.placebo.scores import STRONG
from studies.context_qa.plan import GREEDY
from studies.context_qa.report.estimates import interval_of
from studies.context_qa.report.material import metric_name

Results = Mapping[str, Any]
Estimate = Mapping[str, Any]

SCOPES = {"generated": "-", "all": "--"}
GROUPS = {
    "open": ("open", svg.BLUE, "o"),
    "context": ("context", svg.VERMILION, "D"),
    "other": ("classification", svg.GREEN, "s"),
}
"""Group → its name, colour and marker; of the other categories the study answers one."""
BENCHMARKS = {"jsquad": "JSQuAD", "niilc": "NIILC", "jsquad-shots": "JSQuAD, 2 shots"}
SHOWN = ("jsquad.context.gold_contained", "dolly.context.character_f1", "dolly.open.character_f1")
"""What is drawn of penalties and of arms."""


class Drawn(NamedTuple):
    """A figure as SVG text and as PNG, with what it shows and how to read it."""

    name: str
    caption: str
    svg: str
    png: bytes


def figures(results: Results) -> list[Drawn]:
    """Every figure that there are numbers for, each model's under its name."""
    drawn = [_placebo(results)]
    drawn += [paint(name, found) for name, found in results["models"].items() for paint in (_sweep, _dose, _arms)]
    return [figure for figure in drawn if figure is not None]


def _placebo(results: Results) -> Drawn | None:
    series = {
        f"{model}, {system}": [one for one in found["settings"] if one["penalty"] == STRONG][: len(SCOPES_PENALISED)]
        for model, one in results["models"].items()
        for system, found in one["placebo"].items()
    }
    if not series:
        return None
    above, height = 0.3 + 0.17 * len(series), len(SCOPES_PENALISED) * (0.16 + 0.09 * len(series))

    def paint(figure: Figure) -> None:
        axes = svg.panel(figure, "JSQuAD, gold contained", above, height, left=1.75)
        for place, found in enumerate(series.values()):
            colour, marker = svg.style_at(place)
            for y, one in enumerate(found):
                at = y + 0.7 * ((place + 0.5) / len(series) - 0.5)
                axes.plot([one["mean"]], [at], marker, color=colour, clip_on=False)
                axes.plot([one["ci_low"], one["ci_high"]], [at, at], color=colour, linewidth=1.2)
        axes.set_yticks(range(len(SCOPES_PENALISED)), [name.replace(" + ", "\n+ ") for name in SCOPES_PENALISED])
        axes.set_ylim(len(SCOPES_PENALISED) - 0.4, -0.6)
        axes.set_xlim(0, 1)
        svg.legend(figure, [(name, svg.entry(*svg.style_at(place))) for place, name in enumerate(series)])

    caption = (
        f"Which tokens a penalty of {STRONG:g} reaches decides: rows whose answer contains the gold, greedy, the "
        "same rows for all, 95% intervals over articles. Another row's context is the placebo: as many tokens in the "
        "mean, and few of the answer's."
    )
    return _drawn("placebo", above + height + 0.3, paint, caption)


def _drawn(name: str, height: float, paint: Callable[[Figure], None], caption: str) -> Drawn:
    return Drawn(name, caption, svg.draw(name, height, paint, caption), svg.draw_png(height, paint))


def _styles(study: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Base, article and recipe → colour and marker, the same in all figures."""
    names = dict.fromkeys((BASE, study["article"], study["recipe"]))
    return dict(zip(names, ((svg.BLUE, "o"), (svg.VERMILION, "D"), (svg.GREEN, "s")), strict=False))


def _title(key: str) -> str:
    rows, scope, metric = key.split(".")
    return f"{BENCHMARKS.get(rows, f'{rows} {scope}')} {metric_name(metric).replace('character F1', 'F1')}"


def _line(axes: Axes, points: Sequence[tuple[float, Estimate | None]], colour: str, marker: str, style: str) -> None:
    known = [(x, interval_of(found)) for x, found in points if found]
    marks.interval_line(axes, known, colour, marker, linestyle=style, clip_on=False)


def _system_entries(styles: Mapping[str, tuple[str, str]]) -> list[tuple[str, Line2D]]:
    return [("base model" if arm == BASE else f"{arm} training", svg.entry(*style)) for arm, style in styles.items()]


def _sweep(model: str, results: Results) -> Drawn | None:
    styles = _styles(results["study"])
    lines = _penalties(results["generation"])
    keys = [key for key in SHOWN if any(one for arm in results["sweep"][key].values() for one in arm.values())]
    if not keys or not lines:
        return None
    penalties = sorted({penalty for points in lines.values() for penalty, _ in points})

    def paint(figure: Figure) -> None:
        for place, key in enumerate(keys):
            axes = svg.panel(figure, _title(key), 1.49 + 1.95 * place)
            for number_, (arm, style) in enumerate(styles.items()):
                for shift, (scope, points) in zip((-0.025, 0.025), lines.items(), strict=False):
                    # A penalty of 1 has no scope: both lines start from one point.
                    x = [penalties.index(p) + 0.1 * (number_ - 1) + (shift if p != 1 else 0) for p, _ in points]
                    found = [(at, results["sweep"][key][arm][d]) for at, (_, d) in zip(x, points, strict=True)]
                    _line(axes, found, *style, SCOPES[scope])
                    leads = [(at, one["lead"]) for at, one in found if one and one["lead"] is not None]
                    axes.plot(*zip(*leads, strict=True) if leads else ([], []), "_", color=style[0], markersize=9)
            floor = max((v for name, v in results["floors"][key].items() if v is not None and name not in CEILINGS))
            axes.axhline(floor, color=svg.LINE, linestyle=":", linewidth=1)
            axes.set_xticks(range(len(penalties)), [f"{penalty:g}" for penalty in penalties])
            axes.set_xlim(-0.3, len(penalties) - 0.7)
            axes.set_ylim(bottom=0)
        axes.set_xlabel("repetition penalty")
        names = {"generated": "penalty on generated tokens", "all": "penalty on the prompt, too"}
        entries = [(names[scope], svg.entry(svg.TEXT, linestyle=SCOPES[scope])) for scope in lines]
        entries += [("the context's beginning, as long", svg.entry(svg.TEXT, "_", linestyle="", markersize=9))]
        entries += [("best floor", svg.entry(svg.LINE, linestyle=":"))]
        svg.legend(figure, _system_entries(styles) + entries)

    caption = (
        f"{model}: score by repetition penalty and its scope, greedy, same rows, 95% intervals. 1 is no penalty. "
        "Dashes: what copying the context's beginning at the length of those answers would reach."
    )
    return _drawn(f"{model}-sweep", 1.49 + 1.95 * len(keys) + 0.02, paint, caption)


def _penalties(generation: Mapping[str, Mapping[str, Any]]) -> dict[str, list[tuple[float, str]]]:
    """Scope → (penalty, decoding) of the greedy decodings, ascending; without a penalty there is no scope.

    `generation` holds settings as they took effect: a decoding may be silent on what the study's configuration says.
    """
    lines: dict[str, list[tuple[float, str]]] = {scope: [] for scope in SCOPES}
    for name, settings in generation.items():
        penalty = settings.get(PENALTY, NO_PENALTY)
        if settings.get("temperature", 0.0) == 0:
            for scope in SCOPES if penalty == NO_PENALTY else [settings.get(SCOPE, DEFAULT_SCOPE)]:
                lines[scope].append((penalty, name))
    return {scope: sorted(points) for scope, points in lines.items() if len(points) > 1}


def _dose(model: str, results: Results) -> Drawn | None:
    study = results["study"]
    by_pair = results["dose"][study["article"]]
    shown = [name for name, found in by_pair.items() if found and found["points"]]
    if not shown:
        return None

    def paint(figure: Figure) -> None:
        lost = [point[1] for pair in shown for point in by_pair[pair]["points"]]
        for place, pair in enumerate(shown):
            axes = svg.panel(figure, pair, 1.0 + 2.4 * place, height=1.85, left=0.72)
            _dose_panel(axes, by_pair[pair])
            axes.set_ylim(min(lost) - 0.03, max(lost) + 0.03)  # the same for all
        axes.set_xlabel("share of the reference's tokens in the prompt")
        entries = [(label, svg.entry(colour, marker, linestyle="")) for label, colour, marker in GROUPS.values()]
        svg.legend(figure, [*entries, ("fifths of the rows", svg.entry(svg.TEXT))])

    caption = (
        f"{model}, {study['article']} training: what each row of dolly loses in character F1 from one decoding to the "
        "other, against how much of its reference already stands in the prompt. Bars: means of fifths of the rows, 95% "
        "intervals."
    )
    return _drawn(f"{model}-dose", 1.0 + 2.4 * len(shown) + 0.02, paint, caption)


def _dose_panel(axes: Axes, found: Mapping[str, Any]) -> None:
    axes.axhline(0, color=svg.LINE, linewidth=0.8)
    for group, (_, colour, marker) in GROUPS.items():
        points = np.array([point[:2] for point in found["points"] if point[2] == group])
        if len(points):
            axes.plot(*points.T, marker, color=colour, alpha=0.3, markersize=3, markeredgewidth=0)
    for fifth in found["fifths"]:
        axes.plot([fifth["low"], fifth["high"]], [fifth["mean"]] * 2, color=svg.TEXT, linewidth=2.4)
        if ends := interval_of(fifth).ends:
            axes.plot([(fifth["low"] + fifth["high"]) / 2] * 2, ends, color=svg.TEXT, linewidth=1, alpha=0.7)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylabel("character F1 lost")


def _arms(model: str, results: Results) -> Drawn | None:
    found = {key: results["arms"][key][GREEDY] for key in (*SHOWN, "jsquad-shots.context.jglue_f1")}
    found = {key: {arm: one["score"] for arm, one in by_arm.items() if one["score"]} for key, by_arm in found.items()}
    found = {key: scores for key, scores in found.items() if scores}
    if not found:
        return None
    arms = list(dict.fromkeys(arm for scores in found.values() for arm in scores))
    height = 0.24 * len(arms) + 0.1
    left = 0.15 + 0.07 * max(map(len, arms))  # inches that the longest name takes

    def paint(figure: Figure) -> None:
        for place, (key, scores) in enumerate(found.items()):
            axes = svg.panel(figure, _title(key), 0.3 + (height + 0.5) * place, height, left=left)
            for arm, one in scores.items():
                y = arms.index(arm)
                colour, marker = _styles(results["study"]).get(arm, (svg.TEXT, "^"))
                axes.plot([one["mean"]], [y], marker, color=colour, clip_on=False)
                if ends := interval_of(one).ends:
                    axes.plot(ends, [y, y], color=colour, linewidth=1.2)
                if one["lead"] is not None:
                    axes.plot([one["lead"]], [y], "|", color=svg.SOFT, markersize=9, clip_on=False)
            axes.set_yticks(range(len(arms)), arms)
            axes.set_ylim(len(arms) - 0.5, -0.5)
            axes.set_xlim(left=0)

    caption = (
        f"{model}: training arms, decoded greedily without a penalty, same rows, 95% intervals. Upright dashes: the "
        "context's beginning at the length of those answers."
    )
    return _drawn(f"{model}-arms", 0.3 + (height + 0.5) * len(found), paint, caption)
