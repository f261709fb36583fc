"""Every command of every page is run on the tiny model, or stands in a list with what keeps it from being run."""

import csv
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from stub_server import chat, serving

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample.jsonl"
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for place in (ROOT, ROOT / "docs", ROOT / "docs" / "ja", ROOT / "studies" / "context_qa")
    for path in place.glob("*.md")
)
JAPANESE = [page for page in PAGES if page.startswith("docs/ja/") or page.endswith(".ja.md")]
ENGLISH = [page for page in PAGES if page not in JAPANESE]
RUN_ELSEWHERE = ("docs/your-data.md", "docs/preferences.md")
"""Pages whose commands another test runs, in their order: test_your_data, and one below."""
SLOW = ("studies/context_qa/README.md", "docs/evaluation.md")

PROGRAMS = (
    "accelerate|calm-[a-z]+|cd|cmake|conda|curl|docker|git|hf|llama-server|make|nvidia-smi|ollama|pip|pip3|podman"
)
PROGRAMS += r"|python|python3|sh|torchrun|trl|uv|vllm|\.venv/bin/\w+|[A-Z_]+=\S* \w+"
"""How a line of an indented block begins that is a command."""

NOT_RUN = {
    "make ": "asked what it would do: test_every_make_target_is_there",
    "accelerate launch train_sft.py CONFIG": "the general form",
    "python train_sft.py CONFIG": "the general form",
    "python train_sft.py configs/tiny.yaml run.directory=runs/a --resume": "of a run that was stopped: test_faults",
    "python infer.py runs/a --web": "opens a page: test_page, in a browser",
    "python -m sft.export RUN --gguf": "needs llama.cpp: test_gguf, test_serve",
    "python -m sft.export runs/A --merge --push": "needs a hub: test_upload",
    "python studies/context_qa/study.py studies/context_qa/gemma3-270m.yaml": "hours: test_study loads the file",
    "python -m studies.context_qa.forensics": "of an article of yours: test_study",
    "python -m studies.context_qa.distractors": "of data that is not shipped: test_distractors",
    "python -m studies.context_qa.report": "of scores that are there: test_study",
    "python -m benchmarks.gpu": "minutes: test_gpu_benchmark",
    "trl dpo": "TRL's own: test_preferences_are_trained_as_the_page_says",
    "pip install": "changes what the tests run in: test_install builds and installs the package without a network",
    ".venv/bin/python -m pip": "needs PyTorch's index",
    "calm-train": "needs the installed package: test_install",
    "podman build": "needs a container engine: test_install runs what it would",
    "git clone": "llama.cpp's own",
    "cmake": "llama.cpp's own",
    "llama-server": "llama.cpp's own: test_serve",
    "cd RUN/export/merged": "Ollama's own",
    "curl": "asks a server: test_serve sends the same",
}
"""How a command begins that is not run, and why."""

BEFORE = {
    "docs/evaluation.md": ("python -m eval runs/B",),
    "docs/ja/reading-the-report.md": ("python -m eval runs/faq",),
}
"""What has to have happened before a page's commands, beside a finished training."""

ROWS = [
    {"index": day, "instruction": "休みは？", "input": f"{day}は休みです。", "output": day, "category": "closed_qa"}
    for day in ("月曜日", "火曜日")
]
CHOICES = {f"choice{n}": text for n, text in enumerate(("犬", "猫", "鳥", "魚", "虫"))}
BENCHMARKS = {
    "jsquad": {"question": "休みは？", "context": "月曜日は休みです。", "answers": ["月曜日"]},
    "niilc": {"text": "七草は何種類？", "answers": ["7種"]},
    "jcommonsenseqa": {"question": "ほえるのは？", **CHOICES, "label": 0},
}
"""A row of each benchmark as its authors have it, since there is no hub."""


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def commands(page: str) -> list[str]:
    """The commands of a page in their order, without comments, each on one line."""
    text = re.sub(r" \\\n +", " ", read(page))
    lines = re.findall(rf"^    ((?:{PROGRAMS}) .+)$", text, re.MULTILINE)
    return [" ".join(re.sub(r"\s# .*", "", line).split()) for line in lines]


def left_out(line: str) -> bool:
    """Whether a command is among those that are not run."""
    return line.startswith(tuple(NOT_RUN))


RUN_HERE = [
    page for page in ENGLISH if page not in RUN_ELSEWHERE and any(not left_out(line) for line in commands(page))
]
"""Pages of which every command is run, or listed above; Japanese ones have no command of their own."""


def test_every_reason_not_to_run_a_command_is_of_a_command():
    every = [line for page in PAGES for line in commands(page)]
    assert not [known for known in NOT_RUN if not any(line.startswith(known) for line in every)]


