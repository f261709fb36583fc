"""The split: about its shares, contexts and repeated questions kept on one side, no row moved by others."""

import json
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import on_disk

from sft.data.read import load_data
from sft.data.records import CATEGORIES, Example, Kind, named_weights
from sft.data.rows import examples_of, kind_counts, select, write_rows
from sft.data.split import Split, category_head, epoch_rows, split_rows, tempered_weights
from sft.run.held_out import read_side, split_text
from sft.run.manifest import Manifest, write_manifest
from sft.system.files import text_sha256


def rows(count, category="open_qa", **fields):
    return [Example(f"{category}{n}", f"問{n}", "", "答", category) for n in range(count)]


def divided(examples, *shares):
    return [list(examples_of(side)) for side in split_rows(on_disk(examples), *shares)]


def epoch_of(examples, weights, limit):
    data = on_disk(examples)
    return list(examples_of(epoch_rows(data, named_weights(kind_counts(data), weights), limit)))


def sides_of(data, *shares):
    """Side and order of each row, by its texts."""
    return [[(e.instruction, e.input) for e in examples_of(side)] for side in split_rows(data, *shares)]


def test_sides_have_their_shares_to_within_sampling():
    split = divided([*rows(5000), *rows(1000, "社内手続き")], 0.02, 0.10)
    for category, count in (("open_qa", 5000), ("社内手続き", 1000)):
        for side, share in zip(split, (0.88, 0.02, 0.10), strict=True):
            found = sum(e.category == category for e in side)
            assert abs(found - share * count) < 4 * (share * (1 - share) * count) ** 0.5


def test_shares_of_nothing_hold_out_nothing():
    assert [len(side) for side in divided(rows(500), 0, 0)] == [500, 0, 0]
    assert [len(side) > 0 for side in divided(rows(500), 0, 0.5)] == [True, False, True]


ROWS = st.lists(
    st.tuples(st.text("問い 　", min_size=1, max_size=3), st.sampled_from(["", "文脈", "文　脈", "別の"])), max_size=30
).map(
    lambda found: [
        {"index": None, "instruction": question, "input": context, "output": "答", "category": "", "answers": []}
        for question, context in found
    ]
)


@given(ROWS, ROWS, st.floats(0, 0.5), st.floats(0, 0.49), st.integers(0, 9))
def test_rows_that_are_added_move_no_others(before, added, validation, test, file):
    sides = sides_of(write_rows(before), validation, test)
    later = [row | {"file": file} for row in [*added, *before]]
    both = sides_of(write_rows(later), validation, test)
    for side, more in zip(sides, both, strict=True):
        assert not Counter(side) - Counter(more)
    assert sum(map(len, both)) == len(before) + len(added)


