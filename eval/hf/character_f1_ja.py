"""F1 of the bags of characters, as a module for `evaluate.load("eval/hf/character_f1_ja.py")`.

`evaluate` copies this file away before it imports it, so the project's root must be on the import path.
It finds the imports by reading the lines: one a line, and the class is `evaluate.Metric`, because a
`Metric` of this module's own would be taken for the metric.
"""

from typing import Any

import datasets
import evaluate

from eval.metrics.reference import character_f1
from eval.metrics.rows import signatures

_INPUTS = """predictions: list of answers.
references: for each answer one reference, or a list of them of which the best counts.
Returns {"character_f1": mean over the answers, 0–1}.
"""


class CharacterF1Ja(evaluate.Metric):
    """Thin wrapper of `eval.metrics.reference.character_f1`, which has the definition."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=character_f1.__doc__ or "",
            citation="",
            inputs_description=f"{_INPUTS}Signature: {signatures()['character_f1']}",
            features=[
                datasets.Features({"predictions": text, "references": datasets.Sequence(text)}),
                datasets.Features({"predictions": text, "references": text}),
            ],
        )

    def _compute(
        self, *, predictions: list[str], references: list[str] | list[list[str]], **_: Any
    ) -> dict[str, float]:
        scores = [character_f1(answer, golds) for answer, golds in zip(predictions, references, strict=True)]
        return {"character_f1": sum(scores) / len(scores)}
