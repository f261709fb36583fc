"""The study of context questions: its file is checked, it goes on where it stopped, and its report adds up."""

import functools
import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import started
from made_up import rows as dolly_rows
from test_placebo import made_up

from eval.predictions import BASE, Prediction, read_predictions, rows_sha256
from sft.config.changes import training_changes
from sft.config.load import load_config
from sft.data.records import Example
from sft.generation.settings import effective_settings
from sft.prompt.template import ALPACA_JA
from sft.system.errors import UserError
from studies.context_qa.forensics import compared_to_article, write_article
from studies.context_qa.measures import about_the_task, measure, repeated
from studies.context_qa.placebo.scores import SETTINGS
from studies.context_qa.plan import RowsName, Study, Unit, arm_of, changed_setting, load_study, units
from studies.context_qa.report.analysis import analyse
from studies.context_qa.report.figures import figures
from studies.context_qa.report.material import COLUMNS, load
from studies.context_qa.report.tables import shown, tables
from studies.context_qa.report.write import results_of, write_report
from studies.context_qa.rows import asked_rows, check_held_out
from studies.context_qa.same_settings import asked_with, check_scored, trained_with
from studies.context_qa.scores import write_rows, write_system
from studies.context_qa.study import check_asked

FOLDER = Path(__file__).parents[1] / "studies" / "context_qa"
SMOKE = FOLDER / "smoke.yaml"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_study_loads(path):
    study = load_study(path)
    check_asked(study)
    for arm, seed in study.trained().values():
        assert load_config(study.config, study.training(arm, seed)).training["seed"] == seed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed=[1]"], "command line: seed: unknown key; known: config, directory, scores, data"),
        (["seeds=42"], "command line: seeds: input should be a valid list, got 42"),
        (["recipe=other"], "command line: recipe: other is not one of article, answer"),
        (["rows.dolly.row=2"], "command line: rows.dolly.row: unknown key; known: path, categories, rows, shots"),
        (["short_decodings=[greedy, x]"], "short_decodings: x is not one of greedy, 1.2-generated, 5.0-all"),
        (["short_decodings=[5.0-all]"], "short_decodings: greedy is not among them, but required"),
        (["arm_decodings=[greedy, x]"], "arm_decodings: x is not one of greedy, 1.2-generated, 5.0-all"),
        (["rows.dolly.categories=[]"], "command line: rows.dolly.categories: list should have at least 1 item"),
        (["rows.squad.rows=1"], "command line: rows.squad"),
        (["decodings.greedy.max_new_tokens=9"], "decodings.greedy.max_new_tokens: not set here"),
        (["arms={a b: []}"], "arms"),
        (["arms={base: [], answer: []}", "article=base"], "arms: base is the model before tuning; give the arm"),
        (["confirmed=[x]"], "confirmed: x is not one of article, answer"),
        (["untuned={answer-42: []}"], "untuned: answer-42 is another system's name; give it one of its own"),
        (["seeds=[42, 42]"], "seeds: each seed once, got [42, 42]"),
        (["seeds=[-1]"], "seeds.0: input should be greater than or equal to 0, got -1"),
    ],
)
def test_a_wrong_study_is_one_line_about_one_key(words, message):
    with pytest.raises(UserError) as error:
        load_study(SMOKE, words)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_who_answers_what_and_in_which_order():
    study = load_study(FOLDER / "gemma3-270m.yaml")
    order = units(study)
    assert len(order) == len(set(order)) == 20 * 3 + 7  # every system on three sets, the compared ones on NIILC, too
    first = ["base/jsquad", "base/dolly", "base/niilc", "base/jsquad-shots", "base-context-first/jsquad"]
    assert ["/".join(unit) for unit in order[:5]] == first
    seeds = [f"{arm}-{seed}" for seed in study.seeds for arm in ("article", "recipe", "context-first")]
    assert list(study.trained())[:9] == seeds
    assert [name for name in study.trained() if name.startswith("rank-64")] == ["rank-64-42"]
    assert Unit("recipe-42", "dolly").decodings(study) == list(study.decodings)
    for unit in (Unit(BASE, "dolly"), Unit("recipe-43", "niilc")):
        assert unit.decodings(study) == ["greedy", "1.2-generated", "5.0-all"]
    assert Unit("rows-42", "jsquad").decodings(study) == ["greedy", "5.0-all"]
    asked = {rows: {arm_of(study, unit.system)[0] for unit in order if unit.rows == rows} for rows in study.rows}
    assert asked.pop("niilc") == {BASE, "article", "recipe"}
    assert all(arms == {BASE, "base-context-first", *study.arms} for arms in asked.values())
    assert Unit("recipe-42", "jsquad-shots").decodings(study) == ["greedy"]


def test_an_arms_name_stands_for_what_it_says():
    study = load_study(FOLDER / "gemma3-270m.yaml")
    recipe, epochs = (load_config(study.config, study.training(arm, 42)) for arm in ("recipe", "epochs"))
    assert recipe.training | {"num_train_epochs": 3} == epochs.training
    assert recipe.lora == epochs.lora
    context = load_config(study.config, study.training("context-first", 42))
    assert training_changes(recipe, context) == ['prompt.template was "alpaca-ja", is "alpaca-ja-context-first"']


