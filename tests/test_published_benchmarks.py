"""Benchmarks of others: their files become rows, and what the tuning forgot is said in their authors' metrics."""

import json
import math
import shutil
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch

from eval.benchmarks.known import BENCHMARKS
from eval.benchmarks.read import read_benchmark
from eval.commands import benchmark_words
from eval.metrics.catalogue import BY_KEY
from eval.predictions import Prediction, read_predictions, write_predictions
from eval.score import report
from sft.data.records import Example
from sft.generation.answerer import load_answerer, open_run
from sft.prompt.encode import encode_answer, encode_prompt
from sft.run.provenance import Provenance
from sft.system import texts
from sft.system.errors import UserError

SQUAD = {
    "version": "1.1",
    "data": [
        {
            "title": "みなと町",
            "paragraphs": [
                {
                    "context": "みなと町 [SEP] みなと町の図書館は1972年に開館した。",
                    "qas": [
                        {
                            "id": "a1p0q0",
                            "question": "図書館はいつ開館した？",
                            "answers": [
                                {"text": "1972年", "answer_start": 16},
                                {"text": "1972年に", "answer_start": 16},
                                {"text": "1972年", "answer_start": 16},
                            ],
                            "is_impossible": False,
                        }
                    ],
                }
            ],
        }
    ],
}
FLAT = {
    "id": "a1p0q0",
    "title": "みなと町",
    "context": SQUAD["data"][0]["paragraphs"][0]["context"],
    "question": "図書館はいつ開館した？",
    "answers": {"text": ["1972年", "1972年に", "1972年"], "answer_start": [16, 16, 16]},
}
CONVERTED = {
    "index": "a1p0q0",
    "instruction": "図書館はいつ開館した？",
    "input": FLAT["context"],
    "output": "1972年",
    "answers": ["1972年", "1972年に"],
    "category": "closed_qa",
}
CHOICE = {"q_id": 7, "question": "雨の日に差すものは？", "label": 2}
CHOICE |= {f"choice{n}": choice for n, choice in enumerate(("花", "箸", "傘", "目", "棒"))}
TASK = {"input": "朝の体操を3つ挙げてください。", "output": "1. 伸び\n2. 屈伸\n3. 深呼吸", "eval_aspect": "- 3つ挙げる"}


