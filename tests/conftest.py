"""What tests share: throwaway models built in-process, the real data where it is, and the commands of the README."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample.jsonl"

os.environ["HF_HUB_OFFLINE"] = "1"  # a test that reached for a hub would hang or pass by luck


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
    from sft.model import load_tokenizer

    return load_tokenizer(str(tiny_base))


@pytest.fixture(scope="session")
def command() -> Callable[..., subprocess.CompletedProcess]:
    """Run a program of the project as a user would, from its root; returns exit status and both outputs."""

    def run(*words: object, cwd: Path = ROOT, **options: object) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=300, **options
        )

    return run
