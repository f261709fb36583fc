"""Rows with categories of the user's own, or none: how they are told apart in groups, tables, reports and cards."""

import dataclasses
import io
import json
from collections import Counter
from pathlib import Path

import pytest
from made_up import answers, on_disk
from rich.console import Console

from eval.predictions import Prediction, examples_sha256, read_predictions, rows_sha256, write_predictions
from eval.render.markdown import render_markdown
from eval.report.document import document
from eval.report.first_screen import Subject
from eval.report.names import why_rows_do_not_add_up
from eval.report.terminal import print_table
from eval.scoring.results import Results, RowCounts
from eval.scoring.rows import Rows, scopes_of
from eval.scoring.score import score
from sft.checks import doctor
from sft.config.load import load_config
from sft.data.records import CATEGORIES, Example, Group, Kind, report_order
from sft.data.rows import examples_of
from sft.export.card.scores import evaluation_of
from sft.page.html import render_html
from sft.plan.hazards import truncation_hazards
from sft.plan.prepare import prepare, read_rows, read_tokenizer
from sft.system.errors import UserError
from sft.system.texts import speak
from sft.system.visible import escaped

HOSTILE = "\x1b[2J<b>[red]$\\frac$長い名前の分類である"


def kinds(*found: tuple[str, str, int]) -> Counter[Kind]:
    return Counter({Kind(category, group): count for category, group, count in found})


def test_categories_stand_in_report_order_under_the_group_of_most_of_their_rows() -> None:
    counts = kinds(
        ("", "open", 90), ("少", "open", 2), ("い", "open", 5), ("あ", "open", 5), ("general_qa", "open", 1),
        ("open_qa", "open", 1), ("両方", "open", 3), ("両方", "context", 4), ("半々", "context", 2),
        ("半々", "open", 2), ("summarization", "context", 1), ("closed_qa", "other", 9),
        ("creative_writing", "other", 9),
    )  # fmt: skip
    assert list(report_order(counts).items()) == [
        ("open_qa", "open"), ("general_qa", "open"), ("あ", "open"), ("い", "open"), ("半々", "open"), ("少", "open"),
        ("", "open"), ("summarization", "context"), ("両方", "context"), ("closed_qa", "other"),
        ("creative_writing", "other"),
    ]  # fmt: skip


def labels(*found: tuple[str, str]) -> dict[str, list[int]]:
    return {scope.label: rows for scope, rows in scopes_of([Kind(*kind) for kind in found]).items()}


def test_a_category_has_all_its_rows_and_a_group_its_own() -> None:
    found = labels(("社内", "open"), ("社内", "context"), ("社内", "context"), ("人事", "open"))
    assert found == {"人事": [3], "open, all": [0, 3], "社内": [0, 1, 2], "context, all": [1, 2]}


def test_a_category_that_says_what_its_group_says_has_no_line() -> None:
    assert labels(("", "open"), ("", "context"), ("", "context")) == {"open, all": [0], "context, all": [1, 2]}
    assert labels(("context", "context"), ("", "open")) == {"open, all": [1], "context, all": [0]}
    assert list(labels(("", "open"), ("人事", "open"))) == ["人事", "no category", "open, all"]


def faq(system: str, quality: int = 2) -> list[Prediction]:
    """Answers to 24 rows of a FAQ: one category in two groups, one in one, and rows of none with a context."""
    found = []
    for at, answer in enumerate([*answers(system, quality)][:24]):
        category, context = (("社内 手続き", "文脈。東京。" * (at % 2)), (HOSTILE, ""), ("", "文脈。"))[at % 3]
        row = Example(str(at), f"質問{at}", context, answer.example.output, category)
        found.append(dataclasses.replace(answer, example=row, reference_nll_without_context=None))
    return found


@pytest.fixture(scope="module")
def results() -> Results:
    return score([*faq("base", 1), *faq("tuned", 3)], resamples=50)


def test_a_report_shows_the_users_categories_and_none_of_dollys(results: Results) -> None:
    assert results.rows.categories == {"社内 手続き": 8, HOSTILE: 8, "": 8}
    assert results.rows.groups == {"open": 12, "context": 12}
    assert [scope.label for scope in results.rows.scopes()] == [
        HOSTILE, "社内 手続き", "open, all", "no category", "context, all",
    ]  # fmt: skip
    predictions = [*faq("base", 1), *faq("tuned", 3)]
    terminal = io.StringIO()
    print_table(results, Subject("faq"), Console(file=terminal, width=120, color_system=None))
    blocks = document(results, predictions, Subject("faq"))
    pages = [render_markdown(blocks), render_html(blocks)]
    assert not [page for page in pages if HOSTILE[1:6] in page]
    for page in (*pages, terminal.getvalue()):
        assert "社内 手続き" in page
        assert "no category" in page
        assert not [name for name in (*CATEGORIES, "\x1b") if name in page]
    assert "Row 2 · no category" in pages[0]


