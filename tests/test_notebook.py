"""The notebook: its cells are run in their order, as they are but for the settings, on the tiny model without a GPU."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "open-calm-1b.ipynb"


def cells(kind: str) -> list[tuple[str, set[str]]]:
    """The text and the tags of each cell of a kind: code or markdown."""
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [
        ("".join(cell["source"]), set(cell["metadata"].get("tags", []))) for cell in found if cell["cell_type"] == kind
    ]


@pytest.fixture
def shown(monkeypatch) -> list[str]:
    """What IPython would be given to show; it need not be here."""
    found: list[str] = []
    display = ModuleType("IPython.display")
    for name in ("Image", "HTML"):
        setattr(display, name, lambda what, **how: found.append(what))
    package = ModuleType("IPython")
    package.version_info = (9, 0)  # type: ignore[attr-defined]  # which matplotlib looks at
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return found


def test_every_cell_works_but_those_that_install(program, tiny_base, tmp_path, shown):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    small = {
        "MODEL": tiny_base,
        "CONFIG": "configs/tiny.yaml",
        "DATA": ROOT / "data" / "sample.jsonl",
        "TRAINING": "model.build=null data.train_rows=8 training.total_batch_size=8 training.samples=0",
        "SCORING": "eval.rows_per_category=1 eval.resamples=50 generation.max_new_tokens=4",
        "EXPORT": "--base-id none",
    }
    names: dict[str, object] = {}
    for text, tags in cells("code"):
        if "prepare" in tags:
            continue
        for line in re.split(r"^(!.+\n?)", text, flags=re.MULTILINE):
            if line.startswith("!"):  # a command, with names in braces
                python, *words = shlex.split(line[1:].format_map(names))
                assert python == "python"
                module = f"{words.pop(1)}.__main__" if words[0] == "-m" else words[0].removesuffix(".py")
                result = program(module, *words[1:], cwd=tmp_path)
                assert result.returncode == 0, f"{line}{result.stdout}{result.stderr}"
            else:
                exec(line, names)
        if "parameters" in tags:
            assert names.keys() >= small.keys()
            names |= small
    loss, report = shown
    assert (tmp_path / loss).is_file()
    assert "学習前と学習後の比較" in report
    assert (tmp_path / "adapter.zip").is_file()


@pytest.mark.parametrize("there", ["checkout", "zip", "folder in a zip", "repository and zip", "nothing"])
def test_the_program_is_found_unpacked_or_asked_for(tmp_path, monkeypatch, there):
    """A repository that is named; else a file that was uploaded, or a line that says what to do."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "train_sft.py").write_text("")
    if there == "checkout":
        monkeypatch.chdir(tmp_path / "program")
    if "zip" in there:
        inside = {"root_dir": tmp_path, "base_dir": "program"} if "folder" in there else {"root_dir": "program"}
        shutil.make_archive("calm-sft", "zip", **inside)
    text = next(text for text, tags in cells("code") if "calm-sft.zip" in text and "prepare" in tags)
    text = re.sub(r"^( *)%cd (\S+)$", r'\1__import__("os").chdir("\2")', text, flags=re.MULTILINE)
    text = re.sub(r"^( *)!git .*$", r"\1raise InterruptedError", text, flags=re.MULTILINE)
    if there == "repository and zip":
        with pytest.raises(InterruptedError):
            exec(text, {"REPOSITORY": "https://example.org/calm-sft"})
    elif there in ("folder in a zip", "nothing"):
        with pytest.raises(SystemExit, match="REPOSITORY"):
            exec(text, {"REPOSITORY": ""})
    else:
        exec(text, {"REPOSITORY": ""})
        assert Path("train_sft.py").is_file()


def test_its_settings_are_of_this_program():
    """They are checked as the configuration is, and only the tiny model's are run."""
    from sft.config.load import load_config

    names: dict[str, str] = {}
    exec(next(text for text, tags in cells("code") if "parameters" in tags), names)
    config = load_config(ROOT / names["CONFIG"], [*names["TRAINING"].split(), *names["SCORING"].split()])
    assert config.model.base == names["MODEL"]
    assert config.model.dtype == "float16"


def test_it_is_read_in_japanese_under_english_headings_links_lead_somewhere_and_nothing_was_run_elsewhere():
    found = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in found)
    for text, _ in cells("markdown"):
        heading = re.match(r"#+ (.+)", text)
        assert heading is None or heading[1].isascii()
        assert re.search("[ぁ-ん]", text)
        for target in re.findall(r"\]\(([^)]+)\)", text):
            assert (NOTEBOOK.parent / target).is_file(), target
