"""rows.html: every row with its answers and scores in one file, to filter and search without a server. No torch here.

What it shows is JSON inside it; rows.js, the only script that may run there, draws it as text.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from markupsafe import Markup

from eval.metrics.catalogue import REPORTED
from eval.metrics.metric import Metric
from eval.predictions import Prediction
from eval.report.names import category_word, deciding_word, group_word, metric_word, system_word
from eval.report.samples import finish_words, quoted
from eval.scoring.results import ScoredRow
from sft.data.records import GROUPS, category_label
from sft.page.html import pages
from sft.system.shared_spans import SHORTEST
from sft.system.texts import language, text, told
from sft.system.visible import visible

SIZES = (25, 100, 500)
"""Rows that may be asked for at once."""
HERE = Path(__file__).parent


class Look(NamedTuple):
    """What the page is about: the report that it stands beside, and what its rows are called better by."""

    report: str
    """The report's title."""
    decides: Metric | None
    """The metric that the report decides with; None: no metric can score these rows."""
    first: str | None = None
    """The system that others are compared with; None: nothing is compared."""
    others: tuple[str, ...] = ()
    file: str = "report.html"
    """The report's file."""
    own: tuple[Metric, ...] = ()
    """Metrics of this page alone, before those of every report."""
    remarks: Mapping[tuple[str, str], str] = MappingProxyType({})
    """System and row → what a judge says of the answer."""
    on_rows: Mapping[str, str] = MappingProxyType({})
    """Row → what a judge says of both answers."""


Answers = Mapping[str, Mapping[str, tuple[Prediction, ScoredRow]]]


def rows_page(samples: Sequence[ScoredRow], predictions: Sequence[Prediction], look: Look) -> str:
    """The whole page; `samples` are the scores of these predictions. Identical ones give identical bytes."""
    given = {(one.system, one.example.index): one for one in predictions}
    rows: dict[str, dict[str, tuple[Prediction, ScoredRow]]] = {}
    order = [name for name in (look.first, *look.others) if name]
    for row in sorted(samples, key=lambda row: order.index(row.system) if row.system in order else len(order)):
        rows.setdefault(row.index, {})[row.system] = given[row.system, row.index], row
    measured = [metric for metric in REPORTED if any(row.scores.get(metric.key) is not None for row in samples)]
    metrics = [*look.own, *measured]
    script = (HERE / "rows.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        pages(HERE)
        .get_template("rows.html.jinja")
        .render(
            language=language(),
            title=text("samples.title", report=look.report),
            look=look,
            words=_labels(),
            selects=_selects(rows, metrics, look),
            notes=_notes(look, any(row.group == "context" for row in samples)),
            data=Markup(_for_script(_data(rows, metrics, look))),
            script=Markup(script),
            policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        )
    )