@pytest.mark.parametrize(
    ("language", "told"),
    [
        (
            "en",
            "社内 手続き has 4 questions without a context, 4 questions about a context. The table lists it whole",
        ),
        ("ja", "社内 手続きには文脈なし4問、文脈あり4問があります。表ではまとめて「文脈なし」に入れています"),
    ],
)
def test_a_reader_is_told_why_rows_do_not_add_up(results: Results, language: str, told: str) -> None:
    assert results.rows.mixed == {"社内 手続き": {"open": 4, "context": 4}}
    speak(language)
    terminal = io.StringIO()
    print_table(results, Subject("faq"), Console(file=terminal, width=400, color_system=None))
    page = render_markdown(document(results, [*faq("base", 1), *faq("tuned", 3)], Subject("faq")))
    for shown in (page, terminal.getvalue()):
        assert shown.count(told) == 1
    assert score(answers("tuned", 3), resamples=50).rows.mixed == {}


def test_only_the_first_of_many_mixed_categories_are_named_and_none_fills_a_page() -> None:
    mixed: dict[str, dict[Group, int]] = {f"区分{at}" + "長い名前" * 99: {"open": 2, "context": 1} for at in range(30)}
    counts = RowCounts(
        90, 30, dict.fromkeys(mixed, 3), {"open": 60, "context": 30}, dict.fromkeys(mixed, "open"), mixed
    )
    lines = why_rows_do_not_add_up(counts)
    assert [line[:3] for line in lines[:3]] == ["区分0", "区分1", "区分2"]
    assert lines[3:] == ["The same goes for 27 more categories."]
    assert max(map(len, lines)) < 300


def test_rows_of_no_category_are_shown_where_a_group_has_others_too() -> None:
    rows = [Example(str(at), "問", "文脈。" * (at < 4), "答", "" if at < 6 else "社内") for at in range(9)]
    counts = Rows(rows).counts
    assert (counts.categories, counts.groups) == ({"社内": 3, "": 6}, {"open": 5, "context": 4})
    assert counts.mixed == {"": {"open": 2, "context": 4}}
    assert Rows([dataclasses.replace(row, category="") for row in rows]).counts.categories == {}


def test_groups_count_rows_and_not_categories(results: Results) -> None:
    tuned = results.systems["tuned"]
    by_group: dict[str, list[float]] = {"open": [], "context": []}
    for row in results.samples:
        if row.system == "tuned":
            by_group[row.group].append(row.scores["character_f1"])
    for group, scores in by_group.items():
        assert tuned.groups[group]["character_f1"].mean == pytest.approx(sum(scores) / len(scores), abs=1e-6)
        assert tuned.groups[group]["character_f1"].n == 12
    # What only answers context rows stands beside those alone.
    assert results.ceilings["oracle_sentence"].groups.keys() == {"context"}
    assert results.ceilings["oracle_sentence"].categories.keys() == {""}


def test_rows_without_any_category_are_reported_by_group() -> None:
    bare = [
        dataclasses.replace(one, example=dataclasses.replace(one.example, category="", group=None))
        for one in [*faq("base", 1), *faq("tuned", 3)]
    ]
    found = score(bare, resamples=50)
    assert (found.rows.categories, found.rows.groups) == ({}, {"open": 12, "context": 12})
    page = render_markdown(document(found, bare, Subject("faq")))
    assert "the smallest group is open, all with 12" in page
    assert "no category" not in page.split("## Samples")[0]


def test_a_card_shows_the_users_categories(results: Results) -> None:
    found = evaluation_of(json.loads(results.texts()["results.json"]))
    names = [cells[0] for cells in found.tables["character F1"]]
    assert names == ["**open, all**", escaped(HOSTILE), "社内 手続き", "**context, all**", "no category"]


