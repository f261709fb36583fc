"""Blocks of a report as one HTML file that needs nothing else: no network, no script, no font. No torch here."""

import html
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from eval.render.blocks import (
    Block,
    Bullets,
    Cell,
    Figure,
    Heading,
    Paragraph,
    Quote,
    Sample,
    Span,
    Strong,
    Table,
    text_of,
)
from eval.render.numbers import NOTHING
from sft.system.visible import visible

STYLE = Path(__file__).with_name("report.css")
_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def render_html(blocks: Sequence[Block]) -> str:
    """The whole document, titled by its first heading. Identical blocks give identical bytes.

    Every text is escaped and its control characters made visible, so that an answer that holds markup is
    read, not run. A policy in the head forbids scripts and outside resources besides.
    """
    title = next((block.text for block in blocks if isinstance(block, Heading)), "Report")
    sections = [block for block in blocks if isinstance(block, Heading) and block.level == 2]
    body = []
    for is_figure, run in itertools.groupby(blocks, key=lambda block: isinstance(block, Figure)):
        parts = [_heading(block, sections) if isinstance(block, Heading) else _block(block) for block in run]
        body += [f'<div class="figures">\n{chr(10).join(parts)}\n</div>'] if is_figure else parts
    style = STYLE.read_text(encoding="utf-8").strip()
    return _PAGE.format(title=shown(title), style=style, body="\n".join(body))


def shown(text: str) -> str:
    """Somebody's text as HTML text or attribute value, with control characters visible."""
    return html.escape(visible(text))


def marked(text: str, marks: Iterable[Span]) -> str:
    """The text as HTML with `<mark>` around each of the ordered, disjoint `marks`."""
    out, at = [], 0
    for start, end in marks:
        out += [shown(text[at:start]), f"<mark>{shown(text[start:end])}</mark>"]
        at = end
    return "".join([*out, shown(text[at:])])


def _heading(heading: Heading, sections: Sequence[Heading]) -> str:
    text, level = shown(heading.text), heading.level
    if level == 1:
        links = "".join(f'<li><a href="#s{n}">{shown(s.text)}</a></li>' for n, s in enumerate(sections))
        contents = f'\n<nav aria-label="contents"><ul>{links}</ul></nav>' if len(sections) > 2 else ""
        return f"<h1>{text}</h1>{contents}"
    anchor = f' id="s{sections.index(heading)}"' if level == 2 else ""
    return f"<h{level}{anchor}>{text}</h{level}>"


def _block(block: Block) -> str:
    match block:
        case Paragraph():
            runs = (f"<strong>{shown(p)}</strong>" if isinstance(p, Strong) else shown(p) for p in block.parts)
            return f"<p>{''.join(runs)}</p>"
        case Bullets():
            return f"<ul>{''.join(f'<li>{shown(item)}</li>' for item in block.items)}</ul>"
        case Table():
            return _table(block)
        case Figure():
            return f"<figure>\n{block.svg}\n<figcaption>{shown(block.caption)}</figcaption>\n</figure>"
        case Sample():
            return _sample(block)
        case Heading():
            return _heading(block, [block])


def _table(table: Table) -> str:
    """A table in a box of its own that scrolls sideways, so that the page never does."""
    first = 1 if table.sectioned else 0
    columns = range(first, len(table.header))
    header = "".join(f'<th scope="col"{_kind(i, table)}>{shown(table.header[i])}</th>' for i in columns)
    body, section = [], None
    for number, row in enumerate(table.rows):
        name = text_of(row[0])
        if table.sectioned and name != section:
            heading = f'<th scope="rowgroup" colspan="{len(columns)}"><span>{shown(name)}</span></th>'
            body.append(f'<tr class="section">{heading}</tr>')
            section = name
        strong = ' class="strong"' if number in table.strong else ""
        body.append(f"<tr{strong}>{''.join(_cell(row[i], i, table) for i in columns)}</tr>")
    lines = [f"<thead><tr>{header}</tr></thead>", "<tbody>", *body, "</tbody>"]
    return "\n".join(['<div class="table" tabindex="0">', "<table>", *lines, "</table>", "</div>"])


def _cell(cell: str | Cell, column: int, table: Table) -> str:
    first = 1 if table.sectioned else 0
    detail = f"<small>{shown(cell.detail)}</small>" if isinstance(cell, Cell) and cell.detail else ""
    text = shown(text_of(cell))
    if column == first:
        # Names of categories may break at their underscores, so that a phone has room for the numbers.
        return f'<th scope="row">{text.replace("_", "_<wbr>")}{detail}</th>'
    kind = ' class="nothing"' if text == NOTHING else _kind(column, table)
    return f"<td{kind}>{text}{detail}</td>"


def _kind(column: int, table: Table) -> str:
    return ' class="word"' if column < table.left else ""


def _sample(sample: Sample) -> str:
    change = f' <span class="change">{shown(sample.change)}</span>' if sample.change else ""
    texts = "\n".join(map(_quote, sample.texts))
    answers = "\n".join(map(_quote, sample.answers))
    return (
        f'<article class="sample">\n<h4>{shown(sample.title)}{change}</h4>\n{texts}\n'
        f'<div class="answers">\n{answers}\n</div>\n</article>'
    )


def _quote(quote: Quote) -> str:
    text = marked(quote.text, quote.marks) or '<em lang="en">(empty)</em>'
    box = f'<div class="text" lang="ja" tabindex="0">{text}</div>'
    return f'<div class="quote"><h5>{shown(quote.label)}</h5>\n{box}</div>'
