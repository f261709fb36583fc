"""Invariants of metrics, statistics and tables, for any text and any numbers."""

import io
import math
import re
import unicodedata
from collections import Counter
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.cells import cell_len
from rich.console import Console

from eval.metrics.catalogue import OWN_METRICS
from eval.metrics.correctness import KINDS, facts, facts_recall, unsupported_facts
from eval.metrics.grounding import SHORTEST, extraction, fragments
from eval.metrics.overlap import character_f1, chrf, edit_similarity, exact_match, gold_contained, rouge_l
from eval.metrics.text import normalise, tokens
from eval.render.markdown import fenced, render_markdown
from eval.render.terminal import Row, print_rows
from eval.statistics import estimates as statistics
from eval.statistics.estimates import (
    binomial_p,
    bootstrap_means,
    cluster_numbers,
    contrast,
    holm,
    paired_difference,
    rank_correlation,
    sign_flip_p,
)
from sft.data.records import Example
from sft.page.blocks import Table
from sft.system.visible import NAME_CELLS, narrow, visible

WORDS = ["東京", "タワー", "は", "333", "メートル", "です。", "１９８１年", "7月", "ｶﾞﾗｽ", "Ａ", "a", "。", "　", " ",
         "\n", "、", "三百", "カ\u3099", "İ", "Σ", "ﾞ", "\x00", "\x1b[2J", "\u202e", "`", "````", "|", "\\",
         "<b>"]  # fmt: skip
TEXTS = st.lists(st.sampled_from(WORDS) | st.text(max_size=3), max_size=10).map("".join)
TEXT_METRICS = {f.__name__: f for f in (rouge_l, character_f1, edit_similarity, chrf, exact_match, gold_contained)}
SYMMETRIC = ("rouge_l", "character_f1", "edit_similarity", "exact_match")


def text_scores(answer, references):
    return {name: metric(answer, references) for name, metric in TEXT_METRICS.items()}


# Metrics


@settings(max_examples=300, deadline=None)
@given(TEXTS, st.lists(TEXTS, max_size=3), st.data())
def test_scores_are_shares_the_best_references_and_the_same_in_any_order_of_them(answer, references, data):
    found = text_scores(answer, references)
    assert all(0 <= score <= 1 for score in found.values())
    assert found == text_scores(answer, data.draw(st.permutations(references)))
    for metric, score in found.items():
        assert score == max((TEXT_METRICS[metric](answer, one) for one in references), default=0)
    for kind in (None, *KINDS):
        recall = facts_recall(answer, references, kind)
        assert recall is None or 0 <= recall <= 1
        assert recall == facts_recall(answer, data.draw(st.permutations(references)), kind)


@settings(max_examples=200, deadline=None)
@given(TEXTS, TEXTS)
def test_a_text_is_itself_and_as_near_to_another_as_that_to_it(first, second):
    for metric, score in text_scores(first, first).items():
        assert score == pytest.approx(1 if normalise(first) else 0), metric
    there, back = text_scores(first, second), text_scores(second, first)
    for metric in SYMMETRIC:
        assert there[metric] == back[metric]
    for text in (first, second):
        assert facts_recall(text, [text]) in (None, 1)
        assert unsupported_facts(text, (text,)) in (None, 0)


def lcs(first, second):
    """Length of the longest common subsequence, by the textbook's table."""
    row = [0] * (len(second) + 1)
    for one in first:
        before = row
        row = [0]
        for place, other in enumerate(second):
            row.append(before[place] + 1 if one == other else max(row[-1], before[place + 1]))
    return row[-1]


@settings(max_examples=200, deadline=None)
@given(TEXTS, TEXTS)
def test_overlaps_are_those_of_brute_force(answer, reference):
    first, second = normalise(answer), normalise(reference)
    shared = 0
    left = list(second)
    for character in first:
        if character in left:
            left.remove(character)
            shared += 1
    both = len(first) + len(second)
    assert character_f1(answer, reference) == (2 * shared / both if first and second else 0)
    assert edit_similarity(answer, reference) == pytest.approx(2 * lcs(first, second) / both if first and second else 0)
    words = tokens(answer), tokens(reference)
    expected = 2 * lcs(*words) / (len(words[0]) + len(words[1])) if all(words) else 0
    assert TEXT_METRICS["rouge_l"](answer, reference) == pytest.approx(expected)


