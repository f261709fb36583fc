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
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.border import from_json
from eval.metrics.catalogue import BY_KEY, FLOOR_METRICS, OWN_METRICS
from eval.metrics.floors import CONSTANT
from eval.predictions import Prediction, write_predictions
from eval.report.document import reached_by_copying
from eval.score import report, training_outputs
from eval.scoring.results import ON_CONTEXT, Results, RowCounts, ScoredRow, SharedPassage
from eval.scoring.score import score
from eval.statistics.estimates import Estimate
from sft.data.records import CATEGORIES, CONTEXT, Example
from sft.generation.settings import FinishReason
from sft.system.errors import UserError

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
    assert list(results.systems) == ["base", "tuned"]
    assert list(results.floors) == ["echo", "shuffled", "constant", "lead", "question_sentence"]
    assert list(results.ceilings) == ["oracle_sentence"]
    tuned = results.systems["tuned"]
    assert list(tuned.categories) == ["open_qa", "closed_qa"]
    assert list(tuned.groups) == ["open", "context"]
    assert list(tuned.groups["open"]) == list(BY_KEY)
    assert tuned.categories["open_qa"]["exact_match"] == Estimate(1.0, 0.438503, 1.0, 3, 0)  # Wilson's
    assert results.systems["base"].groups["open"]["character_f1"].mean == 0
    assert results.deltas.groups["open"]["character_f1"].mean == 1
    assert tuned.groups["open"]["reference_bits_per_character"].mean == 2
    assert list(results.floors["echo"].groups["open"]) == [metric.key for metric in FLOOR_METRICS]
    assert list(results.floors["lead"].categories) == ["closed_qa"]
    assert list(results.own_leads) == ["base", "tuned"]
    assert list(results.own_leads["tuned"].groups) == ["context"]
    assert list(results.ceilings["oracle_sentence"].groups) == ["context"]
    assert list(results.reference.groups["context"]) == [metric.key for metric in OWN_METRICS]
    assert list(results.signatures) == list(BY_KEY)
    assert results.settings.generation["base"]["repetition_penalty"] == 1.2
    assert (results.settings.resamples, results.settings.seed) == (10_000, 0)
    assert results.settings.constant == CONSTANT
    assert results.overlap == {}
    under = {"open_qa": "open", "closed_qa": "context"}
    assert results.rows == RowCounts(5, 4, {"open_qa": 3, "closed_qa": 2}, {"open": 3, "context": 2}, under)
    assert len(results.samples) == 10


def test_one_context_has_a_mean_but_no_interval(predictions: list[Prediction]) -> None:
    found = score(predictions).systems["tuned"].categories["closed_qa"]["gold_contained"]
    assert (found.n, found.ci_low, found.ci_high) == (2, None, None)


def test_what_was_not_measured_is_counted_as_missing(predictions: list[Prediction]) -> None:
    found = score(predictions).systems["tuned"].categories["closed_qa"]["reference_bits_per_character"]
    assert found == Estimate(None, None, None, 0, 2)


def test_a_group_is_the_mean_over_rows_not_over_categories() -> None:
    rows = [example("1"), example("2"), example("3"), example("4", "general_qa")]
    answers = [prediction("tuned", row, row.output if row.index == "4" else "大阪") for row in rows]
    assert score(answers).systems["tuned"].groups["open"]["exact_match"].mean == 0.25


def test_failed_answers_stay_in_the_denominator_with_zero() -> None:
    rows = [example("1"), example("2")]
    answers = [
        prediction("base", rows[0], rows[0].output),
        prediction("base", rows[1], rows[1].output, "error"),
    ]
    results = score(answers)
    found = results.systems["base"].categories["open_qa"]
    assert (found["exact_match"].mean, found["exact_match"].n) == (0.5, 2)
    assert (found["eos_rate"].mean, found["length_ratio"].mean) == (0.5, 0.5)
    assert results.answers["base"].error == 1


