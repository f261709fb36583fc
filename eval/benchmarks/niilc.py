"""NIILC-QA: short questions of general knowledge, without a context."""

from collections.abc import Mapping
from typing import Any

from eval.benchmarks.form import SHORT_ANSWERS, Benchmark, Item, answers_of, field, name_of
from sft.data.files.raw import BadRow

NO_ANSWER = "-"


def item(row: Mapping[str, Any]) -> Item:
    """A question. The reference is all of its answers with commas between them, as llm-jp-eval has it."""
    question = field(row, "text", "question", "instruction", "input").removeprefix("質問：")
    answers = answers_of(row)
    if answers == (NO_ANSWER,):
        raise BadRow("no answer")
    return Item(question, "", ",".join(answers), answers, name_of(row, "id", "index"))


NIILC = Benchmark(
    name="niilc",
    title="NIILC-QA",
    hub="sbintuitions/niilc-qa",
    subset="v1.2",
    split="test",
    item=item,
    form="text (or question, instruction) and answers, or llm-jp-eval's samples with input and output",
    settings=SHORT_ANSWERS,
    metrics={
        "llm_jp_eval_char_f1": "llm-jp-eval, Nejumi",
        "flexeval_char_f1": "flexeval",
        "gold_contained": "",
        "correct": "",
    },
)
