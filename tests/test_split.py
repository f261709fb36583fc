"""The split: shares by category, contexts and repeated questions kept on one side, the same everywhere."""

import random
from collections import Counter

from sft.data import load_data
from sft.records import Example
from sft.split import category_head, split_examples, stratified_head


def rows(count, category="open_qa", **fields):
    return [Example(f"{category}{n}", f"問{n}", "", "答", category) for n in range(count)]


def test_each_category_is_split_by_the_shares():
    split = split_examples([*rows(500), *rows(100, "brainstorming")], 0.02, 0.10)
    assert [Counter(e.category for e in side) for side in split] == [
        {"open_qa": 440, "brainstorming": 88},
        {"open_qa": 10, "brainstorming": 2},
        {"open_qa": 50, "brainstorming": 10},
    ]


def test_the_split_does_not_depend_on_the_rows_order():
    examples = rows(300)
    shuffled = random.Random(0).sample(examples, len(examples))
    assert split_examples(examples, 0.02, 0.1) == split_examples(shuffled, 0.02, 0.1)


def test_rows_with_the_same_context_or_question_share_a_side():
    examples = [
        Example(f"{n}{category}", f"問{n}{category}", f"文脈{n // 2}", "答", category)
        for n in range(200)
        for category in ("closed_qa", "summarization")
    ] + [Example(f"again{n}", f"問{n % 40}", "", f"答{n}", "open_qa") for n in range(200)]
    split = split_examples(examples, 0.1, 0.2)
    assert sum(map(len, split)) == len(examples)
    for key in (lambda e: e.input or None, lambda e: (e.instruction, e.input)):
        sides = [{key(e) for e in side} - {None} for side in split]
        assert not sides[0] & sides[1]
        assert not sides[0] & sides[2]
        assert not sides[1] & sides[2]


def test_no_context_of_the_real_rows_stands_on_two_sides(real_rows):
    split = split_examples(load_data(str(real_rows)).examples, 0.02, 0.10)
    contexts = [{e.input for e in side if e.input} for side in split]
    assert not contexts[0] & (contexts[1] | contexts[2])
    assert not contexts[1] & contexts[2]
    for side, share in zip(split, (0.88, 0.02, 0.10), strict=True):
        assert abs(len(side) / 15_015 - share) < 0.001


def test_heads_keep_the_categories_shares_and_limit_each_category():
    examples = [*rows(300), *rows(100, "closed_qa")]
    assert Counter(e.category for e in stratified_head(examples, 40)) == {"open_qa": 30, "closed_qa": 10}
    assert stratified_head(examples, None) == examples
    assert Counter(e.category for e in category_head(examples, 7)) == {"open_qa": 7, "closed_qa": 7}
