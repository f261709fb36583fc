"""The placebo experiment: a setting penalises the tokens that it says, and reading prompts once changes no answer."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sft.generation.generate import generate
from sft.generation.penalty import ScopedRepetitionPenalty
from sft.system.errors import UserError
from studies.context_qa import models
from studies.context_qa.placebo.answers import NEW_TOKENS, Counted, CountedPenalty, Experiment
from studies.context_qa.placebo.run import _kept
from studies.context_qa.placebo.scores import (
    ALL_BUT_GOLD,
    CONTEXT,
    GENERATED,
    GOLD,
    NOTHING,
    PLACEBO,
    PROMPT,
    QUESTION,
    SCOPES,
    SETTINGS,
    RowScores,
    analyse_placebo,
    paired,
    placebo_blocks,
)

CITIES = ("東京", "札幌", "那覇", "金沢")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "qa.jsonl"
    rows = [
        {"index": f"r{n}", "instruction": "どこですか。", "input": f"{n}番目の会場は{city}にあります。", "output": city,
         "answers": [city, f"{city}市"], "category": "closed_qa"}
        for n, city in enumerate(CITIES)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def words(small_base):
    """The overrides that make a small model of a configuration answer in full precision."""

    def of(family):
        return [f"model.base={small_base(family)['base']}", "model.build=null", "model.dtype=float32"]

    return of


@pytest.fixture(
    scope="module",
    params=["open-calm", *(pytest.param(family, marks=pytest.mark.slow) for family in ("gemma-3", "qwen2.5"))],
)
def experiment(request, words, data):
    return Experiment(Path("configs/tiny.yaml"), words(request.param), str(data))


def test_every_scope_holds_the_tokens_that_it_says(experiment):
    row, other = experiment.rows[:2]
    parts, others = experiment.parts(row), experiment.parts(other)
    prompt = experiment.answerer.prompt(row.instruction, row.input)
    assert parts.ids == prompt.ids
    assert parts.context | parts.around == set(prompt.ids)

    def text_of(tokens):
        return experiment.answerer.tokenizer.decode([token for token in prompt.ids if token in tokens])

    assert row.input in text_of(parts.context)
    assert row.instruction in text_of(parts.around)
    assert row.output in text_of(parts.gold)
    scopes = parts.counted(others)
    assert tuple(scopes) == SCOPES
    assert scopes[NOTHING] == Counted(frozenset(), generated=False)
    assert scopes[GENERATED] == Counted(frozenset())
    assert scopes[PROMPT].tokens == set(prompt.ids)
    assert scopes[PLACEBO].tokens == others.context != parts.context
    assert scopes[QUESTION].tokens == parts.around
    assert scopes[CONTEXT].tokens == parts.context
    assert scopes[ALL_BUT_GOLD].tokens == set(prompt.ids) - parts.gold
    assert scopes[ALL_BUT_GOLD].spared == parts.gold
    assert scopes[GOLD] == Counted(parts.gold, generated=False)


def test_only_the_tokens_that_count_are_penalised():
    """Prompt 0 1, answer 2 3 so far; scores are 1 for the even and −1 for the odd."""
    scores = torch.tensor([[1.0, -1.0] * 4] * 4)
    ids = torch.tensor([[0, 1, 2, 3]] * 4)
    counted = [
        Counted(frozenset(), generated=False),
        Counted(frozenset({6, 7})),
        Counted(frozenset({6, 7}), spared=frozenset({2, 7})),
        Counted(frozenset({6, 7}), generated=False),
    ]
    penalty = CountedPenalty([5.0, 5.0, 5.0, 2.0], counted, 2)
    found = penalty(ids, scores)
    assert torch.equal(penalty.first, scores[0])
    changed = [{at: round(float(value), 3) for at, value in enumerate(row) if abs(value) != 1} for row in found]
    assert changed == [{}, {2: 0.2, 3: -5, 6: 0.2, 7: -5}, {3: -5, 6: 0.2}, {6: 0.5, 7: -2}]
    assert torch.equal(scores[1], scores[0])  # the settings share what the prompt was read to


@pytest.mark.parametrize("scope", ["generated", "all"])
def test_over_prompt_and_answer_it_is_the_penalty_that_answers_are_given_with(scope):
    torch.manual_seed(0)
    ids, scores = torch.randint(50, (3, 12)), torch.randn(3, 50)
    expected = ScopedRepetitionPenalty(5.0, scope, torch.ones(3, 8))(ids, scores)
    tokens = [frozenset(row[:8].tolist() if scope == "all" else ()) for row in ids]
    assert torch.equal(CountedPenalty([5.0] * 3, list(map(Counted, tokens)), 8)(ids, scores), expected)


def test_reading_a_prompt_once_changes_no_answer(experiment):
    answerer, row = experiment.answerer, experiment.rows[0]
    parts = experiment.parts(row)
    scopes = parts.counted(experiment.parts(experiment.rows[1]))
    together, first = experiment.answers(parts.ids, [(penalty, scopes[scope]) for scope, penalty in SETTINGS])
    assert len(set(together)) > 2
    with torch.no_grad():
        logits = answerer.model(torch.tensor([parts.ids])).logits[0, -1]
    torch.testing.assert_close(first, logits, rtol=1e-4, atol=1e-4)
    for (scope, penalty), answer in zip(SETTINGS, together, strict=True):
        if scope in (NOTHING, GENERATED, PROMPT):  # the ways in which the project answers, too
            settings = {"temperature": 0, "max_new_tokens": NEW_TOKENS, "repetition_penalty": penalty}
            settings["repetition_penalty_scope"] = "all" if scope == PROMPT else "generated"
            settings |= {"repetition_penalty": 1.0} if scope == NOTHING else {}
            assert generate(answerer.model, answerer.tokenizer, [parts.ids], settings)[0].text == answer
        else:
            assert experiment.answers(parts.ids, [(penalty, scopes[scope])])[0] == [answer]


def test_a_stopped_experiment_goes_on_and_ends_as_one_that_was_not(words, data, tmp_path, program, monkeypatch):
    command = ["studies.context_qa.placebo.__main__", "configs/tiny.yaml", *words("open-calm"), "--data", data]
    whole, again = tmp_path / "whole.jsonl", tmp_path / "again.jsonl"
    result = program(*command, "--rows", 3, "--output", whole)
    assert result.returncode == 0, result.stderr
    assert "of 3 |" in result.stdout
    assert "→ context + generated" in result.stdout
    header, *lines = whole.read_text(encoding="utf-8").splitlines()
    assert json.loads(header)["settings"] == list(map(list, SETTINGS))
    assert len(lines) == 3
    assert not any(city in whole.read_text(encoding="utf-8") for city in CITIES)
    answered = Experiment.answered

    def stopped(self, places):
        found = answered(self, places)
        yield next(found)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Experiment, "answered", stopped)
        assert program(*command, "--rows", 2, "--output", again).returncode == 130
    assert not again.exists()
    asked = []
    monkeypatch.setattr(Experiment, "answered", lambda self, at: answered(self, asked.append(list(at)) or asked[-1]))
    for rows in (2, 3):
        assert program(*command, "--rows", rows, "--output", again).returncode == 0
    assert asked == [[1], [2]]
    assert again.read_bytes() == whole.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(models, "load_base", None)  # what is answered is shown without the model
        assert "of 2 |" in program(*command, "--rows", 2, "--output", again).stdout
    result = program(*command, "--rows", 2, "--output", again, "prompt.template=alpaca-en")
    assert (result.returncode, "another model, template, data set or version" in result.stderr) == (2, True)
    result = program(*command, "--rows", 9, "--output", again)
    assert (result.returncode, "has 4 rows with a context and an answer" in result.stderr) == (2, True)


def test_a_finished_run_answers_tuned(trained_run, data):
    tuned = Experiment(trained_run, [], str(data))
    assert tuned.described["learned_sha256"]
    ((place, scores),) = tuned.answered([1])
    assert (place, scores.index) == (1, tuned.rows[1].index)
    assert scores.gold_penalised[SCOPES.index(GOLD)] == 1
    assert scores.gold_penalised[SCOPES.index(ALL_BUT_GOLD)] == 0


def test_a_prompt_that_cannot_be_taken_apart_is_refused(experiment):
    row = experiment.rows[0]
    long = dataclasses.replace(row, input=row.input * 400)
    with pytest.raises(UserError, match="too long, or with the text of a special token"):
        experiment.parts(long)


def made_up(contained):
    """Rows with these answers right, by setting."""
    counts, shares = [0] * len(SCOPES), [0.0] * len(SCOPES)
    return [
        RowScores(
            index=str(n), gold_contained=row, character_f1=[0.5] * len(row), characters=[4] * len(row),
            penalised=counts, gold_penalised=shares, top=5.0, median=-1.0, positive=0.25,
        )
        for n, row in enumerate(contained)
    ]  # fmt: skip


def test_differences_are_paired_and_tested_by_flips_of_what_rows_are_about():
    found = paired(np.array([1.0, 1, 0, 0]), np.array([1.0, 0, 1, 0]), np.arange(4))
    assert found == {"gained": 1, "lost": 1, "difference": 0, "p": 1.0, "p_is_bound": False}
    found = paired(np.ones(8), np.zeros(8), np.arange(8))
    assert (found["gained"], found["lost"], found["difference"]) == (0, 8, -1)
    assert found["p"] == pytest.approx(2 / 2**8, rel=0.3)  # McNemar's exact one, by 10,000 flips
    found = paired(np.ones(8), np.zeros(8), np.array([0] * 4 + [1] * 4))
    assert found["p"] == pytest.approx(0.5, rel=0.1)  # rows of two articles are two observations
    assert paired(np.ones(8), np.ones(8), np.arange(8))["p"] == 1.0
    at = SCOPES.index(CONTEXT)
    found = analyse_placebo(made_up([[int(n != at) for n in range(len(SETTINGS))]] * 10))
    table, _, pairs, _, overlaps, _ = placebo_blocks(found)
    assert [row[3] for row in table.rows][at] == "0 of 10"
    assert table.rows[at][2][1] == "[0.000, 0.278]"  # Wilson's
    found = {row[0]: row[1:] for row in pairs.rows}
    difference, gained, lost, p = found[f"{PLACEBO} → {CONTEXT}"]
    assert (difference, gained, lost) == ("-1.000", "0", "10")
    assert float(p) == pytest.approx(2 / 2**10, abs=1.1e-3)
    assert [row[:4] for row in overlaps.rows] == [
        [f"{GENERATED} → {scope}", "none of the gold's", "10", "10 → 10"] for scope in (PLACEBO, QUESTION)
    ]


def test_rows_are_told_by_whether_their_placebo_holds_the_answer():
    rows = made_up([[1] * len(SETTINGS)] * 3)
    at = SCOPES.index(PLACEBO)
    rows[2].gold_penalised[at], rows[2].gold_contained[at] = 0.5, 0
    none, some = (one for one in analyse_placebo(rows)["overlap"] if one["after"] == PLACEBO)
    assert [(one["contained_before"], one["contained"]) for one in (none, some)] == [(2, 2), (1, 0)]


def test_a_damaged_file_is_one_line(tmp_path):
    path = tmp_path / "scores.jsonl"
    path.write_text('{"model": "x"}\n{"index": "1", "gold')
    with pytest.raises(UserError, match=r"scores\.jsonl: is damaged; move it away"):
        _kept(path, '{"model": "x"}')
    path.write_text('{"model": "x"}\n')
    with pytest.raises(UserError, match="holds the scores of another model"):
        _kept(path, "{}")
