"""p values and contrasts against enumeration, scipy and hand-computed cases."""

import itertools
import math
import time

import numpy as np
import pytest
from scipy import stats

from eval.statistics.estimates import (
    LEAST_P,
    Estimate,
    _repeated_ranks,
    _weighted_correlation,
    band_position,
    binomial_p,
    bootstrap_means,
    cluster_numbers,
    contrast,
    holm,
    is_bound,
    rank_correlation,
    sign_flip_p,
)
from eval.statistics.power import rows_to_show
from eval.statistics.shares import share_interval, wilson

NAN = math.nan


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)[:, None]


def test_sign_flips_agree_with_all_flips_of_the_clusters() -> None:
    values = column(0.3, 0.1, -0.2, 0.5, 0.4, 0.6, 0.2)
    clusters = cluster_numbers(["甲", "甲", "", "", "", "", "乙"])
    sums = [0.3 + 0.1, -0.2, 0.5, 0.4, 0.6, 0.2]
    observed = abs(sum(sums))
    flips = [abs(sum(s * v for s, v in zip(f, sums, strict=True))) for f in itertools.product((1, -1), repeat=6)]
    exact = sum(flip >= observed - 1e-12 for flip in flips) / len(flips)
    (found,) = sign_flip_p(values, np.ones_like(values), clusters)
    assert found == pytest.approx(exact, abs=0.012)


def test_sign_flips_agree_with_scipy_on_many_rows() -> None:
    values = np.random.default_rng(1).normal(0.1, 1, 200)
    result = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=9999, rng=2)
    (found,) = sign_flip_p(values[:, None], np.ones((200, 1)), cluster_numbers([""] * 200))
    assert found == pytest.approx(result.pvalue, abs=0.015)


def test_sign_flip_edge_cases() -> None:
    clusters = cluster_numbers([""] * 4)
    values = np.array([[0.0, 1, NAN, 0.1], [0.0, 1, NAN, -0.1], [0.0, 1, NAN, 0.2], [0.0, 1, 1, -0.2]])
    nothing, same, one_row, balanced = sign_flip_p(values, np.ones_like(values), clusters)
    assert nothing == 1
    assert same == pytest.approx(2 / 16, abs=0.02)  # only all or none flipped is as far
    assert one_row is None
    assert balanced == 1
    assert sign_flip_p(column(1, 1), np.ones((2, 1)), cluster_numbers(["甲", "甲"])) == [None]
    once = sign_flip_p(values, np.ones_like(values), clusters, seed=5)
    assert sign_flip_p(values, np.ones_like(values), clusters, seed=5) == once


def test_sign_flips_of_clusters_are_more_careful_than_of_rows() -> None:
    values = np.repeat(np.random.default_rng(0).normal(0.3, 1, 30), 5)[:, None]
    contexts = [f"文脈{n // 5}" for n in range(150)]
    (by_cluster,) = sign_flip_p(values, np.ones_like(values), cluster_numbers(contexts))
    (by_row,) = sign_flip_p(values, np.ones_like(values), cluster_numbers([""] * 150))
    assert by_cluster is not None
    assert by_row is not None
    assert by_cluster > by_row


def test_binomial_is_scipys_on_the_rows_that_changed() -> None:
    for gained, lost in ((0, 0), (1, 0), (5, 5), (9, 2), (2, 9), (40, 20)):
        differences = np.array([1.0] * gained + [-1.0] * lost + [0.0] * 30 + [NAN])
        expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1
        assert binomial_p(differences) == pytest.approx(expected)
    assert binomial_p(np.array([NAN])) is None
    assert binomial_p(np.array([1.0] * 5)) == 2 / 32


def test_a_p_that_flips_cannot_make_smaller_is_a_bound() -> None:
    values = np.full((40, 1), 0.5)
    (least,) = sign_flip_p(values, np.ones_like(values), cluster_numbers([""] * 40))
    assert is_bound(least)
    assert not is_bound(2 * LEAST_P)
    assert not is_bound(None)


@pytest.mark.parametrize(("ones", "n"), [(4, 200), (0, 50), (50, 50), (1, 2)])
def test_wilson_is_scipys(ones: int, n: int) -> None:
    expected = stats.binomtest(ones, n).proportion_ci(method="wilson")
    assert wilson(ones / n, n) == pytest.approx((expected.low, expected.high))


