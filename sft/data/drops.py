"""What became of files: rows that could be used, and others, each counted, the first few of each kind named."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from sft.data.files.sources import Held
from sft.system.texts import series, text, told
from sft.system.visible import counted, one_line

SHOWN = 3


class FileRead(NamedTuple):
    """What was read of a file or a hub data set."""

    path: str
    weight: float
    sha256: str | None
    """Of the file; None for a hub data set."""
    rows: int
    """Usable ones."""
    dropped: int
    tables: tuple[tuple[str, str, int], ...]
    """Of each table in it (a workbook has one a sheet), as which schema it was read, what it is, in words, and how many
    usable rows it has."""
    side: Held | None = None
    """Of all its rows; None: they are divided."""

    @property
    def found(self) -> str:
        """The tables in words, in the reader's language."""
        return in_words((schema, form) for schema, form, _ in self.tables)


def in_words(tables: Iterable[tuple[str, str]]) -> str:
    """Schema and form of each table, in the reader's language."""
    return series((text("rows.as_schema", schema=told(schema), form=told(form)) for schema, form in tables), "; ")


class Dropped(NamedTuple):
    """A row that cannot be used: where it stands, why, and its category as far as it has one ("" without)."""

    place: str
    reason: str
    category: str


class Drops:
    """The unusable rows of a data set, counted by (reason, category); the first few of each are kept."""

    def __init__(self) -> None:
        self.first: list[Dropped] = []
        self.counts: Counter[tuple[str, str]] = Counter()

    def add(self, place: str, reason: str, category: str) -> None:
        """Count a row."""
        self.counts[reason, category] += 1
        if self.counts[reason, category] <= SHOWN:
            self.first.append(Dropped(place, reason, category))

    def report(self) -> list[str]:
        """One line a reason and category, with the first few places; empty when nothing was dropped."""
        lines = []
        for (reason, category), count in sorted(self.counts.items()):
            places = ", ".join(d.place for d in self.first if (d.reason, d.category) == (reason, category))
            more = ", …" if count > SHOWN else ""
            named = f" ({category})" if category else ""
            # Reasons, places and categories quote the file, which may hold anything.
            lines.append(one_line(f"dropped {counted(count, 'row')}{named}: {reason}: {places}{more}"))
        return lines
