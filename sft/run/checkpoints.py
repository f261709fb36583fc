"""Checkpoints of a run: written aside, hashed, renamed; a run goes on from the newest that is whole, and its own."""

import json
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from sft.system.errors import UserError, warn
from sft.system.files import file_sha256, sync, text_sha256, write_whole

RECORD = "checkpoint.json"
"""In every checkpoint, written last: whose it is, and the SHA-256 of every other file."""
ASIDE = ".unfinished"
"""Directory beside the checkpoints in which one is written; what a killed process left there is never read."""


def complete(checkpoint: Path, run_id: str) -> None:
    """Record the files of a checkpoint in ASIDE, and move it to its place, whole or not at all.

    Everything is on the disk before it gets its name, so that a machine that loses power has it or has it not. One of
    the same step that is there already, damaged, is replaced.
    """
    hashes = {}
    for path in _files(checkpoint):
        hashes[path.relative_to(checkpoint).as_posix()] = file_sha256(path)
        sync(path)
    write_whole(checkpoint / RECORD, json.dumps({"run": run_id, "files": hashes}, indent=2) + "\n")
    target = checkpoint.parent.parent / checkpoint.name
    if target.exists():
        target.rename(checkpoint.with_name(f"{target.name}-replaced"))
    checkpoint.rename(target)
    for directory in (target, target.parent):
        sync(directory)
    shutil.rmtree(checkpoint.parent)


def path_of(checkpoints: Path, step: int) -> Path:
    """Where the checkpoint of a step is, or would be."""
    return checkpoints / f"checkpoint-{step}"


def remove_old(checkpoints: Path, keep: int | None, best: int | None = None) -> None:
    """Remove all but the `keep` newest by step (None or 0: keep all) and that of the step `best`, if there is one."""
    for path in _newest_first(checkpoints)[keep:] if keep else []:
        if best is None or path != path_of(checkpoints, best):
            shutil.rmtree(path)


def go_on_from(checkpoint: Path) -> None:
    """Remove what a killed process left half-written, and rename the checkpoints of later steps, which are not whole,
    so that they do not count as checkpoints any more.
    """
    shutil.rmtree(checkpoint.parent / ASIDE, ignore_errors=True)
    for path in _newest_first(checkpoint.parent):
        if path == checkpoint:
            return
        path.rename(path.with_name(f"damaged-{path.name}-{uuid.uuid4().hex[:8]}"))


def newest_whole(checkpoints: Path, run_id: str | None = None) -> Path:
    """The newest checkpoint that is as it was written, by the run of this id (None: any); says which are passed over.

    Raises UserError when there is none.
    """
    for path in _newest_first(checkpoints):
        problem = _problem(path, run_id)
        if problem is None:
            return path
        warn([f"{path} is passed over: {problem}"])
    raise UserError(f"{checkpoints}: no whole checkpoint yet; start again with --force")


def require_whole(checkpoint: Path, run_id: str) -> str:
    """One hash of all files of a checkpoint, which is as the run of this id wrote it. Raises UserError otherwise."""
    if not checkpoint.is_dir():
        there = ", ".join(path.name.rpartition("-")[2] for path in reversed(_newest_first(checkpoint.parent)))
        raise UserError(f"{checkpoint}: there is no such checkpoint; those of steps {there or 'none'} are there")
    if problem := _problem(checkpoint, run_id):
        raise UserError(f"{checkpoint}: cannot be used: {problem}; restore it, or take another")
    files = json.loads((checkpoint / RECORD).read_text(encoding="utf-8"))["files"]
    return text_sha256(f"{name} {digest}\n" for name, digest in sorted(files.items()))


def _newest_first(checkpoints: Path) -> list[Path]:
    found = [path for path in checkpoints.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(found, key=lambda path: -int(path.name.rsplit("-", 1)[1]))


def _problem(path: Path, run_id: str | None) -> str | None:
    try:
        record = json.loads((path / RECORD).read_text(encoding="utf-8"))
        whose, hashes = record["run"], {**record["files"]}
    except FileNotFoundError:
        return f"{RECORD} is missing"
    except (OSError, ValueError, TypeError, KeyError):
        return f"{RECORD} is damaged"
    if run_id not in (None, whose):
        return "it is another run's"
    files = {file.relative_to(path).as_posix(): file for file in _files(path)}
    for name, file in files.items():
        if file.is_symlink():
            return f"{name} is a link"
    del files[RECORD]
    for name in sorted(files.keys() ^ hashes.keys()):
        return f"{name} is missing" if name in hashes else f"{name} does not belong to it"
    for name, file in files.items():
        try:
            digest = file_sha256(file)
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
        if digest != hashes[name]:
            return f"{name} is damaged"
    return None


def _files(directory: Path) -> Iterator[Path]:
    return (path for path in sorted(directory.rglob("*")) if path.is_symlink() or not path.is_dir())
