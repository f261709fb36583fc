"""Exact match after normalisation, as a module for `evaluate.load("eval/hf/exact_match_ja.py")`.

`evaluate` copies this file away before it imports it, so the project's root must be on the import path.
It finds the imports by reading the lines: one a line, and the class is `evaluate.Metric`, because a
`Metric` of this module's own would be taken for the metric.
"""

from typing import Any

import datasets
import evaluate

from eval.metrics.reference import exact_match
from eval.metrics.rows import signatures

_INPUTS = """predictions: list of answers.
references: for each answer one reference, or a list of them of which the best counts.
Returns {"exact_match": mean over the answers, 0–1}.
"""


class ExactMatchJa(evaluate.Metric):
    """Thin wrapper of `eval.metrics.reference.exact_match`, which has the definition."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=exact_match.__doc__ or "",
            citation="",
            inputs_description=f"{_INPUTS}Signature: {signatures()['exact_match']}",
            features=[
                datasets.Features({"predictions": text, "references": datasets.Sequence(text)}),
                datasets.Features({"predictions": text, "references": text}),
            ],
        )

    def _compute(
        self, *, predictions: list[str], references: list[str] | list[list[str]], **_: Any
    ) -> dict[str, float]:
        scores = [exact_match(answer, golds) for answer, golds in zip(predictions, references, strict=True)]
        return {"exact_match": sum(scores) / len(scores)}