@settings(max_examples=200, deadline=None)
@given(TEXTS, TEXTS, st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_how_a_text_is_encoded_makes_no_difference(answer, reference, form):
    same = unicodedata.normalize(form, answer)
    assert normalise(same) == normalise(answer)
    assert normalise(f"\n{answer}\u3000 ") == normalise(answer)
    assert text_scores(same, reference) == text_scores(answer, reference)
    assert text_scores(reference, same) == text_scores(reference, answer)
    assert facts(same) == facts(answer)


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_normalising_is_done_once_and_words_lose_nothing_but_spaces(text):
    assume("İ" not in unicodedata.normalize("NFKC", text))  # its lower case is two characters, in an order of their own
    assert normalise(normalise(text)) == normalise(text)
    assert "".join(tokens(text)) == normalise(text).replace(" ", "")


@settings(max_examples=200, deadline=None)
@given(TEXTS, TEXTS, TEXTS)
def test_what_is_measured_of_an_answer_alone_is_a_share_or_missing(answer, context, instruction):
    row = Example("1", instruction, context, "", "closed_qa")
    found = {metric: metric.measure_text(answer, row) for metric in OWN_METRICS}
    assert all(value is None or 0 <= value <= 1 for metric, value in found.items() if metric.key != "density")
    if not context.strip():
        assert all(value is None for metric, value in found.items() if metric.section == "grounding")
    if not normalise(answer):
        alike = [metric for metric in found if metric.section == "style" and metric.key != "punctuation_share"]
        assert all(found[metric] is None for metric in alike)


@settings(max_examples=200, deadline=None)
@given(st.text("ab。 ", max_size=12), st.text("ab。 ", max_size=12))
def test_fragments_are_copied_passages_that_go_on_as_long_as_they_can(answer, context):
    text, source = normalise(answer), normalise(context)
    found, place = fragments(answer, context), 0
    shortest = min(SHORTEST, len(text))
    for passage in found:
        start = text.index(passage, place)
        # Nothing that begins in between is copied, and the passage ends with the text or goes no further.
        assert all(text[at : at + shortest] not in source for at in range(place, start))
        place = start + len(passage)
        assert len(passage) >= shortest > 0
        assert passage in source
        assert place == len(text) or text[start : place + 1] not in source
    assert all(text[at : at + shortest] not in source for at in range(place, len(text) - shortest + 1)) or not shortest
    measured = extraction(answer, context)
    if measured:
        assert 0 <= measured.coverage <= 1
        assert measured.coverage <= measured.density <= len(text)
        assert extraction(answer, answer) == (1, len(text))


# Statistics

VALUES = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0]), st.just(math.nan))


@st.composite
def measured(draw, columns=2, values=VALUES):
    """Rows of `columns` values in clusters, with the weights of the rows."""
    rows = draw(st.integers(1, 12))
    contexts = draw(st.lists(st.sampled_from(["", "甲", "乙"]), min_size=rows, max_size=rows))
    table = [draw(st.lists(values, min_size=columns, max_size=columns)) for _ in range(rows)]
    weights = [[draw(st.integers(1, 50))] for _ in range(rows)]
    return np.array(table), np.array(weights, float), cluster_numbers(contexts)


@settings(max_examples=150, deadline=None)
@given(measured(), st.integers(0, 9))
def test_an_interval_is_around_its_mean_within_the_values_and_wider_for_more_confidence(case, seed):
    values, weights, clusters = case
    weights = np.repeat(weights, 2, axis=1)
    found = bootstrap_means(values, weights, clusters, 200, seed)
    with patch.object(statistics, "CONFIDENCE", 0.99):
        wider = bootstrap_means(values, weights, clusters, 200, seed)
    for column, estimate in enumerate(found):
        known = values[~np.isnan(values[:, column]), column]
        assert (estimate.n, estimate.missing) == (len(known), len(values) - len(known))
        assert (estimate.mean is None) == (not len(known))
        measured_clusters = set(clusters[~np.isnan(values[:, column])])
        assert (estimate.ci_low is None) == (estimate.ci_high is None) == (len(measured_clusters) < 2)
        if estimate.ci_low is not None:
            assert known.min() - 1e-9 <= estimate.ci_low <= estimate.mean + 1e-9
            assert estimate.mean - 1e-9 <= estimate.ci_high <= known.max() + 1e-9
            assert wider[column].ci_low <= estimate.ci_low
            assert wider[column].ci_high >= estimate.ci_high


@settings(max_examples=100, deadline=None)
@given(measured(), st.integers(0, 9))
def test_two_systems_differ_as_much_whichever_comes_first(case, seed):
    values, weights, clusters = case
    base, tuned = values[:, :1], values[:, 1:]
    there = paired_difference(base, tuned, weights, clusters, 200, seed)[0]
    back = paired_difference(tuned, base, weights, clusters, 200, seed)[0]
    assert (there.n, there.missing) == (back.n, back.missing)
    if there.mean is None:
        assert back.mean is None
    else:
        assert there.mean == pytest.approx(-back.mean)
    if there.ci_low is not None:
        assert (there.ci_low, there.ci_high) == pytest.approx((-back.ci_high, -back.ci_low))
        assert there.ci_low - 1e-9 <= there.mean <= there.ci_high + 1e-9
    changes = tuned - base
    p_values = [sign_flip_p(sign * changes, weights, clusters, 200, seed)[0] for sign in (1, -1)]
    assert p_values[0] == p_values[1]
    assert (p_values[0] is None) == (there.ci_low is None)
    assert p_values[0] is None or 0 < p_values[0] <= 1
    signs = np.sign(changes[:, 0])
    assert binomial_p(signs) == binomial_p(-signs)
    assert (binomial_p(signs) is None) == (there.n == 0)
    same = sign_flip_p(np.where(np.isnan(changes), np.nan, 0.0), weights, clusters, 200, seed)[0]
    assert same in (None, 1)