def test_a_directory_may_be_called_anything():
    study = load_study(SMOKE, ["directory='研究 #1: [a]'", "data='rows #2.jsonl'"])
    config = load_config(study.config, study.training("article", 42))
    assert config.run_directory == study.run("article", 42)
    assert config.data.path == "rows #2.jsonl"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rows.jsquad.path=nowhere.jsonl"], "rows.jsquad.path: nowhere.jsonl: no such data file"),
        (["rows.jsquad.categories=[open_qa]", "rows.jsquad.path={}"], "has no row of open_qa"),
        (["rows.jsquad-shots.path={}"], "rows.jsquad-shots.shots: eval.shots 1: of the training rows only 0"),
        (
            ["rows.jsquad.categories=[社内]", "rows.jsquad.path={}"],
            "rows.jsquad.categories: 社内 is no category of its rows",
        ),
        (["rows.dolly.categories=[qa]"], "rows.dolly.categories: qa is no category of its rows; known: open_qa, "),
    ],
)
def test_rows_that_are_not_there_are_missed_before_training(tmp_path, words, message):
    path = tmp_path / "qa.jsonl"
    path.write_text('{"instruction": "a", "input": "b", "output": "c", "category": "closed_qa"}\n')
    with pytest.raises(UserError) as error:
        asked_rows(load_study(SMOKE, [word.format(path) for word in words]))
    assert message in str(error.value)


def test_what_is_wrong_is_named_by_where_it_stands_before_anything_is_trained():
    with pytest.raises(UserError, match=r"^command line: trainig: unknown section"):
        check_asked(load_study(SMOKE, ["overrides=[trainig.x=1]"]))
    with pytest.raises(UserError, match=r"^decodings\.greedy: command line: generation.temprature: unknown key"):
        check_asked(load_study(SMOKE, ["decodings.greedy.temprature=0"]))
    with pytest.raises(UserError, match=r"^untuned\.base-english: command line: prompt\.templat: unknown key"):
        check_asked(load_study(SMOKE, ["untuned={base-english: [prompt.templat=alpaca-en]}"]))
    with pytest.raises(UserError, match=r"^arms\.answer: command line: lora\.rr: unknown key"):
        check_asked(load_study(SMOKE, ["arms.answer=[lora.rr=4]"]))


@pytest.mark.parametrize(
    ("before", "now", "change"),
    [
        ({}, {"temperature": 0.0, "top_k": 40, "repetition_penalty": 1.0}, None),
        ({"repetition_penalty": 1.2}, {"repetition_penalty": 1.5}, "repetition_penalty was 1.2, is 1.5"),
        ({}, {"repetition_penalty": 1.2}, "repetition_penalty was null, is 1.2"),
        ({}, {"temperature": 0.7}, "do_sample was false, is true"),
        ({"max_new_tokens": 64}, {"max_new_tokens": 128}, "max_new_tokens was 64, is 128"),
        ({"num_beams": 4}, {}, "num_beams was 4, is null"),
        ({}, {"no_repeat_ngram_size": 2}, "no_repeat_ngram_size was null, is 2"),
    ],
)
def test_settings_that_changed_are_told_from_those_without_effect(before, now, change):
    assert changed_setting(effective_settings(before), effective_settings(now)) == change


