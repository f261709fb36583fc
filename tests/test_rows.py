"""Rows on disk: the same sequences as lists, the same split as from lists, and memory that hardly grows with rows."""

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

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sft.data.rows
from sft.data.read import load_data
from sft.data.records import CATEGORIES, Example
from sft.data.rows import FIELDS, RowFile, Rows, SeenTexts, as_dataset
from sft.data.split import split_examples
from sft.run.held_out import split_text
from sft.system.errors import UserError
from sft.system.files import text_sha256

SAMPLE = Path(__file__).parents[1] / "data" / "sample.jsonl"
TEXTS = st.text('首都は？\n"\\ \u3000\u2028é🗾Ａ', min_size=1, max_size=6)
EXAMPLES = st.lists(
    st.tuples(TEXTS, st.sampled_from(["", "文脈", "文 脈", "文　脈", "別の文脈"]), TEXTS, st.sampled_from(CATEGORIES)),
    max_size=40,
).map(lambda rows: [Example(str(n), *fields, ("答",) * (n % 3)) for n, fields in enumerate(rows)])


@given(EXAMPLES, st.data())
def test_rows_on_disk_are_the_sequence_that_a_list_is(examples, data):
    rows = Rows.of(RowFile(examples))
    assert list(rows) == examples
    assert rows == examples
    assert [rows[place] for place in range(-len(rows), len(rows))] == examples * 2
    part = data.draw(st.slices(len(examples)))
    assert rows[part] == examples[part]
    places = data.draw(st.lists(st.integers(0, len(examples) - 1)) if examples else st.just([]))
    chosen = rows.select(np.array(places, int))
    assert chosen == [examples[place] for place in places]
    assert chosen.counts() == Counter(examples[place].category for place in places)
    wanted = data.draw(st.sets(st.sampled_from(CATEGORIES)))
    assert chosen.of_categories(wanted) == [e for e in chosen if e.category in wanted]


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


@given(EXAMPLES, st.sampled_from([0.0, 0.02, 0.3]), st.sampled_from([0.0, 0.1, 0.25]))
def test_the_split_is_that_of_lists_and_whole_hashes(examples, validation_share, test_share):
    split = split_examples(Rows.of(RowFile(examples)), validation_share, test_share)
    assert list(map(list, split)) == split_of_lists(examples, validation_share, test_share)


def test_the_split_file_is_the_json_of_the_sides(tmp_path):
    split = split_examples(load_data("data/sample.jsonl").examples, 0.02, 0.1)
    text = "".join(split_text(split))
    sides = {name: [example.index for example in side] for name, side in split._asdict().items()}
    assert text == json.dumps(sides, ensure_ascii=False) + "\n"
    # What earlier runs have in their manifests: with another hash they could not be evaluated or resumed.
    assert text_sha256([text]) == "f0c04485ee0c60183f091e08b2036e5edca338a4e04656abca9eb29437e95d70"


@given(st.lists(st.integers(0, 60)))
def test_texts_are_met_for_the_first_time_once(numbers):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sft.rows, "RECENT", 4)
        seen = SeenTexts()
        assert [seen.add(str(number)) for number in numbers] == [
            number not in numbers[:place] for place, number in enumerate(numbers)
        ]


def test_a_data_set_of_rows_is_mapped_and_its_fingerprint_is_its_contents():
    data = load_data("data/sample.jsonl")
    part = data.examples[::-3]
    dataset = as_dataset(part, data.sha256)
    assert dataset.to_list() == [{name: getattr(e, name) for name in FIELDS} for e in part]
    assert dataset.select([3, 1])["index"][:] == [part[3].index, part[1].index]
    assert dataset.cache_files  # memory-mapped
    assert dataset._fingerprint == as_dataset(load_data("data/sample.jsonl").examples[::-3], data.sha256)._fingerprint
    assert dataset._fingerprint != as_dataset(data.examples[::3], data.sha256)._fingerprint
    assert dataset._fingerprint != as_dataset(part, "")._fingerprint


def test_a_full_disk_is_one_clear_line(monkeypatch):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sft.rows.tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(UserError, match="TMPDIR"):
        load_data("data/sample.jsonl")


PREPARED = """
import json, sys, threading, time
from sft.data import load_data
from sft.encoded_rows import row_lengths, token_counts
from sft.model import load_tokenizer
from sft.prompt import ALPACA_JA, FormattingFunction
from sft.rows import as_dataset
from sft.run import split_text, text_sha256
from sft.split import epoch_rows, split_examples
from sft.steps import StepSampler, packed
from sft.tokenization import RowEncoder

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))

def prepare(path):
    data = load_data(path)
    split = split_examples(data.examples, 0.02, 0.1)
    train = epoch_rows(split.train, {"closed_qa": 2.0}, None)
    epoch_rows(split.train, {"closed_qa": 2.0}, len(split.train) // 2)
    text_sha256(split_text(split))
    dataset = as_dataset(train, data.sha256)
    if len(sys.argv) == 2:
        return data, split, dataset
    encoded = RowEncoder(load_tokenizer(sys.argv[2]), 512).encode(dataset, FormattingFunction(ALPACA_JA), "train")
    token_counts(encoded)
    sampler = StepSampler(row_lengths(encoded), 128, lambda lengths, n: packed(lengths, n, 512), 1, lambda: 0)
    next(iter(sampler))
    return data, split, dataset, encoded, sampler

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
        found = subprocess.run(
            [sys.executable, "-c", PREPARED, path, *more], capture_output=True, text=True, check=True
        )
        peaks.append(int(found.stdout))
    return (peaks[1] - peaks[0]) / (many - few)


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the resident set's anonymous part is Linux's")


@on_linux
def test_memory_hardly_grows_with_rows(tmp_path):
    assert bytes_a_row(tmp_path, 20_000, 100_000) < 64  # with fewer rows, what allocators round up to counts


@on_linux
@pytest.mark.slow
def test_memory_hardly_grows_with_a_million_rows_encoded(tmp_path, tiny_base):
    grown = bytes_a_row(tmp_path, 100_000, 1_000_000, tiny_base)
    print(f"{grown:.1f} bytes a row")
    assert grown < 64
