"""The study's figures, drawn in the style of the evaluation's. No torch here."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from eval.metrics.catalogue import BY_KEY
from eval.metrics.floors import ORACLE
from eval.predictions import BASE
from eval.render import marks
from sft.config.repetition_penalty import DEFAULT_SCOPE, NO_PENALTY, PENALTY, SCOPE
from sft.page import svg
from studies.context_qa.estimates import interval_of
from studies.context_qa.plan import GREEDY

Results = Mapping[str, Any]
Estimate = Mapping[str, Any]

SCOPES = {"generated": "-", "all": "--"}
GROUPS = {
    "open": ("open", svg.BLUE, "o"),
    "context": ("context", svg.VERMILION, "D"),
    "other": ("classification", svg.GREEN, "s"),
}
"""Group → its name, colour and marker; of the other categories the study answers one."""
BENCHMARKS = {"jsquad": "JSQuAD", "niilc": "NIILC"}


class Drawn(NamedTuple):
    """A figure as SVG text and as PNG, with what it shows and how to read it."""

    name: str
    caption: str
    svg: str
    png: bytes


def figures(results: Results) -> list[Drawn]:
    """Every figure that there are numbers for."""
    drawn = (_factorial(results), _sweep(results), _dose(results), _behaviour(results), _arms(results))
    return [figure for figure in drawn if figure is not None]


def _drawn(name: str, height: float, paint: Callable[[Figure], None], caption: str) -> Drawn:
    return Drawn(name, caption, svg.draw(name, height, paint, caption), svg.draw_png(height, paint))


def _styles(study: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Base, article and recipe → colour and marker, the same in all figures."""
    names = dict.fromkeys((BASE, study["article"], study["recipe"]))
    return dict(zip(names, ((svg.BLUE, "o"), (svg.VERMILION, "D"), (svg.GREEN, "s")), strict=False))


def _title(key: str) -> str:
    rows, scope, metric = key.split(".")
    name = "F1" if metric == "character_f1" else BY_KEY[metric].name
    return f"{BENCHMARKS.get(rows, f'{rows} {scope}')} {name}"


def _line(axes: Axes, points: Sequence[tuple[float, Estimate | None]], colour: str, marker: str, style: str) -> None:
    known = [(x, interval_of(found)) for x, found in points if found]
    marks.interval_line(axes, known, colour, marker, linestyle=style, clip_on=False)


def _system_entries(styles: Mapping[str, tuple[str, str]]) -> list[tuple[str, Line2D]]:
    return [("base model" if arm == BASE else f"{arm} training", svg.entry(*style)) for arm, style in styles.items()]


