"""Results of some metrics alone, for rows that no metric can score. No torch here."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import TypeVar

from eval.scoring.results import Differences, Results, Scores

Value = TypeVar("Value")


def only(results: Results, keys: Collection[str]) -> Results:
    """The results without any metric but those of these keys, and without what scores stand beside."""

    def kept(named: Mapping[str, Value]) -> dict[str, Value]:
        return {key: value for key, value in named.items() if key in keys}

    def inside(scopes: Mapping[str, Mapping[str, Value]]) -> dict[str, dict[str, Value]]:
        return {name: kept(found) for name, found in scopes.items()}

    def scores(found: Scores) -> Scores:
        return Scores(inside(found.categories), inside(found.groups))

    return dataclasses.replace(
        results,
        settings=dataclasses.replace(results.settings, headline_metrics=[]),
        systems={name: scores(found) for name, found in results.systems.items()},
        floors={},
        ceilings={},
        own_leads={},
        reference=scores(results.reference),
        normalised={},
        deltas=Differences(inside(results.deltas.categories), inside(results.deltas.groups)),
        interaction={},
        signatures=kept(results.signatures),
        samples=[
            dataclasses.replace(row, scores=kept(row.scores), weights=kept(row.weights)) for row in results.samples
        ],
    )
