"""One row of a data set, and the categories and groups it may be in. No torch here."""

import dataclasses
from collections.abc import Mapping

OPEN = ("open_qa", "general_qa")
CONTEXT = ("closed_qa", "information_extraction", "summarization")
OTHER = ("classification", "brainstorming", "creative_writing")
GROUPS: dict[str, tuple[str, ...]] = {"open": OPEN, "context": CONTEXT, "other": OTHER}
"""Reporting groups, in report order, and the dolly categories in each."""
CATEGORIES = OPEN + CONTEXT + OTHER
GROUP_OF = {category: group for group, categories in GROUPS.items() for category in categories}


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One row of a data set in the dolly-ja schema, as people and the evaluation look at it.

    `input` is the context, empty where the row has none. `answers` holds every accepted answer of a
    question-answering benchmark; when it is empty, `output` is the only reference.
    """

    index: str
    instruction: str
    input: str
    output: str
    category: str
    answers: tuple[str, ...] = ()

    @property
    def references(self) -> tuple[str, ...]:
        """Every text that counts as a right answer, never empty."""
        return self.answers or (self.output,)


FIELDS = tuple(field.name for field in dataclasses.fields(Example))


def named_weights(named: Mapping[str, float]) -> dict[str, float]:
    """Each category's weight, from weights by category or group name; the category's own wins, unnamed ones have 1."""
    return {category: named.get(category, named.get(group, 1.0)) for category, group in GROUP_OF.items()}