def test_a_conversation_goes_by_its_first_question():
    rows = [
        {"index": str(n), "instruction": f"続き{n}", "input": "", "output": "答", "category": "", "answers": [],
         "history": [["system", f"指示{n}"], ["user", f"始め{n // 2}"], ["assistant", "答"]]}
        for n in range(200)
    ]  # fmt: skip
    rows += [row | {"index": f"{n}:", "instruction": f"始め{n // 2}", "history": []} for n, row in enumerate(rows)]
    sides = [
        {int(index.rstrip(":")) // 2 for index in side["index"]} for side in split_rows(write_rows(rows), 0.2, 0.3)
    ]
    assert all(sides)
    assert sum(map(len, sides)) == 100


def test_the_split_does_not_depend_on_the_rows_order():
    examples = rows(300)
    shuffled = random.Random(0).sample(examples, len(examples))
    assert divided(examples, 0.02, 0.1) == divided(shuffled, 0.02, 0.1)


def test_rows_with_the_same_context_or_question_share_a_side():
    examples = [
        Example(f"{n}{category}", f"問{n}{category}", f"文脈{n // 2}", "答", category)
        for n in range(200)
        for category in ("closed_qa", "summarization")
    ] + [Example(f"again{n}", f"問{n % 40}", "", f"答{n}", "open_qa") for n in range(200)]
    split = divided(examples, 0.1, 0.2)
    assert sum(map(len, split)) == len(examples)
    for key in (lambda e: e.input or None, lambda e: (e.instruction, e.input)):
        sides = [{key(e) for e in side} - {None} for side in split]
        assert not sides[0] & sides[1]
        assert not sides[0] & sides[2]
        assert not sides[1] & sides[2]


def test_no_context_of_the_real_rows_stands_on_two_sides(real_rows):
    split = [list(examples_of(side)) for side in split_rows(load_data(str(real_rows)).rows, 0.02, 0.10)]
    contexts = [{e.input for e in side if e.input} for side in split]
    assert not contexts[0] & (contexts[1] | contexts[2])
    assert not contexts[1] & contexts[2]
    for side, share in zip(split, (0.88, 0.02, 0.10), strict=True):
        assert abs(len(side) / 15_015 - share) < 4 * (share * (1 - share) / 15_015) ** 0.5


def test_heads_keep_the_categories_shares_and_limit_each_category():
    examples = [*rows(300), *rows(100, "closed_qa")]
    assert Counter(e.category for e in epoch_of(examples, {}, 40)) == {"open_qa": 30, "closed_qa": 10}
    assert epoch_of(examples, {}, None) == examples
    mixed = on_disk(random.Random(0).sample(examples, len(examples)))
    head, chosen = list(examples_of(category_head(mixed, 7))), Counter()
    assert list(examples_of(category_head(mixed, None))) == list(examples_of(mixed))
    for example in examples_of(mixed):
        chosen[example.category] += 1
        assert (example in head) is (chosen[example.category] <= 7)
    assert head == [example for example in examples_of(mixed) if example in head]


def names(examples):
    return [example.index for example in examples]


def test_a_weight_repeats_the_first_rows_of_a_category_or_leaves_out_its_last():
    examples = [*rows(3), *rows(2, "closed_qa")]
    weights = {"open_qa": 2 / 3, "closed_qa": 2.5}  # 2 and 5 places
    closed = ["closed_qa0", "closed_qa1"]
    assert names(epoch_of(examples, weights, None)) == ["open_qa0", "open_qa1", *closed, *closed, "closed_qa0"]
    assert names(epoch_of(examples, {"open_qa": 0}, None)) == closed


def test_a_beginning_of_a_balanced_epoch_keeps_the_proportions_and_repeats_nothing():
    examples = [*rows(4), *rows(2, "closed_qa")]
    # (position + 0.5) / places: open 0.125 0.375 0.625 0.875; closed, twice each, the same, and c before o.
    head = epoch_of(examples, {"closed_qa": 2}, 4)
    assert names(head) == ["closed_qa0", "open_qa0", "closed_qa1", "open_qa1"]
    assert names(epoch_of(examples, {"closed_qa": 2}, 6)) == [*names(head), "closed_qa0", "open_qa2"]
    assert len(epoch_of(examples, {"closed_qa": 2}, 99)) == 8


def test_a_categorys_own_weight_wins_over_its_groups():
    kinds = [Kind("closed_qa", "context"), Kind("summarization", "context"), Kind("open_qa", "open")]
    kinds += [Kind("社内", "open"), Kind("社内", "context"), Kind("", "context")]
    weights = named_weights(Counter(kinds), {"context": 2.0, "closed_qa": 0.5})
    assert weights == dict(zip(kinds, (0.5, 2.0, 1.0, 1.0, 2.0, 2.0), strict=True))


def test_a_groups_weight_shows_its_rows_only_where_a_category_has_others_too():
    examples = [Example(str(n), f"問{n}", "文脈" * (n % 2), "答", "社内") for n in range(4)]
    assert Counter(names(epoch_of(examples, {"context": 3}, None))) == {"0": 1, "1": 3, "2": 1, "3": 3}
    assert Counter(names(epoch_of(examples, {"社内": 2, "context": 3}, None))) == dict.fromkeys("0123", 2)


def test_a_temperature_evens_out_groups_or_categories_and_the_largest_keeps_its_rows():
    kinds = [Kind("open_qa", "open"), Kind("社内", "open"), Kind("社内", "context"), Kind("brainstorming", "other")]
    counts = dict(zip(kinds, (300, 100, 100, 25), strict=True))
    # Groups 400, 100, 25: the square roots are as 20 : 10 : 5, so 400 : 200 : 100 rows.
    assert list(tempered_weights(counts, 0.5, "group").values()) == pytest.approx([1, 1, 2, 4])
    # Categories 300, 200, 25.
    assert list(tempered_weights(counts, 0, "category").values()) == pytest.approx([1, 1.5, 1.5, 12])
    assert set(tempered_weights(counts, 1, "group").values()) == {1}


@given(
    st.dictionaries(st.sampled_from([*CATEGORIES, "社内", ""]), st.integers(1, 30), min_size=1),
    st.floats(0, 1),
    st.sampled_from(["group", "category"]),
    st.integers(1, 100),
)
def test_whatever_the_temperature_no_row_is_lost_and_a_beginning_is_one_of_the_epoch(counts, temperature, by, limit):
    examples = [example for category, count in counts.items() for example in rows(count, category)]
    tempered = tempered_weights(kind_counts(on_disk(examples)), temperature, by)
    weights = {kind.category: weight for kind, weight in tempered.items()}
    epoch = epoch_of(examples, weights, None)
    assert set(epoch) == set(examples)
    assert Counter(e.category for e in epoch) == {c: round(weights[c] * n) for c, n in counts.items()}
    repeated = Counter(epoch)
    for category in counts:  # within a category rows come equally often, or once more
        times = {repeated[example] for example in examples if example.category == category}
        assert max(times) - min(times) <= 1
    head = epoch_of(examples, weights, limit)
    assert len(head) == min(limit, len(epoch))
    assert not Counter(head) - repeated
    assert epoch_of(examples, dict.fromkeys(counts, 1.0), limit) == epoch_of(examples, {}, limit)


def test_rows_that_an_epoch_repeats_are_read_back_from_a_runs_split(tmp_path):
    examples = rows(3)
    data = on_disk(examples)
    nothing = select(data, [])
    text = "".join(split_text(Split(epoch_rows(data, {Kind("open_qa", "open"): 2}, None), nothing, nothing)))
    assert json.loads(text)["train"] == names(examples) * 2
    (tmp_path / "split.json").write_text(text)
    hashes = dict.fromkeys(("data", "tokenizer", "template", "split"), text_sha256(text))
    manifest = {
        "status": "running", "started": "2026-01-01", "identity": {**hashes, "processes": 1}, "steps": 1,
        "rows": {"train": 6, "validation": 0, "test": 0, "dropped": 0, "truncation": {}},
        "environment": {"python": "3.11.7", "packages": {}},
    }  # fmt: skip
    write_manifest(tmp_path, Manifest.model_validate(manifest))
    assert list(examples_of(read_side(tmp_path, "train", data))) == examples * 2
    assert not read_side(tmp_path, "test", data)
