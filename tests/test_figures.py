"""Figures: XML that parses, text that stays text (Japanese unbroken), the same bytes twice, nothing left in pyplot."""

import re
import xml.etree.ElementTree as ET
from typing import Any

import matplotlib
import pytest
from made_up import answers

from eval.report.figures import copy_figure, delta_figure, forest_figure, length_figure
from eval.scoring.results import Results
from eval.scoring.score import score
from sft.page.blocks import Figure

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def results() -> Results:
    return score([*answers("base", 1), *answers("tuned", 3)], resamples=100)


def drawn(results: Results) -> list[Figure]:
    return [forest_figure(results), *delta_figure(results), *copy_figure(results), length_figure(results)]


def texts(figure: Figure) -> list[str]:
    return ["".join(element.itertext()).strip() for element in ET.fromstring(figure.svg).iter(f"{SVG}text")]


def test_every_figure_is_xml_that_scales_to_its_place(results: Results) -> None:
    figures = drawn(results)
    assert len(figures) == 4
    for figure in figures:
        root = ET.fromstring(figure.svg)
        assert root.get("width") == "100%"
        assert root.get("height") is None
        width = float((root.get("viewBox") or "").split()[2])
        sizes = [float(size) for size in re.findall(r"font(?:-size)?: ?(?:bold )?([\d.]+)px", figure.svg)]
        assert sizes
        assert min(sizes) * 328 / width >= 9.5  # pixels on a phone 360 wide, less the page's margins
        assert root.get("role") == "img"
        assert root.get("aria-label")


def test_labels_are_text_in_fonts_that_have_japanese(results: Results) -> None:
    renamed = score([*answers("日本語モデル<b>", 1), *answers("調整済み & $x$", 3)], resamples=50)
    figure = forest_figure(renamed)
    assert {"日本語モデル<b>", "調整済み & $x$", "information_extraction", "context, all"} <= set(texts(figure))
    assert "Noto Sans CJK JP" in figure.svg
    assert "DejaVu" not in figure.svg
    assert "information_extraction" in texts(forest_figure(results))


def test_the_same_results_give_the_same_bytes_and_leave_no_trace(results: Results, command: Any) -> None:
    before = dict(matplotlib.rcParams)
    assert drawn(results) == drawn(results)
    assert dict(matplotlib.rcParams) == before
    loaded = "import eval.report.figures, sys; print('matplotlib.pyplot' in sys.modules, 'torch' in sys.modules)"
    assert command("-c", loaded).stdout.split() == ["False", "False"]
    assert not re.search(r"20\d\d-\d\d-\d\d", drawn(results)[0].svg)


def test_ids_of_figures_in_one_page_do_not_meet(results: Results) -> None:
    ids = [set(re.findall(r'\sid="([^"]+)"', figure.svg)) for figure in drawn(results)]
    assert len(set().union(*ids)) == sum(map(len, ids))
    for figure, own in zip(drawn(results), ids, strict=True):
        used = set(re.findall(r'(?:url\(#|xlink:href="#)([^)"]+)', figure.svg))
        assert used <= own


def test_without_a_pair_or_a_context_there_is_no_figure_of_it() -> None:
    alone = score([a for a in answers("anybody") if not a.example.input], resamples=50)
    assert delta_figure(alone) == []
    assert copy_figure(alone) == []
    assert texts(length_figure(alone))
    assert texts(forest_figure(alone))
