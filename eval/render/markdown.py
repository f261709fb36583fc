"""Blocks of a report as Markdown. No torch here."""

import re
from collections.abc import Iterable

from sft.page.blocks import Beside, Block, Bullets, Cell, Figure, Heading, Link, Paragraph, Sample, Strong, Table
from sft.system.texts import text
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
            return "".join(map(_run, block.parts))
        case Bullets():
            return "\n".join(f"- {inline(item)}" for item in block.items)
        case Table():
            return _table(block)
        case Figure():
            return inline(text("body.figure_elsewhere", caption=block.caption))
        case Beside():
            return "\n\n".join(_block(one) for column in block.columns for one in column)
        case Sample():
            title = f"#### {inline(block.title)}{f', {block.change}' if block.change else ''}"
            quotes = [f"{inline(q.label)}\n\n{fenced(q.text, TEXT_SHOWN)}" for q in (*block.texts, *block.answers)]
            return "\n\n".join([title, *quotes])


def _run(part: str) -> str:
    if isinstance(part, Link):
        return f"[{inline(part)}]({part.file})"
    return f"**{inline(part)}**" if isinstance(part, Strong) else inline(part)


def inline(text: str) -> str:
    """Plain text inside a line of Markdown; intervals keep their brackets, spaces at the ends stay."""
    core = _INTERVAL.sub(r"[\1]", escaped(text))
    return f"{' ' * text[:1].isspace()}{core}{' ' * bool(core and text[-1:].isspace())}"


def fenced(said: str, shown: int) -> str:
    """A Markdown code block of at most the first `shown` characters, which nothing in them can end.

    Its fence is longer than any run of backticks inside. Empty text is said to be empty.
    """
    content = visible(said) or text("body.nothing_said")
    if len(content) > shown:
        whole = text("body.longer", characters=len(content))
        content = f"{content[:shown]}… {whole}"
    longest = max((len(run) for run in re.findall("`+", content)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{content}\n{fence}"


def _table(table: Table) -> str:
    rule = ["---" if column < table.left else "---:" for column in range(len(table.header))]
    lines, at = [list(map(inline, table.header)), rule], int(table.sectioned)
    for number, row in enumerate(table.rows):
        cells = list(map(_cell, row))
        if number in table.strong:
            cells[at] = f"**{cells[at]}**"
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: str | Cell) -> str:
    return inline(cell if isinstance(cell, str) else " ".join(filter(None, cell)))
