"""Anybody's rows go the whole way: every configuration takes a FAQ as it is, and every command of the page is run."""

import csv
import hashlib
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from test_chat import CHATML

from sft.config.load import load_config

ROOT = Path(__file__).parents[1]
FAQ = ROOT / "data" / "faq.csv"
FAMILY = {
    "abeja-2.7b": "abeja", "calm2-7b": "calm2", "elyza-7b": "llama-2", "gemma3-270m": "gemma-3", "demo": "gemma-3",
    "genji-6b": "genji", "llama2-7b": "llama-2", "llmjp3-1.8b": "llm-jp", "rinna-3.6b": "rinna",
    "qwen2.5-coder-1.5b": "qwen2.5", "qwen2.5-coder-1.5b-alpaca": "qwen2.5", "qwen3-4b": "qwen3", "qwen3-8b": "qwen3",
    "qwen3-swallow-8b": "qwen3", "swallow-8b": "llama-3.1", "sarashina2.2-3b": "sarashina", "llmjp4-8b": "llm-jp-4",
    "gemma3-4b": "gemma-3-4b",
}  # fmt: skip
"""The small random model that stands for a configuration's; open-calm's where none is named."""
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml") if path.stem != "calm7b-article")


ONE_OF_A_KIND = {"calm7b", "calm2-7b", "elyza-7b", "gemma3-4b", "qwen2.5-coder-1.5b", "sarashina2.2-3b", "tiny"}


@pytest.mark.parametrize(
    "name", [name if name in ONE_OF_A_KIND else pytest.param(name, marks=pytest.mark.slow) for name in CONFIGS]
)
def test_every_configuration_but_the_articles_takes_a_faq_and_changes_nothing_else(small_base, program, tmp_path, name):
    section = small_base(FAMILY.get(name, "open-calm"))
    if load_config(ROOT / "configs" / f"{name}.yaml").prompt.template == "chat":  # the stand-in has none of its own
        section = section | {"base": shutil.copytree(section["base"], tmp_path / "base")}
        (tmp_path / "base" / "chat_template.jinja").write_text(CHATML)
    words = [f"model.{key}={value}" for key, value in section.items()]  # where there is no hub
    words += ["model.build=null", f"run.directory={tmp_path / 'run'}", f"data.path={FAQ}"]
    result = program("train_sft", f"configs/{name}.yaml", *words, "--dry-run")
    text = " ".join(result.stdout.split())
    assert result.returncode == 0, result.stdout + result.stderr
    assert (
        "read as 質問 → instruction, 補足情報 → input, 回答 → output, 分類 → category (CSV in UTF-8), 60 rows" in text
    )
    assert " 0 STOP" in text
    assert "社内手続き" in text


def commands(page: str) -> list[list[str]]:
    """The commands of a page, in their order, as a shell divides them."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [shlex.split(line) for line in re.findall("^    (.+)$", text, re.MULTILINE)]


def test_the_pages_have_the_same_commands_and_the_translation_is_of_this_text():
    english = (ROOT / "docs" / "your-data.md").read_bytes()
    assert f"`{hashlib.sha256(english).hexdigest()[:12]}`" in (ROOT / "docs/ja/your-data.md").read_text(
        encoding="utf-8"
    )
    assert commands("your-data.md") == commands("ja/your-data.md")


def test_every_command_of_the_page_works_in_its_order(program, tiny_base, tmp_path):
    """On the tiny model, which answers nonsense."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "data").symlink_to(ROOT / "data")
    tiny = [f"model.base={tiny_base}", "model.build=null", "model.device=cpu", "lora.target_modules=[query_key_value]"]
    quick = ["generation.max_new_tokens=4", "eval.resamples=50"]
    printed = []
    for python, *words in commands("your-data.md"):
        assert python == "python"
        match words:
            case ["-m", "sft.data", *rest]:
                result = program("sft.data.__main__", *rest, "--lang", "ja", cwd=tmp_path)
            case ["-m", "eval", "compare", *rest]:
                result = program("eval.__main__", "compare", *rest, cwd=tmp_path)
            case ["-m", "eval", *rest]:
                result = program("eval.__main__", *rest, *quick, cwd=tmp_path)
            case ["train_sft.py", *rest]:
                result = program("train_sft", *rest, *tiny, cwd=tmp_path)
            case ["infer.py", *rest]:
                result = program("infer", *rest, quick[0], cwd=tmp_path)
        assert result.returncode == 0, f"{words}: {result.stdout}{result.stderr}"
        printed.append(result.stdout)
    assert "使える行は60件です" in printed[0]
    assert "\n0 STOP" in printed[3]
    check_rows(tmp_path)
    check_report(tmp_path / "runs" / "faq")
    assert "compare" in " ".join(str(path) for path in (tmp_path / "runs").rglob("*"))


def check_rows(directory: Path) -> None:
    """The cleaned rows and the answered ones are those of the file."""
    with FAQ.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    cleaned = [json.loads(line) for line in (directory / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["output"] for row in cleaned] == [row["回答"] for row in rows]
    with (directory / "answers.csv").open(encoding="utf-8-sig", newline="") as file:
        answered = list(csv.DictReader(file))
    assert all(row.pop("finish_reason") in ("eos", "length") and row.pop("answer") is not None for row in answered)
    assert answered == rows


def check_report(run: Path) -> None:
    """The report has the file's own categories and none of dolly's."""
    held_out = set(json.loads((run / "split.json").read_text())["test"])
    with FAQ.open(encoding="utf-8-sig", newline="") as file:
        wanted = {row["分類"] for row in csv.DictReader(file) if row["No."] in held_out}
    results = json.loads((run / "eval" / "results.json").read_text(encoding="utf-8"))
    assert results["systems"]["tuned"]["categories"].keys() == wanted
    report = (run / "eval" / "report.md").read_text(encoding="utf-8")
    assert all(category in report for category in wanted)
    assert "closed_qa" not in report
    assert "summarization" not in report