def _for_script(found: Any) -> str:
    """JSON that ends no element and begins none, wherever in HTML it stands."""
    written = json.dumps(found, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return written.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


class Select(NamedTuple):
    """A filter: its name in the address, its label, its options as (value, words); the first one is the usual one."""

    name: str
    label: str
    options: list[tuple[str, str]]


def _selects(rows: Answers, metrics: Sequence[Metric], look: Look) -> list[Select]:
    examples = [next(iter(answers.values()))[0].example for answers in rows.values()]
    categories = dict.fromkeys(example.category for example in examples)
    kinds = [group for group in GROUPS if any(example.group == group for example in examples)]
    any_of = ("", text("samples.all"))
    found = []
    if len(kinds) > 1:
        found.append(Select("group", text("rows.group"), [any_of, *((group, group_word(group)) for group in kinds)]))
    if len(categories) > 1:
        named = [(category_label(category), category_word(category)) for category in categories]
        found.append(Select("category", text("rows.category"), [any_of, *named]))
    if look.first and look.decides:
        options = [any_of, *_outcomes().items()]
        found.append(Select("outcome", text("samples.outcome", metric=deciding_word(look.decides)), options))
    if len(look.others) > 1:
        label = text("samples.compared", first=system_word(look.first or ""))
        found.append(Select("with", label, [(name, system_word(name)) for name in look.others]))
    usual = sorted(metrics, key=lambda metric: metric is not look.decides)
    found.append(Select("metric", text("benchmark.metric"), [(metric.key, _name(metric, look)) for metric in usual]))
    changes = [("fell", text("samples.fell")), ("rose", text("samples.rose"))] if look.first else []
    orders = [("", text("samples.as_scored")), *changes]
    orders += [("lowest", text("samples.lowest")), ("highest", text("samples.highest"))]
    found.append(Select("order", text("samples.order"), orders))
    found.append(Select("size", text("samples.a_page"), [(str(size), str(size)) for size in SIZES]))
    return found


def _name(metric: Metric, look: Look) -> str:
    return deciding_word(metric) if metric is look.decides else metric_word(metric)


def _outcomes() -> dict[str, str]:
    return {
        "better": text("report.word_better"),
        "worse": text("report.word_worse"),
        "same": text("samples.same"),
    }


def _notes(look: Look, with_context: bool) -> list[str]:
    notes = []
    if look.first and look.decides:
        notes.append(text("samples.note", metric=deciding_word(look.decides)))
    return [*notes, *([text("samples.marks", shortest=SHORTEST)] if with_context else [])]


def _labels() -> dict[str, str]:
    """What stands in the page before anything is drawn."""
    return {
        "back": text("samples.back"),
        "no_script": text("samples.no_script"),
        "filters": text("samples.filters"),
        "search": text("samples.search"),
        "search_in": text("samples.search_in"),
        "clear": text("samples.clear"),
        "pages": text("samples.pages"),
        "previous": text("samples.previous"),
        "next": text("samples.next"),
    }


def _words() -> dict[str, Any]:
    """What rows.js says; its own values stand as {names} in it."""
    return {
        "shown": text("samples.shown", shown="{shown}", total="{total}"),
        "part": text("samples.part", start="{start}", end="{end}"),
        "nothing": text("samples.nothing"),
        "question": text("report.question"),
        "earlier": text("samples.earlier"),
        "context": text("report.passage"),
        "reference": text("report.reference"),
        "tokens": text("samples.tokens", tokens="{tokens}"),
        "scores": text("samples.scores"),
        "metric": text("benchmark.metric"),
        "change": text("report.change"),
        "empty": text("samples.empty"),
        "search": text("samples.search"),
        "judge": text("judge.words"),
        "both": text("judge.both_orders"),
        "outcomes": _outcomes(),
        "finish": finish_words(),
    }


def _data(rows: Answers, metrics: Sequence[Metric], look: Look) -> dict[str, Any]:
    """What rows.js draws. Every text is visible; contexts stand once, whatever asks about them."""
    systems = list(next(iter(rows.values())))
    contexts: dict[str, int] = {}
    first = systems.index(look.first) if look.first else None
    found = [_row(row, metrics, first, contexts, look) for row in rows.values()]
    keys = [metric.key for metric in metrics]
    return {
        "words": {name: visible(word) if isinstance(word, str) else word for name, word in _words().items()},
        "metrics": [{"key": metric.key, "name": _name(metric, look)} for metric in metrics],
        "decides": keys.index(look.decides.key) if look.decides else None,
        "systems": [visible(name) for name in systems],
        "labels": [visible(system_word(name)) for name in systems],
        "first": first,
        "others": [systems.index(name) for name in look.others],
        "contexts": list(contexts),
        "rows": found,
    }


def _row(
    answers: Mapping[str, tuple[Prediction, ScoredRow]],
    metrics: Sequence[Metric],
    first: int | None,
    contexts: dict[str, int],
    look: Look,
) -> dict[str, Any]:
    example = next(iter(answers.values()))[0].example
    plain = example.named == example.index
    context = visible(example.input) if example.input.strip() else None
    found = []
    for place, (answer, scored) in enumerate(answers.values()):
        words = visible(answer.text)
        one = {
            "text": words,
            "finish": answer.finish_reason,
            "tokens": answer.output_tokens,
            "scores": [scored.scores.get(metric.key) for metric in metrics],
        }
        if remark := look.remarks.get((answer.system, example.index)):
            one["remark"] = visible(remark)
        if context is not None:
            one["marks"] = _marks(words, context)
            if place != first:  # the context is marked for what is compared with the first
                one["taken"] = _marks(context, words)
        found.append(one)
    return {
        "title": visible(text("report.row", row=example.index) if plain else told(example.named)),
        "category": visible(category_label(example.category)),
        "called": visible(category_word(example.category)) if example.category else "",
        "group": example.group,
        "question": visible(example.instruction),
        "earlier": visible("\n".join(f"{role}: {content}" for role, content in example.history)),
        "context": None if context is None else contexts.setdefault(context, len(contexts)),
        "reference": visible("\n".join(example.references)),
        "remark": visible(look.on_rows.get(example.index, "")),
        "answers": found,
    }


def _marks(words: str, source: str) -> list[int]:
    """Start, end, start, end … of what `words` repeats of `source`, counted as JavaScript counts."""
    ends = [end for span in quoted(words, source) for end in span]
    if words.isascii() or max(words) <= "\uffff":
        return ends
    return [len(words[:end].encode("utf-16-le")) // 2 for end in ends]
