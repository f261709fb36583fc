"""Every command, killed at every renaming and beside every other command; every file of a run and every word damaged.

`make test-faults` runs all of it; `make test` the parts that take seconds.
"""

import itertools
import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from made_up import answers

from eval.predictions import Prediction, write_predictions
from eval.scoring.rows import row_scores
from sft.data.records import Example
from sft.run.directory import check_learned, require_finished
from sft.run.provenance import provenance_of

ROOT = Path(__file__).parents[1]
FEW = ["eval.rows_per_category=1", "generation.max_new_tokens=3", "eval.resamples=20", "generation.temperature=0"]
TRAINING = ["training.eval_strategy=no", "training.learning_rate=1e-2", "training.save_steps=1", "data.train_rows=64"]

COMMANDS = {
    "train": lambda run: ["train_sft", run.parent / "config.yaml", f"run.directory={run}", *TRAINING, "--force"],
    "eval": lambda run: ["eval.__main__", run, *FEW],
    "sweep": lambda run: ["eval.__main__", "sweep", run, *FEW, "generation.repetition_penalty=[1.0,5.0]"],
    "infer": lambda run: ["infer", run, "--jsonl", run / "questions.jsonl", "--output", run.parent / "answers.jsonl",
                          "generation.max_new_tokens=3", "generation.temperature=0"],
    "export": lambda run: ["sft.export.__main__", run, "--base-id", "none"],
    "merge": lambda run: ["sft.export.__main__", run, "--merge"],
    "compare": lambda run: ["eval.__main__", "compare", f"{run}:tuned", f"{run}:base"],
    "rate": lambda run: ["eval.__main__", "rate", f"{run}:tuned", f"{run}:base"],
}  # fmt: skip

KILLER = """
import importlib, os, pathlib, sys
number, after, module, *words = sys.argv[1:]
calls = iter(range(1, 1000))

def killing(does):
    def at_a_moment(*arguments, **named):
        ours = next(calls) == int(number)
        if ours and after == "before":
            os._exit(9)
        found = does(*arguments, **named)
        if ours:
            os._exit(9)
        return found
    return at_a_moment

os.replace, os.link, os.unlink = killing(os.replace), killing(os.link), os.unlink
pathlib.Path.rename = killing(pathlib.Path.rename)
sys.argv = [module, *words]
importlib.import_module(module).main()
"""


@pytest.fixture
def run(trained_run, tmp_path) -> Path:
    """A finished run with questions beside it and answers in it."""
    run = shutil.copytree(trained_run, tmp_path / "run")
    shutil.copyfile(run / "config.yaml", tmp_path / "config.yaml")
    rows = [{"instruction": f"{number}の首都は?"} for number in range(3)]
    (run / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "eval").mkdir()
    write_predictions([*answers("base", 1), *answers("tuned", 3)], run / "eval" / "predictions.jsonl")
    return run