def test_predictions_hold_group_and_history_and_older_ones_are_read_by_the_old_rule(tmp_path: Path) -> None:
    turns = (("system", "丁寧に"), ("user", "前の問い"), ("assistant", "前の答え"))
    given = [
        dataclasses.replace(one, example=dataclasses.replace(one.example, group="other", history=turns))
        for one in faq("a")[:2]
    ]
    path = tmp_path / "predictions.jsonl"
    write_predictions([*given, *answers("b")], path)
    assert list(read_predictions(path)) == [*given, *answers("b")]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0]["example"]["history"] == [list(turn) for turn in turns]
    for line in lines:
        del line["example"]["group"], line["example"]["history"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    older = list(read_predictions(path))
    assert older[2:] == answers("b")
    assert [one.example.group for one in older[:2]] == ["open", "open"]


def test_rows_as_earlier_versions_knew_them_keep_their_hash() -> None:
    # Records beside the answers of earlier runs hold these.
    assert examples_sha256(answers("a")) == "ce7bf2b02a93206e8f11138ab15a005d6b12f9b8e82e7ea93c9533403733fad5"
    row = Example("1", "問", "", "答", "社内")
    others = [dataclasses.replace(row, group="other"), dataclasses.replace(row, history=(("user", "前"),))]
    assert len({rows_sha256([one]) for one in [row, *others]}) == 3


def written(path: Path, count: int = 90) -> str:
    categories = ["社内", "人事", ""] * count
    rows = [
        {"instruction": f"質問{n}", "input": f"文脈{n}" * (n % 3 == 0), "output": "答え", "category": categories[n]}
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_training_takes_the_users_categories_to_its_tables_and_validates_by_group(
    tmp_path: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    words = [f"model.base={tiny_base}", "model.build=null", "data.validation_share=0.3"]
    words += [f"data.path={written(tmp_path / 'faq.jsonl')}", "data.groups={人事: other}"]
    words += ["data.balance={weights: {人事: 0, context: 2}}"]
    config = load_config(Path("configs/tiny.yaml"), words)
    data, split = read_rows(config)
    sides = {row.index: row.category for row in examples_of(split.train)}
    assert set(sides.values()) == {"社内", ""}
    assert Counter(row.group for row in examples_of(split.train))["context"] == 2 * list(sides.values()).count("社内")
    plan = prepare(config, data, split, *read_tokenizer(config))
    assert list(plan.validation) == ["open", "context", "other"]
    page = capsys.readouterr().out
    assert "other 0 rows an epoch (natural: " in page
    starts = ("社内", "人事", "no category", "all ")
    table = [line.split()[0] for line in page.splitlines() if line.strip().startswith(starts)]
    assert table == ["no", "社内", "人事", "all"]
    assert not [name for name in CATEGORIES if name in page]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data.groups={社内手: open}", "data.groups: 社内手 is no category of the data; did you mean 社内? the data"),
        ("data.groups={総務: open}", "data.groups: 総務 is no category of the data; the data has 人事, 社内"),
        ("data.balance.weights.contxt=2", "data.balance.weights: contxt is neither a group nor a category of the data; "
         "did you mean context?"),
        ("data.balance.weights.close_qa=2", "did you mean closed_qa?"),
    ],
)  # fmt: skip
def test_a_category_that_no_row_has_is_one_clear_line(tmp_path: Path, word: str, message: str) -> None:
    config = load_config(Path("configs/tiny.yaml"), [f"data.path={written(tmp_path / 'faq.jsonl')}", word])
    with pytest.raises(UserError) as error:
        read_rows(config)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_dollys_categories_may_be_named_where_no_row_has_them(tmp_path: Path) -> None:
    words = [f"data.path={written(tmp_path / 'faq.jsonl')}", "data.groups={Closed QA: open, '': other}"]
    read_rows(load_config(Path("configs/tiny.yaml"), [*words, "data.balance.weights={closed_qa: 2, 社内: 2}"]))


def test_truncation_is_warned_of_by_the_users_categories() -> None:
    fates = {("", "dropped"): 3, ("社内", "whole"): 9, ("社内", "dropped"): 1, ("open_qa", "dropped"): 1}
    named = [warning.split(" loses")[0] for warning in truncation_hazards(fates, "context", 32)]
    assert named == ["open_qa", "社内", "no category"]


def test_the_doctor_shows_tokens_a_character_by_the_users_categories() -> None:
    rows = on_disk([Example("1", "東京", "", "首都", "社内"), Example("2", "京", "", "答", "")])
    shares = doctor.tokens_per_character(*doctor.texts_of(rows), [[1]] * 6)
    assert shares == doctor.Shares({"社内": 3 / 4, "": 3 / 2}, 1.0)
    out = io.StringIO()
    doctor.show(Console(file=out, width=80, color_system=None), [], {"a": shares})
    assert "no category" in out.getvalue()
