"""Questions in a file, read before anything is loaded, and the place of their answers. No torch here."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from sft.system.errors import UserError
from sft.system.files import check_not_learned, parse_json, read_bytes
from sft.system.progress import Progress
from sft.system.visible import is_text


def read_questions(path: Path) -> list[dict[str, object]]:
    """Rows of a jsonl file, each with a text `instruction` and at most a text `input`."""
    rows = []
    try:
        lines = read_bytes(path).decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot be read as UTF-8: {error}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
            # Every field is written again beside its answer; the lists around it are room for a deeper stack then.
            json.dumps([[[[row]]]], ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{number}: not JSON that can be written again: {error}") from None
        if not isinstance(row, dict) or not is_text(row.get("instruction")) or not row["instruction"].strip():
            raise UserError(f"{path}:{number}: a row needs a text field instruction (and may have input)")
        if row.get("input") is not None and not is_text(row["input"]):
            raise UserError(f"{path}:{number}: input is not text")
        rows.append(row)
    if not rows:
        raise UserError(f"{path}: no questions in it")
    return rows


@contextlib.contextmanager
def claimed(output: Path | None) -> Iterator[Progress | None]:
    """Keep other calls from `output` (None: nothing is written) while the block runs.

    Raises UserError where it is there, or could not be written.
    """
    if output is None:
        yield None
        return
    check_not_learned(output)
    exists = UserError(f"{output}: exists already; remove it, or give another --output")
    if os.path.lexists(output):
        raise exists
    progress = Progress(output, 0)
    try:
        if os.path.lexists(output):  # another call finished it in between
            raise exists
        yield progress
    finally:
        progress.release()