@pytest.fixture(scope="module")
def smoke(tiny_base, tmp_path_factory):
    """The smoke study, run to its end: (its directory, the words of its command, what it printed)."""
    folder = tmp_path_factory.mktemp("study")
    benchmark = [
        {"instruction": f"首都{n}は？", "input": f"首都は東京{n}です。", "output": f"東京{n}", "category": "closed_qa"}
        for n in range(5)
    ]
    (folder / "qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in benchmark))
    base = [f"model.base={tiny_base}", "model.build=null", "data.train_rows=16", "generation.max_new_tokens=4"]
    words = [
        "studies.context_qa.study",
        SMOKE,
        f"directory={folder / 'runs'}",
        f"scores={folder / 'scores'}",
        f"overrides={json.dumps(base)}",
        f"rows.jsquad.path={folder / 'qa.jsonl'}",
        f"rows.jsquad-shots.path={folder / 'qa.jsonl'}",
    ]
    first = started(*words, "--only", BASE)
    assert first.wait() == 0, first.output()
    assert not (folder / "runs" / "train").exists()  # the base model answers without a training
    second = started(*words)
    assert second.wait() == 0, second.output()
    return folder / "runs", words, second.output()


def test_the_command_of_the_page_finds_its_modules_and_needs_no_torch_to_report(command, tmp_path):
    result = command(FOLDER / "study.py", SMOKE, f"scores={tmp_path}", "--report")
    assert result.returncode == 2
    assert f"{tmp_path}: nothing has been scored yet" in result.stderr


def study_of(words) -> Study:
    return load_study(SMOKE, words[2:])


def test_a_study_trains_answers_and_scores(smoke):
    directory, words, output = smoke
    study = study_of(words)
    assert "scores: 3 of 12 files are there" in output
    assert "about 0 min left" in output
    for unit in units(study):
        for decoding in unit.decodings(study):
            predictions = list(read_predictions(unit.answers(study, decoding)))
            assert {p.system for p in predictions} == {"tuned" if unit.system in study.trained() else BASE}
            assert {p.reference_nll is None for p in predictions} == {unit.rows == "jsquad-shots"}
            penalty = {"greedy": None, "1.2-generated": 1.2, "5.0-all": 5.0}[decoding]
            assert {p.generation.get("repetition_penalty") for p in predictions} == {penalty}
            assert {len(p.shots) for p in predictions} == {study.rows[unit.rows].shots}
    held_out = set(json.loads((study.run("article", 42) / "split.json").read_text())["test"])
    dolly = list(read_predictions(Unit(BASE, "dolly").answers(study, "greedy")))
    assert {p.example.index for p in dolly} <= held_out
    assert "whole" in (directory / "report" / "tables.md").read_text()
    found = json.loads((directory / "report" / "results.json").read_text())["models"]["scores"]
    assert found["missing"] == []
    assert found["models"]["base"]["learned_sha256"] is None
    assert found["models"]["base-english"] | {"template": None} == found["models"]["base"] | {"template": None}
    assert found["models"]["base-english"]["template"]["name"] == "alpaca-en"
    assert found["models"]["article-42"]["learned_sha256"]


def test_scores_say_what_the_answers_say_and_hold_no_text(smoke):
    _, words, _ = smoke
    study = study_of(words)
    material = load(study)
    unit = Unit("article-42", "jsquad")
    texts = {p.example.index: p for p in read_predictions(unit.answers(study, "5.0-all"))}
    ids = [row.id for row in material.rows["jsquad"].rows]
    table = material.tables["article", "jsquad", "5.0-all"][42]
    for index, row in zip(ids, table, strict=True):
        found = dict(zip(COLUMNS, row, strict=True))
        assert found["characters"] == len(texts[index].text.strip())
        assert found["tokens"] == texts[index].output_tokens
        assert found["share"] == pytest.approx(texts[index].reference_tokens_in_prompt, abs=1e-4)
        assert found["reference_bits_per_character"] > 0
    for path in Path(study.scores).rglob("*.jsonl"):
        assert "首都" not in path.read_text()
        assert "東京" not in path.read_text()


def test_what_has_scores_is_done_and_the_run_need_not_exist(smoke, program):
    directory, words, _ = smoke
    before = json.loads((directory / "report" / "results.json").read_text())
    moved = directory.rename(directory.with_name("elsewhere"))
    try:
        result = program("studies.context_qa.study", *words[1:])
        assert result.returncode == 0, result.stderr
        assert "scores: 12 of 12 files are there" in result.stdout
        assert json.loads((directory / "report" / "results.json").read_text()) == before
        assert not (directory / "train").exists()
    finally:
        shutil.rmtree(directory)
        moved.rename(directory)


def test_only_what_is_missing_is_done_again(smoke, program):
    _, words, _ = smoke
    study = study_of(words)
    unit = Unit("answer-42", "jsquad")
    scores, answers = unit.scores(study), unit.answers(study, "5.0-all")
    others = {path: path.stat().st_mtime_ns for path in unit.answers(study, "x").parent.iterdir() if path != answers}
    content, texts = scores.read_bytes(), [p.text for p in read_predictions(answers)]
    scores.unlink()
    answers.unlink()
    result = program("studies.context_qa.study", *words[1:])
    assert result.returncode == 0, result.stderr
    assert "scores: 11 of 12 files are there" in result.stdout
    assert "answering answer-42, jsquad, 5.0-all: 3 rows" in result.stdout
    assert (scores.read_bytes(), [p.text for p in read_predictions(answers)]) == (content, texts)
    assert {path: path.stat().st_mtime_ns for path in others} == others


@pytest.mark.parametrize(
    ("word", "scored", "message"),
    [
        ("decodings.greedy.repetition_penalty=1.5", True, "repetition_penalty was null, is 1.5; move "),
        ("short_decodings=[greedy, 1.2-generated]", True, "nothing was decoded as 1.2-generated; move "),
        ("rows.jsquad.rows=2", False, "its rows are not those of rows.jsquad; move it away"),
    ],
)
def test_scores_of_another_study_are_refused(smoke, program, word, scored, message):
    _, words, _ = smoke
    lost = Unit(BASE, "jsquad").scores(study_of(words))
    content = lost.read_bytes()
    if not scored:
        lost.unlink()
    refused = program("studies.context_qa.study", *words[1:], word, "--only", "base")
    lost.write_bytes(content)
    assert (refused.returncode, message in refused.stderr) == (2, True), refused.stderr


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("decodings.greedy.repetition_penalty=1.5", "repetition_penalty was null, is 1.5"),
        ("rows.jsquad-shots.shots=2", "rows.jsquad-shots.shots is 2"),
    ],
)
def test_answers_to_another_study_are_refused(smoke, program, tmp_path, word, message):
    _, words, _ = smoke
    refused = program("studies.context_qa.study", *words[1:], f"scores={tmp_path}", word, "--only", "base")
    assert refused.returncode == 2
    assert f"was answered otherwise: {message}; move it away" in refused.stderr


