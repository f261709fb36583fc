"""One row of a data set, and the category and group that it is in. No torch here."""

import dataclasses
import functools
import re
import unicodedata
from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

Group = Literal["open", "context", "other"]
GROUPS: tuple[Group, ...] = get_args(Group)
"""Reporting groups, in report order."""

OPEN = ("open_qa", "general_qa")
CONTEXT = ("closed_qa", "information_extraction", "summarization")
OTHER = ("classification", "brainstorming", "creative_writing")
CATEGORIES = OPEN + CONTEXT + OTHER
"""dolly's categories, in report order. Anybody's rows may have others, or none."""
DOLLY: dict[str, Group] = {
    category: group for group, names in zip(GROUPS, (OPEN, CONTEXT, OTHER), strict=True) for category in names
}
"""The group of each of them."""

HASHED = re.compile(r"[0-9a-f]{12}(#\d+)?")
"""An index that rows got which have none of their own."""

NO_CATEGORY = "no category"
"""What readers see in place of the category of rows that have none."""


class Kind(NamedTuple):
    """What a row is, for proportions and tables; one category may have rows in several groups."""

    category: str
    group: Group


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One row of a data set, as people and the evaluation look at it.

    `index` is its id. `input` is the context, `category` what the user calls its task; both are empty where the row has
    none. `group` is the report's; left out, it is the one that `group_of` says without anybody's settings. `history`
    holds earlier turns as (role, content), with roles system, user and assistant: `instruction` is the last message of
    the user, `output` the answer to it. `answers` holds the accepted answers of a question-answering benchmark, beside
    which `output` is always a reference, too. `place` is where its reader finds the row, in the words of their own
    program (`row 12 of sheet "FAQ"`); it is empty where nobody knows, and no part of what the row is.
    """

    index: str
    instruction: str
    input: str
    output: str
    category: str
    group: Group = None  # type: ignore[assignment]  # there is one as soon as there is an example
    history: tuple[tuple[str, str], ...] = ()
    answers: tuple[str, ...] = ()
    place: str = dataclasses.field(default="", compare=False)

    def __post_init__(self) -> None:
        """Settle the group."""
        if self.group is None:
            object.__setattr__(self, "group", group_of(self.category, self.input))

    @property
    def named(self) -> str:
        """What a reader finds the row by (see `row_name`)."""
        return row_name(self.index, self.place)

    @property
    def references(self) -> tuple[str, ...]:
        """Every text that counts as a right answer, never empty."""
        return tuple(dict.fromkeys((self.output, *self.answers)))


def row_name(index: str, place: str) -> str:
    """What a reader finds a row by: its own index or, where that is a hash, its place, if that is known."""
    return place if place and HASHED.fullmatch(index) else index


FIELDS = tuple(field.name for field in dataclasses.fields(Example))


def group_of(category: str, context: str, groups: Mapping[str, Group] | None = None) -> Group:
    """The report's group of a row: as `groups` has it for its category, else dolly's own.

    A row of any other category, or of none, is in context where it has a context and in open where not.
    """
    known = (groups or {}).get(category) or DOLLY.get(category)
    return known or ("context" if context.strip() else "open")


@functools.lru_cache(maxsize=4096)
def category_name(text: str) -> str:
    """A category as rows hold it: white space of every kind folded, dolly's own however they are spelt.

    `Open QA`, `open_qa ` and `closed-qa` are dolly's; what readers see for rows without one is none.
    """
    letters = re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text)).casefold()
    return "" if letters in _NONE else _DOLLY_BY_LETTERS.get(letters) or " ".join(text.split())


_NONE = {NO_CATEGORY.replace(" ", ""), "カテゴリなし"}
_DOLLY_BY_LETTERS = {category.replace("_", ""): category for category in CATEGORIES}


def category_label(category: str) -> str:
    """What readers see for a category."""
    return category or NO_CATEGORY


def category_order(counts: Mapping[str, int]) -> list[str]:
    """Categories in report order, from rows by category: dolly's, then the user's from the most rows to the fewest,
    rows without one last."""

    def place(category: str) -> tuple[bool, int, int, str]:
        known = CATEGORIES.index(category) if category in DOLLY else len(CATEGORIES)
        return not category, known, -counts[category] if category not in DOLLY else 0, category

    return sorted(counts, key=place)


def report_order(counts: Mapping[Kind, int]) -> dict[str, Group]:
    """The categories in report order, from rows by kind, each with the group that it stands under.

    That is the group of most of its rows, the first of GROUPS where two have as many.
    """
    rows: dict[str, int] = {}
    for kind, count in counts.items():
        rows[kind.category] = rows.get(kind.category, 0) + count
    under = {name: max(GROUPS, key=lambda group: counts.get(Kind(name, group), 0)) for name in category_order(rows)}
    return {name: under[name] for name in sorted(under, key=lambda name: GROUPS.index(under[name]))}


def named_weights(kinds: Mapping[Kind, int], named: Mapping[str, float]) -> dict[Kind, float]:
    """Each kind's weight, from weights by category or group; the category's own wins, unnamed ones have 1."""
    return {kind: named.get(kind.category, named.get(kind.group, 1.0)) for kind in kinds}
