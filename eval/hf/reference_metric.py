"""What the `evaluate` modules beside this one share."""

from typing import Any, ClassVar

import datasets
import evaluate

from eval.metrics.catalogue import BY_KEY

_INPUTS = """predictions: list of answers.
references: for each answer one reference, or a list of them of which the best counts.
Returns {{"{key}": mean over the answers, 0–1}}.
Signature: {signature}"""


class ReferenceMetric(evaluate.Metric):
    """A text metric of `eval.metrics`, which has its definition: the mean over answers and their references."""

    function: ClassVar[Any]
    """Of an answer and its references, as a static method."""

    def _info(self) -> evaluate.MetricInfo:
        text, key = datasets.Value("string"), self.function.__name__
        return evaluate.MetricInfo(
            description=self.function.__doc__ or "",
            citation="",
            inputs_description=_INPUTS.format(key=key, signature=BY_KEY[key].signature),
            features=[
                datasets.Features({"predictions": text, "references": datasets.Sequence(text)}),
                datasets.Features({"predictions": text, "references": text}),
            ],
        )

    def _compute(self, *, predictions: list[str], references: list[Any], **_: Any) -> dict[str, float]:
        scores = [self.function(answer, golds) for answer, golds in zip(predictions, references, strict=True)]
        return {self.function.__name__: sum(scores) / len(scores)}