def test_a_run_trained_with_other_settings_or_on_what_it_is_asked_is_refused(smoke, program, tmp_path):
    _, words, _ = smoke
    other = [*words[1:], f"scores={tmp_path}"]
    refused = program("studies.context_qa.study", *other, "arms.answer=[training.max_length=128]")
    assert refused.returncode == 2
    assert "trained with other settings: training.max_length was 512, is 128" in refused.stderr
    study = study_of(words)
    trained = json.loads((study.run("article", 42) / "split.json").read_text())["train"]
    with pytest.raises(UserError, match=f"was trained on row {trained[0]}, which it would be asked"):
        check_held_out(study, "article", 42, [Example(trained[0], "", "", "", "")])


def test_runs_and_their_base_may_have_moved_but_must_be_the_same(smoke, program, tmp_path, tiny_base, small_base):
    directory, words, _ = smoke
    shutil.copytree(directory / "train", tmp_path / "runs" / "train")
    moved = shutil.copytree(tiny_base, tmp_path / "tiny")

    def run(base):
        overrides = next(word for word in map(str, words) if word.startswith("overrides="))
        other = [f"directory={tmp_path / 'runs'}", f"scores={tmp_path / 'scores'}", "rows.dolly.rows=1"]
        other.append(overrides.replace(str(tiny_base), str(base)))
        return program("studies.context_qa.study", *words[1:], *other, "--only", "article-42")

    refused = run(small_base("open-calm")["base"])
    assert (refused.returncode, "was trained on another base model than" in refused.stderr) == (2, True), refused.stderr
    assert run(moved).returncode == 0
    assert (tmp_path / "scores" / "article-42" / "dolly.jsonl").is_file()


def test_an_unknown_system_is_refused(smoke, program):
    _, words, _ = smoke
    refused = program("studies.context_qa.study", *words[1:], "--only", "answer-43")
    assert refused.returncode == 2
    assert (
        "--only: answer-43 is no system of this study; known: base, base-english, article-42, answer-42"
        in refused.stderr
    )


# What is measured.

QUESTION = Example("1", "ビジョンはなんですか?", "会社のビジョンです。", "単純さ", "closed_qa")


@pytest.mark.parametrize(
    "text",
    [
        "この課題では、以下の2つの問いに答えることが求められています。",
        "以下の質問に答えてください。",
        "次の文章を読んで、下記の設問に回答しなさい。",
        "質問に対して回答することが求められる。",
        "要求を適切に満たす応答を書きなさい。",
        "指示に従って答えを入力してください。",
        "The following question is about a vision.",
    ],
)
def test_an_answer_about_the_task_is_told(text):
    assert about_the_task(text, QUESTION)


@pytest.mark.parametrize(
    "text",
    [
        "「アルゴリズムで社会はもっとシンプルになる」です。",
        "日本の抱える課題は少子化です。",
        "温暖化は世界の問題であり、この問題は深刻です。",
        "次の駅は東京です。",
        "上の階に住む人が答えを知っている。",
        "",
    ],
)
def test_an_ordinary_answer_is_not_about_the_task(text):
    assert not about_the_task(
        text, Example("1", "ビジョンはなんですか?", "会社のビジョンです。", "単純さ", "closed_qa")
    )


def test_words_of_the_row_itself_do_not_count_as_talk_of_the_task():
    row = Example("1", "FAQとは?", "よくある質問に答えるページ。", "よくある質問に答えるページ", "closed_qa")
    assert not about_the_task("よくある質問に答えるページです。", row)


def test_what_was_said_before_is_counted():
    assert repeated("abca", "b", "x") == 0.5  # b, and the second a
    assert repeated("", "b") is None


def test_an_answer_is_measured_beside_the_lead_of_its_own_length():
    row = Example("1", "首都は?", "東京は首都です。", "東京", "closed_qa", answers=("東京",))
    prediction = Prediction("base", row, "", "東京は都", "eos", 9, 3, {})
    found = measure(prediction, "jsquad", list)
    assert (found["gold_contained"], found["lead.gold_contained"]) == (1, 1)
    assert found["jglue_f1"] == pytest.approx(2 / 3)
    assert found["characters"] == 4
    assert found["tokens_repeated"] == 1  # every character stands in the row
    assert measure(prediction, "dolly", list)["jglue_f1"] is None


# The report, on made-up answers: a right answer is the reference, a wrong one shares no character with it.

RIGHT_OF_EIGHT = {
    ("article", "5.0-all"): 1,
    ("article", "1.2-generated"): 4,
    ("recipe", "5.0-all"): 2,
    ("recipe", "1.2-generated"): 8,
}
"""JSQuAD's rows that are answered rightly; the other cells answer all."""
JSQUAD_GOLD = "jsquad.context.gold_contained"


