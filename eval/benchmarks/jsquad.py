"""JSQuAD (JGLUE): questions about paragraphs of the Japanese Wikipedia, answered by a passage of theirs."""

from collections.abc import Mapping
from typing import Any

from eval.benchmarks.form import SHORT_ANSWERS, Benchmark, Item, answers_of, field, name_of


def item(row: Mapping[str, Any]) -> Item:
    """A question and its paragraph, which begins with the article's title as JGLUE has it."""
    answers = answers_of(row)
    context, question = field(row, "context", "input"), field(row, "question", "instruction")
    return Item(question, context, answers[0], answers, name_of(row, "id", "index"))


JSQUAD = Benchmark(
    name="jsquad",
    title="JSQuAD",
    hub="sbintuitions/JSQuAD",
    split="validation",
    item=item,
    form="question, context and answers (JGLUE's own JSON, or a row each), or instruction, input and answers",
    settings=SHORT_ANSWERS,
    metrics={
        "jglue_f1": "JGLUE",
        "jglue_exact_match": "JGLUE",
        "llm_jp_eval_char_f1": "llm-jp-eval, Nejumi",
        "flexeval_char_f1": "flexeval",
        "stability_f1": "Stability AI (jp-stable)",
        "gold_contained": "",
        "correct": "",
    },
)
