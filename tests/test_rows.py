"""Rows on disk: what was written, the same split as from lists, few reads, and memory that hardly grows with rows."""

import errno
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import on_disk

import sft.data.files.json_table
import sft.data.rows
from sft.config.load import load_config
from sft.data.read import load_data
from sft.data.records import CATEGORIES, GROUPS, Example, Kind, category_name
from sft.data.rows import (
    SCHEMA,
    category_counts,
    examples_of,
    kind_counts,
    of_group,
    select,
    with_context,
    write_rows,
)
from sft.data.split import split_rows
from sft.plan.prepare import hazards, prepare, read_rows, read_tokenizer
from sft.prompt.template import FormattingFunction
from sft.run.held_out import split_text
from sft.system.errors import UserError
from sft.system.files import text_sha256

SAMPLE = Path(__file__).parents[1] / "data" / "sample.jsonl"
TEXTS = st.text('首都は？\n"\\ \u3000\u2028é🗾Ａ', min_size=1, max_size=6)
EXAMPLES = st.lists(
    st.tuples(
        TEXTS, st.sampled_from(["", "文脈", "文 脈", "文　脈", "別の文脈"]), TEXTS,
        st.sampled_from([*CATEGORIES, "社内手続き", ""]),
    ),
    max_size=40,
).map(
    lambda rows: [
        Example(str(n), *fields, history=(("user", "前"), ("assistant", "後")) * (n % 2), answers=("答",) * (n % 3))
        for n, fields in enumerate(rows)
    ]
)  # fmt: skip


@settings(deadline=None)
@given(EXAMPLES, st.data())
def test_rows_on_disk_are_selected_as_lists_are(examples, data):
    rows = on_disk(examples)
    assert list(examples_of(rows)) == examples
    part = data.draw(st.slices(len(examples)))
    assert list(examples_of(select(rows, part))) == examples[part]
    places = data.draw(st.lists(st.integers(0, len(examples) - 1)) if examples else st.just([]))
    chosen, expected = select(rows, np.array(places, int)), [examples[place] for place in places]
    assert list(examples_of(chosen)) == expected
    assert chosen["instruction"][:] == [example.instruction for example in expected]
    assert with_context(chosen).tolist() == [bool(example.input) for example in expected]
    assert category_counts(chosen) == Counter(example.category for example in expected)
    assert kind_counts(chosen) == Counter(Kind(example.category, example.group) for example in expected)
    for group in GROUPS:
        assert list(examples_of(of_group(chosen, group))) == [e for e in expected if e.group == group]
    assert list(examples_of(select(chosen, slice(None, None, -2)))) == expected[::-2]


def split_of_lists(examples, validation_share, test_share):
    """The split as its documentation says it, with lists and whole hashes."""

    def sha(text):
        return hashlib.sha256(text.encode()).hexdigest()

    sides = [], [], []
    for example in examples:
        asked = [text for role, text in example.history if role == "user"] + [example.instruction]
        kind, text = ("context", example.input) if example.input else ("instruction", asked[0])
        place = int(sha(f"{kind}:{' '.join(unicodedata.normalize('NFKC', text).split())}"), 16) / 16**64
        sides[2 if place < test_share else 1 if place < test_share + validation_share else 0].append(example)
    return [sorted(side, key=lambda example: sha(example.index)) for side in sides]


@settings(deadline=None)
@given(EXAMPLES, st.sampled_from([0.0, 0.02, 0.3]), st.sampled_from([0.0, 0.1, 0.25]))
def test_the_split_is_that_of_lists_and_whole_hashes(examples, validation_share, test_share):
    split = split_rows(on_disk(examples), validation_share, test_share)
    assert [list(examples_of(side)) for side in split] == split_of_lists(examples, validation_share, test_share)


def test_the_split_file_is_the_json_of_the_sides(tmp_path):
    split = split_rows(load_data("data/sample.jsonl").rows, 0.02, 0.1)
    text = "".join(split_text(split))
    sides = {name: [example.index for example in examples_of(side)] for name, side in split._asdict().items()}
    assert text == json.dumps(sides, ensure_ascii=False) + "\n"
    # What runs have in their manifests: with another hash they could not be evaluated or resumed.
    assert text_sha256([text]) == "80f9f4fe580205b5b42cb867cef702a064d3eb8a15cfe123040891ca2e2dd56c"


def test_rows_are_mapped_and_their_fingerprint_is_their_content():
    data = load_data("data/sample.jsonl")
    part = select(data.rows, slice(None, None, -3))
    assert data.rows.data.schema.names == SCHEMA.names
    assert part.cache_files  # memory-mapped
    again = load_data("data/sample.jsonl").rows
    assert part._fingerprint == select(again, slice(None, None, -3))._fingerprint
    assert part._fingerprint != select(again, slice(None, None, 3))._fingerprint
    fewer = on_disk(list(examples_of(again))[:-1])
    assert select(fewer, [0])._fingerprint != select(again, [0])._fingerprint