def written(path: Path, *rows: dict) -> str:
    """The rows in a file of the kind that its name says."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".csv":
        cells = [[f'"{value}"' for value in row.values()] for row in rows]
        path.write_text("\n".join(map(",".join, [list(rows[0]), *cells])) + "\n", encoding="utf-8")
    else:
        path.write_text(json.dumps(rows[0], ensure_ascii=False), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("file", "row"),
    [("valid.json", SQUAD), ("valid.parquet", FLAT), ("valid.jsonl", FLAT), ("valid.jsonl", CONVERTED)],
)
def test_jsquad_in_each_of_its_forms(tmp_path: Path, file: str, row: dict) -> None:
    asked = read_benchmark(BENCHMARKS["jsquad"], written(tmp_path / file, row), None, 0.1)
    (found,) = asked.rows
    assert (found.index, found.instruction, found.input) == ("a1p0q0", "図書館はいつ開館した？", FLAT["context"])
    assert (found.output, found.references, found.group) == ("1972年", ("1972年", "1972年に"), "context")
    assert asked.choices == []


@pytest.mark.parametrize(
    ("file", "row"),
    [
        ("n.jsonl", {"id": "N-1", "text": "七草は何種類？", "answers": ["7種", "七種"]}),
        (
            "n.json",
            {"instruction": "答えてください。", "samples": [{"input": "質問：七草は何種類？", "output": "7種,七種"}]},
        ),
        (
            "n.jsonl",
            {"index": "N-1", "instruction": "七草は何種類？", "input": "", "output": "7種", "answers": ["7種", "七種"]},
        ),
    ],
)
def test_niilc_has_all_answers_as_its_reference(tmp_path: Path, file: str, row: dict) -> None:
    (found,) = read_benchmark(BENCHMARKS["niilc"], written(tmp_path / file, row), None, 0.1).rows
    assert (found.instruction, found.input, found.output, found.group) == ("七草は何種類？", "", "7種,七種", "open")


@pytest.mark.parametrize("file", ["e.csv", "e.parquet"])
def test_elyza_tasks(tmp_path: Path, file: str) -> None:
    (found,) = read_benchmark(BENCHMARKS["elyza-tasks-100"], written(tmp_path / file, TASK), None, 0.1).rows
    assert (found.instruction, found.input, found.output) == (TASK["input"], "", TASK["output"])


def test_rows_that_cannot_be_used_are_counted_and_too_many_refused(tmp_path: Path, capsys) -> None:
    bad = [CHOICE | {"label": 5, "q_id": 8}, CHOICE | {"choice1": "花", "q_id": 9}, {"question": "？"}]
    path = written(tmp_path / "c.jsonl", CHOICE, *bad)
    with pytest.raises(UserError, match="3 of 4 cannot be used"):
        read_benchmark(BENCHMARKS["jcommonsenseqa"], path, None, 0.1)
    assert len(read_benchmark(BENCHMARKS["jcommonsenseqa"], path, None, 0.9).rows) == 1
    said = capsys.readouterr().err
    for reason in ("label is no number of a choice", "two choices are the same", "no choice0"):
        assert f"dropped 1 row: {reason}" in said
    with pytest.raises(UserError, match="no row of JSQuAD's form; a row has question, context and answers"):
        read_benchmark(BENCHMARKS["jsquad"], path, None, 0.1)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_hub_is_asked_for_the_split_that_its_authors_take(monkeypatch, name: str) -> None:
    benchmark, calls = BENCHMARKS[name], []

    def refuse(*words: object, **named: object) -> None:
        calls.append((words, named))
        raise ConnectionError("Couldn't reach it on the Hub")

    monkeypatch.setattr("datasets.load_dataset", refuse)
    with pytest.raises(UserError, match=r"is set\); unset it to download, or give a file .*--benchmark-data"):
        read_benchmark(benchmark, benchmark.hub, None, 0.1)
    assert calls == [((benchmark.hub, benchmark.subset), {"revision": None, "split": benchmark.split})]


def test_a_benchmark_brings_settings_and_rows_of_its_own(tmp_path: Path) -> None:
    words = benchmark_words("jsquad", None, ["generation.max_new_tokens=9"])
    assert words.index("generation.max_new_tokens=9") > words.index(
        "generation.max_new_tokens=64"
    )  # the last one holds
    assert any("sbintuitions/JSQuAD" in word for word in words)
    assert benchmark_words(None, None, ["eval.seed=1"]) == ["eval.seed=1"]
    for name, data, more, problem in [
        (None, "x.json", [], "of which benchmark"),
        ("jsquad", str(tmp_path / "x.json"), [], "no such file"),
        ("jsquad", None, ["eval.data=x"], "rows of its own"),
    ]:
        with pytest.raises(UserError, match=problem):
            benchmark_words(name, data, more)
    for benchmark in BENCHMARKS.values():
        assert set(benchmark.metrics) <= set(BY_KEY)


def answers(system: str, right: int, of: int) -> list[Prediction]:
    """Answers to rows of which the first ones are right."""
    rows = [Example(f"{n:03}", f"問い{n}", f"文脈{n}。", f"答え{n}", "") for n in range(of)]
    texts = [row.output if at < right else "不明" for at, row in enumerate(rows)]
    return [Prediction(system, row, "p", text, "eos", 1, 2, {}) for row, text in zip(rows, texts, strict=True)]


def about(benchmark: str) -> Provenance:
    return Provenance(
        run="2026-01-01", base="b", base_commit=None, base_sha256=None, learned="a" * 64, template="a" * 64,
        loading={}, data="x.json", rows="a" * 64, systems=["base", "tuned"], generation=[{}], seed=4, batch_tokens=1,
        deviations=[], shots=2, brief=True, benchmark=benchmark,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "of", "words"),
    [
        (
            30,
            10,
            40,
            "It forgot: worse at JSQuAD than before tuning (JGLUE's character F1 0.750 → 0.250, 40 questions).",
        ),
        (10, 30, 40, "Nothing forgotten here: better at JSQuAD"),
        (5, 3, 8, "Whether it forgot is not shown: 8 questions of JSQuAD are too few"),
        (5, 5, 8, "No loss seen: at JSQuAD every answer scores as before tuning"),
    ],
)
def test_what_it_forgot_stands_first(
    tmp_path: Path, capsys, monkeypatch, before: int, after: int, of: int, words: str
) -> None:
    monkeypatch.setattr(texts, "_asked", "en")
    predictions = [*answers("base", before, of), *answers("tuned", after, of)]
    file = tmp_path / "predictions.jsonl"
    write_predictions(predictions, file)
    report(predictions, file, tmp_path, 200, about=about("jsquad"))
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert words in page
    assert words in " ".join(capsys.readouterr().out.split())
    assert "2 examples of training rows in each prompt (seed 4); a short answer asked for" in page
    for whose in ("JGLUE |", "llm-jp-eval, Nejumi", "flexeval |", "Stability AI (jp-stable)"):
        assert whose in page
    assert page.index(words) < page.index("jp-stable") < page.index("Context QA")
    assert f"Lower after tuning in {max(0, before - after)} answer" in page
    assert json.loads((tmp_path / "results.json").read_text())["about"]["benchmark"] == "jsquad"


def test_without_a_score_there_is_none(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(texts, "_asked", "ja")
    predictions = [*answers("base", 1, 3), *answers("tuned", 2, 3)]
    file = tmp_path / "predictions.jsonl"
    write_predictions(predictions, file)
    report(predictions, file, tmp_path, 200, about=about("elyza-tasks-100"))
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "ELYZA-tasks-100はプログラムでは採点できません" in page
    assert "python -m eval judge" in page
    results = json.loads((tmp_path / "results.json").read_text())
    metrics = set(BENCHMARKS["elyza-tasks-100"].metrics)
    assert results["systems"]["tuned"]["groups"]["context"].keys() == metrics
    assert results["floors"] == results["normalised"] == {}
    assert {*json.loads((tmp_path / "samples.jsonl").read_text().splitlines()[0])["scores"]} == metrics
    assert "F1" not in page + capsys.readouterr().out


def test_the_likeliest_choice_is_the_answer(trained_run: Path, program, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained_run, run)
    second = CHOICE | {"q_id": 8, "question": "魚が泳ぐところは？", "choice0": "川", "label": 0}
    path = written(tmp_path / "valid.jsonl", CHOICE, second)
    result = program("eval.__main__", run, "--benchmark", "jcommonsenseqa", "--benchmark-data", path, "--lang", "en")
    assert result.returncode == 0, result.stderr
    place = run / "eval" / "jcommonsenseqa"
    predictions = list(read_predictions(place / "predictions.jsonl"))
    answerer = load_answerer(open_run(run))
    for answer in (one for one in predictions if one.system == "tuned"):
        choices = [line[2:] for line in answer.example.instruction.splitlines() if line.startswith("- ")]
        assert len(choices) == 5
        likelihoods = {choice: likelihood(answerer, answer.prompt, choice) for choice in choices}
        assert answer.text == max(likelihoods, key=likelihoods.__getitem__)
        assert answer.reference_nll == pytest.approx(-likelihoods[answer.example.output], abs=0.05)
        assert (answer.finish_reason, answer.output_tokens > 0) == ("chosen", True)
    results = json.loads((place / "results.json").read_text())
    right = sum(one.text == one.example.output for one in predictions if one.system == "tuned")
    assert results["systems"]["tuned"]["groups"]["open"]["exact_match"]["mean"] == right / 2
    assert results["systems"]["tuned"]["groups"]["open"]["eos_rate"]["n"] == 0
    page = (place / "report.md").read_text(encoding="utf-8")
    assert "Guessing scores 0.200." in page
    assert "the likeliest of the given choices is the answer" in page
    again = program("eval.__main__", "score", place / "predictions.jsonl", "--lang", "en")
    assert again.returncode == 0, again.stderr
    assert (place / "report.md").read_text(encoding="utf-8") == page


def likelihood(answerer, prompt: str, choice: str) -> float:
    """Σ ln p of a choice's tokens behind a prompt, token by token from the model's own logits."""
    before, after = encode_prompt(answerer.tokenizer, prompt), encode_answer(answerer.tokenizer, choice)
    with torch.inference_mode():
        logits = answerer.model(torch.tensor([before + after])).logits[0].float()
    rows = logits[len(before) - 1 : -1].log_softmax(-1)
    return math.fsum(rows[at, token].item() for at, token in enumerate(after))
