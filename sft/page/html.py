"""Blocks of a report as one HTML file that needs nothing else: no network, no script, no font. No torch here.

Its text is in page.html.jinja, its style in page.css.
"""

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sft.page.blocks import NOTHING, Block, Heading, Link, Small, Span, Strong, text_of
from sft.system.visible import visible


def render_html(blocks: Sequence[Block], language: str = "en") -> str:
    """The whole document in a language (en, ja), titled by its first heading. Identical blocks give identical bytes.

    Every text is escaped and its control characters made visible, so that an answer that holds markup is
    read, not run. A policy in the head forbids scripts and outside resources besides.
    """
    jinja = pages()
    jinja.globals |= {"text_of": text_of, "shown": shown, "marked": marked, "kinds": kinds, "NOTHING": NOTHING}
    jinja.tests |= {
        name: lambda part, kind=kind: isinstance(part, kind)
        for name, kind in {"strong": Strong, "small": Small, "link": Link}.items()
    }
    headings = [block for block in blocks if isinstance(block, Heading)]
    return jinja.get_template("page.html.jinja").render(
        language=language,
        title=headings[0].text if headings else "",
        sections=[heading for heading in headings if heading.level == 2],
        folds=folds(blocks),
    )


def pages(*folders: Path) -> Environment:
    """What renders the templates of these folders and of this one: every expression is `shown`."""
    return Environment(
        loader=FileSystemLoader([*folders, Path(__file__).parent]), autoescape=True, finalize=shown,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip


def folds(blocks: Iterable[Block]) -> list[tuple[Heading | None, list[Block]]]:
    """The blocks in their order, those under a folded heading behind it; None: they stand open."""
    found: list[tuple[Heading | None, list[Block]]] = [(None, [])]
    for block in blocks:
        if isinstance(block, Heading) and block.level == 2:
            found.append((block, []) if block.folded else (None, [block]))
        else:
            found[-1][1].append(block)
    return found


def kinds(blocks: Iterable[Block]) -> list[tuple[str, Block]]:
    """Each block behind the name of its kind."""
    return [(type(block).__name__, block) for block in blocks]


def shown(text: object) -> Markup:
    """Somebody's text as HTML text or attribute value, with control characters visible; HTML stays as it is."""
    return text if isinstance(text, Markup) else Markup(html.escape(visible(str(text))))


def marked(text: str, marks: Iterable[Span]) -> Markup:
    """The text as HTML with `<mark>` around each of the ordered, disjoint `marks`."""
    out, at = Markup(), 0
    for start, end in marks:
        out += shown(text[at:start]) + Markup("<mark>%s</mark>") % shown(text[start:end])
        at = end
    return out + shown(text[at:])