@settings(max_examples=60, deadline=None)
@given(measured(1), measured(1), st.integers(0, 9))
def test_a_contrast_is_the_difference_of_two_means_whichever_comes_first(one, other, seed):
    (first, _, first_clusters), (second, _, second_clusters) = one, other
    there = contrast(first, first_clusters, second, second_clusters, 200, seed)[0]
    back = contrast(second, second_clusters, first, first_clusters, 200, seed)[0]
    known = [values[~np.isnan(values)] for values in (first, second)]
    assert (there.n_first, there.n_second) == (back.n_second, back.n_first) == tuple(map(len, known))
    if not all(map(len, known)):
        assert there.mean is back.mean is None
        return
    assert there.mean == pytest.approx(known[0].mean() - known[1].mean())
    assert there.mean == pytest.approx(-back.mean)
    assert (there.p is None) == (there.ci_low is None) == (back.ci_low is None)
    if there.p is not None:
        assert 0 < there.p <= 1
        assert there.ci_low - 1e-9 <= there.mean <= there.ci_high + 1e-9


@settings(max_examples=60, deadline=None)
@given(measured(), st.integers(0, 9))
def test_a_rank_correlation_is_the_same_both_ways_and_for_any_rising_function(case, seed):
    values, _, clusters = case
    first, second = np.round(values, 3).T
    found = rank_correlation(first, second, clusters, 100, seed)
    assert rank_correlation(second, first, clusters, 100, seed) == pytest.approx(found)
    turned = rank_correlation(-first, second, clusters, 100, seed)
    scaled = rank_correlation(2 * first + 1, second, clusters, 100, seed)
    if found.rho is None:
        assert turned.rho is scaled.rho is None
        return
    assert -1 - 1e-9 <= found.ci_low <= found.ci_high <= 1 + 1e-9
    assert (turned.rho, turned.ci_low, turned.ci_high) == pytest.approx((-found.rho, -found.ci_high, -found.ci_low))
    assert turned.p == pytest.approx(found.p)
    assert (scaled.rho, scaled.p) == pytest.approx((found.rho, found.p))


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.integers(), st.floats(0, 1), max_size=8))
def test_adjusted_p_values_are_larger_and_in_the_same_order(p_values):
    adjusted = holm(p_values)
    assert list(adjusted) == list(p_values)
    assert all(p <= adjusted[key] <= min(1, p * len(p_values)) for key, p in p_values.items())
    order = sorted(p_values, key=p_values.__getitem__)
    assert [adjusted[key] for key in order] == sorted(adjusted.values())
    for alpha in (0.01, 0.05, 0.5):  # the same rejections as Holm's steps: stop at the first that is too large
        rejected = 0
        while rejected < len(order) and p_values[order[rejected]] * (len(order) - rejected) <= alpha:
            rejected += 1
        assert sum(adjusted[key] <= alpha for key in order) == rejected


# Tables


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=4), st.data())
def test_a_terminal_tables_columns_are_aligned_whatever_the_names(names, data):
    rows = data.draw(st.lists(st.tuples(TEXTS.map(narrow), st.booleans()), min_size=1, max_size=3))
    output = io.StringIO()
    console = Console(file=output, width=200)
    print_rows("", names, [Row(label, ["12.34"] * len(names), strong) for label, strong in rows], console)
    found = [line for line in output.getvalue().split("\n") if "12.34" in line]
    ends = [[cell_len(line[: at.end()]) for at in re.finditer(r"12\.34", line)] for line in found]
    assert ends == [ends[0]] * len(rows)
    assert len(ends[0]) == len(names)
    for name in names:
        assert cell_len(narrow(name)) <= NAME_CELLS


@settings(max_examples=150, deadline=None)
@given(st.lists(TEXTS, min_size=2, max_size=4), TEXTS, st.data())
def test_a_markdown_table_keeps_its_cells_and_a_quoted_text_its_block(header, quoted, data):
    cells = st.lists(TEXTS, min_size=len(header), max_size=len(header))
    rows = data.draw(st.lists(cells, max_size=3))
    rendered = render_markdown([Table(header, rows)])
    parsed = MarkdownIt().enable("table").parse(f"{rendered}\n{fenced(quoted, 99)}\n")
    kinds = Counter(token.type for token in parsed)
    assert kinds["table_open"] == kinds["fence"] == 1
    assert (kinds["th_open"], kinds["td_open"]) == (len(header), len(header) * len(rows))
    assert parsed[-1].type == "fence"
    assert parsed[-1].content == f"{visible(quoted) or '(empty)'}\n"
