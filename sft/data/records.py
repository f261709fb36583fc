"""One row of a data set, and the categories and groups it may be in. No torch here."""

import dataclasses

OPEN = ("open_qa", "general_qa")
CONTEXT = ("closed_qa", "information_extraction", "summarization")
OTHER = ("classification", "brainstorming", "creative_writing")
GROUPS: dict[str, tuple[str, ...]] = {"open": OPEN, "context": CONTEXT, "other": OTHER}
"""Reporting groups, in report order, and the dolly categories in each."""
CATEGORIES = OPEN + CONTEXT + OTHER
GROUP_OF = {category: group for group, categories in GROUPS.items() for category in categories}


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One row of a data set in the dolly-ja schema.

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
