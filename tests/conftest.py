"""What tests share: throwaway models built in-process, the real data where it is, and the commands of the README."""

import gc
import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings

from sft.system.texts import speak

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample.jsonl"

os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp()  # where encoded rows are kept
os.environ["HF_HUB_OFFLINE"] = "1"  # a test that reached for a hub would hang or pass by luck

# The same examples each time: what fails `make test` was broken by the change. `make test-properties` looks for more.
settings.register_profile("fixed", derandomize=True, deadline=None)  # a loaded machine is no fault
settings.load_profile("fixed")

LONG = ("test_commands.py", "test_faults.py", "test_processes.py", "test_writers.py", "test_study.py")
"""Files of minutes. They come first, so that neither of two processes is left with one of them at the end."""


def pytest_configure() -> None:
    """Each process of `pytest -n` keeps to a core, with all it starts: trainings give themselves a thread for each core
    that they may use, and threads of several trainings at once spend more time waiting for each other than computing.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


def pytest_collection_finish() -> None:
    """What is imported by now stays; each training collects garbage, and need not look through all of it again."""
    gc.freeze()


@pytest.fixture(autouse=True)
def locales_language() -> None:
    """No test speaks the language that one before it asked for."""
    speak(None)


@pytest.fixture(scope="session")
def real_rows() -> Path:
    """The 15,015 rows of dolly-ja, where they are."""
    path = ROOT.parent / "shared" / "data" / "dolly-ja.jsonl"
    if not path.is_file():
        pytest.skip(f"the real dolly-ja rows are not at {path}")
    return path


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random GPT-NeoX with open-calm's special tokens, a few MB."""
    from sft.build_base import build_tiny

    directory = tmp_path_factory.mktemp("base") / "tiny"
    build_tiny(directory)
    return directory


@pytest.fixture(scope="session")
def tokenizer(tiny_base: Path):
    from sft.model.load import load_tokenizer

    return load_tokenizer(str(tiny_base))


@pytest.fixture(scope="session")
def small_base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, str]]:
    """Makes a family's small random model, once; returns what section `model` of a configuration says about it."""
    directory = tmp_path_factory.mktemp("families")
    built: dict[str, dict[str, str]] = {}

    def section(family: str) -> dict[str, str]:
        import small_models

        if family not in built:
            built[family] = small_models.build(family, directory / family)
        return built[family]

    return section


@pytest.fixture(scope="session")
def command() -> Callable[..., subprocess.CompletedProcess]:
    """Run a program of the project as a user would, from its root; returns exit status and both outputs."""

    def run(*words: object, cwd: Path = ROOT, **options: object) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=300, **options
        )

    return run


@pytest.fixture(scope="session")
def trained_run(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with checkpoints; tests that change something work on a copy."""
    import train_sft

    run = tmp_path_factory.mktemp("trained") / "run"
    words = [f"model.base={tiny_base}", "model.build=null", f"run.directory={run}", "data.train_rows=64"]
    words += ["data.test_share=0.3"]  # the sample is small, and every category should be tested
    words += ["training.eval_strategy=no", "training.learning_rate=1e-2", "training.save_steps=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(sys, "argv", ["train_sft", "configs/tiny.yaml", *words])
        train_sft.main()
    return run


class Finished(NamedTuple):
    """What a program run in this process left: exit status and both outputs."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def program(monkeypatch, capsys) -> Callable[..., Finished]:
    """Run `main()` of an entry point in this process, which saves the seconds that imports take."""

    def run(module: str, *words: object, cwd: Path = ROOT) -> Finished:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", [module, *map(str, words)])
        status = 0
        capsys.readouterr()
        try:
            importlib.import_module(module).main()
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 1
        output = capsys.readouterr()
        return Finished(status, output.out, output.err)

    return run
