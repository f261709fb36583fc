"""Any two systems over the same rows, and refusals when the rows are not the same."""

import dataclasses

import pytest

from eval.predictions import Prediction
from eval.scoring.measured import measure
from eval.scoring.paired import differences, interaction
from eval.scoring.results import Differences, Interaction
from eval.scoring.score import score
from sft.data.records import Example
from sft.system.errors import UserError


def answers(system: str, texts: dict[str, str], **changes: str) -> list[Prediction]:
    found = []
    for index, text in texts.items():
        context = f"{index}の文脈。" if index.startswith("c") else ""
        category = "closed_qa" if context else "open_qa"
        row = Example(index, f"{index}番は？", context, f"東京{index}", category)
        found.append(
            Prediction(system, dataclasses.replace(row, **changes), "", text, "eos", 1, 1, {"penalty": system})
        )
    return found


def paired(
    first: list[Prediction], second: list[Prediction], resamples: int = 10_000, seed: int = 0
) -> tuple[Differences, dict[str, Interaction]]:
    """The second − the first, and the interaction."""
    measured = measure(first + second, resamples, seed)
    pair = measured.rows, *(measured.tables[side[0].system] for side in (first, second))
    return differences(*pair), interaction(*pair)


INDICES = ["1", "2", "3", "c1", "c2", "c3"]
WRONG = dict.fromkeys(INDICES, "大阪")
RIGHT_WHEN_OPEN = {index: "大阪" if index.startswith("c") else f"東京{index}" for index in INDICES}


def test_the_same_as_the_deltas_of_base_and_tuned() -> None:
    found, changes = paired(answers("base", WRONG), answers("tuned", RIGHT_WHEN_OPEN)[::-1], resamples=300, seed=1)
    results = score(answers("base", WRONG) + answers("tuned", RIGHT_WHEN_OPEN), resamples=300, seed=1)
    assert (found, changes) == (results.deltas, results.interaction)
    assert found.groups["open"]["character_f1"].mean == 1
    assert found.groups["context"]["character_f1"].mean == 0
    assert changes["character_f1"].mean == -1
    assert paired(answers("x", RIGHT_WHEN_OPEN), answers("y", WRONG), 300)[0].groups["open"]["rouge_l"].mean == -1


def test_rows_of_one_context_are_not_counted_as_independent() -> None:
    right = {f"c{at}": f"東京c{at}" for at in range(8)}
    wrong = dict.fromkeys(right, "大阪")
    alone = paired(answers("a", wrong), answers("b", right), 200)[0].groups["context"]["gold_contained"]
    assert (alone.test, alone.p) == ("binomial", pytest.approx(2 / 2**8, abs=1e-6))
    # Two contexts, four rows each: two signs to flip, so no p below 1/2 can come of them.

    def in_two_contexts(side: list[Prediction]) -> list[Prediction]:
        rows = [dataclasses.replace(p.example, input=f"文脈{at // 4}") for at, p in enumerate(side)]
        return [dataclasses.replace(p, example=row) for p, row in zip(side, rows, strict=True)]

    first, second = in_two_contexts(answers("a", wrong)), in_two_contexts(answers("b", right))
    shared = paired(first, second, 200)[0].groups["context"]["gold_contained"]
    assert shared.test == "sign-flip"
    assert shared.p >= 0.4


def test_no_interaction_without_both_groups() -> None:
    only_open = {"1": "東京1", "2": "大阪"}
    assert paired(answers("a", only_open), answers("b", only_open), 100)[1] == {}


def test_the_reference_may_stand_in_output_or_in_answers() -> None:
    first, second = answers("a", {"1": "東京1"}), answers("b", {"1": "東京1"})
    row = dataclasses.replace(second[0].example, answers=("東京1",))
    assert paired(first, [dataclasses.replace(second[0], example=row)], 100)[0].categories


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            answers("a", WRONG),
            answers("b", {"1": "", "c9": ""}),
            "6 are in one only, 0 have another",
        ),
        (
            answers("a", WRONG),
            answers("b", WRONG, output="別"),
            "a (6 rows) and b (6 rows) did not answer the same rows",
        ),
        (answers("a", WRONG), answers("b", WRONG, instruction="別"), "0 are in one only, 6 have another text"),
        (answers("a", WRONG), answers("b", WRONG, input="別"), "0 are in one only, 6 have another text"),
        (answers("a", WRONG), answers("b", WRONG, category="general_qa"), "0 are in one only, 6 have another text"),
        ([], [], "no predictions to score"),
        (answers("a", WRONG) * 2, answers("b", WRONG), "row '1' of system 'a' appears twice"),
    ],
)
def test_rows_that_are_not_the_same(first: list[Prediction], second: list[Prediction], message: str) -> None:
    with pytest.raises(UserError) as error:
        measure(first + second)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
