"""Results from predictions: structure, floors, missing and failed answers, validation, determinism, speed."""

import dataclasses
import json
import math
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from eval.metrics import METRICS, TEXT_METRICS
from eval.score import score, write_results
from sft.errors import UserError
from sft.records import CATEGORIES, Example, FinishReason, Prediction

ROOT = Path(__file__).parents[1]


def example(index: str, category: str = "open_qa", **fields: Any) -> Example:
    defaults = {"instruction": f"{index}番の都市は？", "input": "", "output": f"東京{index}"}
    return Example(index=index, category=category, **(defaults | fields))


def prediction(system: str, row: Example, text: str, finish_reason: FinishReason = "eos", **fields: Any) -> Prediction:
    generation = fields.pop("generation", {"repetition_penalty": 1.2, "repetition_penalty_scope": "generated"})
    return Prediction(system, row, "質問", text, finish_reason, 5, 3, generation, **fields)


def both(row: Example, base: str, tuned: str, **fields: Any) -> list[Prediction]:
    return [prediction("base", row, base, **fields), prediction("tuned", row, tuned, **fields)]


@pytest.fixture(scope="module")
def predictions() -> list[Prediction]:
    """Three open rows that tuning puts right, and two context rows about one context."""
    rows = [example(str(n)) for n in range(3)]
    pairs = [both(row, "大阪", row.output, reference_nll=2 * math.log(2) * 3) for row in rows]
    context = {"category": "closed_qa", "input": "東京の話。"}
    pairs += [both(example(f"c{n}", **context), "東京", "東京") for n in range(2)]
    return [answer for pair in pairs for answer in pair]


def test_structure_and_values(predictions: list[Prediction]) -> None:
    results = score(predictions)
    assert list(results["systems"]) == ["base", "tuned"]
    assert list(results["floors"]) == ["echo", "shuffled"]
    tuned = results["systems"]["tuned"]
    assert list(tuned["categories"]) == ["open_qa", "closed_qa"]
    assert list(tuned["groups"]) == ["open", "context"]
    assert tuple(tuned["groups"]["open"]) == METRICS
    assert tuned["categories"]["open_qa"]["exact_match"] == {
        "mean": 1.0,
        "ci_low": 1.0,
        "ci_high": 1.0,
        "n": 3,
        "missing": 0,
    }
    assert results["systems"]["base"]["groups"]["open"]["character_f1"]["mean"] == 0
    assert results["deltas"]["groups"]["open"]["character_f1"]["mean"] == 1
    assert tuned["groups"]["open"]["reference_bits_per_character"]["mean"] == 2
    assert tuple(results["floors"]["echo"]["groups"]["open"]) == tuple(TEXT_METRICS)
    assert results["rows"] == {
        "total": 5,
        "clusters": 4,
        "categories": {"open_qa": 3, "closed_qa": 2},
        "groups": {"open": 3, "context": 2},
    }
    assert len(results["samples"]) == 10


def test_one_context_has_a_mean_but_no_interval(predictions: list[Prediction]) -> None:
    found = score(predictions)["systems"]["tuned"]["categories"]["closed_qa"]["gold_contained"]
    assert (found["n"], found["ci_low"], found["ci_high"]) == (2, None, None)


def test_what_was_not_measured_is_counted_as_missing(predictions: list[Prediction]) -> None:
    found = score(predictions)["systems"]["tuned"]["categories"]["closed_qa"]["reference_bits_per_character"]
    assert found == {"mean": None, "ci_low": None, "ci_high": None, "n": 0, "missing": 2}


def test_a_group_is_the_mean_over_rows_not_over_categories() -> None:
    rows = [example("1"), example("2"), example("3"), example("4", "general_qa")]
    answers = [prediction("tuned", row, row.output if row.index == "4" else "大阪") for row in rows]
    assert score(answers)["systems"]["tuned"]["groups"]["open"]["exact_match"]["mean"] == 0.25


def test_failed_answers_stay_in_the_denominator_with_zero() -> None:
    rows = [example("1"), example("2")]
    answers = [
        prediction("base", rows[0], rows[0].output),
        prediction("base", rows[1], rows[1].output, "error"),
    ]
    results = score(answers)
    found = results["systems"]["base"]["categories"]["open_qa"]
    assert (found["exact_match"]["mean"], found["exact_match"]["n"]) == (0.5, 2)
    assert (found["eos_rate"]["mean"], found["length_ratio"]["mean"]) == (0.5, 0.5)
    assert results["answers"]["base"]["error"] == 1


