"""The studies' results as Markdown that explains itself. No torch here.

Its text and tables are in tables.md.jinja; here is how their values are written.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from eval.metrics.floors import CEILINGS, FLOORS
from eval.predictions import BASE
from eval.render import numbers
from eval.render.markdown import inline, render_markdown
from studies.context_qa.placebo.scores import placebo_blocks
from studies.context_qa.plan import GREEDY
from studies.context_qa.report.analysis import BEHAVIOUR
from studies.context_qa.report.estimates import interval_of
from studies.context_qa.report.figures import Drawn
from studies.context_qa.report.material import metric_name

NOT_RUN = "not run"
ROWS_NAMES = {"jsquad": "JSQuAD", "dolly": "dolly", "niilc": "NIILC", "jsquad-shots": "JSQuAD with examples"}
Found = Mapping[str, Any] | None


def tables(results: Mapping[str, Any], figures: Sequence[Drawn]) -> str:
    """The whole document; each figure stands in the section of its name."""
    jinja = Environment(
        trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, autoescape=True, finalize=_escaped
    )
    jinja.filters |= {
        "fates": _fates, "metric_name": metric_name, "number": numbers.number, "outcome": _outcome, "p": _p_value,
        "placebo": _placebo, "repr": repr, "set_name": _set_name, "shown": shown,
    }  # fmt: skip
    template = jinja.from_string(Path(__file__).with_name("tables.md.jinja").read_text(encoding="utf-8"))
    drawn = {figure.name: figure for figure in figures}
    names = {"floor_names": [*FLOORS, *CEILINGS], "behaviour_metrics": BEHAVIOUR, "base": BASE, "greedy": GREEDY}
    return template.render(results, figures=drawn, **names)


def shown(found: Found, signed: bool = False, digits: int = 3) -> str:
    """`0.394 [0.357, 0.431]`, with the seeds' range where there are several; `not run` for None."""
    if not found or "mean" not in found:
        return NOT_RUN
    seeds = [value for value in found.get("by_seed") or () if value is not None]
    low_high = [numbers.number(end, signed, digits) for end in (min(seeds), max(seeds))] if seeds else []
    spread = f"; seeds {' to '.join(low_high)}" if seeds else ""
    return f"{numbers.with_interval(interval_of(found), signed, digits)}{spread}"


def _p_value(found: Found, key: str = "p") -> str:
    """`.012`, `≤.002` where flips can give no less; `n/a` where it was not tested, `not run` for None."""
    if not found or "mean" not in found:
        return NOT_RUN
    value = found.get(key)
    if found.get("p_is_bound") and value is not None:
        return f"≤{f'{value:.4f}'.removeprefix('0')}"
    return numbers.p_value(value)


def _placebo(found: Mapping[str, Any]) -> str:
    return render_markdown(placebo_blocks(found)).strip()


def _set_name(scope: str) -> str:
    """`dolly.context` → `dolly context`; a benchmark's only group goes unsaid."""
    rows, _, group = scope.partition(".")
    return f"{ROWS_NAMES[rows]}{f' {group}' if rows == 'dolly' and group else ''}"


def _outcome(key: str) -> str:
    """`dolly.context.character_f1` → `dolly context, character F1`."""
    scope, _, metric = key.rpartition(".")
    return f"{_set_name(scope)}, {metric_name(metric)}"


def _fates(counts: Mapping[str, int]) -> str:
    """`79 whole, 228 end cut off`: what became of training rows."""
    return ", ".join(f"{count} {fate}" for fate, count in sorted(counts.items(), reverse=True)) or "none"


def _escaped(value: object) -> Markup:
    """Plain text as Markdown shows it; what the template's macros made stays."""
    return value if isinstance(value, Markup) else Markup(inline(str(value)))
