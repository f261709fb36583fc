"""A metric is one object in one place: what tables, tests and reports know of it is what its entry says."""

import json
from pathlib import Path

import pytest
from made_up import answers

from eval.metrics.catalogue import (
    FLOOR_METRICS,
    HEADLINE,
    HEADLINE_METRICS,
    METRICS,
    OWN_METRICS,
    REPORTED,
    in_section,
)
from eval.metrics.metric import SECTIONS, Metric
from eval.predictions import write_predictions
from sft.data.records import Example

CATALOGUE = Path(__file__).parents[1] / "eval" / "metrics" / "catalogue.py"
ROW = Example("1", "首都は？", "東京は首都です。", "東京", "closed_qa")


def test_every_metric_is_whole() -> None:
    for metric in METRICS:
        assert (metric.of_text is None) != (metric.of_prediction is None), metric.key
        assert not metric.part_of or metric.part_of in {other.key for other in METRICS}
        assert metric.floors <= bool(metric.of_text and metric.needs_reference)
        assert metric.headline <= (metric.floors and metric.compared and not metric.weight)
    assert sorted(REPORTED, key=METRICS.index) == list(METRICS)
    assert [metric for section in SECTIONS for metric in in_section(section)] == list(REPORTED)
    assert HEADLINE in HEADLINE_METRICS


def test_names_and_signatures_say_what_the_fields_say() -> None:
    def length(text: str, row: Example) -> float:
        return len(text)

    plain = Metric(key="x", title="length", section="style", definition="characters", of_text=length)
    assert (plain.name, plain.signature) == ("length", "characters|mean:over-rows")
    full = Metric(
        key="x", title="length", section="style", definition="characters", of_text=length, part_of="y",
        lower_is_better=True, needs_context=True, empty="missing", weight=lambda row: 2,
    )  # fmt: skip
    assert full.name == "… length ↓"
    assert full.signature == "characters|rows:with-context|empty:missing|mean:weighted-by-reference-characters"
    assert full.measure_text("東京", ROW) == 2
    assert full.measure_text("東京", Example("1", "首都は？", " ", "東京", "open_qa")) is None


def test_what_is_measured_of_floors_and_references() -> None:
    assert all(0 <= (metric.measure_text("東京", ROW) or 0) <= 1 for metric in FLOOR_METRICS)
    assert not [metric.key for metric in OWN_METRICS if metric.needs_reference or metric.of_prediction]


NEW = '''    Metric(
        key="question_marks", title="question marks a character", section="behaviour", lower_is_better=True,
        definition="?/characters", of_text=lambda text, row: text.count("？") / len(text) if text else None,
        empty="missing", compared=True, headline=True,
    ),
)  # fmt: skip
"""All metrics, in the order of the results."""
'''


@pytest.mark.slow
def test_a_new_metric_needs_its_entry_only(command, tmp_path: Path) -> None:
    """The catalogue with one entry more takes the place of ours; nothing else knows of it."""
    text = CATALOGUE.read_text(encoding="utf-8")
    changed = text.replace(')  # fmt: skip\n"""All metrics, in the order of the results."""\n', NEW)
    assert changed != text
    (tmp_path / "catalogue.py").write_text(changed, encoding="utf-8")
    write_predictions([*answers("base", 1), *answers("tuned", 3)], tmp_path / "predictions.jsonl")
    program = (
        "import importlib.util, sys; "
        f"spec = importlib.util.spec_from_file_location('eval.metrics.catalogue', {str(tmp_path / 'catalogue.py')!r}); "
        "module = sys.modules[spec.name] = importlib.util.module_from_spec(spec); "
        "spec.loader.exec_module(module); "
        "from eval.__main__ import main; main()"
    )
    path = tmp_path / "predictions.jsonl"
    for words in (["score", path], ["compare", f"{path}:base", f"{path}:tuned", "--output", tmp_path]):
        result = command("-c", program, *words)
        assert result.returncode == 0, result.stderr
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results["signatures"]["question_marks"] == "?/characters|empty:missing|mean:over-rows"
    assert results["systems"]["tuned"]["groups"]["open"]["question_marks"]["n"] == 8
    assert results["reference"]["groups"]["open"]["question_marks"]["mean"] == 0
    assert results["deltas"]["groups"]["open"]["question_marks"]["p_holm"] == 1
    assert "question_marks" in results["settings"]["headline_metrics"]
    for report in ("report.md", "report.html", "comparison.md"):
        assert "question marks a character ↓" in (tmp_path / report).read_text(encoding="utf-8")


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.key)
def test_every_metric_is_a_number_or_nothing_of_every_answer(metric: Metric) -> None:
    for prediction in answers("tuned", 3):
        value = metric.measure(prediction)
        assert value is None or isinstance(value, int | float)
        if metric.needs_context and not prediction.example.input:
            assert value is None
