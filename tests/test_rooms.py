"""The house: rooms import one way, files in no circle, and CONTRIBUTING.md names every file."""

import ast
import re
import subprocess
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SFT = (
    "system", "page", "build_base", "data", "prompt", "config", "overview", "model", "run", "generation", "ask", "plan",
    "checks", "training", "export", "runs",
)  # fmt: skip
EVAL = (
    "border", "predictions", "metrics", "statistics", "benchmarks", "scoring", "render", "report", "answering", "sweep",
    "tracked", "score", "evaluate", "compare", "rate", "ratings", "endpoint", "judge", "commands", "__main__",
)  # fmt: skip
"""Rooms from the ground up: each imports those before it. A name alone is a file beside the rooms."""

FUNCTION_IMPORTS = 50
"""The most imports inside functions: bodies of commands stand behind one late import each."""


def files() -> list[Path]:
    """Every module of the two packages; the metric files for `evaluate` are loaded by path, and stand alone."""
    found = [path for package in ("sft", "eval") for path in sorted((ROOT / package).rglob("*.py"))]
    return [path for path in found if path.parent.name != "hf"]


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """The project's modules that a file imports, anywhere in it."""
    known = {module(file) for file in files()}
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found |= {
                whole if (whole := f"{node.module}.{alias.name}") in known else node.module for alias in node.names
            }
    return {name for name in found if name.split(".")[0] in ("sft", "eval", "train_sft", "infer")}


@pytest.mark.parametrize(("package", "rooms"), [("sft", SFT), ("eval", EVAL)])
def test_rooms_import_one_way(package, rooms):
    for path in files():
        here = module(path).split(".")
        if here[0] != package or len(here) == 1 or module(path) == "sft.data.__main__":  # a command: above all rooms
            continue
        assert here[1] in rooms, f"{path}: in no room; say where it stands"
        for there in (name.split(".") for name in imports(path)):
            if there[0] == package and len(there) > 1 and there[1] != here[1]:
                assert rooms.index(there[1]) < rooms.index(here[1]), f"{path} imports {'.'.join(there)}, which is above"


def test_nothing_in_sft_imports_the_evaluation_or_an_entry_point():
    for path in files():
        if module(path).startswith("sft"):
            assert not {name for name in imports(path) if not name.startswith("sft") or name.endswith("__main__")}, path


def test_no_files_import_each_other_in_a_circle():
    graph = {module(path): imports(path) - {module(path)} for path in files()}
    list(TopologicalSorter(graph).static_order())  # raises CycleError with the circle


def test_imports_inside_functions_are_few():
    count = 0
    for path in [*files(), ROOT / "train_sft.py", ROOT / "infer.py"]:
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef):
                count += sum(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(function))
    assert count <= FUNCTION_IMPORTS


def test_entry_points_are_command_lines():
    for name in (
        "train_sft.py",
        "infer.py",
        "eval/__main__.py",
        "sft/export/__main__.py",
        "sft/data/__main__.py",
        "sft/runs/__main__.py",
        "sft/config/__main__.py",
    ):
        assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= 100, name


def test_no_file_is_long():
    for path in files():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 350, path


def test_nothing_that_a_command_wrote_is_in_the_repository():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = {name.split("/")[0] for name in listed.stdout.split("\0")}
    assert [name for name in names if not re.fullmatch(r"[\w.-]*", name, re.ASCII)] == []
    assert not names & {"answers.csv", "rows.jsonl"}, "docs/your-data.md writes these, and a command replaces no file"


def test_the_map_names_every_file_and_no_other():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(
        re.findall(r"`((?:sft|eval|configs|tests|data|docs|benchmarks|studies)/[\w./-]*|\w+\.(?:py|md|toml))`", text)
    )
    missing = sorted(name for name in named if not (ROOT / name).exists())
    assert not missing, f"CONTRIBUTING.md names what is not there: {missing}"
    unnamed = [str(path.relative_to(ROOT)) for path in files() if path.name != "__init__.py"]
    unnamed = [name for name in unnamed if name not in named]
    assert not unnamed, f"CONTRIBUTING.md leaves out {unnamed}"
