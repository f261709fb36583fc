"""README and docs hold: links lead somewhere, messages are the program's, numbers are said alike."""

import ast
import hashlib
import re
import unicodedata
from functools import cache
from pathlib import Path

import pytest
import yaml
from test_page_commands import ENGLISH, JAPANESE, PAGES, commands, read

ROOT = Path(__file__).parents[1]
TWINS = {page: page.replace("docs/ja/", "docs/").replace(".ja.md", ".md") for page in JAPANESE}
TWINS = {page: twin for page, twin in TWINS.items() if twin in ENGLISH}
"""Each Japanese page that has an English one of its name."""


def anchors(page: str) -> set[str]:
    """What GitHub calls a page's headings in links."""
    found: dict[str, int] = {}
    slugs = set()
    for title in re.findall(r"^#+ (.+)$", read(page), re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()
        slug = "".join(c for c in shown if c in "-_ " or unicodedata.category(c)[0] in "LNM").replace(" ", "-")
        slugs.add(slug if slug not in found else f"{slug}-{found[slug]}")
        found[slug] = found.get(slug, 0) + 1
    return slugs


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_somewhere(page):
    text = re.sub(r"`[^`]*`", "", re.sub(r"^    .+$", "", read(page), flags=re.MULTILINE))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        place = (ROOT / page).parent / path if path else ROOT / page
        assert place.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(place.resolve().relative_to(ROOT).as_posix()), f"{page}: {target}"


@pytest.mark.parametrize("page", TWINS)
def test_a_page_has_the_same_commands_in_both_languages(page):
    assert commands(page)
    assert set(commands(page)) == set(commands(TWINS[page]))


def test_a_translation_is_of_the_page_as_it_is():
    """One that names its original says of which version, so that a change of either is seen by the other."""
    said = r"^（`([^`]+)` の訳です。元の版: SHA-256の先頭が `(\w{12})`"
    found = [(page, *told) for page in JAPANESE for told in re.findall(said, read(page), re.MULTILINE)]
    assert len(found) > 1
    for page, original, digest in found:
        assert hashlib.sha256(read(original).encode()).hexdigest().startswith(digest), page


@pytest.mark.parametrize("page", JAPANESE)
def test_a_table_of_models_has_the_numbers_of_the_english_readme(page):
    """A row of it names a configuration, and ends with gigabytes; a start has some of the rows."""
    said, proved = memory_said(page), memory_said("README.md")
    assert said == (proved if page == "README.ja.md" else {name: proved[name] for name in said})


def memory_said(page: str) -> dict[str, str]:
    """Gigabytes by configuration in the tables of a page."""
    return dict(re.findall(r"^\|.*`([\w.-]+\.yaml)` \|.*\| ([\d.]+) \|$", read(page), re.MULTILINE))


@cache
def program_texts() -> str:
    """Every text in the program's source and in its tables of texts, a line each; values in a text divide it."""
    found = []
    for path in (*ROOT.glob("*.py"), *ROOT.glob("sft/**/*.py"), *ROOT.glob("eval/**/*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        documented = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        texts = (node for node in nodes if isinstance(node, ast.Constant) and id(node) not in documented)
        found += [node.value for node in texts if isinstance(node.value, str)]
    for path in (*ROOT.glob("sft/**/*.yaml"), *ROOT.glob("eval/**/*.yaml")):
        found += [str(leaf) for leaf in leaves(yaml.safe_load(path.read_text(encoding="utf-8")))]
    return "".join(f"\n{part.strip()}\n" for text in found for part in re.split(r"\{[^}]*\}", text))


def leaves(value: object) -> list[object]:
    if isinstance(value, dict | list):
        return [leaf for part in (value.values() if isinstance(value, dict) else value) for leaf in leaves(part)]
    return [value]


def is_said(words: list[str], parts: int = 3, begins: str = "") -> bool:
    """Whether the program says these words in one text, or across the values that divide one."""
    if begins + " ".join(words) in program_texts():
        return True
    return parts > 1 and any(
        f"{begins}{' '.join(words[:at])}\n" in program_texts() and is_said(words[at:], parts - 1, "\n")
        for at in range(1, len(words))
    )


@pytest.mark.parametrize(("page", "least"), [("docs/troubleshooting.md", 40), ("docs/ja/troubleshooting.md", 35)])
def test_the_messages_that_troubleshooting_quotes_are_the_programs(page, least):
    """`…` stands for what differs from time to time."""
    quoted = re.findall(r"^    (?:error:|warning:|note:|STOP|look) +(.+)$", read(page), re.MULTILINE)
    assert len(quoted) > least
    for message in quoted:
        for piece in re.split(r"[…;:,.=()?]|  ", message):
            assert is_said(piece.split()), f"{message}: {piece}"


@pytest.mark.parametrize("page", [f"docs/ja/{name}.md" for name in ("start", "reading-the-report", "troubleshooting")])
def test_what_japanese_pages_say_that_the_program_shows_it_does(page):
    """What a table explains, and lines that are named."""
    quoted = re.findall("^[|] 「([^」]+)」 [|]|「([^」]+)」の[行欄]", read(page), re.MULTILINE)
    assert quoted
    for piece in (piece for pair in quoted for piece in "".join(pair).split("…")):
        assert piece in program_texts(), f"{page}: {piece}"


def test_the_readme_is_short_and_says_of_memory_what_the_page_of_models_says():
    text = read("README.md")
    assert len(text) <= 8000
    proved = dict(
        re.findall(r"^\| `([\w.-]+\.yaml)` \|.*\| ([\d.]+) \| [\d,]+, \d+ \|$", read("docs/models.md"), re.MULTILINE)
    )
    said = memory_said("README.md")
    assert len(said) > 5
    assert {name: proved[name] for name in said} == said


def test_the_page_of_configurations_names_every_file():
    named = set(re.findall(r"`configs/([\w.-]+)\.yaml`", read("docs/configuration.md")))
    assert named == {path.stem for path in (ROOT / "configs").glob("*.yaml")}