def _factorial(results: Results) -> Drawn | None:
    study, styles = results["study"], _styles(results["study"])
    decodings = [study["article_decoding"], study["recipe_decoding"]]
    keys = [
        k for k, v in results["factorial"].items() if any(c for cells in v["cells"].values() for c in cells.values())
    ]
    if not keys:
        return None

    def paint(figure: Figure) -> None:
        for place, key in enumerate(keys):
            found = results["factorial"][key]
            left, top = (0.4, 2.28)[place % 2], 1.15 + 2.05 * (place // 2)
            axes = svg.panel(figure, _title(key), top, left=left, right=svg.WIDTH - left - 1.5)
            floors = [v for name, v in found["limits"].items() if name != ORACLE and v is not None]
            axes.axhline(max(floors), color=svg.LINE, linestyle="--", linewidth=1)
            if found["limits"].get(ORACLE) is not None:
                axes.axhline(found["limits"][ORACLE], color=svg.LINE, linestyle=":", linewidth=1)
            for number_, (arm, style) in enumerate(styles.items()):
                cells = found["cells"][arm]
                _line(axes, [(x + 0.06 * (number_ - 1), cells[d]) for x, d in enumerate(decodings)], *style, "-")
            axes.set_xticks([0, 1], decodings)
            axes.set_xlim(-0.5, 1.5)
            axes.set_ylim(bottom=0)
        limits = [("best floor", "--"), ("oracle: best sentence of the context", ":")]
        entries = [(name, svg.entry(svg.LINE, linestyle=style)) for name, style in limits]
        svg.legend(figure, _system_entries(styles) + entries)

    caption = (
        "Training × decoding, same rows, 95% intervals. Steep lines: decoding decides. Lines apart: training decides."
    )
    return _drawn("factorial", 1.15 + 2.05 * ((len(keys) + 1) // 2) - 0.2, paint, caption)


def _sweep(results: Results) -> Drawn | None:
    styles = _styles(results["study"])
    lines = _penalties(results["generation"])
    keys = [
        key
        for key in ("jsquad.context.gold_contained", "dolly.context.character_f1", "dolly.open.character_f1")
        if any(found for by_arm in results["sweep"][key].values() for found in by_arm.values())
    ]
    if not keys or not lines:
        return None
    penalties = sorted({penalty for points in lines.values() for penalty, _ in points})

    def paint(figure: Figure) -> None:
        for place, key in enumerate(keys):
            axes = svg.panel(figure, _title(key), 1.15 + 1.95 * place)
            for number_, (arm, style) in enumerate(styles.items()):
                for shift, (scope, points) in zip((-0.025, 0.025), lines.items(), strict=False):
                    # A penalty of 1 has no scope: both lines start from one point.
                    x = [penalties.index(p) + 0.1 * (number_ - 1) + (shift if p != 1 else 0) for p, _ in points]
                    scores = results["sweep"][key][arm]
                    found = [(at, scores[d]) for at, (_, d) in zip(x, points, strict=True)]
                    _line(axes, found, *style, SCOPES[scope])
            axes.set_xticks(range(len(penalties)), [f"{penalty:g}" for penalty in penalties])
            axes.set_xlim(-0.3, len(penalties) - 0.7)
            axes.set_ylim(bottom=0)
        axes.set_xlabel("repetition penalty")
        names = {"generated": "penalty on generated tokens", "all": "penalty on the prompt, too"}
        entries = [(names[scope], svg.entry(svg.TEXT, linestyle=SCOPES[scope])) for scope in lines]
        svg.legend(figure, _system_entries(styles) + entries)

    caption = "Score by repetition penalty and its scope, greedy, same rows, 95% intervals. 1 is no penalty."
    return _drawn("sweep", 1.15 + 1.95 * len(keys) + 0.02, paint, caption)


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


def _dose(results: Results) -> Drawn | None:
    study = results["study"]
    by_decoding = results["dose"][study["recipe"]]
    wanted = dict.fromkeys((study["article_decoding"], results["control"]))
    shown = [name for name in wanted if name is not None and by_decoding.get(name)]
    if not shown:
        return None

    def paint(figure: Figure) -> None:
        lost = [point[1] for decoding in shown for point in by_decoding[decoding]["points"]]
        for place, decoding in enumerate(shown):
            axes = svg.panel(figure, f"{GREEDY} → {decoding}", 1.0 + 2.4 * place, height=1.85, left=0.72)
            _dose_panel(axes, by_decoding[decoding])
            axes.set_ylim(min(lost) - 0.03, max(lost) + 0.03)  # the same for both
        axes.set_xlabel("share of the reference's tokens in the prompt")
        entries = [(label, svg.entry(colour, marker, linestyle="")) for label, colour, marker in GROUPS.values()]
        svg.legend(figure, [*entries, ("fifths of the rows", svg.entry(svg.TEXT))])

    caption = (
        f"{study['recipe']} training: what each row of dolly loses in character F1, against how much of its "
        "reference already stands in the prompt. Bars: means of fifths of the rows, 95% intervals. "
    )
    if len(shown) > 1:
        caption += (
            f"Rising above, where the penalty reaches the prompt, and flat below, where it does not ({shown[1]}), "
        )
        caption += "speaks for the penalty on the prompt as the cause."
    return _drawn("dose", 1.0 + 2.4 * len(shown) + 0.02, paint, caption)


def _dose_panel(axes: Axes, found: Mapping[str, Any]) -> None:
    axes.axhline(0, color=svg.LINE, linewidth=0.8)
    for group, (_, colour, marker) in GROUPS.items():
        points = np.array([point[:2] for point in found["points"] if point[3] == group])
        if len(points):
            axes.plot(*points.T, marker, color=colour, alpha=0.3, markersize=3, markeredgewidth=0)
    for fifth in found["fifths"]:
        axes.plot([fifth["low"], fifth["high"]], [fifth["mean"]] * 2, color=svg.TEXT, linewidth=2.4)
        if ends := interval_of(fifth).ends:
            axes.plot([(fifth["low"] + fifth["high"]) / 2] * 2, ends, color=svg.TEXT, linewidth=1, alpha=0.7)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylabel("character F1 lost")


def _behaviour(results: Results) -> Drawn | None:
    study, thirds = results["study"], results["behaviour"]["reference_thirds"]
    decodings = [d for d in study["decodings"] if any(third["decodings"][d] for third in thirds)]
    if not decodings:
        return None
    colours = (svg.SKY, svg.BLUE, svg.TEXT)

    def paint(figure: Figure) -> None:
        for place, metric in enumerate(("particle_share", "punctuation_share")):
            axes = svg.panel(figure, f"{BY_KEY[metric].name}, share", 0.95 + 1.9 * place, height=1.5)
            for number_, (third, colour) in enumerate(zip(thirds, colours, strict=False)):
                scores = [(x + 0.1 * (number_ - 1), third["decodings"][d]) for x, d in enumerate(decodings)]
                _line(axes, [(x, found and found[metric]) for x, found in scores], colour, "o", "")
                if third["reference"][metric] is not None:
                    axes.axhline(third["reference"][metric], color=colour, linestyle="--", linewidth=0.8)
            axes.set_xticks(
                range(len(decodings)), decodings if place else [""] * len(decodings), rotation=35, ha="right"
            )
            axes.set_xlim(-0.5, len(decodings) - 0.5)
            axes.set_ylim(bottom=0)
        lengths = ["references of {} to {} characters".format(*third["characters"]) for third in thirds]
        entries = [(name, svg.entry(c, "o", linestyle="")) for name, c in zip(lengths, colours, strict=False)]
        svg.legend(figure, [*entries, ("dashed: the references' own", svg.entry(svg.LINE, linestyle="--"))])

    caption = (
        f"{study['recipe']} training: particles among the words and punctuation among the characters of its answers to "
        "dolly's rows, in thirds by the length of the reference, 95% intervals. Far below the dashed line of the same "
        "colour, the decoding starves the answers."
    )
    return _drawn("behaviour", 0.95 + 1.9 * 2 + 0.55, paint, caption)


def _arms(results: Results) -> Drawn | None:
    keys = [
        key
        for key in ("jsquad.context.gold_contained", "dolly.context.character_f1", "dolly.open.character_f1")
        if any(one["score"] for one in results["arms"].get(key, {}).values())
    ]
    if not keys:
        return None
    arms = [BASE, *results["study"]["arms"]]
    height = 0.24 * len(arms) + 0.1

    def paint(figure: Figure) -> None:
        for place, key in enumerate(keys):
            axes = svg.panel(figure, _title(key), 0.3 + (height + 0.5) * place, height, left=0.95)
            for y, arm in enumerate(arms):
                found = results["arms"][key][arm]["score"]
                if found and found["mean"] is not None:
                    colour, marker = _styles(results["study"]).get(arm, (svg.TEXT, "^"))
                    axes.plot([found["mean"]], [y], marker, color=colour, clip_on=False)
                    if found["ci_low"] is not None:
                        axes.plot([found["ci_low"], found["ci_high"]], [y, y], color=colour, linewidth=1.2)
            axes.set_yticks(range(len(arms)), arms)
            axes.set_ylim(len(arms) - 0.5, -0.5)
            axes.set_xlim(left=0)

    caption = "Training arms, decoded greedily without a penalty, same rows, 95% intervals."
    return _drawn("arms", 0.3 + (height + 0.5) * len(keys), paint, caption)
