"""Other people's programs, installed beside the project's own libraries for the tests that run exports in them."""

import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest


def python_with(directory: Path, *requirements: str) -> Path:
    """A Python whose `requirements` are installed as they are named, and everything else, torch too, is this one's."""
    subprocess.run([sys.executable, "-m", "venv", directory], check=True)
    (packages,) = directory.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()))  # which come behind its own
    if requirements:
        installed(directory / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps", *requirements)
    return directory / "bin" / "python"


def node_with(directory: Path, *packages: str) -> Path:
    """A directory in which node finds `packages`."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node and npm are not installed")
    (directory / "package.json").write_text('{"private": true, "type": "module"}')
    quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--omit=optional")
    installed("npm", "install", "--prefix", directory, *quiet, *packages)
    return directory


def installed(*words: object) -> None:
    """Run an installer; the test is skipped where it has no network or finds no such package."""
    result = subprocess.run([*map(str, words)], capture_output=True, text=True, cwd="/")
    if result.returncode:
        pytest.skip(f"{' '.join(map(str, words))}: {result.stderr.strip()[-300:]}")


def output(*words: object, cwd: Path | None = None) -> str:
    """What a program prints, run in `cwd` (None: here). An AssertionError holds what it says where it fails."""
    result = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=600, cwd=cwd)
    assert result.returncode == 0, f"{result.stdout[-2000:]}\n{result.stderr[-4000:]}"
    return result.stdout
