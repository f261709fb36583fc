"""README and docs hold: links lead somewhere, commands run, messages are the program's, numbers are said alike."""

import ast
import io
import re
import shlex
import shutil
import sys
import unicodedata
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample.jsonl"
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for place in (ROOT, ROOT / "docs", ROOT / "docs" / "ja", ROOT / "studies" / "context_qa")
    for path in place.glob("*.md")
)
PAGES_RUN = ("configuration", "data", "training", "answering", "troubleshooting")
RUN_HERE = ("README.md", *(f"docs/{name}.md" for name in PAGES_RUN), "docs/ja/serving.md")
"""Pages of which every command is run, or listed below."""
RUN_ELSEWHERE = ("docs/your-data.md",)
"""Pages whose commands another test runs, in their order: test_your_data."""

JAPANESE = [page for page in PAGES if page.startswith("docs/ja/") or page.endswith(".ja.md")]
ENGLISH = [page for page in PAGES if page not in JAPANESE]
TWINS = {page: page.replace("docs/ja/", "docs/").replace(".ja.md", ".md") for page in JAPANESE}
TWINS = {page: twin for page, twin in TWINS.items() if twin in ENGLISH}
"""Each Japanese page that has an English one of its name."""

NOT_RUN = {
    "make demo": "downloads weights",
    "make setup": "makes what the tests run in",
    "python -m sft.export RUN --gguf": "needs llama.cpp: test_serve",
    "accelerate launch train_sft.py configs/calm7b-4bit.yaml": "needs a GPU; its doctor: test_your_data",
    "accelerate launch train_sft.py CONFIG": "the general form",
    "python train_sft.py CONFIG": "the general form",
    "python train_sft.py configs/tiny.yaml run.directory=runs/a --resume": "of a run that was stopped: test_faults",
    "python infer.py runs/a --web": "opens a page: test_page, in a browser",
}
"""How a command begins that is not run, and why."""


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def anchors(page: str) -> set[str]:
    """What GitHub calls a page's headings in links."""
    found: dict[str, int] = {}
    slugs = set()
    for title in re.findall(r"^#+ (.+)$", read(page), re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()
        slug = "".join(c for c in shown if c in "-_ " or unicodedata.category(c)[0] in "LNM").replace(" ", "-")
        slugs.add(slug if slug not in found else f"{slug}-{found[slug]}")
        found[slug] = found.get(slug, 0) + 1
    return slugs


@pytest.mark.parametrize("page", PAGES)
def test_links_between_pages_lead_somewhere(page):
    text = re.sub(r"`[^`]*`", "", re.sub(r"^    .+$", "", read(page), flags=re.MULTILINE))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        place = (ROOT / page).parent / path if path else ROOT / page
        assert place.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(place.resolve().relative_to(ROOT).as_posix()), f"{page}: {target}"


def commands(page: str) -> list[str]:
    """The commands of a page in their order, without comments."""
    blocks = re.findall(r"^    ((?:python|accelerate|torchrun|make|pip|trl) .+)$", read(page), re.MULTILINE)
    return [shlex.join(shlex.split(line, comments=True)) for line in blocks]


@pytest.mark.parametrize("page", TWINS)
def test_a_page_has_the_same_commands_in_both_languages(page):
    assert commands(page)
    assert set(commands(page)) == set(commands(TWINS[page]))


@pytest.mark.parametrize("page", JAPANESE)
def test_what_a_japanese_page_has_to_be_typed_stands_in_an_english_one_and_is_run(page):
    """Comments may differ."""
    english = "\n".join(read(other) for other in ENGLISH)
    for line in re.findall(r"^    (.+)$", read(page), re.MULTILINE):
        assert re.sub(r" +# .*", "", line).strip() in english, f"{page}: {line}"
    run = {line for other in (*RUN_HERE, *RUN_ELSEWHERE) for line in commands(other)}
    assert not [line for line in commands(page) if line not in run and not line.startswith(tuple(NOT_RUN))]


@pytest.mark.parametrize("page", JAPANESE)
def test_a_table_of_models_has_the_numbers_of_the_english_readme(page):
    """A row of it names a configuration, and ends with gigabytes; a start has some of the rows."""
    said, proved = memory_said(page), memory_said("README.md")
    assert said == (proved if page == "README.ja.md" else {name: proved[name] for name in said})


def memory_said(page: str) -> dict[str, str]:
    """Gigabytes by configuration in the tables of a page."""
    return dict(re.findall(r"^\|.*`([\w.-]+\.yaml)` \|.*\| ([\d.]+) \|$", read(page), re.MULTILINE))


@pytest.mark.parametrize("page", RUN_HERE)
def test_every_command_works(page, trained_run, tiny_base, program, monkeypatch, tmp_path):
    """On the tiny model: a run that a page speaks of is a copy of one, and what is trained is cut short."""
    for name in ("configs", "data"):
        (tmp_path / name).symlink_to(ROOT / name)
    there = {run for run in re.findall(r"runs/[\w-]+", read(page)) if not trains(page, run)}
    for run in there:
        shutil.copytree(trained_run, tmp_path / run)
    base = [f"model.base={tiny_base}", "model.build=null", "model.device=cpu", "quantization=null"]
    short = ["lora.target_modules=[query_key_value]", "data.train_rows=8", "training.total_batch_size=8"]
    short += ["training.num_train_epochs=1", "training.warmup_steps=0", "training.samples=0"]
    sample = [f"data.path={SAMPLE}"]  # where there is no hub
    few = ["generation.max_new_tokens=4"]
    scored = [*few, "eval.resamples=50", "eval.rows_per_category=1"]
    ran = 0
    for line in commands(page):
        if any(line.startswith(known) for known in NOT_RUN):
            continue
        words = shlex.split(line)
        last = ["--checkpoint", "2"] if "--checkpoint" in words else []  # the copy's; of two the last one counts
        monkeypatch.setattr(sys, "stdin", io.StringIO("首都は?\n\n"))  # where a session would ask
        match words[1:]:
            case ["train_sft.py", *rest]:
                rows = [] if "data.path=" in line else sample
                result = program("train_sft", *rest, *base, *short, *rows, cwd=tmp_path)
            case ["infer.py", *rest]:
                result = program("infer", *rest, *few, *last, cwd=tmp_path)
            case ["-m", "eval", *rest]:
                result = program("eval.__main__", *rest, *scored, *last, cwd=tmp_path)
            case ["-m", "sft.export", *rest]:
                result = program("sft.export.__main__", *rest, "--base-id", "none", cwd=tmp_path)
            case ["-m", module, *rest]:
                result = program(f"{module}.__main__", *rest, cwd=tmp_path)
            case _:
                pytest.fail(f"{page}: {line}: is neither run nor among those that are not")
        assert result.returncode == 0, f"{line}: {result.stdout}{result.stderr}"
        ran += 1
    assert ran


def trains(page: str, run: str) -> bool:
    """Whether a command of the page trains this run."""
    return any(f"run.directory={run}" in line.split() and "--resume" not in line for line in commands(page))


def test_every_reason_not_to_run_a_command_is_of_a_command():
    every = [line for page in {*RUN_HERE, *JAPANESE} for line in commands(page)]
    assert not [known for known in NOT_RUN if not any(line.startswith(known) for line in every)]


@cache
def program_texts() -> str:
    """Every text in the program's source and in its tables of texts, a line each; values in a text divide it."""
    found = []
    for path in (*ROOT.glob("*.py"), *ROOT.glob("sft/**/*.py"), *ROOT.glob("eval/**/*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        documented = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        texts = (node for node in nodes if isinstance(node, ast.Constant) and id(node) not in documented)
        found += [node.value for node in texts if isinstance(node.value, str)]
    for path in (*ROOT.glob("sft/**/*.yaml"), *ROOT.glob("eval/**/*.yaml")):
        found += [str(leaf) for leaf in leaves(yaml.safe_load(path.read_text(encoding="utf-8")))]
    return "".join(f"\n{part.strip()}\n" for text in found for part in re.split(r"\{[^}]*\}", text))


def leaves(value: object) -> list[object]:
    if isinstance(value, dict | list):
        return [leaf for part in (value.values() if isinstance(value, dict) else value) for leaf in leaves(part)]
    return [value]


def is_said(words: list[str], parts: int = 3, begins: str = "") -> bool:
    """Whether the program says these words in one text, or across the values that divide one."""
    if begins + " ".join(words) in program_texts():
        return True
    return parts > 1 and any(
        f"{begins}{' '.join(words[:at])}\n" in program_texts() and is_said(words[at:], parts - 1, "\n")
        for at in range(1, len(words))
    )


@pytest.mark.parametrize(("page", "least"), [("docs/troubleshooting.md", 40), ("docs/ja/troubleshooting.md", 35)])
def test_the_messages_that_troubleshooting_quotes_are_the_programs(page, least):
    """`…` stands for what differs from time to time."""
    quoted = re.findall(r"^    (?:error:|warning:|note:|STOP|look) +(.+)$", read(page), re.MULTILINE)
    assert len(quoted) > least
    for message in quoted:
        for piece in re.split(r"[…;:,.=()?]|  ", message):
            assert is_said(piece.split()), f"{message}: {piece}"


@pytest.mark.parametrize("page", [f"docs/ja/{name}.md" for name in ("start", "reading-the-report", "troubleshooting")])
def test_what_japanese_pages_say_that_the_program_shows_it_does(page):
    """What a table explains, and lines that are named."""
    quoted = re.findall("^[|] 「([^」]+)」 [|]|「([^」]+)」の[行欄]", read(page), re.MULTILINE)
    assert quoted
    for piece in (piece for pair in quoted for piece in "".join(pair).split("…")):
        assert piece in program_texts(), f"{page}: {piece}"


def test_the_readme_is_short_and_says_of_memory_what_the_page_of_models_says():
    text = read("README.md")
    assert len(text) <= 8000
    proved = dict(
        re.findall(r"^\| `([\w.-]+\.yaml)` \|.*\| ([\d.]+) \| [\d,]+, \d+ \|$", read("docs/models.md"), re.MULTILINE)
    )
    said = memory_said("README.md")
    assert len(said) > 5
    assert {name: proved[name] for name in said} == said


def test_the_page_of_configurations_names_every_file():
    named = set(re.findall(r"`configs/([\w.-]+)\.yaml`", read("docs/configuration.md")))
    assert named == {path.stem for path in (ROOT / "configs").glob("*.yaml")}
