"""Every number in the prose of docs/context-qa.md stands in results.json, and that follows from the committed scores.

A paragraph or table says where its numbers come from, in a comment that readers do not see, with no blank line between:

    <!-- numbers: gemma-3-270m/sweep/jsquad.context.gold_contained/*/5.0-all -->

Paths lead into `models` of results.json, `*` stands for every key of a level, and blanks separate several. The narrower
the paths, the surer a changed number is caught. Free are whole numbers below 10 and numbers of the studies' files, of
percentages 95% alone, and whatever stands in code, in a link's address or as a part of a name.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from sft.config.repetition_penalty import MEASURED
from sft.system.texts import table
from studies.context_qa.placebo.scores import SETTINGS, read_placebo
from studies.context_qa.plan import load_study
from studies.context_qa.report.write import SCHEMA_VERSION, results_of

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "context-qa"
PAGES = [path for path in (ROOT / "docs" / "context-qa.md", ROOT / "docs" / "ja" / "context-qa.md") if path.exists()]
SOURCES = re.compile(r"<!-- numbers: (.*?) -->", re.DOTALL)
UNREAD = re.compile(r"```.*?```|`[^`]*`|\]\([^)]*\)|<!--.*?-->|^#+ .*$|^    .*$", re.DOTALL | re.MULTILINE)
# ASCII: in Japanese a number stands beside words without a blank.
SHARE = re.compile(r"(?<![\w.,])(\d+) of (\d+)(?![\w,]|\.\d)", re.ASCII)
NUMBER = re.compile(r"(?<![\w.,/–-])([+−-]?)((?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?)(%?)(?![\w/]|[.,-]\w)", re.ASCII)


def leaves(found: Any) -> Iterator[float]:
    """Every number in it."""
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, list):
        for one in found:
            yield from leaves(one)
    elif isinstance(found, int | float) and not isinstance(found, bool):
        yield float(found)


def shares(found: Any) -> Iterator[tuple[float, int]]:
    """Every (mean, n) in it."""
    if isinstance(found, dict):
        if found.get("n") and found.get("mean") is not None:
            yield found["mean"], found["n"]
        found = list(found.values())
    if isinstance(found, list):
        for one in found:
            yield from shares(one)


def at(found: Any, path: list[str]) -> list[Any]:
    """What a path leads to; KeyError where it leads nowhere."""
    if not path:
        return [found]
    first, *rest = path
    places = list(found.values()) if first == "*" else [found[first]]
    return [one for place in places for one in at(place, rest)]


def settings(results: dict[str, Any]) -> set[float]:
    """The numbers of the studies' files, and what is free besides."""
    text = json.dumps([model["study"] for model in results.get("models", {"": results}).values()])
    return {*range(10), 95, *(float(one) for one in re.findall(r"\d+(?:\.\d+)?", text))}


def unsupported(text: str, results: dict[str, Any]) -> list[str]:
    """The numbers of a page that its sources do not have, with the beginning of their paragraph."""
    free, wrong = settings(results), []
    for block in re.split(r"\n\s*\n", text):
        models = results.get("models", {})
        sources = [
            one for paths in SOURCES.findall(block) for path in paths.split() for one in at(models, path.split("/"))
        ]
        values, counted = [*leaves(sources)], {(round(mean * n, 3), n) for mean, n in shares(sources)}
        prose = UNREAD.sub(" ", block)
        for share in SHARE.finditer(prose):
            if (float(share[1]), int(share[2])) not in counted:
                wrong.append(f"{share[0]}: {prose.strip()[:60]}")
        for sign, digits, percent in NUMBER.findall(SHARE.sub(" ", prose)):
            if digits and not (
                is_free(sign, digits, percent, free) or any(shows(sign, digits, percent, v) for v in values)
            ):
                wrong.append(f"{sign}{digits}{percent}: {prose.strip()[:60]}")
    return wrong


def is_free(sign: str, digits: str, percent: str, free: set[float]) -> bool:
    """Whether it may be a setting: never what is written as results are, with a sign, in percent or as `.5`."""
    if percent:
        return (sign, digits) == ("", "95")
    return sign != "+" and not digits.startswith(".") and float(digits.replace(",", "")) in free


def shows(sign: str, digits: str, percent: str, value: float) -> bool:
    """Whether a number is this value as readers see it. An unsigned number may be the size of a negative one."""
    decimals = len(digits.partition(".")[2])
    shown = float(digits.replace(",", "")) / (100 if percent else 1)
    if sign:
        shown *= 1 if sign == "+" else -1
    return abs((value if sign else abs(value)) - shown) <= 0.50001 * 10.0 ** -(decimals + 2 * bool(percent))


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    found = json.loads((FOLDER / "results.json").read_text(encoding="utf-8"))
    assert found["schema_version"] == SCHEMA_VERSION
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_number_of_the_page_is_one_of_the_results(page, results):
    assert unsupported(page.read_text(encoding="utf-8"), results) == []


def recomputed(results: dict[str, Any], *overrides: str) -> dict[str, Any]:
    """The results of the same models, from the committed scores."""
    studies = [load_study(path, overrides) for path in sorted((ROOT / "studies" / "context_qa").glob("*.yaml"))]
    named = {Path(study.scores).name: study for study in studies}
    found: dict[str, Any] = json.loads(json.dumps(results_of([named[name] for name in results["models"]])))
    return found