def test_answers_that_ran_on_are_counted_and_scored_as_they_were_cut() -> None:
    rows = [example(str(n)) for n in range(4)]
    reasons: list[FinishReason] = ["eos", "heading", "stop", "length"]
    results = score([prediction("tuned", row, row.output, reason) for row, reason in zip(rows, reasons, strict=True)])
    found = results.systems["tuned"].groups["open"]
    assert (found["eos_rate"].mean, found["ran_on"].mean, found["exact_match"].mean) == (0.25, 0.25, 1)
    counts = dataclasses.asdict(results.answers["tuned"])
    assert counts == {"eos": 1, "heading": 1, "stop": 1, "length": 1, "error": 0, "empty": 0, "context_shortened": 0}


def test_floors_echo_the_question_and_never_use_a_rows_own_reference() -> None:
    rows = [example(str(n), output=chr(ord("あ") + n) * 3) for n in range(20)]
    rows[0] = dataclasses.replace(rows[0], instruction=rows[0].output)
    rows.append(example("alone", "general_qa"))
    floors = score([prediction("tuned", row, "はい") for row in rows]).floors
    assert floors["echo"].categories["open_qa"]["exact_match"].mean == 0.05
    assert floors["shuffled"].categories["open_qa"]["character_f1"].mean == 0
    assert floors["shuffled"].categories["general_qa"]["character_f1"].n == 0
    assert floors["shuffled"].groups["open"]["character_f1"].missing == 1


def test_lead_oracle_and_constant() -> None:
    context = {"category": "closed_qa", "input": "塔の話。\n東京タワーは高い。大阪にも塔がある。"}
    rows = [example("1", output="東京タワー", **context), example("2", output="大阪", **context), example("3")]
    results = score([prediction("a", row, "はい") for row in rows])
    lead = results.floors["lead"].categories["closed_qa"]["exact_match"]
    assert (lead.mean, lead.n) == (0, 2)
    oracle = results.ceilings["oracle_sentence"].categories["closed_qa"]
    # 東京タワーは高い(8) against 東京タワー(5); 大阪にも塔がある(8) against 大阪(2)
    assert oracle["character_f1"].mean == pytest.approx((2 * 5 / 13 + 2 * 2 / 10) / 2, abs=1e-6)
    constant = results.floors["constant"].groups
    assert constant["open"]["character_f1"].n == 1
    assert constant["context"]["character_f1"].n == 2


def test_each_system_has_to_beat_the_lead_of_its_own_length() -> None:
    contexts = [f"東京タワー{n}は高い。大阪にも塔がある。" for n in range(4)]
    rows = [example(f"c{n}", "closed_qa", input=text, output=f"タワー{n}") for n, text in enumerate(contexts)]
    short = [prediction("short", row, "塔") for row in rows]
    long = [prediction("long", row, row.input[:12]) for row in rows]  # a copy, and gold contained is 1
    results = score(short + long)
    contained, on_context = BY_KEY["gold_contained"], ON_CONTEXT
    assert results.systems["long"].of(on_context, contained).mean == 1
    assert results.own_leads["long"].of(on_context, contained).mean == 1
    assert results.own_leads["short"].of(on_context, contained).mean == 0
    assert results.best_floor("long", on_context, contained).mean == 1
    found = results.normalised["long"].groups["context"]["character_f1"]
    assert found.mean is None or found.mean <= 0  # copying is not above its own floor
    named = reached_by_copying(results, [on_context], [contained])
    assert any("long: 1.000" in text for text in named)
    assert not any("short" in text for text in named)


def test_normalised_score_lies_between_best_floor_and_ceiling() -> None:
    context = [f"塔{n}の話。東京タワー{n}は高い。大阪にも塔がある。" for n in range(4)]
    rows = [example(f"c{n}", "closed_qa", input=text, output=f"東京タワー{n}は高い") for n, text in enumerate(context)]
    rows += [example(str(n)) for n in range(3)]
    oracle = [prediction("oracle", row, row.output if row.input else "大阪") for row in rows]
    echo = [prediction("echo", row, row.instruction) for row in rows]
    found = score(oracle + echo).normalised
    at_ceiling = found["oracle"].groups["context"]["character_f1"]
    assert (at_ceiling.mean, at_ceiling.ceiling, at_ceiling.ceiling_name) == (1, 1, "oracle_sentence")
    assert at_ceiling.n == 4
    below = found["oracle"].groups["open"]["character_f1"]
    assert (below.ceiling, below.ceiling_name) == (1, "perfect")
    assert below.mean == pytest.approx((0 - below.floor) / (1 - below.floor), abs=1e-5)
    assert found["echo"].groups["open"]["rouge_l"].mean <= 0  # an echo is never above the best floor