@pytest.mark.parametrize("page", JAPANESE)
def test_what_a_japanese_page_has_to_be_typed_stands_in_an_english_one_and_is_run(page):
    """Comments may differ."""
    english = "\n".join(read(other) for other in ENGLISH)
    for line in re.findall(r"^    (.+)$", read(page), re.MULTILINE):
        assert re.sub(r" +# .*", "", line).strip() in english, f"{page}: {line}"
    run = {line for other in (*RUN_HERE, *RUN_ELSEWHERE) for line in commands(other)}
    assert not [line for line in commands(page) if line not in run and not left_out(line)]


@pytest.fixture
def page_of(tmp_path, trained_run, monkeypatch) -> Callable[[str], Path]:
    """Makes a directory in which a page's commands find what the page speaks of; returns it."""

    def make(page: str) -> Path:
        for name in ("configs", "data"):
            (tmp_path / name).symlink_to(ROOT / name)
        trained = {trained_by(line) for line in commands(page)}
        for run in {"RUN", *re.findall(r"runs/[\w-]+", read(page))} - trained:
            shutil.copytree(trained_run, tmp_path / run)
        elsewhere = shutil.ignore_patterns("prompt_template.json")
        shutil.copytree(trained_run / "adapter", tmp_path / "DIR", ignore=elsewhere)
        rows = "".join(json.dumps(row | {"answers": [row["output"]]}, ensure_ascii=False) + "\n" for row in ROWS)
        held_out = set(json.loads((trained_run / "split.json").read_text())["test"])
        with (tmp_path / "faq.jsonl").open("w", encoding="utf-8") as file:  # asked of a server, and compared with a run
            file.writelines(line for line in SAMPLE.open(encoding="utf-8") if json.loads(line)["index"] in held_out)
        for name in ("rows", "questions", "benchmark", "jsquad-valid", "niilc-dev"):
            (tmp_path / f"{name}.jsonl").write_text(rows, encoding="utf-8")
        for name, theirs in BENCHMARKS.items():
            (tmp_path / f"{name}.json").write_text(json.dumps([theirs]), encoding="utf-8")
        (tmp_path / "faq.csv").write_text("件名,対応\n首都は?,東京\n", encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return make


def trained_by(line: str) -> str | None:
    """The run that a command trains; None: it trains nothing, or goes on with a run."""
    if left_out(line) or not (
        config := re.search(r"train_sft\.py configs/([\w.-]+)\.yaml(?!.* --(?:dry-run|resume))", line)
    ):
        return None
    named = re.search(r"run\.directory=(\S+)", line)
    return named[1] if named else f"runs/{config[1]}"


def words_of(line: str) -> list[str]:
    """A command's words, without what is in brackets and without the launcher, which has to take its own."""
    words = shlex.split(re.sub(r" \[(?:[^][]|\[[^][]*\])*\]", "", line))
    if words[:2] == ["accelerate", "launch"]:
        from accelerate.commands.launch import _validate_launch_command, launch_command_parser

        launch = launch_command_parser().parse_args(words[2:])
        _validate_launch_command(launch)
        return ["python", launch.training_script, *launch.training_script_args]
    if words[0] == "torchrun":
        from torch.distributed.run import get_args_parser

        launch = get_args_parser().parse_args(words[1:])
        return ["python", *["-m"] * launch.module, launch.training_script, *launch.training_script_args]
    return words


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=pytest.mark.slow) if page in SLOW else page for page in RUN_HERE]
)
def test_every_command_works(page, page_of, tiny_base, program, monkeypatch):
    """On the tiny model: a run that a page speaks of is a copy of one, and what is trained is cut short."""
    place = page_of(page)
    with serving(lambda body: chat("評価: 5" if "評価" in str(body) else "東京")) as stub:
        lines = [*BEFORE.get(page, ()), *(line for line in commands(page) if not left_out(line))]
        for at, line in enumerate(lines):
            monkeypatch.setattr(sys, "stdin", io.StringIO("首都は?\n\n"))  # where a session would ask
            words = [told(word, stub.url) for word in words_of(line)]
            assert words[0] == "python", f"{page}: {line}: is neither run nor among those that are not"
            module, *rest = words[2:] if words[1] == "-m" else [words[1].removesuffix(".py"), *words[2:]]
            added = additions(module, rest, tiny_base, place)
            if (run := trained_by(line)) and not any(re.search(rf"{run}\b", later) for later in lines[at + 1 :]):
                added.append("--dry-run")  # how a run is trained to its end is tested elsewhere
            if (ROOT / module.replace(".", "/")).is_dir():
                module += ".__main__"
            result = program(module, *rest, *added, cwd=place)
            assert result.returncode == 0, f"{line}: {result.stdout}{result.stderr}"
            for sheet in place.rglob("rate-*/sheet*"):  # as somebody would save it for the next command
                shutil.copy(sheet, place / sheet.name)
                rated(place / "sheet.csv")
            for predictions in place.glob("runs/A/eval/predictions.jsonl"):
                shutil.copy(predictions, place)


def told(word: str, url: str) -> str:
    """What a reader would put in a placeholder's place."""
    if word in ("URL", "…") or word.startswith("http://localhost"):
        return url
    return {"model.base=…": "model.base=", "prompt.template=…": "prompt.template=alpaca-ja"}.get(word, word)


