"""What a report is made of, before it is Markdown or HTML. No torch here.

Every `str` in a block is plain text, ours or somebody else's: the renderers escape all of it.
"""

from collections.abc import Sequence
from typing import NamedTuple

NOTHING = "n/a"
"""What a cell says where there is no number."""


class Strong(str):
    """A run of emphasised text inside a `Paragraph`."""


class Small(str):
    """A run of smaller text inside a `Paragraph`, for who wants to know more."""


class Link(str):
    """A run of text inside a `Paragraph` that leads to a file beside the document. Of our own names alone."""

    file: str

    def __new__(cls, text: str, file: str) -> "Link":
        """The text, and the file's name."""
        link = super().__new__(cls, text)
        link.file = file
        return link


class Cell(NamedTuple):
    """A table cell: what is read first, and what stands smaller beside it."""

    text: str
    detail: str = ""


def text_of(cell: str | Cell) -> str:
    """What is read first of a table's cell."""
    return cell.text if isinstance(cell, Cell) else cell


class Span(NamedTuple):
    """Characters `start` to `end` (exclusive) of a text."""

    start: int
    end: int


class Heading(NamedTuple):
    """A heading; level 1 is the report's title.

    What stands under a `folded` one, up to the next of level 2, is folded away until somebody opens it, and on paper it
    is open. Markdown folds nothing.
    """

    level: int
    text: str
    folded: bool = False


class Paragraph(NamedTuple):
    """One paragraph of plain, `Strong` and `Small` runs, and `Link`s."""

    parts: tuple[str, ...]

    @property
    def text(self) -> str:
        """The paragraph on one line, without emphasis."""
        return "".join(self.parts)


class Bullets(NamedTuple):
    """A list of short paragraphs."""

    items: tuple[str, ...]


class Table(NamedTuple):
    """A table whose first `left` columns are words, the others numbers.

    With `sectioned`, rows with the same first cell belong together under it. Rows whose `strong` flag is
    set (a group's, among its categories) stand out.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    left: int = 1
    sectioned: bool = False
    strong: frozenset[int] = frozenset()


class Figure(NamedTuple):
    """An SVG drawing with a caption that says how to read it. Markdown keeps the caption only."""

    svg: str
    caption: str


class Quote(NamedTuple):
    """A text of the data or of a model under a label; `marks` are emphasised, and ordered."""

    label: str
    text: str
    marks: tuple[Span, ...] = ()


class Sample(NamedTuple):
    """One row with its texts and every system's answer to it."""

    title: str
    change: str
    texts: tuple[Quote, ...]
    answers: tuple[Quote, ...]


class Beside(NamedTuple):
    """Columns of blocks, beside each other where the page is wide enough."""

    columns: tuple[tuple["Block", ...], ...]


Block = Heading | Paragraph | Bullets | Table | Figure | Sample | Beside


def paragraph(*parts: str) -> Paragraph:
    """A paragraph of these runs."""
    return Paragraph(parts)