def means(found: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], float | None]]:
    """Every mean in it, and where it stands."""
    for key, value in found.items() if isinstance(found, dict) else enumerate(found):
        if key == "mean":
            yield path, value
        elif isinstance(value, dict | list):
            yield from means(value, (*path, key))


def test_the_means_of_the_results_follow_from_the_committed_scores(results):
    """Without most of the resamples, so that results older than the scores are found in seconds."""
    assert dict(means(recomputed(results, "resamples=20"))) == dict(means(results))


@pytest.mark.slow
def test_the_results_follow_from_the_committed_scores(results):
    assert recomputed(results) == results


def test_committed_scores_hold_no_text():
    """Ids, numbers and settings are ASCII, but for the dashes and arrows of this project's own names."""
    for path in (FOLDER / "scores").rglob("*.json*"):
        assert not re.search(r"[぀-ヿ一-鿿]", path.read_text(encoding="utf-8")), path
    assert sum(path.stat().st_size for path in (FOLDER / "scores").rglob("*.json*")) < 4_000_000


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "context-qa").glob("*.png")), ids=lambda path: path.stem)
def test_nothing_of_a_figure_reaches_its_edge(path):
    """As a name does that is longer than its place."""
    picture = imread(path)
    for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        assert (edge == edge[0]).all()


def test_what_cards_and_pages_say_of_penalties_was_counted():
    """Right answers of the two untuned models under each setting, in the order in which the cards name them."""
    told = [("nothing", 5.0), ("generated", 1.2), *(("prompt + generated", value) for value in (1.05, 1.1, 1.2, 5.0))]
    gemma_right, qwen_right = _right_answers("gemma-3-270m"), _right_answers("qwen2.5-coder-1.5b")
    gemma, qwen = [gemma_right[one] for one in told], [qwen_right[one] for one in told]
    pairs = re.findall(r"(\d+) and (\d+)", MEASURED.partition("without")[2])
    assert [(int(one), int(other)) for one, other in pairs] == list(zip(gemma, qwen, strict=True))[:-1]
    assert (gemma[-1], qwen[-1]) == (0, 0)
    card = (ROOT / "sft" / "export" / "card" / "card.ja.md.jinja").read_text(encoding="utf-8")
    assert re.findall(r"(\d+)問と(\d+)問", card) == pairs
    warned = [gemma_right[one] for one in (told[0], *told[2:])]
    strong = [qwen_right[one] for one in (("generated", 1.2), told[0], ("generated", 1.5))]
    for speech in ("en", "ja"):
        words = {key: table()["doctor"][key][speech] for key in ("penalty_on_context", "penalty_strong")}
        counts = [int(found) for found in re.findall(r"(?<![\d.])\d{2}(?!\d)", words["penalty_on_context"])]
        assert (counts, warned[-1]) == (warned[:-1], 0)
        counts = [int(found) for found in re.findall(r"(?<![\d.])\d{2}(?!\d)", words["penalty_strong"])]
        assert sorted(counts) == sorted(strong)
    for page in ("docs/troubleshooting.md", "docs/ja/troubleshooting.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert all(re.search(rf"\b{count}\b|{count}問", text) for count in (80, 72, 53, 79))


def _right_answers(model):
    """Setting → untuned answers that hold the gold."""
    _, rows = read_placebo(FOLDER / "scores" / model / "placebo" / "base.jsonl")
    return {one: sum(row.gold_contained[at] for row in rows) for at, one in enumerate(SETTINGS)}


MADE_UP = {
    "models": {
        "m": {
            "study": {"decodings": {"5.0-all": {"repetition_penalty": 5.0}}, "rows": 200},
            "sweep": {
                "article": {"mean": 0.02, "ci_low": 0.0084, "ci_high": 0.0503, "n": 200},
                "recipe": {"mean": 0.585, "ci_low": 0.519, "ci_high": 0.652, "n": 200},
            },
            "effect": {"mean": -0.565, "p": 0.0017},
        }
    }
}
RIGHT = """Of the 200 rows, 4 of 200 [.008, .050] at 5.0, and .585 (58.5%) without; −.565, p ≤ .0017, a loss of .565 in
`x.y 77` of [a page](a/77.md), as open-calm-7b in 3 ways at 95%.
<!-- numbers: m/sweep/* m/effect -->"""


def test_a_page_whose_numbers_are_right_passes():
    assert unsupported(f"# 17 ways\n\n{RIGHT}\n\nNothing in two of them.", MADE_UP) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("4 of 200", "5 of 200"), (".008", ".009"), (".050", ".051"), (".585 ", ".586 "), ("58.5%", "58.4%"),
        ("58.5%", "3%"), ("−.565", "−.564"), ("−.565", "+.565"), (".0017", ".0016"), ("at 5.0", "at 6.3"),
        ("m/effect", ""), ("in 3 ways", "in 13 ways"),
    ],
)  # fmt: skip
def test_a_changed_number_is_caught(before, after):
    assert before in RIGHT
    assert unsupported(RIGHT.replace(before, after), MADE_UP)


def test_a_path_that_leads_nowhere_is_caught():
    with pytest.raises(KeyError):
        unsupported(RIGHT.replace("m/effect", "m/effects"), MADE_UP)
