"""What people say of a run's answers: every rating, and beside them the rows that a next training can learn from."""

import io
import json
import shlex
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from sft.data.records import Group, group_of
from sft.system.command_line import as_typed
from sft.system.errors import UserError
from sft.system.files import alone_in, read_bytes, write_whole

RATINGS, ROWS = "ratings.jsonl", "feedback.jsonl"
Rated = Literal["good", "bad", "corrected"]
RATED: tuple[Rated, ...] = get_args(Rated)

one_at_a_time = threading.Lock()
"""Held while a rating is written: a process that ends while it holds this loses none half."""


class Rating(BaseModel):
    """What somebody said of one answer: `said` is the answer, `model` whose it is ("tuned" or "base").

    `correction` is the right answer in place of it, where `rating` is "corrected". `cut_off` says that the answer ended
    at `max_new_tokens`: no row is made of it, which would teach to stop in mid-sentence.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    instruction: str
    input: str
    said: str
    model: Literal["tuned", "base"]
    rating: Rated
    correction: str = ""
    category: str = ""
    cut_off: bool = False

    @property
    def group(self) -> Group:
        """The report's group of the question."""
        return group_of(self.category, self.input)

    def row(self) -> dict[str, Any] | None:
        """The row to learn, as `data.path` reads it: the good answer, or the corrected one; else None."""
        if self.rating == "bad" or (self.rating == "good" and self.cut_off):
            return None
        output = self.correction if self.rating == "corrected" else self.said
        row = {"instruction": self.instruction, "input": self.input, "output": output, "category": self.category}
        return row | {"rating": self.rating, "model": self.model}


def rate(run: Path, rating: Rating, before: Rating | None) -> None:
    """Add a rating to the run's `ratings.jsonl`, and its row, if it has one, to `feedback.jsonl`.

    It takes the place of `before`, what the same person said of the same answer (None: nothing yet). All other lines
    stay as they are, those that somebody wrote by hand, too. Raises UserError where they cannot be written.
    """
    with one_at_a_time, alone_in(run):
        files = {
            run / ROWS: _exchanged(run / ROWS, rating.row(), before.row() if before else None),
            run / RATINGS: _exchanged(run / RATINGS, rating.model_dump(), before.model_dump() if before else None),
        }
        for path, content in files.items():
            if content or path.exists():
                write_whole(path, content)


def _exchanged(path: Path, new: dict[str, Any] | None, old: dict[str, Any] | None) -> str:
    try:
        lines = [*io.StringIO(read_bytes(path).decode("utf-8"), newline="\n")] if path.exists() else []
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8; save it as that, so that ratings can be added to it") from None
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    if old is not None and (line := _line(old)) in lines:
        lines.reverse()
        lines.remove(line)  # the newest: another person may have said the same
        lines.reverse()
    if new is not None:
        lines.append(_line(new))
    return "".join(lines)


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def read_ratings(run: Path) -> list[Rating]:
    """All ratings of a run's answers. Raises UserError where there are none, or a line is not one."""
    path = run / RATINGS
    if not path.is_file():
        raise UserError(as_typed(f"{path}: no ratings yet; python infer.py {shlex.quote(str(run))} --web takes them"))
    return list(_parsed(path))


def _parsed(path: Path) -> Iterator[Rating]:
    for number, line in enumerate(read_bytes(path).decode("utf-8", "replace").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield Rating.model_validate_json(line)
        except ValidationError as error:
            found = error.errors()[0]
            where = ".".join(map(str, found["loc"]))
            raise UserError(f"{path}:{number}: not a rating: {where} {found['msg']}; mend or remove the line") from None
