"""Rows on disk: what was written, the same split as from lists, few reads, and memory that hardly grows with rows."""

import errno
import hashlib
import io
import json
import os
import subprocess
import sys
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import on_disk

import sft.data.json_table
import sft.data.rows
from sft.config.load import load_config
from sft.data.read import load_data
from sft.data.records import CATEGORIES, Example
from sft.data.rows import (
    SCHEMA,
    SeenTexts,
    category_counts,
    examples_of,
    of_categories,
    select,
    with_context,
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
    st.tuples(TEXTS, st.sampled_from(["", "文脈", "文 脈", "文　脈", "別の文脈"]), TEXTS, st.sampled_from(CATEGORIES)),
    max_size=40,
).map(lambda rows: [Example(str(n), *fields, ("答",) * (n % 3)) for n, fields in enumerate(rows)])


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
    wanted = data.draw(st.sets(st.sampled_from(CATEGORIES)))
    assert list(examples_of(of_categories(chosen, wanted))) == [e for e in expected if e.category in wanted]
    assert list(examples_of(select(chosen, slice(None, None, -2)))) == expected[::-2]


def split_of_lists(examples, validation_share, test_share):
    """The split as its documentation says it, with lists and whole hashes."""

    def sha(text):
        return hashlib.sha256(text.encode()).hexdigest()

    units = defaultdict(list)
    for example in examples:
        kind, text = ("context", example.input) if example.input else ("instruction", example.instruction)
        units[f"{kind}:{' '.join(unicodedata.normalize('NFKC', text).split())}"].append(example)
    sides = [], [], []
    for category in CATEGORIES:
        stratum = [units[k] for k in sorted(units, key=sha) if min(e.category for e in units[k]) == category]
        rows = sum(map(len, stratum))
        taken = 0
        for unit in stratum:
            middle = (taken + len(unit) / 2) / rows
            sides[2 if middle < test_share else 1 if middle < test_share + validation_share else 0].extend(unit)
            taken += len(unit)
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
    # What earlier runs have in their manifests: with another hash they could not be evaluated or resumed.
    assert text_sha256([text]) == "f0c04485ee0c60183f091e08b2036e5edca338a4e04656abca9eb29437e95d70"


@given(st.lists(st.integers(0, 60)))
def test_texts_are_met_for_the_first_time_once(numbers):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sft.data.rows, "RECENT", 4)
        seen = SeenTexts()
        assert [seen.add(str(number)) for number in numbers] == [
            number not in numbers[:place] for place, number in enumerate(numbers)
        ]


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
    rows = on_disk(Example(str(n), "問", "", "答", text) for n, text in enumerate(texts))
    assert category_counts(rows) == {"A": 1, "あ": 1, "社内手続き": 2}
    assert list(examples_of(of_categories(rows, ["社内手続き"])))[1].index == "2"
    assert sorted(index for side in split_rows(rows, 0.2, 0.2) for index in side["index"]) == ["0", "1", "2", "3"]


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

    count(sft.data.json_table, "_parse_line", "file", lambda line: 1)
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
