"""Results as they come: a line of JSON each, appended to one file, so that a kill loses none. No torch here."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

Status = Literal["measured", "skipped", "out of memory", "failed", "no time"]


class Result(NamedTuple):
    """What became of one measure."""

    part: str
    name: str
    status: Status
    reason: str = ""
    """Why it was not measured, or what is wrong with what was."""
    values: Mapping[str, Any] = {}


def append(path: Path, result: Result) -> None:
    """Add a result; it is on the disk when this returns."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(result._asdict(), ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[Result]:
    """All results so far; of a line that a kill cut off, nothing."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [Result(**json.loads(line)) for line in lines if line.endswith("\n")]
