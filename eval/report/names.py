"""What groups, categories, systems, metrics, floors and settings are called, in the reader's language.

The first screen has room for words (before, after); the tables and figures behind it have short ones (base, tuned).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from eval.metrics.metric import Metric
from eval.predictions import BASE, TUNED
from eval.render.terminal import CATEGORY_CELLS
from eval.scoring.results import RowCounts, Scope
from sft.config.repetition_penalty import PENALTY, SCOPE, is_neutral
from sft.data.records import Group
from sft.system.texts import Count, language, series, table, text
from sft.system.visible import narrow

SHOWN_MIXED = 3
"""Categories with rows in several groups that are named below a table."""


def group_word(group: Group) -> str:
    """A group's questions, behind "Questions"."""
    return {"open": text("report.open"), "context": text("report.context"), "other": text("report.other")}[group]


def group_name(group: Group) -> str:
    """A group in a table or figure."""
    return {"open": text("body.open"), "context": text("body.context"), "other": text("body.other")}[group]


def group_title(group: Group) -> str:
    """A group as a heading."""
    return {
        "open": text("report.open_qa"),
        "context": text("report.context_qa"),
        "other": text("report.other_categories"),
    }[group]


def scope_word(scope: Scope) -> str:
    """A category by its name, a group as all its questions."""
    return text("report.all_of", group=group_word(scope.group)) if scope.is_group else category_word(scope.name)


def scope_name(scope: Scope) -> str:
    """A category or a group in a table or figure."""
    return text("body.all_of", group=group_name(scope.group)) if scope.is_group else category_word(scope.name)


def category_word(category: str) -> str:
    """A category by its name."""
    return category or text("rows.no_category")


def why_rows_do_not_add_up(rows: RowCounts) -> list[str]:
    """A sentence for each of the first categories with rows in several groups, and one for how many more there are.

    None where each group has its categories' rows.
    """
    found = [
        text(
            "report.mixed",
            category=narrow(category_word(name), CATEGORY_CELLS),
            under=group_word(rows.under[name]),
            groups=series(
                text("report.rows_of_group", rows=Count(count), group=group_word(group))
                for group, count in groups.items()
            ),
        )
        for name, groups in [*rows.mixed.items()][:SHOWN_MIXED]
    ]
    others = len(rows.mixed) - len(found)
    return [*found, text("report.mixed_more", others=Count(others))] if others else found


def system_word(name: str) -> str:
    """Base and tuned as before and after, others by their name."""
    return {BASE: text("report.before"), TUNED: text("report.after")}.get(name, name)


def system_name(name: str) -> str:
    """A system in a table or figure."""
    return {BASE: text("body.base"), TUNED: text("body.tuned")}.get(name, name)


def change_name() -> str:
    """What a difference between the two is."""
    return f"{system_name(TUNED)} − {system_name(BASE)}"


def metric_word(metric: Metric) -> str:
    """A metric: ↓ marks where less is better, … a part of the metric above it. A new one may have its title alone."""
    name = text(f"metric.{metric.key}") if metric.key in table()["metric"] else metric.title
    return f"{'… ' if metric.part_of else ''}{name}{' ↓' if metric.lower_is_better else ''}"


def deciding_word(metric: Metric) -> str:
    """A metric that decides: exact match does where the answers are given choices, and is accuracy there."""
    return text("report.accuracy") if metric.key == "exact_match" else metric_word(metric)


def metric_title(metric: Metric) -> str:
    """A metric above its numbers; a Japanese name is followed by the key, by which results and documentation go."""
    return f"{metric_word(metric)}（{metric.key}）" if language() == "ja" else metric_word(metric)


def floor_word(name: str) -> str:
    """A floor, as `Limit` names it, in a sentence."""
    return {
        "echo": text("report.echo"),
        "shuffled": text("report.shuffled"),
        "constant": text("report.constant"),
        "lead": text("report.lead"),
        "lead of its own length": text("report.own_lead"),
        "question sentence": text("report.question_sentence"),
    }.get(name, name)


def floor_name(name: str) -> str:
    """A floor in a table."""
    return {
        "echo": text("body.echo"),
        "shuffled": text("body.shuffled"),
        "constant": text("body.constant"),
        "lead": text("body.lead"),
        "lead of its own length": text("body.own_lead"),
        "question sentence": text("body.question_sentence"),
    }.get(name, name)


def setting_name(setting: Mapping[str, Any], keys: Sequence[str]) -> str:
    """`1.2, generated`: the values of `keys`; the scope is left out where the penalty does nothing."""
    shown = [str(setting[key]) for key in keys if key in setting and not (key == SCOPE and is_neutral(setting))]
    return ", ".join(shown) or text("sweep.as_configured")


def key_name(key: str) -> str:
    """A generation key on an axis or in a legend."""
    known = {PENALTY: text("sweep.repetition_penalty"), SCOPE: text("sweep.repetition_penalty_scope")}
    return known.get(key, key.replace("_", " "))