@functools.cache
def made_up_rows() -> dict[RowsName, list[Example]]:
    wanted = load_study(FOLDER / "gemma3-270m.yaml").rows["dolly"].categories
    jsquad = [
        Example(f"j{n}", "どこ？", f"答えは都市{n}である。", f"都市{n}", "closed_qa", answers=(f"都市{n}",))
        for n in range(8)
    ]
    niilc = [Example(f"n{n}", "だれ？", "", f"人物{n}", "open_qa", answers=(f"人物{n}",)) for n in range(4)]
    dolly = [row for row in dolly_rows() if row.category in wanted]
    return {"jsquad": jsquad, "dolly": dolly, "niilc": niilc, "jsquad-shots": jsquad}


Right = Callable[[Unit, str, int], bool]


def scored(directory: Path, right: Right, seeds: tuple[int, ...] = (42,), without: str = "nothing") -> Study:
    """The gemma study with every unit scored but those with `without` in their name."""
    words = [f"directory={directory}", f"scores={directory / 'gemma'}", f"seeds={list(seeds)}", "resamples=200"]
    words += ["arms={article: [], recipe: [], rank-64: [recipe]}", "confirmed=[]", "untuned={}"]
    study = load_study(FOLDER / "gemma3-270m.yaml", words)
    examples = made_up_rows()
    for name, rows in examples.items():
        write_rows(study.rows_scores(name), rows, study.rows[name])
    for unit in units(study):
        if without in "/".join(unit):
            continue
        answers = {}
        for decoding in unit.decodings(study):
            settings = effective_settings(asked_with(study, unit.system).generation | study.decodings[decoding])
            greedy = decoding == "greedy"
            answers[decoding] = [
                Prediction(
                    "base" if unit.system == BASE else "tuned", row, row.instruction,
                    row.output if right(unit, decoding, number) else "＊", "eos", 9, 4, settings,
                    reference_nll=9.0 if greedy else None,
                    reference_nll_without_context=12.0 if greedy and row.input else None,
                    reference_tokens_in_prompt=0.6 + 0.01 * number if row.input else 0.1 + 0.01 * number,
                )
                for number, row in enumerate(examples[unit.rows])
            ]  # fmt: skip
        about: dict[str, Any] = {
            "system": unit.system, "rows": unit.rows, "rows_sha256": rows_sha256(examples[unit.rows]),
            "shots": study.rows[unit.rows].shots, "model": "gemma-3-270m", "base": {}, "learned_sha256": None,
            "dtype": "", "quantization": None, "template": {"name": ALPACA_JA.name, "sha256": ALPACA_JA.sha256},
            "training": None,
        }  # fmt: skip
        if unit.system in study.trained():
            about["training"] = {
                "settings": trained_with(asked_with(study, unit.system)), "rows": 8, "truncation": {}, "steps": 1,
                "seconds": 60.0, "device": "cpu", "git_commit": None, "packages": {},
            }  # fmt: skip
        write_system(unit.scores(study), unit.rows, about, answers, list)
    return study


def as_in_the_table(unit: Unit, decoding: str, number: int) -> bool:
    arm = unit.system.rpartition("-")[0]
    return unit.rows != "jsquad" or number < RIGHT_OF_EIGHT.get((arm, decoding), 8)


def test_the_two_by_two_adds_up(tmp_path):
    results = analyse(load(scored(tmp_path, as_in_the_table)))
    found = results["factorial"][JSQUAD_GOLD]
    assert found["cells"]["article"]["5.0-all"]["mean"] == 0.125
    assert found["cells"]["article"]["5.0-all"]["ci_low"] == pytest.approx(0.0224, abs=1e-4)  # Wilson's
    assert found["cells"]["recipe"]["1.2-generated"]["mean"] == 1
    assert found["cells"]["base"]["5.0-all"]["n"] == 8
    means = {name: one["mean"] for name, one in found["effects"].items()}
    assert means == {
        "cell": 0.875,
        "training": 0.3125,  # (1 + 2/8 − 4/8 − 1/8) / 2
        "decoding": 0.5625,  # (1 + 4/8 − 2/8 − 1/8) / 2
        "interaction": 0.375,  # (1 − 2/8) − (4/8 − 1/8)
    }
    # 7 rows changed, all for the better: of 2^7 flips two are as far from 0.
    assert found["effects"]["cell"]["p"] == pytest.approx(2 / 128, abs=0.005)
    assert (found["effects"]["cell"]["gained"], found["effects"]["cell"]["lost"]) == (7, 0)
    headline = {(one["comparison"], one["outcome"]): one for one in results["headline"]}
    assert len(headline) == len(results["headline"])
    cell = headline["cell", JSQUAD_GOLD]
    assert cell["mean"] == 0.875
    assert cell["p_holm"] > cell["p"]
    parts = results["parts"][JSQUAD_GOLD]["article"]
    assert (parts["total"]["mean"], parts["generated"]["mean"], parts["prompt"]["mean"]) == (0.875, 0, 0.875)
    assert parts["generated_share"]["mean"] == 0


