"""JCommonsenseQA (JGLUE): five answers to choose from. The likeliest one is the model's; nothing is generated."""

from collections.abc import Mapping
from typing import Any

from eval.benchmarks.form import Benchmark, Item, field, name_of
from sft.data.files.raw import BadRow

CHOICES = tuple(f"choice{number}" for number in range(5))
ASKED = "与えられた選択肢の中から、最適な答えを選んでください。\n\n質問：{question}\n選択肢：\n{choices}"
"""Stability's prompt 0.2.1, but that the template has its own words before the answer."""


def item(row: Mapping[str, Any]) -> Item:
    """A question with its choices below it; `label` is the number of the right one, from 0."""
    choices = tuple(field(row, name) for name in CHOICES)
    if len(set(choices)) < len(choices):
        raise BadRow("two choices are the same")
    label = name_of(row, "label")
    if label is None or label not in map(str, range(len(choices))):
        raise BadRow("no label" if label is None else "label is no number of a choice")
    asked = ASKED.format(question=field(row, "question"), choices="\n".join(f"- {choice}" for choice in choices))
    return Item(asked, "", choices[int(label)], (), name_of(row, "q_id", "id", "index"), choices)


JCOMMONSENSEQA = Benchmark(
    name="jcommonsenseqa",
    title="JCommonsenseQA",
    hub="sbintuitions/JCommonsenseQA",
    split="validation",
    item=item,
    form="question, choice0 to choice4 and label (0 to 4)",
    settings=("generation.temperature=0",),
    metrics={"exact_match": "lm-evaluation-harness, Stability AI (acc)"},
    chance=0.2,
)