def test_a_row_counts_for_every_metric_that_it_has_the_input_for() -> None:
    rows = [
        example("c", "closed_qa", input="東京タワーは1958年にできた。", output="1958年"),
        example("d", "closed_qa", input="はい。", output="はい"),  # no facts
        example("o", output="1958年"),
    ]
    nlls = {"reference_nll": 2.0, "reference_nll_without_context": 3.0}
    answers = [prediction("a", row, "1958年と12回", **nlls) for row in rows]
    found = score(answers).systems["a"].groups
    recall = found["context"]["facts_recall"]
    assert (recall.mean, recall.n, recall.missing) == (1.0, 1, 1)
    assert found["context"]["unsupported_facts"].mean == (0.5 + 1) / 2
    assert found["context"]["context_gain"].n == 2
    assert found["open"]["facts_recall"].mean == 1
    for metric in ("unsupported_facts", "coverage", "noun_support", "context_gain"):
        assert (found["open"][metric].n, found["open"][metric].missing) == (0, 1)


def test_overlaps_with_training_outputs(predictions: list[Prediction]) -> None:
    training = {"7": "はい、東京1は大阪の東", "9": "東京の話。です"}
    results = score(predictions, resamples=100, training_outputs=training)
    assert results.systems["tuned"].categories["open_qa"]["training_overlap"].mean == pytest.approx(7 / 3)
    assert results.overlap["tuned"][0] == SharedPassage("1", "open_qa", 3, "東京1", "7")
    assert len(results.overlap["base"]) == 5
    measured = [dataclasses.replace(answer, training_overlap=4) for answer in predictions]
    results = score(measured, resamples=100)
    assert results.systems["base"].groups["open"]["training_overlap"].mean == 4
    assert results.overlap == {}


def test_deltas_and_interaction(predictions: list[Prediction]) -> None:
    rows = [example(str(n)) for n in range(12)]
    rows += [example(f"c{n}", "closed_qa", input=f"文脈{n}。", output=f"大阪{n}") for n in range(12)]
    answers = [p for row in rows for p in both(row, "京都", row.output if row.category == "open_qa" else "京都")]
    results = score(answers)
    gained = results.deltas.categories["open_qa"]["gold_contained"]
    assert (gained.mean, gained.test, gained.p) == (1, "binomial", round(2 / 2**12, 6))
    assert gained.p_holm > gained.p
    assert results.deltas.categories["open_qa"]["chrf"].p_holm is None
    assert results.deltas.categories["closed_qa"]["character_f1"].p == 1
    assert results.interaction["gold_contained"].mean == -1
    assert results.interaction["gold_contained"].p == pytest.approx(1e-4, abs=2e-4)
    assert not score(predictions[::2]).deltas.groups
    one = score([p for p in answers if p.example.index == "1"]).deltas.groups["open"]["rouge_l"]
    assert (one.ci_low, one.p, one.p_holm) == (None, None, None)


def test_length_and_bits_are_ratios_of_characters() -> None:
    rows = [example("1", output="あ"), example("2", output="あ" * 9)]
    nlls = {"1": 11 * math.log(2), "2": 9 * math.log(2)}
    answers = [prediction("base", row, "い" * 10, reference_nll=nlls[row.index]) for row in rows]
    found = score(answers).systems["base"].groups["open"]
    assert found["length_ratio"].mean == 2  # 20 / 10, not (10 + 10/9) / 2
    assert found["reference_bits_per_character"].mean == 2


def test_all_answers_of_a_benchmark_count() -> None:
    row = example("1", output="東京", answers=("東京", "東京都"))
    assert score([prediction("base", row, "東京都")]).systems["base"].groups["open"]["exact_match"].mean == 1