def test_the_parts_of_what_is_lost_are_all_of_the_first_seed(tmp_path):
    """Others have no answers with the penalty on generated tokens alone, so they have the whole without its parts."""

    def right(unit: Unit, decoding: str, number: int) -> bool:
        return unit.system == "article-2" or as_in_the_table(unit, decoding, number)

    parts = analyse(load(scored(tmp_path, right, seeds=(1, 2))))["parts"][JSQUAD_GOLD]["article"]
    assert (parts["total"]["mean"], parts["generated"]["mean"], parts["prompt"]["mean"]) == (0.875, 0, 0.875)


def test_what_is_lost_stands_beside_the_floor_of_the_same_seeds(tmp_path):
    """Seed 2 answers everything wrongly, and nothing under 5.0-generated: there, what is lost is the first seed's."""
    losses = analyse(load(scored(tmp_path, lambda unit, *_: unit.system != "article-2", seeds=(1, 2))))["losses"]
    above = {
        after: losses["article"][f"greedy → {after}"][f"{JSQUAD_GOLD} − niilc.open.gold_contained"]["open_above_floor"]
        for after in ("5.0-generated", "5.0-all")
    }
    assert (above["5.0-generated"]["mean"], above["5.0-generated"]["by_seed"]) == (1, [])
    assert (above["5.0-all"]["mean"], above["5.0-all"]["by_seed"]) == (0.5, [1, 0])


def test_a_score_stands_beside_the_lead_of_its_length_and_the_best_floor(tmp_path):
    """The wrong answer is one character; the first of a context holds no city, the fifth and the next two are one."""
    found = analyse(load(scored(tmp_path, as_in_the_table)))
    cell = found["sweep"][JSQUAD_GOLD]["article"]["greedy"]
    assert (cell["mean"], cell["lead"], cell["above_lead"]["mean"]) == (1, 0, 1)
    assert found["floors"][JSQUAD_GOLD]["question_sentence"] == 1
    assert cell["above_floor"]["mean"] == 0
    assert found["sweep"]["niilc.open.gold_contained"]["article"]["greedy"]["above_lead"] is None


def test_what_a_decoding_costs_context_and_open_and_by_share(tmp_path):
    """The penalty on the prompt spoils every row with a context, and a quarter of the open ones."""

    def right(unit: Unit, decoding: str, number: int) -> bool:
        row = made_up_rows()[unit.rows][number]
        return not decoding.startswith("5.0-all") or not (row.input or row.index.endswith("-0"))

    results = analyse(load(scored(tmp_path, right)))
    pair = "dolly.context.character_f1 − dolly.open.character_f1"
    found = results["losses"]["article"]["greedy → 5.0-all"][pair]
    assert found["context"]["mean"] == 1
    assert found["open"]["mean"] == 0.25
    assert found["difference"]["mean"] == 0.75
    assert found["open_above_floor"]["mean"] > 0  # it has something to lose
    assert results["losses"]["article"]["greedy → 5.0-generated"][pair]["difference"]["mean"] == 0
    assert results["losses"]["article"]["1.2-generated → 5.0-all"][pair]["difference"]["mean"] == 0.75
    dose = results["dose"]["article"]["greedy → 5.0-all"]
    assert dose["categories"]["classification"]["mean"] == 0.25
    assert dose["categories"]["closed_qa"]["mean"] == 1
    assert dose["fifths"][-1]["mean"] == 1
    assert dose["correlation"]["all"]["rho"] > 0.5
    assert dose["correlation"]["context"]["rho"] is None  # all lost the same
    assert results["dose"]["article"]["greedy → 5.0-generated"]["correlation"]["all"]["rho"] is None
    assert results["dose"]["article"]["5.0-generated → 5.0-all"]["fifths"] == dose["fifths"]
    assert results["control"] == "5.0-generated"


@pytest.mark.slow
def test_a_penalty_that_only_the_configuration_has_is_drawn_where_it_took_effect(tmp_path):
    results = results_of([scored(tmp_path, as_in_the_table)])
    before = {figure.name: figure.svg for figure in figures(results)}["gemma-sweep"]
    del results["models"]["gemma"]["study"]["decodings"]["1.2-all"]["repetition_penalty"]
    assert {figure.name: figure.svg for figure in figures(results)}["gemma-sweep"] == before


def test_missing_units_are_said_not_guessed(tmp_path):
    whole = results_of([scored(tmp_path, as_in_the_table, without="recipe-42/jsquad")])
    (results,) = whole["models"].values()
    found = results["factorial"][JSQUAD_GOLD]
    assert results["missing"] == ["recipe-42/jsquad", "recipe-42/jsquad-shots"]
    assert found["cells"]["recipe"]["1.2-generated"] is None
    assert found["effects"]["cell"] is None
    assert results["parts"][JSQUAD_GOLD]["article"]["total"]["mean"] == 0.875
    text = tables(whole, figures(whole))
    assert "| JSQuAD, gold contained | recipe | 1.2-generated | not run |" in text
    assert "2 of the planned files: recipe-42/jsquad, recipe-42/jsquad-shots." in text


