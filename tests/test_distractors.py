"""Training rows with another row's context beside their own: of the training side alone, and all of them train."""

import json

import pytest

from sft.config.load import load_config
from sft.data.read import load_data
from sft.data.records import Example
from sft.data.rows import examples_of
from sft.data.split import split_rows
from sft.system.errors import UserError
from studies.context_qa.distractors import with_distractors

STUDY = "studies/context_qa/smoke.yaml"


def row(index, context, history=()):
    return Example(index=str(index), instruction="問い", input=context, output="答え", category="closed_qa",
                   history=history, answers=())  # fmt: skip


def test_every_context_keeps_its_own_text_and_gets_anothers_in_front_or_behind():
    contexts = ["甲", "", "乙", "乙", "丙"]
    found = list(with_distractors([row(n, context) for n, context in enumerate(contexts)]))
    assert found == ["甲\n\n乙", "", "丙\n\n乙", "乙\n\n丙", "甲\n\n丙"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(1, "甲"), row(2, "甲")], "all rows have the same context"),
        ([row(1, "甲", (("user", "前"), ("assistant", "後"))), row(2, "乙")], "turns before its question"),
    ],
)
def test_rows_that_have_no_other_context_or_more_than_one_turn_are_refused(rows, message):
    with pytest.raises(UserError, match=message):
        list(with_distractors(rows))


def test_the_file_holds_the_training_rows_and_all_of_them_train(program, tmp_path):
    output = tmp_path / "rows.jsonl"
    done = program("studies.context_qa.distractors", STUDY, output, "data=data/sample.jsonl")
    assert done.returncode == 0, done.stderr
    written = {line["index"]: line for line in map(json.loads, output.read_text().splitlines())}
    section = load_config("configs/tiny.yaml", ["data.path=data/sample.jsonl"]).data
    sides = split_rows(load_data(section.sources).rows, *section.shares)
    trained = {one.index: one for one in examples_of(sides.train)}
    assert written.keys() == trained.keys()
    for index, one in trained.items():
        assert (written[index]["instruction"], written[index]["output"]) == (one.instruction, one.output)
        assert bool(written[index]["input"]) == bool(one.input)
        assert one.input in written[index]["input"]
    whole = load_config("configs/tiny.yaml", [f"data.path={output}", "data.test_share=0", "data.validation_share=0"])
    again = split_rows(load_data(whole.data.sources).rows, *whole.data.shares)
    assert {one.index for one in examples_of(again.train)} == trained.keys()
    before = output.read_bytes()
    assert program("studies.context_qa.distractors", STUDY, output, "data=data/sample.jsonl").returncode == 2
    assert output.read_bytes() == before
