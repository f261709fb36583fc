"""A directory of large files that appears whole or not at all, and replaces only what this program made."""

import contextlib
import fcntl
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from sft.system.errors import UserError

RECORD = "export.json"
"""In every export: what it is, and what the merge's check measured. What has none is not ours to replace."""
SPARE_BYTES = 100_000_000
"""Room for tokenizer and card beside the weights."""


def check_target(target: Path) -> None:
    """Raise UserError when `target` holds something that is not an export, or is inside of one."""
    for parent in target.parents:
        if (parent / RECORD).is_file():
            raise UserError(f"{target}: is inside the export {parent}, which the next one replaces; use --output")
    if not target.exists() and not target.is_symlink():
        return
    empty = target.is_dir() and not any(target.iterdir())
    if target.is_symlink() or not (empty or (target / RECORD).is_file()):
        raise UserError(f"{target}: is there and not an export, so it is not replaced; move it away, or use --output")


def require_space(directory: Path, size: int) -> None:
    """Raise UserError when the disk has no room for `size` bytes and what comes beside them."""
    free = shutil.disk_usage(directory).free
    if free < size + SPARE_BYTES:
        needed = math.ceil((size + SPARE_BYTES) / 1e8) / 10
        raise UserError(f"{directory.parent}: {needed:.1f} GB are needed and {free / 1e9:.1f} GB free; use --output")


@contextlib.contextmanager
def whole_directory(target: Path) -> Iterator[Path]:
    """An empty directory that becomes `target` when the block ends, and disappears when it fails.

    What was at `target` stays whole until then. What a killed process left is cleared away.
    """
    scratch = target.with_name(f".{target.name}.unfinished")
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        handle = os.open(scratch, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"{target}: cannot be made: {error.strerror}") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{target}: is being written by another process; wait for it") from None
        for path in scratch.iterdir():
            path.unlink() if not path.is_dir() else shutil.rmtree(path)
        try:
            yield scratch
            for path in scratch.rglob("*"):  # safetensors writes files that nobody else may read
                path.chmod(scratch.stat().st_mode & (0o777 if path.is_dir() else 0o666))
            _replace(scratch, target)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
    finally:
        os.close(handle)


def _replace(new: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.replaced-{os.getpid()}")
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    except BaseException:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
