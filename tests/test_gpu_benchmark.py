"""The benchmark for a GPU, as far as it runs without one: every part in its short form, the time, the table."""

import dataclasses
import shutil
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import run, step
from benchmarks.gpu.measures import exactness, training, weights
from benchmarks.gpu.measures.card import datasheet_tflops
from benchmarks.gpu.parts import PARTS, Part, deadlines, missing
from benchmarks.gpu.results import Result, append, read
from benchmarks.gpu.table import document, utilisation
from benchmarks.gpu.work import TINY, Work
from sft.plan.memory import flops_per_token
from sft.prompt.encoded_rows import row_lengths
from sft.system.errors import UserError


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A tiny model and its rows. In one thread: two would wait for each other longer than they work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    base = tmp_path_factory.mktemp("gpu") / "base"
    weights.build(base, TINY, "data/sample.jsonl", torch.device("cpu"))
    yield Work(torch.device("cpu"), TINY, str(base), "data/sample.jsonl")
    torch.set_num_threads(threads)


@pytest.fixture
def real_rows_like(tmp_path) -> Path:
    """The sample's rows under another name."""
    return shutil.copy("data/sample.jsonl", tmp_path / "rows.jsonl")


@pytest.mark.slow
def test_every_part_runs_in_its_short_form_or_says_why_not(work, tmp_path, monkeypatch):
    monkeypatch.setattr("sft.training.train.use_all_cores", lambda: None)
    results = tmp_path / "results.jsonl"
    for part in PARTS:
        # One whole training stands for all three here.
        run.record(part._replace(measures=part.measures[:1]) if part.name == "24 GB" else part, work, results)
    found = read(results)
    others = {(one.part, one.name): one for one in found if one.status != "measured"}
    varlen = {(part, name) for part, name in others if "varlen" in name}
    assert varlen == {("exactness", "bf16 varlen"), ("bf16", "varlen"), ("nf4", "varlen"), ("int8", "varlen")}
    assert others.keys() - varlen == {("weights", "random weights")}
    assert all(one.status == "skipped" and one.reason for one in others.values())
    text = document(found)
    for one in found:
        assert one.name in text or one.name == "a product", one
    # Packed rows are told from rows that see each other, and by a wide margin.
    off = {one.name: one.values["gradient_off"] for one in found if one.part == "exactness" and one.values}
    assert off["fp32 documents"] < 1e-5
    assert off["bf16 documents"] < 0.1 * off["bf16 rows that see each other"]


def test_the_samples_rows_are_as_long_as_wanted_and_other_rows_as_they_are(work, real_rows_like):
    assert list(row_lengths(work.encoded()[1])) == list(TINY.row_tokens)
    own = list(row_lengths(dataclasses.replace(work, data=str(real_rows_like)).encoded()[1]))
    assert len(own) == len(TINY.row_tokens)
    assert own != list(TINY.row_tokens)


def test_the_arithmetic_of_a_token_is_that_of_its_matrices(work):
    width, layers, vocabulary = 64, 2, 1024
    # Query, key and value 3, output 1, and the two of the MLP 4 each, times width²; forward, and backward to the input.
    by_hand = 4 * (layers * 12 * width**2 + vocabulary * width)
    assert flops_per_token(training.skeleton(work), checkpointing=False) == by_hand
    assert utilisation(1e9, by_hand, 1000.0) == pytest.approx(1e9 * by_hand / 1e15)
    assert utilisation(1e9, by_hand, None) is None


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA GeForce RTX 3090", 71), ("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H200", 989), ("Tesla T4", 65), ("NVIDIA A100-PCIE-40GB", 312),
        ("NVIDIA H100 PCIe", None), ("NVIDIA TITAN", None),
    ],
)  # fmt: skip
def test_a_card_has_the_peak_of_its_data_sheet_or_none(name, tflops):
    assert datasheet_tflops(name) == tflops


@pytest.mark.parametrize(
    ("dtype", "form", "off", "right"),
    [
        ("fp32", "dense", 1e-4, True), ("fp32", "dense", 1e-2, False), ("bf16", "varlen", 9e-3, True),
        ("bf16", "varlen", 2e-2, False), ("bf16", exactness.LEAKING, 2e-2, True),
        ("bf16", exactness.LEAKING, 1e-2, False),
    ],
)  # fmt: skip
def test_a_gradient_is_right_where_it_is_as_near_to_fp32_as_that_of_rows_alone(dtype, form, off, right):
    assert (exactness.problem(dtype, form, off, alone=5e-3) == "") == right


def test_parts_have_the_whole_time_and_none_takes_a_later_ones():
    ends = dict(deadlines(480))
    assert list(ends) == list(PARTS)
    assert list(ends.values()) == sorted(ends.values())
    assert ends[PARTS[-1]] == 480
    assert dict(deadlines(48))[PARTS[0]] == ends[PARTS[0]] / 10


PART = Part("one", 10, "nowhere", ("first", "second"), ())