def test_shares_near_an_end_have_wilsons_interval_over_clusters() -> None:
    values = np.array([1.0] * 4 + [0.0] * 196)
    clusters = cluster_numbers([""] * 200)
    plain = bootstrap_means(values[:, None], np.ones((200, 1)), clusters)[0]
    found = share_interval(plain, values, clusters)
    assert (found.ci_low, found.ci_high) == pytest.approx((0.0078, 0.0503), abs=1e-4)
    halves = np.array([1.0] * 100 + [0.0] * 100)
    middle = bootstrap_means(halves[:, None], np.ones((200, 1)), clusters)[0]
    assert share_interval(middle, halves, clusters) == middle  # the bootstrap's
    none = np.zeros(200)
    pairs = cluster_numbers([f"文脈{n // 2}" for n in range(200)])
    nothing = bootstrap_means(none[:, None], np.ones((200, 1)), pairs)[0]
    assert share_interval(nothing, none, pairs).ends == pytest.approx((0, wilson(0, 100)[1]))
    one = bootstrap_means(none[:2, None], np.ones((2, 1)), cluster_numbers(["甲", "甲"]))[0]
    assert share_interval(one, none[:2], cluster_numbers(["甲", "甲"])).ends is None


def test_rows_to_show_are_as_many_as_show_it() -> None:
    draw = np.random.default_rng(0)
    found = Estimate(0.1, 0.1 - 1.96 / 60**0.5, 0.1 + 1.96 / 60**0.5, 60, 0)
    rows = rows_to_show(found)
    assert rows == pytest.approx((1.96 + 0.8416) ** 2 / 0.01, rel=0.01)
    shown = [stats.ttest_1samp(draw.normal(0.1, 1, rows), 0).pvalue < 0.05 for _ in range(400)]
    assert np.mean(shown) == pytest.approx(0.8, abs=0.06)
    for nothing in (Estimate(0.0, -1, 1, 5, 0), Estimate(0.1, None, None, 1, 0), Estimate(1e-9, -1, 1, 5, 0)):
        assert rows_to_show(nothing) is None


