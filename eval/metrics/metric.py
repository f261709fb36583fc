"""What a metric is: a number measured on an answer, and all that tables, tests and reports have to know of it."""

import dataclasses
from collections.abc import Callable
from typing import Literal, get_args

from eval.predictions import Prediction
from sft.data.records import Example

Section = Literal["overlap", "correctness", "published", "free of decoding", "grounding", "behaviour", "style"]
SECTIONS: tuple[Section, ...] = get_args(Section)
"""Parts of the report that metrics stand in, in its order."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric. It is measured by `of_text`, or by `of_prediction` where it needs more than text and row."""

    key: str
    """Its name in results.json."""
    title: str
    """Its name for readers; `name` adds what stands in other fields."""
    section: Section
    definition: str
    """How it is computed: the beginning of its signature."""
    of_text: Callable[[str, Example], float | None] | None = None
    """Its value of a text as the answer to a row; None where there is nothing to measure."""
    of_prediction: Callable[[Prediction], float | None] | None = None
    needs_reference: bool = False
    """Without, and by text alone, it is measured on the references themselves, too."""
    needs_context: bool = False
    """It is None for rows without a context."""
    floors: bool = False
    """It is measured on the floors and ceilings, too."""
    empty: Literal["0", "missing"] | None = None
    """What it says where there is nothing to measure: 0 or None. None here: there always is something."""
    weight: Callable[[Example], int] | None = None
    """A ratio to what this counts in the row: its mean is the ratio of the sums. None: all rows count the same.

    Unweighted, a handful of two-character references would decide the mean of such a ratio.
    """
    lower_is_better: bool = False
    binary: bool = False
    """0 or 1: its p value is exact where no two rows share a context."""
    headline: bool = False
    """Its differences are tested as a family with those of the other headline metrics."""
    compared: bool = False
    """`eval compare` shows it."""
    part_of: str = ""
    """Key of the metric that it is a part of."""
    place: int = 0
    """Its place in the section; those of one place stand in the order of the results."""

    @property
    def name(self) -> str:
        """What readers see: ↓ marks where less is better, … a part of the metric above it."""
        return f"{'… ' if self.part_of else ''}{self.title}{' ↓' if self.lower_is_better else ''}"

    @property
    def signature(self) -> str:
        """How it is computed: normalisation, tokenizer, dictionary, versions, references, rows, mean."""
        rows = "|rows:with-context" if self.needs_context else ""
        empty = f"|empty:{self.empty}" if self.empty else ""
        mean = "weighted-by-reference-characters" if self.weight else "over-rows"
        return f"{self.definition}{rows}{empty}|mean:{mean}"

    def measure_text(self, text: str, example: Example) -> float | None:
        """Its value of a text as the answer to a row; None without what it needs."""
        return None if self.of_text is None or self._lacks_context(example) else self.of_text(text, example)

    def measure(self, prediction: Prediction) -> float | None:
        """Its value of an answer; None without what it needs. A failed answer counts as empty, whatever it left."""
        if self.of_prediction is None:
            text = "" if prediction.finish_reason == "error" else prediction.text
            return self.measure_text(text, prediction.example)
        return None if self._lacks_context(prediction.example) else self.of_prediction(prediction)

    def _lacks_context(self, example: Example) -> bool:
        return self.needs_context and not example.input.strip()
