"""A directory of large files that appears whole or not at all, and replaces only what this program made."""

import contextlib
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from sft.system.errors import UserError, not_written
from sft.system.files import hidden_beside, sync, take_lock

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
    """An empty directory that becomes `target`, on the disk, when the block ends, and disappears when it fails.

    What was at `target` stays whole until then; where a process was killed while it replaced it, it is put back. What
    else a killed process left is cleared away. Raises UserError where the system refuses anything.
    """
    new, old = hidden_beside(target, "unfinished"), hidden_beside(target, "replaced")
    with contextlib.ExitStack() as stack:
        try:
            new.mkdir(parents=True, exist_ok=True)
            handle = os.open(new, os.O_RDONLY)
            stack.callback(os.close, handle)
            if not take_lock(handle, target):
                raise UserError(f"{target}: is being written by another process; wait for it")
            if old.exists() and not target.exists():
                old.rename(target)
            shutil.rmtree(old, ignore_errors=True)
            for path in new.iterdir():
                path.unlink() if not path.is_dir() else shutil.rmtree(path)
        except OSError as error:
            raise not_written(target, error) from error
        try:
            yield new
            _replace(new, old, target)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise


def restore(target: Path) -> None:
    """Put back what a killed process was about to replace; nothing while another process is at it."""
    if hidden_beside(target, "replaced").exists():
        with contextlib.suppress(UserError, InterruptedError), whole_directory(target):
            raise InterruptedError


def _replace(new: Path, old: Path, target: Path) -> None:
    try:
        for path in (*new.rglob("*"), new):
            # safetensors writes files that nobody else may read
            path.chmod(new.stat().st_mode & (0o777 if path.is_dir() else 0o666))
            sync(path)
        if target.exists():
            target.rename(old)
        try:
            new.rename(target)
        except BaseException:
            if old.exists():
                old.rename(target)
            raise
        sync(target.parent)
    except OSError as error:
        raise not_written(target, error) from error
    shutil.rmtree(old, ignore_errors=True)