def test_holm() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert holm({"a": 0.5, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert holm({"a": 0.2}) == {"a": 0.2}
    assert holm({}) == {}


def test_contrast_is_a_difference_of_independent_means() -> None:
    draw = np.random.default_rng(0)
    first, second = draw.normal(0.5, 1, (150, 1)), draw.normal(0, 0.5, (100, 1))
    clusters = [cluster_numbers([""] * 150), cluster_numbers([""] * 100)]
    found = contrast(first, clusters[0], second, clusters[1], 10_000)[0]
    welch = stats.ttest_ind(first[:, 0], second[:, 0], equal_var=False)
    low, high = welch.confidence_interval()
    assert found.mean == pytest.approx(first.mean() - second.mean())
    assert (found.ci_low, found.ci_high) == pytest.approx((low, high), abs=0.02)
    assert (found.n_first, found.n_second) == (150, 100)
    assert found.p == pytest.approx(1e-4, abs=1e-3)
    shifted = contrast(first, clusters[0], second + first.mean() - second.mean() - 0.1, clusters[1], 1000)[0]
    moved = second + first.mean() - second.mean() - 0.1
    assert shifted.p == pytest.approx(stats.ttest_ind(first[:, 0], moved[:, 0], equal_var=False).pvalue, abs=0.03)


def test_contrast_of_equal_sizes_draws_its_sides_apart() -> None:
    values = np.random.default_rng(0).normal(0, 1, (80, 1))
    clusters = cluster_numbers([""] * 80)
    found = contrast(values, clusters, values, clusters, 2000)[0]
    assert (found.mean, found.p) == (0, 1)
    assert found.ci_low is not None
    assert found.ci_low < -0.2  # with the same draws on both sides the interval would be a point


def test_contrast_without_an_interval() -> None:
    two, one = column(0.1, 0.2), column(0.3)
    found = contrast(two, cluster_numbers(["", ""]), one, cluster_numbers([""]), 100)[0]
    assert (found.mean, found.ci_low, found.p) == (pytest.approx(-0.15), None, None)
    found = contrast(two, cluster_numbers(["", ""]), column(NAN), cluster_numbers([""]), 100)[0]
    assert (found.mean, found.ci_high, found.p, found.n_second) == (None, None, None, 0)


def test_band_position() -> None:
    rows = np.arange(6) / 10
    clusters = cluster_numbers([""] * 6)
    found = band_position(rows + 0.2, rows, rows + 0.4, clusters)
    assert [found.mean, found.ci_low, found.ci_high] == pytest.approx([0.5] * 3)  # what the rows share cancels out
    assert band_position(rows - 0.2, rows, rows + 0.4, clusters).mean == pytest.approx(-0.5)
    assert band_position(rows, rows, rows, clusters).mean is None
    assert band_position(rows, rows + 0.1, rows, clusters).mean is None
    holed = np.where(rows > 0.25, rows, NAN)
    found = band_position(rows + 0.2, holed, rows + 0.4, clusters)
    assert (found.n, found.missing) == (3, 3)
    nothing = band_position(rows, np.full(6, NAN), rows, clusters)
    assert (nothing.mean, nothing.n) == (None, 0)


def test_the_interval_covers_the_truth_about_95_times_in_100() -> None:
    draw = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        contexts = draw.normal(0.3, 0.2, 40)
        values = np.repeat(contexts, 3)[:, None] + draw.normal(0, 0.1, (120, 1))
        clusters = cluster_numbers([f"文脈{n // 3}" for n in range(120)])
        found = bootstrap_means(values, np.ones_like(values), clusters, 400, trial)[0]
        assert found.ci_low is not None
        assert found.ci_high is not None
        covered += found.ci_low <= 0.3 <= found.ci_high
    assert 0.89 <= covered / 200 <= 0.99


def test_ten_thousand_flips_of_500_rows_and_20_metrics_in_seconds() -> None:
    values = np.random.default_rng(0).normal(0, 1, (500, 20))
    start = time.process_time()
    sign_flip_p(values, np.ones_like(values), cluster_numbers([""] * 500))
    assert time.process_time() - start < 5


def test_rank_correlation_is_spearmans_and_ranks_anew_in_resamples() -> None:
    rng = np.random.default_rng(1)
    first = rng.integers(0, 5, 40).astype(float)  # many ties
    second = first + rng.normal(0, 3, 40)
    found = rank_correlation(first, second, np.arange(40), 500)
    assert found.rho == pytest.approx(stats.spearmanr(first, second).statistic)
    assert found.ci_low < found.rho < found.ci_high
    # A resample in which every row stands twice, but one not at all, ranks like the written-out one.
    counts = np.full((1, 40), 2.0)
    counts[0, 7] = 0
    written = [np.repeat(values, counts[0].astype(int)) for values in (first, second)]
    ranks = [_repeated_ranks(values, counts) for values in (first, second)]
    assert _weighted_correlation(*ranks, counts)[0] == pytest.approx(stats.spearmanr(*written).statistic)


def test_a_partial_rank_correlation_is_that_of_what_the_third_leaves() -> None:
    rng = np.random.default_rng(2)
    given = rng.normal(size=60)
    first, second = (given + rng.normal(0, noise, 60) for noise in (0.5, 1))
    ranks = [stats.rankdata(values) for values in (first, second, given)]
    left = [values - np.polyval(np.polyfit(ranks[2], values, 1), ranks[2]) for values in ranks[:2]]
    found = rank_correlation(first, second, np.arange(60), 300, given=given)
    assert found.rho == pytest.approx(stats.pearsonr(*left).statistic)
    assert found.ci_low < found.rho < found.ci_high
    assert found.rho < rank_correlation(first, second, np.arange(60), 300).rho / 2


def test_rank_correlation_of_a_monotone_pair_and_of_none() -> None:
    values = np.arange(6.0)
    assert rank_correlation(values, -values, np.arange(6), 200).rho == pytest.approx(-1)
    assert rank_correlation(values, -values, np.arange(6), 199).p == pytest.approx(2 / 200, abs=0.01)
    assert rank_correlation(values, np.zeros(6), np.arange(6)).rho is None
    assert rank_correlation(values, values, np.zeros(6, dtype=np.intp)).p is None
    holed = np.array([0.0, np.nan, 2.0, 3.0, 4.0, 5.0])
    assert rank_correlation(holed, values, np.arange(6), 100).n == 5