def test_a_part_is_ended_when_its_time_is_over_and_what_it_measured_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "SHORTEST", 1.0)
    results, log = tmp_path / "results.jsonl", tmp_path / "log.txt"
    code = (
        "import pathlib, time; from benchmarks.gpu.results import Result, append; "
        f"append(pathlib.Path({str(results)!r}), Result('one', 'first', 'measured')); time.sleep(60)"
    )
    run.run_part(PART, [sys.executable, "-c", code], 4, results, log)
    first, second = read(results)
    assert first == Result("one", "first", "measured")
    assert (second.status, second.reason) == ("no time", "ended after 4 s")
    assert "one, second: no time: ended after 4 s" in document([second])


def test_what_cannot_be_measured_is_named(tmp_path):
    results, log = tmp_path / "results.jsonl", tmp_path / "log.txt"
    never = [sys.executable, "-c", "raise SystemExit('run all the same')"]
    run.run_part(PART._replace(needs=("no_such_package", "torch")), never, 60, results, log)
    run.run_part(PART, never, run.SHORTEST, results, log)
    run.run_part(PART, [sys.executable, "-c", "raise SystemExit(3)"], 60, results, log)
    found = [(one.name, one.status, one.reason.split(";")[0]) for one in read(results)]
    reasons = ("skipped", "not installed: no_such_package"), ("no time", "earlier parts took it all")
    assert found == [
        (name, *why) for why in (*reasons, ("failed", "the process ended with 3")) for name in PART.measures
    ]
    assert missing(PART) is None


def test_a_measure_that_fails_keeps_no_other_from_being_measured(tmp_path, monkeypatch, capsys):
    def measures(work, part):
        def broken():
            raise torch.OutOfMemoryError("CUDA out of memory\nmore")

        yield "first", broken
        yield "second", lambda: {"seconds": 1.0, "problem": "not as it should be"}
        raise ValueError("the next model is not to be loaded")

    results = tmp_path / "results.jsonl"
    monkeypatch.setattr(run.importlib, "import_module", lambda name: type("Module", (), {"measures": measures}))
    run.record(PART._replace(measures=("first", "second", "third", "fourth")), None, results)
    third = Result("one", "third", "failed", "ValueError: the next model is not to be loaded")
    assert read(results) == [
        Result("one", "first", "out of memory", "CUDA out of memory"),
        Result("one", "second", "failed", "not as it should be", {"seconds": 1.0}),
        third, third._replace(name="fourth"),
    ]  # fmt: skip


def test_a_varlen_kernel_of_another_kind_is_named(monkeypatch):
    monkeypatch.setattr(step, "varlen_attn", lambda query, key, value, is_causal: None)
    with pytest.raises(UserError, match="has no enable_gqa, scale, window_size"):
        step.attending(None, "varlen")


def test_a_training_that_breaks_off_has_failed_and_is_not_left_out():
    class Trainer:
        def train(self):
            raise UserError("the loss became nan at step 1")

    with pytest.raises(RuntimeError, match="the loss became nan"):
        step.train(Trainer())


def test_a_line_that_a_kill_cut_off_is_no_result(tmp_path):
    results = tmp_path / "results.jsonl"
    append(results, Result("bf16", "dense", "measured"))
    with results.open("a", encoding="utf-8") as file:
        file.write('{"part": "bf16", "na')
    assert read(results) == [Result("bf16", "dense", "measured")]


def test_the_command_shows_what_it_has_after_each_part_and_fails_with_a_failure(program, monkeypatch, tmp_path):
    shown = tmp_path / "results.md"

    def parts(words, seconds, results, log):
        assert words[:2] == ["--device", "cpu"]
        append(results, Result("bf16", "dense", "out of memory", "as expected"))
        if measured:
            append(results, Result("exactness", "fp32 dense", "measured"))
        yield PARTS[0]
        assert "out of memory: as expected" in shown.read_text(encoding="utf-8")
        if failing:
            append(results, Result("exactness", "bf16 dense", "failed", "off"))
            yield PARTS[1]

    monkeypatch.setattr(run, "run_parts", parts)
    for measured, failing in ((True, False), (True, True), (False, False)):
        words = ["--device", "cpu", "--tiny", "--output", tmp_path]
        done = program("benchmarks.gpu.__main__", *words)
        assert done.returncode == (failing or not measured), done.stderr
        assert ("failed: off" in done.stdout) == failing


def test_without_a_gpu_it_says_so_in_one_line(program, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for words in ([], ["--device", "cpu"]):
        done = program("benchmarks.gpu.__main__", *words)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--base", "no/such/model"], "model no/such/model: "),
        (["--data", "no-such.jsonl"], "no-such.jsonl: no such data file"),
        (["--seconds", "0"], "--seconds: at least one second"),
        (["--seconds", "nan"], "--seconds: at least one second"),
    ],
)
def test_what_cannot_be_measured_at_all_is_a_line_before_anything_is_run(words, found, program, monkeypatch, tmp_path):
    monkeypatch.setattr(run, "run_parts", lambda *_: pytest.fail("a part was run"))
    done = program("benchmarks.gpu.__main__", "--device", "cpu", "--tiny", "--output", tmp_path / "out", *words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {found}"), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