def test_categories_need_not_be_known_ones():
    texts = ["社内手続き", "A", "社内手続き", "あ"]
    rows = on_disk(Example(str(n), "問", "文" * (n // 2), "答", text) for n, text in enumerate(texts))
    assert category_counts(rows) == {"A": 1, "あ": 1, "社内手続き": 2}
    assert kind_counts(rows)["社内手続き", "open"] == kind_counts(rows)["社内手続き", "context"] == 1
    assert of_group(rows, "context")["index"][:] == ["2", "3"]
    assert sorted(index for side in split_rows(rows, 0.2, 0.2) for index in side["index"]) == ["0", "1", "2", "3"]


def raw(index, instruction="問", **fields):
    row = {"index": index, "instruction": instruction, "input": "", "output": "答", "category": "", "answers": []}
    return row | fields


def ids(*rows):
    return [(example.index, example.instruction) for example in examples_of(write_rows(rows))]


def test_a_rows_own_index_is_its_id_where_no_other_has_it():
    assert ids(raw("7"), raw("a", "別")) == [("7", "問"), ("a", "別")]
    one, two, three = ids(raw("7"), raw("7", "別"), raw("8"))
    assert three == ("8", "問")
    assert all(re.fullmatch("[0-9a-f]{12}", index) for index, _ in (one, two))
    assert ids(raw(None), raw(None, "別")) == [one, two]


def test_rows_without_an_index_are_known_by_their_content_and_how_often_it_came():
    rows = [raw(None, "甲"), raw(None, "乙"), raw(None, "甲"), raw("3", "丙"), raw(None, "甲")]
    first, *_ = found = [index for index, _ in ids(*rows)]
    assert found[2:] == [f"{first}#2", "3", f"{first}#3"]
    expected = json.dumps(["甲", "", "答", "", []], ensure_ascii=False)
    assert first == hashlib.sha256(expected.encode()).hexdigest()[:12]
    others = [
        {"output": "他"},
        {"input": "文脈"},
        {"category": "社内"},
        {"answers": ["他"]},
        {"history": [["user", "前"]]},
    ]
    assert len({ids(raw(None, "甲", **fields))[0] for fields in [{}, *others]}) == 6


MANY = st.lists(
    st.builds(raw, st.sampled_from([None, None, "1", "2", "3"]), st.sampled_from(["甲", "乙"]), file=st.integers(0, 2)),
    max_size=30,
)


@settings(deadline=None)
@given(MANY, st.randoms(use_true_random=False))
def test_ids_are_unique_and_the_same_in_any_order_of_rows_and_files(rows, draw):
    found = ids(*rows)
    assert len({index for index, _ in found}) == len(rows)
    mixed = [row | {"file": draw.randrange(9)} for row in draw.sample(rows, len(rows))]
    assert sorted(ids(*mixed)) == sorted(found)
    # Rows that were written with their ids keep them, and rows of the same content beside them get others.
    assert ids(*[row | {"index": index} for row, (index, _) in zip(rows, found, strict=True)]) == found
    nameless = [row | {"index": None} for row in rows]
    again = ids(*[row | {"index": index} for row, (index, _) in zip(nameless, ids(*nameless), strict=True)], *nameless)
    assert len({index for index, _ in again}) == 2 * len(rows)


def test_rows_know_their_file_and_their_content_has_one_hash():
    first, second = write_rows([raw(None), raw(None, "別", file=3)]), write_rows([raw(None), raw(None, "別")])
    assert first["file"][:] == [0, 3]
    assert first._fingerprint == second._fingerprint
    assert write_rows([raw("1"), raw("2", "別")])._fingerprint != first._fingerprint


@pytest.mark.parametrize(
    ("spelling", "category"),
    [
        ("open_qa", "open_qa"), ("Open QA", "open_qa"), ("open_qa ", "open_qa"), ("closed-qa", "closed_qa"),
        ("ＣＬＯＳＥＤ　ＱＡ", "closed_qa"), ("Information Extraction", "information_extraction"),
        ("creativeWriting", "creative_writing"), (" 社内　手続き\n", "社内 手続き"), ("１次（総務）", "１次（総務）"),
        ("Open QA 2", "Open QA 2"), ("", ""), (" \u3000", ""),
    ],
)  # fmt: skip
def test_dollys_categories_are_known_however_they_are_spelt_and_others_are_kept(spelling, category):
    assert category_name(spelling) == category
    assert write_rows([raw("1", category=spelling)])["category"][:] == [category]


def test_a_rows_group_is_the_users_else_dollys_else_by_its_context():
    kinds = [
        ("社内", ""),
        ("社内", "文脈"),
        ("", ""),
        ("", "文脈"),
        ("closed_qa", ""),
        ("open_qa", "文脈"),
        ("翻訳", "文"),
    ]
    rows = [raw(str(n), category=category, input=context) for n, (category, context) in enumerate(kinds)]
    usual = ["open", "context", "open", "context", "context", "open", "context"]
    assert write_rows(rows)["group"][:] == usual
    assert [example.group for example in examples_of(write_rows(rows))] == usual
    groups = {"社内": "other", "closed_qa": "open", "翻訳": "context"}
    assert write_rows(rows, groups)["group"][:] == ["other", "other", "open", "context", "open", "open", "context"]


def test_a_full_disk_is_one_clear_line(monkeypatch):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sft.data.rows.tempfile, "TemporaryFile", Full)
    with pytest.raises(UserError, match="rows cannot be written there: No space left on device; set TMPDIR"):
        load_data("data/sample.jsonl")


@pytest.mark.parametrize("cached", [False, True])
def test_a_row_is_read_once_from_its_file_and_once_to_be_encoded(tiny_base, tmp_path, monkeypatch, cached):
    """And encoded once. What is counted: lines of the file, rows whose texts leave the Arrow file, formatted rows."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    config = load_config(
        Path("configs/tiny.yaml"), [f"model.base={tiny_base}", "model.build=null", "data.validation_share=0.1"]
    )

    def settle():
        data, split = read_rows(config)
        prepared = prepare(config, data, split, *read_tokenizer(config))
        hazards(config, prepared)
        assert text_sha256(split_text(split)) == text_sha256(split_text(split))
        return prepared

    if cached:
        settle()
    reads = Counter()

    def count(where, what, name, weight):
        function = getattr(where, what)

        def counted(*arguments, **options):
            reads[name] += weight(arguments[0])
            return function(*arguments, **options)

        monkeypatch.setattr(where, what, counted)

    count(sft.data.files.json_table, "_parse_line", "file", lambda line: 1)
    count(datasets.arrow_dataset, "format_table", "rows", lambda t: t.num_rows * ("output" in t.column_names))
    count(FormattingFunction, "__call__", "formatted", lambda self: 1)
    prepared = settle()
    rows = len(SAMPLE.read_text(encoding="utf-8").splitlines())
    trained = len(prepared.split.train) + len(prepared.split.validation)
    assert +reads == ({"file": rows} if cached else {"file": rows, "rows": trained, "formatted": trained})


PREPARED = """
import sys, threading, time
from sft.data.read import load_data
from sft.data.split import epoch_rows, split_rows
from sft.model.load import load_tokenizer
from sft.prompt.encoded_rows import row_lengths, token_counts
from sft.prompt.row_encoder import RowEncoder
from sft.prompt.template import ALPACA_JA, FormattingFunction
from sft.run.held_out import split_text
from sft.system.files import text_sha256
from sft.training.steps import StepSampler, packed

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))