def test_seeds_are_averaged_by_row_and_only_those_that_both_sides_have_are_compared(tmp_path):
    """Seed 2 of the recipe answers every other row wrongly."""
    study = scored(tmp_path, lambda unit, _, n: unit.system != "recipe-2" or n % 2 == 0, seeds=(1, 2))
    results = analyse(load(study))
    cell = results["factorial"][JSQUAD_GOLD]["cells"]["recipe"]["1.2-generated"]
    assert cell["mean"] == 0.75
    assert cell["n"] == 8
    assert cell["by_seed"] == [1, 0.5]
    assert "seeds 0.500 to 1.000" in shown(cell)
    assert results["factorial"][JSQUAD_GOLD]["effects"]["cell"]["by_seed"] == [0, -0.5]
    assert results["sweep"][JSQUAD_GOLD]["recipe"]["1.2-generated"]["mean"] == 1  # the first seed's
    arms = results["arms"][JSQUAD_GOLD]["greedy"]
    assert arms["rank-64"]["difference"]["mean"] == 0  # it has the first seed alone
    assert arms["base"]["difference"]["mean"] == 0.25


def test_the_report_is_written_without_texts_and_twice_the_same(tmp_path):
    study = scored(tmp_path, as_in_the_table)
    directory = write_report([study], tmp_path / "report")
    names = {path.name for path in directory.iterdir()}
    drawn = ("gemma-sweep", "gemma-dose", "gemma-arms")
    assert names == {"results.json", "tables.md", *(f"{name}.{kind}" for name in drawn for kind in ("svg", "png"))}
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert "都市" not in before["results.json"].decode()
    for name in drawn:
        ET.fromstring(before[f"{name}.svg"])
        assert before[f"{name}.png"].startswith(b"\x89PNG")
    write_report([study], directory)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_the_placebos_come_first_side_by_side(tmp_path):
    study = scored(tmp_path, as_in_the_table, without="42")
    for name, right in (("base", 1), ("article-42", 0)):
        path = tmp_path / "gemma" / "placebo" / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        lines = [row.model_dump_json() for row in made_up([[right] * len(SETTINGS)] * 10)]
        path.write_text("\n".join(['{"model": "x"}', *lines]) + "\n")
    results = results_of([study])
    assert results["models"]["gemma"]["placebo"]["base"]["settings"][0]["contained"] == 10
    drawn = figures(results)
    assert drawn[0].name == "placebo"
    assert "gemma, article-42" in drawn[0].svg
    text = tables(results, drawn)
    assert text.index("gemma, article-42: 10 rows of JSQuAD") < text.index("Training × decoding")
    assert "| prompt + generated | 5 | 0.000 [0.000, 0.278] | 0 of 10 |" in text


ARTICLE = """Answers as printed:

1. 首都は? → 東京は首都です。 E
2. 山は? → 富士山は山であり、山である山は富士山です。… (cut by the token limit; as elsewhere)
3. (context question) 目標は? with a context that says 「単純さ」が目標です。… → この課題では、以下の問いに答える。 E
"""


def test_printed_answers_are_counted_and_held_against_the_studys(tmp_path, tiny_base):
    study = scored(tmp_path, as_in_the_table)
    (tmp_path / "ARTICLE.md").write_text(ARTICLE)
    based = load_study(SMOKE, [f"scores={study.scores}", f'overrides=["model.base={tiny_base}", "model.build=null"]'])
    path = write_article(based, tmp_path / "ARTICLE.md")
    first, second, third = json.loads(path.read_text())
    assert "富士" not in path.read_text()
    assert [one["group"] for one in (first, second, third)] == ["open", "open", "context"]
    assert [one["ended"] for one in (first, second, third)] == [True, False, True]
    assert first["words_repeated"] < second["words_repeated"]
    assert [one["about_the_task"] for one in (first, second, third)] == [0, 0, 1]
    answers = [{"group": "open", "characters": 9, "tokens_repeated": 0.5, "words_repeated": 0.5, "ended": True}] * 2
    study.article_answers.write_text(json.dumps([one | {"about_the_task": 0} for one in answers]))
    material = load(study)
    for (_, rows, decoding), by_seed in material.tables.items():  # of what recurs: half, or under 5.0 nothing
        for table in by_seed.values():
            table[:, COLUMNS.index("characters")] = 9 if rows != "niilc" or decoding != "1.2-all" else 90
            for key in ("tokens_repeated", "words_repeated"):
                table[:, COLUMNS.index(key)] = 0.0 if decoding == "5.0-all" else 0.5
    found = compared_to_article(material)["decodings"]
    assert found == {}  # eight open rows are too few
    rows = material.rows["dolly"]
    material.rows["dolly"] = rows._replace(rows=[row._replace(group="open") for row in rows.rows])
    found = compared_to_article(material)["decodings"]
    assert (found["greedy"]["compatible"], found["5.0-all"]["compatible"]) == (True, False)
    assert found["5.0-all"]["tokens_repeated"] == {"article": 0.5, "study": 0, "p": pytest.approx(2e-4, rel=0.01)}
    assert found["greedy"]["similar"] == [28, 28]
    text = tables(results_of([study]), [])
    assert "What recurs in the article's printed answers" in text
    (tmp_path / "ARTICLE.md").write_text("1. 問い → 答え E\n2. 問い、答えなし\n")
    with pytest.raises(UserError, match="answer 2 is not understood; write each on a line"):
        write_article(based, tmp_path / "ARTICLE.md")
    (tmp_path / "ARTICLE.md").write_text("nothing")
    with pytest.raises(UserError, match="holds no answer; write each on a line"):
        write_article(based, tmp_path / "ARTICLE.md")


