"""Invariants of configuration, data, prompts, splits, steps, checkpoints and decoding, for whatever comes in."""

import csv
import errno
import hashlib
import io
import json
import os
import re
import tempfile
import unicodedata
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from random import Random
from unittest.mock import patch

import pyarrow
import pyarrow.parquet
import pytest
import torch
import yaml
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from made_up import on_disk

from sft.config.load import load_config
from sft.config.sections import SECTIONS, Config
from sft.data.fields.cells import is_blank, is_empty, whole_number
from sft.data.read import load_data
from sft.data.records import CATEGORIES, Example, named_weights
from sft.data.rows import category_counts, examples_of, kind_counts
from sft.data.split import epoch_rows, split_rows
from sft.generation.batch.decoding import batches
from sft.generation.penalty import ScopedRepetitionPenalty
from sft.prompt.encoded_rows import IGNORE_INDEX
from sft.prompt.template import FormattingFunction, PromptTemplate
from sft.run.checkpoints import ASIDE, RECORD, complete, newest_whole
from sft.system.errors import UserError
from sft.system.visible import visible
from sft.training.steps import StepCollator, StepSampler, packed, padded

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
"""Any Unicode but lone surrogates."""


@contextmanager
def directory():
    """One for each example, which a test's own is not."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


# Configuration

MINIMAL = {"model": {"base": "x"}, "data": {"path": "y"}, "training": {"total_batch_size": 32}}
KEYS = [(section, key) for section, cls in SECTIONS.items() for key in cls.model_fields]
TRICKY = ["no", "1e3", "3e-4", "0o7", "0x1F", "1_000", "1:30", "2024-01-01", "<<", "=", "~", ".nan", "auto",
          "none", "chat", "a\nb", " ", "\u2028", "\x85", "\ufeff", "\0", "\ud800",
          "{instruction}\n", "{input}{instruction}"]  # fmt: skip
NUMBERS = st.integers() | st.sampled_from([0, 1, 10**400]) | st.floats() | st.floats(0, 1)
SCALARS = st.none() | st.booleans() | NUMBERS | st.sampled_from(TRICKY) | TEXTS
NAMES = st.sampled_from(["weights", "temperature", "by", "with_input", "without_input", "open", "closed_qa"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | TEXTS | st.integers(), inner, max_size=3),
    max_leaves=5,
)


def loaded(folder, text, *overrides):
    """What a file with this content is: a configuration, or the one line that says why it is none."""
    path = folder / "run.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    try:
        return load_config(path, overrides)
    except UserError as error:
        (line,) = str(error).splitlines()
        assert line.startswith(("command line: ", f"{path}: "))
        return line.removeprefix("command line: ").removeprefix(f"{path}: ")


@settings(max_examples=250, deadline=None)
@given(st.sampled_from(KEYS), VALUES)
@example(("model", "base"), "\x85")
def test_any_value_of_any_key_is_a_configuration_that_its_own_yaml_gives_back_or_one_line_that_names_it(key, value):
    section, name = key
    content = MINIMAL | {section: MINIMAL.get(section, {}) | {name: value}}
    with directory() as folder:
        found = loaded(folder, yaml.safe_dump(content))
        if isinstance(found, Config):
            assert loaded(folder, found.to_yaml()) == found
        else:
            assert f"{section}.{name}" in found or found.startswith(f"{section}: ")
        flow = yaml.safe_dump(value, default_flow_style=True)
        assert loaded(folder, yaml.safe_dump(MINIMAL), f"{section}.{name}={flow}") == found


SYNTAX = [*"[]{}:,-&*!|>?'\"#% \n\tab01.<~@`\\", "model", "lora: ", "!!int ", "&a ", "*a ", "%YAML 1.2\n", "---\n"]
MARKUP = st.lists(st.sampled_from([*SYNTAX, "<<", '"\\', "x41", "UFFFFFFFF"]), max_size=30).map("".join)


@settings(max_examples=100, deadline=None)
@given(st.binary() | MARKUP | VALUES.map(yaml.safe_dump), st.booleans())
@example("? [a]\n: b", False)
@example("model: &a [*a]", False)
@example("lora: {r: {!!binary YQ==: 1}}", True)
@example("lora: {r: !!bool a}", True)
@example("lora: {r: !!int ''}", True)
@example("x: " + "[" * 5000, False)
@example('"a\\nb": 1', True)
@example('"\\UFFFFFFFF"', False)
@example('"\\U00110000"', False)
def test_any_file_is_a_configuration_or_one_line(text, behind):
    text = text if isinstance(text, bytes) else text.encode()
    with directory() as folder:
        found = loaded(folder, yaml.safe_dump(MINIMAL).encode() * behind + text)
        if isinstance(found, Config):
            assert loaded(folder, found.to_yaml()) == found


@settings(deadline=None)
@given(st.text(st.sampled_from("=.") | st.characters(exclude_categories=["Cs"])) | MARKUP.map("lora.r={}".format))
@example("a\nb=1")
def test_any_override_is_a_configuration_or_one_line(text):
    with directory() as folder:
        loaded(folder, yaml.safe_dump(MINIMAL), text)


# Data

# Without what reading repairs or refuses: full-width spaces at the ends, debris of spreadsheets, words for nothing.
SOME = TEXTS.map(lambda text: re.sub("[\0\u3000#_]", "", text)).filter(
    lambda text: not is_blank(text) and not is_empty(text)
)
FIELDS = st.tuples(SOME, SOME.map(str.strip) | st.just(""), SOME, st.sampled_from(CATEGORIES))
EXAMPLES = st.lists(FIELDS, min_size=1, max_size=8).map(
    lambda rows: [Example(f"{n}番", *fields) for n, fields in enumerate(rows)]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
ROW_FIELDS = ("index", "instruction", "input", "context", "output", "response", "category", "answers")
ROWS = st.dictionaries(st.sampled_from(ROW_FIELDS), JSON | SOME | st.sampled_from(CATEGORIES))
LINES = (
    st.builds(lambda row, ascii: json.dumps(row, ensure_ascii=ascii).encode("utf-8", "replace"), ROWS, st.booleans())
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=20)
    .map(lambda line: line.replace(b"\n", b""))
    .filter(lambda line: line[:2] not in (b"\xff\xfe", b"\xfe\xff"))  # the mark of UTF-16, were it the first line
)


def fields(row):
    """The texts of an example, a row as its JSON has it."""
    return {name: getattr(row, name) for name in ("index", "instruction", "input", "output", "category")}


def as_jsonl(examples):
    return b"".join(json.dumps(fields(row), ensure_ascii=False).encode() + b"\n" for row in examples)


@settings(max_examples=120, deadline=None)
@given(EXAMPLES, st.lists(st.tuples(LINES, st.integers(0, 9))))
def test_a_line_is_a_row_with_its_texts_unchanged_or_a_counted_drop(examples, others):
    lines = as_jsonl(examples).splitlines(keepends=True)
    for line, place in others:
        lines.insert(place, line + b"\n")
    with directory() as folder:
        path = folder / "rows.jsonl"
        path.write_bytes(b"".join(lines))
        data = load_data(str(path))
    loaded = list(examples_of(data.rows))
    assert len(loaded) + sum(data.drop_counts.values()) == sum(bool(line.strip()) for line in lines)
    assert [row for row in loaded if row.index.endswith("番")] == examples
    given_rows = iter(lines)
    for row in loaded:  # each is said, text for text, by a line after that of the one before
        assert any(says(line, row) for line in given_rows)


def says(line, row):
    """Whether a line of a file gives the texts of an example."""
    try:
        given_row = json.loads(line.decode("utf-8-sig"))
    except ValueError:
        return False
    if not isinstance(given_row, dict):
        return False
    context, output = (
        given_row.get("input", given_row.get("context")),
        given_row.get("output", given_row.get("response")),
    )
    output = text_of(output) or next(iter(row.answers), "")
    texts = (
        given_row.get("instruction"),
        text_of(context),
        output,
        " ".join(text_of(whole_number(given_row.get("category"))).split()),
    )
    return texts == (row.instruction, row.input, row.output, row.category)


def text_of(value):
    """A text of a row, "" for what stands for none."""
    return value.strip("\u3000") if isinstance(value, str) and not is_blank(value) else ""


@settings(max_examples=60, deadline=None)
@given(EXAMPLES, st.data())
def test_every_format_gives_the_same_examples_and_a_hash_of_their_content_alone(examples, data):
    rows = list(map(fields, examples))
    table = io.StringIO()
    writer = csv.DictWriter(table, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    shuffled = [dict(data.draw(st.permutations(list(row.items())))) for row in rows]
    with directory() as folder:
        (folder / "a.jsonl").write_bytes(as_jsonl(examples))
        (folder / "b.jsonl").write_text("\n \n".join(map(json.dumps, shuffled)), encoding="utf-8")
        (folder / "c.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
        (folder / "d.csv").write_bytes(table.getvalue().encode())
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "e.parquet")
        loaded_data = [load_data(str(path)) for path in sorted(folder.iterdir())]
        for found in loaded_data:
            assert list(examples_of(found.rows)) == examples
            assert not found.drop_counts
        assert len({found.sha256 for found in loaded_data}) == 1
        changed = data.draw(st.integers(0, len(rows) - 1))
        rows[changed][data.draw(st.sampled_from(["index", "instruction", "input", "output"]))] += "。"
        (folder / "a.jsonl").write_text(json.dumps(rows[0]) + "\n" + "\n".join(map(json.dumps, rows[1:])))
        assert load_data(str(folder / "a.jsonl")).sha256 != loaded_data[0].sha256


# Prompts

SPECIAL = ("<s>", "</s>", "<|im_end|>")
PIECES = st.lists(st.sampled_from([*SPECIAL, "{", "}", "{instruction}", "{0}", "\n", "### 応答:"]) | TEXTS).map("".join)


LITERALS = PIECES.map(lambda text: text.replace("\0", ""))


def escaped(text):
    return text.replace("{", "{{").replace("}", "}}")


@settings(deadline=None)
@given(st.tuples(LITERALS, LITERALS, LITERALS), PIECES, PIECES.filter(bool))
def test_a_prompt_is_the_templates_text_with_the_rows_texts_verbatim_in_their_places(literals, instruction, context):
    before, between, after = map(escaped, literals)
    template = PromptTemplate(
        "x", f"{before}{{instruction}}{between}{{input}}{after}", f"{before}{{instruction}}{after}", SPECIAL, None
    )
    first, second, third = literals
    prompt = template.render(instruction, context)
    assert prompt == first + instruction + second + context + third
    assert template.render(instruction) == first + instruction + third
    assert FormattingFunction(template)({"instruction": instruction, "input": context, "output": "{}"}) == {
        "prompt": prompt, "completion": "{}",
    }  # fmt: skip
    # Where the template's own special tokens stand, and none that data brought.
    starts = [0, len(first + instruction), len(first + instruction + second + context)]
    tokens = re.compile("|".join(map(re.escape, SPECIAL)))
    own = [
        (start + found.start(), start + found.end())
        for start, literal in zip(starts, literals, strict=True)
        for found in tokens.finditer(literal)
    ]
    assert prompt.special_spans == tuple(own)
    with directory() as folder:
        template.save(folder)
        assert PromptTemplate.load(folder) == template
        assert template.render(instruction, context).special_spans == prompt.special_spans


SHORT = st.text("ab<", max_size=2)
TEMPLATES = st.builds(
    PromptTemplate, SHORT, SHORT, SHORT, st.none() | st.lists(SHORT, max_size=2).map(tuple), st.none() | st.just("a")
)


@settings(max_examples=100, deadline=None)
@given(TEMPLATES, TEMPLATES)
def test_templates_have_the_same_hash_when_they_have_the_same_texts(first, second):
    def texts(template):
        special = template.special_tokens
        return template.with_input, template.without_input, special, special is not None and (template.end or "")

    assert (first.sha256 == second.sha256) == (texts(first) == texts(second))


# Splits and epochs

CONTEXTS = st.sampled_from(["", "", "文脈", " 文脈", "文　脈", "文 脈", "ｶﾞ", "ガ", "ｶ\u3099"])
UNITS = st.lists(
    st.tuples(st.sampled_from(["問", "問い", "問 い"]), CONTEXTS, st.sampled_from(CATEGORIES[:3])), max_size=60
).map(lambda rows: [Example(str(n), text, context, "答", category) for n, (text, context, category) in enumerate(rows)])


def unit(row):
    text = " ".join(unicodedata.normalize("NFKC", row.input or row.instruction).split())
    return bool(row.input), text


def divided(rows, *shares):
    return [list(examples_of(side)) for side in split_rows(on_disk(rows), *shares)]


@settings(max_examples=100, deadline=None)
@given(UNITS, st.floats(0, 0.5), st.floats(0, 0.49), st.randoms(use_true_random=False))
@example(
    [Example("0", "問", "文脈", "答", "open_qa"), Example("1", "問", " 文脈", "答", "open_qa")], 0.4, 0.375, Random(0)
)
def test_sides_hold_every_row_once_and_no_unit_twice_whatever_the_order_and_the_others(rows, validation, test, draw):
    split = divided(rows, validation, test)
    assert sorted((row for side in split for row in side), key=lambda row: int(row.index)) == rows
    units = [{unit(row) for row in side} for side in split]
    assert sum(map(len, units)) == len(set.union(*units))
    for row in draw.sample(rows, min(3, len(rows))):  # whatever others there are
        assert [row in side for side in split] == [bool(side) for side in divided([row], validation, test)]
    assert divided(draw.sample(rows, len(rows)), validation, test) == split


WEIGHTS = st.dictionaries(st.sampled_from(CATEGORIES[:3]), st.floats(0, 4))


@settings(max_examples=100, deadline=None)
@given(UNITS, WEIGHTS, st.integers(0, 80))
def test_an_epoch_has_each_category_as_often_as_its_weight_says_and_its_beginning_in_proportion(rows, weights, limit):
    weights_of_kinds = named_weights(kind_counts(on_disk(rows)), weights)
    epoch = epoch_rows(on_disk(rows), weights_of_kinds, None)
    sizes = Counter(row.category for row in rows)
    wanted = {category: round(weights.get(category, 1) * n) for category, n in sizes.items()}
    assert {c: n for c, n in wanted.items() if n} == category_counts(epoch)
    for category, places in wanted.items():
        own = [row for row in rows if row.category == category]
        expected = Counter(own[place % len(own)] for place in range(places))
        assert Counter(row for row in examples_of(epoch) if row.category == category) == expected
    head = epoch_rows(on_disk(rows), weights_of_kinds, limit)
    assert len(head) == min(limit, len(epoch))
    for category, places in wanted.items():  # each within half a row of its quantile, which others' halves can move
        share = places / max(1, len(epoch))
        assert abs(category_counts(head)[category] - share * len(head)) <= 0.5 + len(wanted) * share / 2 + 1e-6


# Steps

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=40)
DIVISIONS = {"packed": lambda lengths, n: packed(lengths, n, 30), "padded": lambda lengths, n: padded(lengths, n, 3)}


@settings(max_examples=100, deadline=None)
@given(LENGTHS, st.integers(1, 12), st.sampled_from(sorted(DIVISIONS)), st.integers(0, 5), st.integers(0, 3))
def test_an_epochs_steps_hold_every_row_once_as_even_micro_batches_and_depend_on_seed_and_epoch_alone(
    lengths, step_rows, division, seed, epoch
):
    def steps(processes, process, done=0):
        steps_done = epoch * -(-len(lengths) // step_rows) + done
        return list(StepSampler(lengths, step_rows, DIVISIONS[division], seed, lambda: steps_done, process, processes))

    def rows_of(step):
        return sorted(row for members in step for row in members)

    alone = steps(1, 0)
    assert sorted(row for step in alone for row in rows_of(step)) == list(range(len(lengths)))
    assert all(len(rows_of(step)) == step_rows for step in alone[:-1])
    for processes in (2, 3):
        shares = [steps(processes, process) for process in range(processes)]
        for whole, *parts in zip(alone, *shares, strict=True):
            assert rows_of([members for part in parts for members in part]) == rows_of(whole)
            assert len(set(map(len, parts))) == 1
            for members in (members for part in parts for members in part):
                size = sum(lengths[row] for row in members) if division == "packed" else len(members)
                assert size <= (30 if division == "packed" else 3)
    torch.manual_seed(len(lengths))  # the global random state has no say
    assert steps(1, 0) == steps(1, 0, done=len(alone) - 1) == alone


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(1, 9), max_size=4), max_size=4), st.integers(1, 8))
def test_a_steps_batch_counts_the_rows_tokens_and_not_the_filler(micro_batches, multiple):
    def row(number, length):
        return {"index": str(number), "input_ids": [7] * length, "labels": [7] * length}

    rows = [[row(f"{n}.{place}", length) for place, length in enumerate(ls)] for n, ls in enumerate(micro_batches)]

    def collate(members):
        labels = [label for row in members for label in row["labels"]]
        return {"members": members, "labels": torch.tensor([labels])}

    batch = StepCollator(collate, 0, multiple)(rows)
    assert batch["tokens"] == sum(map(sum, micro_batches))
    assert batch["rows"] == [[row["index"] for row in members] for members in rows]
    for members, made in zip(rows, batch["micro_batches"], strict=True):
        own, filler = made["members"][: len(members)], made["members"][len(members) :]
        assert own == [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in members]
        assert all(set(row["input_ids"]) == {0} and set(row["labels"]) == {IGNORE_INDEX} for row in filler)
        total = sum(len(row["input_ids"]) for row in made["members"])
        assert total % multiple == 0
        assert total > 0
        assert len(filler) <= 1


# Checkpoints

FILES = st.dictionaries(
    st.sampled_from(["adapter.bin", "state.json", "rng/0.pth", "a/b/c", f"old/{RECORD}", "余白 .txt"]),
    st.binary(max_size=30), min_size=1,
)  # fmt: skip


def written(checkpoints, step, files, run_id="ours"):
    """A completed checkpoint, but for the time it takes to be on the disk."""
    aside = checkpoints / ASIDE / f"checkpoint-{step}"
    for name, content in files.items():
        (aside / name).parent.mkdir(parents=True, exist_ok=True)
        (aside / name).write_bytes(content)
    with patch("os.fsync"):
        complete(aside, run_id)
    return checkpoints / aside.name


def damage(checkpoint, kind, name, draw):
    """Do one thing to a file of a checkpoint; for `added`, to none."""
    path = checkpoint / name
    if kind == "added":
        path = checkpoint / draw(st.sampled_from(["new", ".new", "rng/new", f"rng/{RECORD}", "a/new/er"]))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw(st.binary(max_size=3)))
        return
    content = path.read_bytes()
    if kind == "flipped":
        place = draw(st.integers(0, len(content) - 1))
        changed = content[:place] + bytes([content[place] ^ draw(st.integers(1, 255))]) + content[place + 1 :]
    elif kind == "cut off":
        changed = content[: draw(st.integers(0, len(content) - 1))]
    if kind in ("flipped", "cut off"):
        path.write_bytes(changed)
        return
    path.unlink()
    if kind == "a link":
        copy = checkpoint.parent / "copy"
        copy.write_bytes(content)
        path.symlink_to(draw(st.sampled_from([copy, checkpoint / "nowhere"])))
    elif kind == "a directory":
        path.mkdir()


def same_record(checkpoint, before):
    """Whether the record says what it said: its white space may change."""
    try:
        return json.loads((checkpoint / RECORD).read_bytes()) == before
    except (OSError, ValueError):
        return False


@settings(max_examples=100, deadline=None)
@given(FILES, st.sampled_from(["flipped", "cut off", "removed", "added", "a link", "a directory"]), st.data())
def test_a_checkpoint_that_is_not_as_it_was_written_is_passed_over_for_the_one_before(files, kind, data):
    with directory() as checkpoints:
        before = written(checkpoints, data.draw(st.integers(0, 9)), files)
        newest = written(checkpoints, data.draw(st.integers(10, 1000)), files)
        assert newest_whole(checkpoints, "ours") == newest_whole(checkpoints) == newest
        changeable = [n for n in [*files, RECORD] if kind not in ("flipped", "cut off") or files.get(n, b"{")]
        assume(changeable)
        name = data.draw(st.sampled_from(sorted(changeable)))
        record = json.loads((newest / RECORD).read_bytes())
        damage(newest, kind, name, data.draw)
        assume(name != RECORD or kind not in ("flipped", "cut off") or not same_record(newest, record))
        assert newest_whole(checkpoints, "ours") == before


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.integers(0, 200), st.sampled_from(["ours", "theirs", "unrecorded"]), min_size=1))
def test_the_newest_checkpoint_is_the_runs_own_of_the_most_steps(steps):
    with directory() as checkpoints:
        for step, run_id in steps.items():
            path = written(checkpoints, step, {"x": b"x"}, run_id)
            if run_id == "unrecorded":
                (path / RECORD).unlink()
        for whose in ("ours", "theirs"):
            own = [step for step, run_id in steps.items() if run_id == whose]
            if own:
                assert newest_whole(checkpoints, whose).name == f"checkpoint-{max(own)}"
            else:
                with pytest.raises(UserError, match="no whole checkpoint"):
                    newest_whole(checkpoints, whose)


@settings(max_examples=30, deadline=None)
@given(JSON | st.fixed_dictionaries({"run": st.just("ours"), "files": JSON}))
@example({"run": "ours", "files": [[1, 2]]})
def test_a_record_that_holds_anything_else_is_damaged(record):
    with directory() as checkpoints:
        before, newest = (written(checkpoints, step, {"x": b"x"}) for step in (1, 2))
        (newest / RECORD).write_text(json.dumps(record))
        assert newest_whole(checkpoints, "ours") == before


def test_a_checkpoint_that_cannot_be_read_is_passed_over(tmp_path):
    before, newest = (written(tmp_path, step, {"x": bytes([step])}) for step in (1, 2))
    digest = hashlib.file_digest

    def broken_disk(file, name):
        if Path(file.name).parent == newest:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return digest(file, name)

    with patch("hashlib.file_digest", broken_disk):
        assert newest_whole(tmp_path, "ours") == before


# Answers


@st.composite
def penalised(draw):
    """Prompts, for each of `copies` rows a prompt an answer of the same length, and scores of the next tokens."""
    prompts = draw(st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=5), min_size=1, max_size=3))
    copies, length = draw(st.integers(1, 2)), draw(st.integers(0, 4))
    rows = len(prompts) * copies
    answers = [draw(st.lists(st.integers(0, 6), min_size=length, max_size=length)) for _ in range(rows)]
    score = st.floats(-9, 9, width=32) | st.just(-float("inf"))
    return prompts, answers, [draw(st.lists(score, min_size=7, max_size=7)) for _ in range(rows)], copies


@settings(max_examples=100, deadline=None)
@given(penalised(), st.floats(0.5, 5), st.sampled_from(["generated", "all"]))
def test_the_penalty_is_that_of_a_loop_over_the_tokens_that_occurred(case, penalty, scope):
    prompts, answers, scores, copies = case
    width = max(map(len, prompts))
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    repeated = [prompt for prompt in prompts for _ in range(copies)]
    ids = [[6] * (width - len(prompt)) + prompt + answer for prompt, answer in zip(repeated, answers, strict=True)]
    processor = ScopedRepetitionPenalty(penalty, scope, mask)
    given_scores = torch.tensor(scores)
    expected = given_scores.clone()
    for row, (prompt, answer) in enumerate(zip(repeated, answers, strict=True)):
        for token in set(answer) | (set(prompt) if scope == "all" else set()):
            score = given_scores[row, token]
            expected[row, token] = score * penalty if score < 0 else score / penalty
    assert torch.equal(processor(torch.tensor(ids), given_scores), expected)


@settings(deadline=None)
@given(st.lists(st.integers(1, 50)), st.integers(1, 20), st.integers(1, 300))
def test_batches_hold_every_prompt_once_and_as_many_as_the_budget_allows(lengths, new_tokens, budget):
    prompts = [[0] * length for length in lengths]
    found = list(batches(prompts, new_tokens, budget))
    places = [place for batch in found for place in batch]
    assert sorted(places) == list(range(len(lengths)))
    assert [lengths[place] for place in places] == sorted(lengths, reverse=True)
    for batch in found:
        widest = lengths[batch[0]] + new_tokens
        assert len(batch) == 1 or len(batch) * widest <= budget
        assert batch is found[-1] or (len(batch) + 1) * widest > budget


@settings(deadline=None)
@given(st.text())
def test_what_is_shown_has_no_control_characters_and_is_otherwise_the_text(text):
    shown = visible(text)
    assert all(character in "\n\t" or unicodedata.category(character) != "Cc" for character in shown)

    def letters(text):
        return [character for character in text if unicodedata.category(character)[0] in "LNP"]

    assert letters(shown) == letters(text)