TEXT = st.text("東京はの。、1年アー \n\x00\ud800", max_size=12)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(CATEGORIES), TEXT, TEXT, TEXT, TEXT, TEXT), min_size=1, max_size=6),
    st.sampled_from([None, 0.0, 5.0, math.nan]),
    st.dictionaries(TEXT, TEXT, max_size=3),
)
def test_whatever_the_texts_results_are_json_and_do_not_depend_on_order(
    rows: list[tuple[str, str, str, str, str, str]], nll: float | None, training: dict[str, str]
) -> None:
    answers = []
    for number, (category, instruction, context, output, first, second) in enumerate(rows):
        row = example(str(number), category, instruction=instruction, input=context, output=output)
        answers += both(row, first, second, reference_nll=nll, reference_nll_without_context=3.0)
    results = score(answers, 50, 0, training)
    assert score(answers[::-1], 50, 0, training) == results
    summary, lines = results.texts().values()
    assert from_json(json.loads(summary), Results) == dataclasses.replace(results, samples=[])
    assert [from_json(json.loads(line), ScoredRow) for line in lines.splitlines()] == results.samples


def test_the_best_floor_is_measured_on_rows_that_have_a_ceiling() -> None:
    rows = [example("1", "closed_qa", input="東京")] + [example(n, "summarization", output="東京") for n in "23"]
    found = score([prediction("a", row, "東京") for row in rows]).normalised["a"].groups["context"]["rouge_l"]
    assert (found.n, found.missing) == (1, 2)  # shuffled is best on the rows without a context
    assert found.floor_name != "shuffled"


def test_identical_predictions_in_any_order_write_identical_files(
    predictions: list[Prediction], tmp_path: Path
) -> None:
    shuffled = list(predictions)
    random.Random(1).shuffle(shuffled)
    for name, answers in (("a", predictions), ("b", shuffled)):
        file = tmp_path / name / "predictions.jsonl"
        file.parent.mkdir()
        write_predictions(answers, file)
        report(answers, file, tmp_path / name, resamples=500, training_outputs={"1": "東京の"})
    for file in ("results.json", "samples.jsonl"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    results = json.loads((tmp_path / "a/results.json").read_text(encoding="utf-8"))
    assert "samples" not in results
    assert len((tmp_path / "a/samples.jsonl").read_text(encoding="utf-8").splitlines()) == 10
    names = [path.name for path in (tmp_path / "a").iterdir() if path.name != "predictions.jsonl"]
    assert sorted(names) == ["report.html", "report.md", "results.json", "rows.html", "samples.jsonl"]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([], "no predictions"),
        ([prediction("base", example("1"), "東京")] * 2, "row '1' of system 'base' appears twice"),
        (
            [prediction("base", example(i), "東京") for i in "12"] + [prediction("tuned", example("1"), "東京")],
            "1 are in one only, 0 have another text under the same index (for example '2')",
        ),
        (
            [prediction("base", example("1"), "a"), prediction("tuned", example("1", output="別"), "a")],
            "base (1 row) and tuned (1 row) did not answer the same rows: 0 are in one only, 1 have another text",
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
        "import sys, eval.score, eval.compare, eval.rate, eval.sweep; "
        "from eval.predictions import Prediction; "
        "from sft.data.records import Example; "
        "row = Example('1', '塔は？', '東京タワーは1958年。', '1958年', 'closed_qa'); "
        "eval.scoring.score.score([Prediction('a', row, '', '1958年', 'eos', 1, 1, {})], 100, 0, {'1': '1958年'}); "
        "print([m for m in ('torch', 'transformers', 'evaluate') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.slow
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
    nlls = {"reference_nll": 500.0, "reference_nll_without_context": 600.0}
    for number in range(500):
        category = CATEGORIES[number % len(CATEGORIES)]
        context = text(400) if category in CONTEXT else ""
        row = example(str(number), category, instruction=text(20), input=context, output=text(60))
        answers += both(row, text(60), text(60), **nlls)
    training = {str(number): text(60) for number in range(1000)}
    start = time.process_time()
    score(answers, training_outputs=training)
    assert time.process_time() - start < 20


def test_a_benchmark_that_counts_from_1_hides_no_training_row(tmp_path: Path) -> None:
    rows = [{"index": i, "instruction": f"質問{i}", "output": f"答え{i}", "category": "open_qa"} for i in "12"]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    held_out, foreign = example("1", "open_qa", instruction="質問1"), example("2", "open_qa", instruction="別の質問")
    answers = [prediction("a", row, "東京") for row in (held_out, foreign)]
    assert training_outputs(str(path), answers) == {"2": "答え2"}