def start(words, *before: str) -> subprocess.Popen:
    command = [sys.executable, "-c", KILLER, *before, *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def left_behind(directory: Path) -> list[str]:
    """Hidden files and directories that no later command would want."""
    kept = re.compile(r"\.(.*\.lock|answers.jsonl.unfinished-0)")
    return [path.name for path in directory.rglob(".*") if not kept.fullmatch(path.name)]


def check_whole(run: Path) -> None:
    """Raise what a command would raise whose run is not whole, or whose results are of other answers."""
    check_learned(run, require_finished(run))
    results = run / "eval" / "results.json"
    if results.is_file():
        about = json.loads(results.read_text(encoding="utf-8"))["about"]
        assert about is None or provenance_of(run / "eval" / "predictions.jsonl") is not None


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_was_killed_at_any_renaming_does_the_same_when_it_is_called_again(
    run, tmp_path, program, name, moment
):
    if name in ("eval", "sweep"):
        shutil.rmtree(run / "eval")
    kept = shutil.copytree(run, tmp_path / "kept")
    counts = 0
    for number in itertools.count(1):
        for path in (run, tmp_path / "answers.jsonl"):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        shutil.copytree(kept, run)
        process = start(COMMANDS[name](run), str(number), moment)
        _, said = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == 9, said
        counts += 1
        again = program(*COMMANDS[name](run))
        finished = "is there already" in again.stderr or "exists already" in again.stderr
        assert again.returncode == 0 or (again.returncode == 2 and finished), again.stderr
        check_whole(run)
        assert not left_behind(tmp_path) or finished
    print(f"\n{name}, {moment}: {counts} kills")
    assert counts


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_resumed_training_that_is_killed_at_any_renaming_learns_the_same(run, tmp_path, program, moment):
    learned = (run / "adapter" / "adapter_model.safetensors").read_bytes()
    begin = COMMANDS["train"](run)
    for number in itertools.count(1):
        start(begin, str(number), "before").communicate()
        if (run / "checkpoints" / "checkpoint-1").is_dir() and not (run / "adapter").exists():
            break
    kept = shutil.copytree(run, tmp_path / "kept")
    resume = [*begin[:-1], "--resume"]
    counts = 0
    for number in itertools.count(1):
        shutil.rmtree(run)
        shutil.copytree(kept, run)
        process = start(resume, str(number), moment)
        _, said = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == 9, said
        counts += 1
        again = program(*resume)
        finished = "this run has finished" in again.stderr
        assert again.returncode == 0 or (again.returncode == 2 and finished), again.stderr
        check_whole(run)
        assert (run / "adapter" / "adapter_model.safetensors").read_bytes() == learned
        assert not left_behind(tmp_path) or finished
    print(f"\nresume, {moment}: {counts} kills")
    assert counts


@pytest.mark.slow
@pytest.mark.parametrize("pair", itertools.combinations_with_replacement(COMMANDS, 2), ids="+".join)
def test_two_commands_at_once_do_their_work_or_say_a_line(run, tmp_path, pair):
    processes = [start(COMMANDS[name](run), "0", "before") for name in pair]
    for process in processes:
        _, said = process.communicate()
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        assert (process.returncode, len(errors)) in ((0, 0), (2, 1)), said
        assert "Traceback" not in said
    check_whole(run)
    assert not left_behind(tmp_path)


def damaged(content: bytes, seed: int) -> bytes:
    """The content with one thing wrong with it."""
    draw = random.Random(seed)
    at = draw.randrange(len(content) + 1)
    first, other, rest = content[:at], bytes(draw.randrange(256) for _ in range(draw.choice([1, 8, 300]))), content[at:]
    return draw.choice(
        [first, rest, first + other + rest, first + other + rest[len(other) :],
         b"", b"null", b"[]", b"{}", content + content, content.replace(b"0", b"-1"), content.replace(b'"', b"")]
    )  # fmt: skip


def each_file_damaged(run, program, seeds):
    commands = [COMMANDS[name] for name in ("eval", "export", "compare")]
    commands.append(lambda run: ["infer", run, "--instruction", "首都は?", "generation.max_new_tokens=2"])
    count = 0
    for path in sorted(path for path in run.rglob("*") if path.is_file() and "checkpoints" not in path.parts):
        whole = path.read_bytes()
        for seed in seeds:
            path.write_bytes(damaged(whole, seed))
            command = commands[seed % len(commands)](run)
            result = program(*command)
            assert result.returncode in (0, 2), (path, seed, command, result.stderr)
            path.write_bytes(whole)
            count += 1
    print(f"\n{count} damaged files")


def test_a_damaged_file_of_a_run_is_a_line(run, program):
    each_file_damaged(run, program, range(2))


@pytest.mark.slow
def test_many_damaged_files_of_a_run_are_a_line(run, program):
    each_file_damaged(run, program, range(40))


def test_a_damaged_rating_sheet_is_a_line(run, program):
    assert program(*COMMANDS["rate"](run)).returncode == 0
    (sheet,) = run.rglob("sheet.csv")
    sheet.write_text(re.sub(r",,(?=\r?$)", ",1,", sheet.read_text(encoding="utf-8-sig"), flags=re.M), "utf-8-sig")
    for path in (sheet, sheet.with_name("sheet.key.json")):
        whole = path.read_bytes()
        for seed in range(40):
            path.write_bytes(damaged(whole, seed))
            result = program("eval.__main__", "rate", "--collect", sheet)
            assert result.returncode in (0, 2), (path.name, seed, result.stderr)
            path.write_bytes(whole)
    result = program("eval.__main__", "rate", "--collect", sheet)
    assert result.returncode == 0, result.stderr
    groups = json.loads(sheet.with_name("preferences.json").read_text(encoding="utf-8"))["groups"]
    assert sum(group["first"] + group["second"] for group in groups.values()) == 32


WORDS = (
    "", "=", ".", "..", "/", "-", "--", "--force", "--resume", "--output", "--merge", "--base", "--jsonl", "--collect",
    "a=b", "model.base=", "model=1", "generation.temperature=NaN", "generation.temperature=[0,1]",
    "eval.data=/dev/null", "eval.seed=-1", "eval.resamples=1e99", "data.path=.", "run.directory=", "generation={}",
    "lora=null", "x" * 300, "答え" * 90, "--\x1b[2J", "\x1b[2J", "\u202e", "-1", "~", "*",
    "eval.rows_per_category=0", "generation.max_new_tokens=99999999",
    "generation.stop_strings=[1]", "quantization=4", "model.device=tpu", "prompt.template={}", "training.max_length=0",
)  # fmt: skip


def any_words(run, program, count):
    draw = random.Random(0)
    words = (run.parent / "words").absolute()
    words.mkdir()  # some of them become names of directories
    for _ in range(count):
        command = [*COMMANDS[draw.choice([*COMMANDS])](run)]
        for _ in range(draw.choice([1, 2, 3])):
            command.insert(draw.randrange(1, len(command) + 1), draw.choice(WORDS))
        if command[0] == "train_sft":
            command.append("--dry-run")
        result = program(*command, cwd=words)
        assert result.returncode in (0, 2), (command, result.stderr)
        assert not set("\x1b\u202e") & set(result.stdout + result.stderr), command


def test_any_words_on_a_command_line_end_in_a_line(run, program):
    any_words(run, program, 60)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_name_that_is_too_long_for_the_disk_is_a_line(name, run, program):
    result = program(*(str(word).replace(str(run), "x" * 300) for word in COMMANDS[name](run)))
    assert (result.returncode, "Traceback" in result.stderr) == (2, False), result.stderr
    assert "name" in result.stderr


@pytest.mark.slow
def test_many_words_on_a_command_line_end_in_a_line(run, program):
    any_words(run, program, 2000)


EXTREMES = {
    "letters": "a" * 200_000, "kana": "あ" * 60_000, "katakana": "ア" * 30_000, "digits": "1" * 30_000,
    "numerals": "百" * 30_000, "dates": "1981年7月" * 5_000, "dots": "…" * 10_000, "spaces": " " * 200_000,
    "stops": "。" * 200_000, "lines": "\n" * 200_000, "marks": "は\u3099" * 50_000, "one long word": "\ufdfa" * 10_000,
    "surrogates": "\ud800" * 1_000, "nothing": "", "controls": "\x00\x1b\x7f" * 1_000, "emoji": "👨‍👩‍👧" * 4_000,
}  # fmt: skip


LONGEST = "letters", "one long word", "spaces", "stops", "lines"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in LONGEST else []) for name in EXTREMES]
)
def test_a_text_of_any_kind_and_length_is_scored(name):
    text = EXTREMES[name]
    whole = {"answer": "東京です。1981年", "context": "東京は1981年に生まれた。", "reference": "東京です。"}
    for where in whole:
        texts = whole | {where: text}
        row = Example("1", "問い", texts["context"], texts["reference"], "closed_qa")
        answer = Prediction("tuned", row, "質問", texts["answer"], "eos", 9, 4, {}, reference_nll=9.0)
        assert row_scores(answer).keys() >= {"character_f1", "rouge_l"}
