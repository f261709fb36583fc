"""Two systems over the same rows: paired differences with intervals and p values. No torch here."""

import dataclasses

from eval.metrics.catalogue import HEADLINE_METRICS, METRICS
from eval.scoring.results import ON_CONTEXT, ON_OPEN, Difference, Differences, Interaction, Scope
from eval.scoring.rows import Rows, column, nested, rounded
from eval.statistics.estimates import Array, binomial_p, contrast, holm, is_bound, paired_difference, sign_flip_p
from eval.statistics.power import rows_to_show


def differences(rows: Rows, first: Array, second: Array) -> Differences:
    """Second − first, each a (rows, METRICS) table, over the rows measured for both; see `Difference`."""
    found = {scope: _tested(rows, at, first[at], second[at]) for scope, at in rows.scopes.items()}
    adjusted: dict[tuple[Scope, str], float] = {}
    for kind in ("categories", "groups"):
        family = [(scope, metric.key) for scope in found if scope.kind == kind for metric in HEADLINE_METRICS]
        p_values = {(scope, key): p for scope, key in family if (p := found[scope][key].p) is not None}
        adjusted |= holm(p_values)
    final = {
        scope: {key: rounded(dataclasses.replace(one, p_holm=adjusted.get((scope, key)))) for key, one in named.items()}
        for scope, named in found.items()
    }
    return Differences(**nested(final))


def _tested(rows: Rows, at: list[int], first: Array, second: Array) -> dict[str, Difference]:
    """The differences over rows `at`, whose scores these are, with p values not adjusted."""
    weights, clusters, changes = rows.weights[at], rows.clusters[at], second - first
    estimates = paired_difference(first, second, weights, clusters, rows.resamples, rows.seed)
    flipped = sign_flip_p(changes, weights, clusters, seed=rows.seed)
    none_shares_a_context = len(set(clusters)) == len(at)
    found = {}
    for metric, estimate, p_value, change in zip(METRICS, estimates, flipped, changes.T, strict=True):
        exact = metric.binary and none_shares_a_context
        found[metric.key] = Difference(
            **dataclasses.asdict(estimate),
            p=binomial_p(change) if exact else p_value,
            p_holm=None,
            test="binomial" if exact else "sign-flip",
            p_is_bound=not exact and is_bound(p_value),
            rows_to_show=rows_to_show(estimate),
        )
    return found


def interaction(rows: Rows, first: Array, second: Array) -> dict[str, Interaction]:
    """Headline metric's key → (second − first on context rows) − (second − first on open rows).

    Empty unless both groups have rows.
    """
    groups = [rows.scopes.get(scope) for scope in (ON_CONTEXT, ON_OPEN)]
    if not all(groups):
        return {}
    changes = (second - first)[:, [column(metric.key) for metric in HEADLINE_METRICS]]
    context, open_ = ((changes[at], rows.clusters[at]) for at in groups)
    found = contrast(*context, *open_, rows.resamples, rows.seed)
    return {
        metric.key: rounded(
            Interaction(one.mean, one.ci_low, one.ci_high, one.p, one.n_first, one.n_second, is_bound(one.p))
        )
        for metric, one in zip(HEADLINE_METRICS, found, strict=True)
    }