def prepare(path):
    data = load_data(path)
    split = split_rows(data.rows, 0.02, 0.1)
    train = epoch_rows(split.train, {"closed_qa": 2.0}, None)
    epoch_rows(split.train, {"closed_qa": 2.0}, len(split.train) // 2)
    text_sha256(split_text(split))
    if len(sys.argv) == 2:
        return data, split, train
    encoder = RowEncoder(load_tokenizer(sys.argv[2]), FormattingFunction(ALPACA_JA), 512)
    encoded = encoder.encode(train).rows
    token_counts(encoded)
    sampler = StepSampler(row_lengths(encoded), 128, lambda lengths, n: packed(lengths, n, 512), 1, lambda: 0)
    next(iter(sampler))
    return data, split, train, encoded, sampler

def watch():
    while True:
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.01)

prepare("data/sample.jsonl")  # the libraries' own memory
before = anonymous()
peak = [before]
threading.Thread(target=watch, daemon=True).start()
kept = prepare(sys.argv[1])
print(peak[0] - before)
"""


def bytes_a_row(tmp_path, few, many, *more):
    """RssAnon, the peak during preparation: what is resident and not the pages of a file."""
    rows = [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
    peaks = []
    for count in (few, many):
        path = tmp_path / f"{count}.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for number in range(count):
                row = rows[number % len(rows)] | {"index": str(number)}
                file.write(json.dumps(row | {"instruction": f"{row['instruction']}（{number}）"}) + "\n")
        # Arrow's own allocator takes memory in steps of megabytes, which would count where rows are few.
        found = subprocess.run(
            [sys.executable, "-c", PREPARED, path, *more],
            capture_output=True, text=True, check=True, env=os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system"},
        )  # fmt: skip
        peaks.append(int(found.stdout))
    return (peaks[1] - peaks[0]) / (many - few)


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the resident set's anonymous part is Linux's")


@on_linux
@pytest.mark.slow
def test_memory_hardly_grows_with_rows(tmp_path):
    grown = bytes_a_row(tmp_path, 20_000, 100_000)  # with fewer rows, what allocators round up to counts
    print(f"{grown:.1f} bytes a row")
    assert grown < 64


@on_linux
@pytest.mark.slow
def test_memory_hardly_grows_with_a_million_rows_encoded(tmp_path, tiny_base):
    grown = bytes_a_row(tmp_path, 100_000, 1_000_000, tiny_base)
    print(f"{grown:.1f} bytes a row")
    assert grown < 64