def test_floors_echo_the_question_and_never_use_a_rows_own_reference() -> None:
    rows = [example(str(n), output=chr(ord("あ") + n) * 3) for n in range(20)]
    rows[0] = dataclasses.replace(rows[0], instruction=rows[0].output)
    rows.append(example("alone", "general_qa"))
    floors = score([prediction("tuned", row, "はい") for row in rows])["floors"]
    assert floors["echo"]["categories"]["open_qa"]["exact_match"]["mean"] == 0.05
    assert floors["shuffled"]["categories"]["open_qa"]["character_f1"]["mean"] == 0
    assert floors["shuffled"]["categories"]["general_qa"]["character_f1"]["n"] == 0
    assert floors["shuffled"]["groups"]["open"]["character_f1"]["missing"] == 1


def test_length_and_bits_are_ratios_of_characters() -> None:
    rows = [example("1", output="あ"), example("2", output="あ" * 9)]
    nlls = {"1": 11 * math.log(2), "2": 9 * math.log(2)}
    answers = [prediction("base", row, "い" * 10, reference_nll=nlls[row.index]) for row in rows]
    found = score(answers)["systems"]["base"]["groups"]["open"]
    assert found["length_ratio"]["mean"] == 2  # 20 / 10, not (10 + 10/9) / 2
    assert found["reference_bits_per_character"]["mean"] == 2


def test_all_answers_of_a_benchmark_count() -> None:
    row = example("1", output="東京", answers=("東京", "東京都"))
    assert score([prediction("base", row, "東京都")])["systems"]["base"]["groups"]["open"]["exact_match"]["mean"] == 1


def test_identical_predictions_in_any_order_write_identical_files(
    predictions: list[Prediction], tmp_path: Path
) -> None:
    shuffled = list(predictions)
    random.Random(1).shuffle(shuffled)
    for name, answers in (("a", predictions), ("b", shuffled)):
        (tmp_path / name).mkdir()
        write_results(score(answers, resamples=500), tmp_path / name)
    for file in ("results.json", "samples.jsonl"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    results = json.loads((tmp_path / "a/results.json").read_text(encoding="utf-8"))
    assert "samples" not in results
    assert len((tmp_path / "a/samples.jsonl").read_text(encoding="utf-8").splitlines()) == 10


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([], "no predictions"),
        ([prediction("base", example("1"), "東京")] * 2, "row '1' of system 'base' appears twice"),
        (
            [prediction("base", example(i), "東京") for i in "12"] + [prediction("tuned", example("1"), "東京")],
            "different rows: 1 are in one only, for example '2'",
        ),
        (
            [prediction("base", example("1"), "a"), prediction("tuned", example("1", output="別"), "a")],
            "not the same question",
        ),
        (
            [prediction("base", example(i), "a", generation={"temperature": float(i)}) for i in "12"],
            "mixes generation settings: temperature is 1.0 for row '1' and 2.0 for row '2'",
        ),
    ],
)
def test_predictions_that_do_not_belong_together(answers: list[Prediction], message: str) -> None:
    with pytest.raises(UserError) as error:
        score(answers)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_scoring_imports_no_torch() -> None:
    program = (
        "import sys, eval.score, eval.report; "
        "print([m for m in ('torch', 'transformers', 'evaluate') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_thousand_predictions_in_seconds() -> None:
    words = [
        "東京",
        "大阪",
        "は",
        "が",
        "の",
        "2019年",
        "首都",
        "人口",
        "です",
        "、",
        "。",
        "経済",
        "です。",
        "コーヒー",
        "日本",
        "歴史",
    ]
    draw = random.Random(0)

    def text(length: int) -> str:
        return "".join(draw.choices(words, k=length))

    answers = []
    for number in range(500):
        category = CATEGORIES[number % len(CATEGORIES)]
        row = example(str(number), category, instruction=text(20), output=text(120))
        answers += both(row, text(100), text(100))
    start = time.perf_counter()
    score(answers)
    assert time.perf_counter() - start < 20