def rated(sheet: Path) -> None:
    """Fill a sheet in as a rater does."""
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        rows = [row | {"preference": "1"} for row in csv.DictReader(file)]
    with sheet.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def additions(module: str, words: list[str], base: Path, place: Path) -> list[object]:
    """What is added to a command so that it runs here: the tiny model, few rows, short answers, no hub."""
    few, another_base = ["generation.max_new_tokens=4"], [f"model.base={base}"]
    last = ["--checkpoint", "2"] if "--checkpoint" in words else []  # the copy's; of two the last one counts
    based = another_base if any(word.startswith("model.base=") for word in words) else []
    match module, words:
        case "train_sft", _:
            added = [*another_base, "model.build=null", "model.device=cpu", "quantization=null"]
            added += ["lora.target_modules=[query_key_value]", "data.train_rows=8", "training.total_batch_size=8"]
            added += ["training.num_train_epochs=1", "training.warmup_steps=0", "training.samples=0"]
            path = next((word.partition("=")[2] for word in words if word.startswith("data.path=")), None)
            added += [] if path and Path(path).is_file() else [f"data.path={SAMPLE}"]
            if "--compare" in words:
                added += ["--compare", base]
            return added
        case "infer", _:
            return [*few, *last, *based]
        case "eval", ["score" | "compare" | "rate" | "answer", *_]:
            return []
        case "eval", ["judge", *_]:
            other = ["runs/B"] if "--sheet" in words else []  # which the page's sheet compares with
            return [*other, "--rows", 2, "--model", "org/judge-70b"]
        case "eval", _:
            name = words[words.index("--benchmark") + 1] if "--benchmark" in words else None
            local = ["--benchmark-data", place / f"{name}.json"] if name and "--benchmark-data" not in words else []
            short = [] if "sweep" in words else ["eval.resamples=50"]
            return [*few, *short, "eval.rows_per_category=1", "--force", *last, *based, *local]
        case "sft.export", _:
            return [*based, "--base-id", "none"]
        case "benchmarks.answering", _:
            return ["--rows", 2, "--tokens", 2]
        case "studies.context_qa.placebo", _:
            return ["model.build=null", *another_base, "--rows", 2, "--data", place / "rows.jsonl"]
    return []


@pytest.mark.slow
def test_preferences_are_trained_as_the_page_says(page_of, tiny_base, program):
    """With TRL's own command, on the row that the page shows."""
    page = "docs/preferences.md"
    place = page_of(page)
    train, export, dpo = (shlex.split(line) for line in commands(page))
    result = program("train_sft", *train[2:], *additions("train_sft", train[2:], tiny_base, place), cwd=place)
    assert result.returncode == 0, result.stderr
    result = program("sft.export.__main__", *export[3:], cwd=place)
    assert result.returncode == 0, result.stderr
    (row,) = re.findall(r"^    (\{.+\})$", read(page), re.MULTILINE)
    (place / "preferences").mkdir()
    (place / "preferences" / "train.jsonl").write_text(f"{row}\n" * 4, encoding="utf-8")
    subprocess.run([Path(sys.executable).with_name("trl"), *dpo[1:]], cwd=place, check=True, capture_output=True)
    assert (place / "runs-dpo" / "a" / "adapter_model.safetensors").is_file()


def test_every_make_target_is_there():
    """In blocks and in sentences; `make -n` prints what would be done."""
    lines = [line for page in PAGES for line in commands(page) if line.startswith("make ")]
    named = {tuple(line.split()[1:]) for line in lines}
    named |= {(target,) for page in PAGES for target in re.findall(r"`make ([a-z-]+)[ `]", read(page))}
    for words in named:
        result = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 0, f"{words}: {result.stderr}"


@pytest.mark.parametrize("page", PAGES)
def test_sentences_name_programs_and_options_that_there_are(page, program):
    """Of every command of a page, also where it is not run."""
    inline = re.findall(r"`((?:python|torchrun|accelerate launch) [^`]+)`", read(page))
    for line in (*inline, *commands(page)):
        found = re.search(r"(?:^|\s)(-m [\w.]+|[\w/]+\.py)(?: (answer|compare|judge|rate|score|sweep)\b)?(.*)", line)
        if found is None or not line.startswith(("python", "accelerate", "torchrun")) or re.search("vllm|tests/", line):
            continue
        module = found[1].removeprefix("-m ").removesuffix(".py").replace("/", ".")
        path = ROOT / module.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").is_file(), f"{page}: {line}"
        options = set(re.findall(r"(?<!\S)\[?(--[a-z][\w-]*)", found[3]))
        if options:
            main = f"{module}.__main__" if path.is_dir() else module
            known = program(main, *filter(None, [found[2]]), "--help").stdout
            assert not [option for option in options if not re.search(rf"{option}\b", known)], f"{page}: {line}"