def test_scores_that_do_not_belong_together_are_refused(tmp_path):
    study = scored(tmp_path, as_in_the_table)
    path = Unit("recipe-42", "niilc").scores(study)
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([header, *lines[::-1]]))
    with pytest.raises(UserError, match=r"its rows are not those of the file in rows/"):
        load(study)
    for damaged in (header, header[:40], "\n".join([header, '["n0",[1,2,3],[1]]']), ""):
        path.write_text(damaged)
        with pytest.raises(UserError, match=r"niilc\.jsonl: is damaged or of another version"):
            load(study)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("decodings.article-sampling.top_k=50", "was answered otherwise: top_k was 40, is 50"),
        ("overrides=[data.train_rows=1000, generation.max_new_tokens=9]", "max_new_tokens was 128, is 9"),
        ("overrides=[data.train_rows=1000, generation.num_beams=4]", "num_beams was null, is 4"),
        (
            "overrides=[data.train_rows=1000, prompt.template=alpaca-en]",
            "was asked otherwise: prompt.template was alpaca-ja, is alpaca-en",
        ),
        ("overrides=[data.train_rows=1000, model.base=org/other]", "by another model: gemma-3-270m, not org/other"),
        ("overrides=[data.train_rows=7]", "was trained otherwise: data.train_rows was 1000, is 7"),
        ("arms.recipe=[lora.r=32]", "was trained otherwise: lora.r was 8, is 32"),
        ("arms.recipe=[lora=null]", "was trained otherwise: lora was {.*}, is null"),
        ("rows.jsquad-shots.shots=5", "was answered otherwise: rows.jsquad-shots.shots was 2, is 5"),
        ("rows.jsquad.rows=50", "jsquad.jsonl: was made otherwise: rows.jsquad.rows was 200, is 50"),
        ("rows.dolly.categories=[open_qa]", "was made otherwise: rows.dolly.categories was"),
    ],
)
def test_scores_under_other_settings_are_not_reported_as_the_studys(made_up_scores, word, message):
    words = [f"scores={made_up_scores}", "arms={article: [], recipe: []}", "confirmed=[]", "untuned={}", "seeds=[42]"]
    with pytest.raises(UserError, match=message):
        load(load_study(FOLDER / "gemma3-270m.yaml", [*words, word]))


@pytest.fixture(scope="module")
def made_up_scores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scores")
    scored(folder, as_in_the_table)
    return folder / "gemma"


DAMAGE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no settings": lambda header: header["training"].pop("settings"),
    "a section missing": lambda header: header["training"]["settings"].pop("lora"),
    "an unknown section": lambda header: header["training"]["settings"].update(extra={}),
    "no training": lambda header: header.pop("training"),
    "no hash": lambda header: header["template"].pop("sha256"),
    "a template more": lambda header: header["template"].update(more=1),
    "no decodings": lambda header: header.pop("decodings"),
    "a decoding that is null": lambda header: header["decodings"].update(greedy=None),
    "a list": lambda header: header.update(decodings=[]),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_first_line_is_one_clear_line(made_up_scores, tmp_path, damage):
    copied = shutil.copytree(made_up_scores, tmp_path / "gemma")
    path = copied / "recipe-42" / "jsquad.jsonl"
    first, rest = path.read_text().split("\n", 1)
    header = json.loads(first)
    damage(header)
    path.write_text(f"{json.dumps(header)}\n{rest}")
    words = [f"scores={copied}", "arms={article: [], recipe: []}", "confirmed=[]", "untuned={}", "seeds=[42]"]
    with pytest.raises(UserError, match=r"recipe-42/jsquad.jsonl: is damaged or of another version; move it away"):
        load(load_study(FOLDER / "gemma3-270m.yaml", words))


def test_scores_under_another_name_are_refused(made_up_scores, tmp_path):
    copied = shutil.copytree(made_up_scores, tmp_path / "gemma")
    shutil.copy(copied / "article-42" / "jsquad.jsonl", copied / "recipe-42" / "jsquad.jsonl")
    words = [f"scores={copied}", "arms={article: [], recipe: []}", "confirmed=[]", "untuned={}", "seeds=[42]"]
    study = load_study(FOLDER / "gemma3-270m.yaml", words)
    with pytest.raises(
        UserError, match=r"was scored as article-42/jsquad, not as recipe-42/jsquad; move .*recipe-42 away"
    ):
        check_scored(study, Unit("recipe-42", "jsquad"))


def test_a_study_without_scores_says_so(tmp_path):
    with pytest.raises(UserError, match="nothing has been scored yet"):
        load(load_study(SMOKE, [f"scores={tmp_path}"]))
