"""Blocks of a report as Markdown. No torch here."""

import re
from collections.abc import Iterable, Sequence

from eval.render.blocks import Block, Bullets, Cell, Figure, Heading, Paragraph, Quote, Sample, Strong, Table
from sft.system.visible import escaped, visible

TEXT_SHOWN = 1200
_INTERVAL = re.compile(r"\\\[([-+–.,\d ]*)\\\](?!\()")


def render_markdown(blocks: Iterable[Block]) -> str:
    """The whole document. Figures leave their caption; nothing in a text can end its block or start markup."""
    return "\n\n".join(_block(block) for block in blocks) + "\n"


def _block(block: Block) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {inline(block.text)}"
        case Paragraph():
            return "".join(f"**{inline(p)}**" if isinstance(p, Strong) else inline(p) for p in block.parts)
        case Bullets():
            return "\n".join(f"- {inline(item)}" for item in block.items)
        case Table():
            return _table(block)
        case Figure():
            return f"Figure (in report.html): {inline(block.caption)}"
        case Sample():
            quotes = [_quote(quote) for quote in (*block.texts, *block.answers)]
            change = f", {block.change}" if block.change else ""
            return "\n\n".join([f"#### {inline(block.title)}{change}", *quotes])


def inline(text: str) -> str:
    """Plain text inside a line of Markdown; intervals keep their brackets, spaces at the ends stay."""
    core = _INTERVAL.sub(r"[\1]", escaped(text))
    return f"{' ' * text[:1].isspace()}{core}{' ' * bool(core and text[-1:].isspace())}"


def fenced(text: str, shown: int) -> str:
    """A Markdown code block of at most the first `shown` characters, which nothing in them can end.

    Its fence is longer than any run of backticks inside. Empty text reads "(empty)".
    """
    content = visible(text)
    if len(content) > shown:
        content = f"{content[:shown]}… ({len(content)} characters)"
    longest = max((len(run) for run in re.findall("`+", content)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{content or '(empty)'}\n{fence}"


def _table(table: Table) -> str:
    rule = ["---" if column < table.left else "---:" for column in range(len(table.header))]
    lines = [list(map(inline, table.header)), rule]
    for number, row in enumerate(table.rows):
        cells = [_cell(cell) for cell in row]
        if number in table.strong:
            at = 1 if table.sectioned else 0
            cells[at] = f"**{cells[at]}**"
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: str | Cell) -> str:
    words: Sequence[str] = [cell] if isinstance(cell, str) else [part for part in cell if part]
    return inline(" ".join(words))


def _quote(quote: Quote) -> str:
    return f"{inline(quote.label)}\n\n{fenced(quote.text, TEXT_SHOWN)}"
