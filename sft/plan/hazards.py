"""Settings that work and hurt the training: warnings with the rows concerned and the remedy. No torch here."""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from sft.data.records import category_label, category_order
from sft.system.texts import Count, said

if TYPE_CHECKING:  # imports transformers
    from sft.prompt.row_encoder import Fate

TOLERATED_LOSS = 0.01
"""Share of a category's training rows that may lose their answer's end without a warning."""


def truncation_hazards(
    fates: Mapping[tuple[str, "Fate"], int], truncation: Literal["context", "end"], max_length: int
) -> list[str]:
    """A warning for each category of which more than 1% of the training rows lose their answer, or the end of it.

    `fates` counts (category, fate) as `EncodedRows.fates` does, `truncation` is `data.truncation`, and `max_length`
    `training.max_length` in tokens. A dropped row's answer is lost whole; one cut off at the end still loses at
    least its end-of-text token.
    """
    warnings: list[str] = []
    counts: Counter[str] = Counter()
    for (category, _), count in fates.items():
        counts[category] += count
    for category in category_order(counts):
        rows = counts[category]
        cut, dropped = fates.get((category, "end cut off"), 0), fates.get((category, "dropped"), 0)
        if cut + dropped > TOLERATED_LOSS * rows:
            lost = said("doctor.cut_count", rows=Count(cut))
            if dropped:
                gone = said("doctor.dropped_count", rows=Count(dropped))
                lost = said("doctor.cut_and_dropped", cut=lost, dropped=gone) if cut else gone
            values = {"category": category_label(category), "limit": max_length, "lost": lost}
            values |= {"rows": Count(rows), "share": f"{(cut + dropped) / rows:.1%}"}
            ends = truncation == "end"
            warnings.append(said("doctor.loses_ends", **values) if ends else said("doctor.loses_answers", **values))
    return warnings
