"""Questions in a file, read before anything is loaded, and the place of their answers. No torch here."""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sft.run.bare_adapter import is_bare_adapter
from sft.run.directory import settings_of
from sft.system.errors import UserError, say, warn
from sft.system.files import check_not_learned
from sft.system.progress import Progress
from sft.system.texts import Count, text

if TYPE_CHECKING:  # these take half a second, and most calls have no such file
    from sft.data.read import Asked

KINDS = (".jsonl", ".csv")
"""Of files of answers."""
ADDED = (("answer", "finish_reason"), ("model_answer", "model_finish_reason"))
"""The columns that are added, and what they are called where the questions have such columns themselves."""


def run_columns(run: Path, overrides: Sequence[str], path: Path) -> Mapping[str, str | None] | None:
    """Which columns of a file hold which field for this run; None: by their names, or there is no such run."""
    known = is_bare_adapter(run) or (run / "config.yaml").is_file()
    return settings_of(run, overrides).data.columns_of(str(path)) if known else None


def read_questions(path: Path, columns: Mapping[str, str | None] | None = None) -> "list[Asked]":
    """The questions in a file that `data.path` could name, in their order; the first line says what was read as what.

    `columns` says which column holds which field. Rows that ask nothing are named in a warning. Raises UserError where
    all are such.
    """
    from sft.data.files.sources import is_local
    from sft.data.read import read_questions as read

    if not is_local(str(path)):
        raise UserError(f"{path}: no such file of questions")
    asked, found = read(str(path), columns)
    warn(f"{path}: {question.place}: {question.problem}; it gets no answer" for question in asked if question.problem)
    added_columns(asked)
    say(text("rows.questions_as", path=path, found=found, questions=Count(len(asked))), sys.stderr)
    return asked


def added_columns(questions: "Sequence[Asked]") -> tuple[str, str]:
    """What the columns of the answers are called. Raises UserError where the questions have all of these names."""
    taken = {name for question in questions for name in question.columns}
    for names in ADDED:
        if not taken.intersection(names):
            return names
    raise UserError(f"the file of questions has columns {ADDED[0][0]} and {ADDED[1][0]} already; rename one of them")


def check_output(output: Path) -> None:
    """Raise UserError for what cannot be a file of answers, whatever is there."""
    if output.suffix.lower() not in KINDS:
        raise UserError(f"{output}: answers are written as {' or '.join(KINDS)}; give it one of these endings")
    if not output.parent.is_dir():
        raise UserError(f"{output}: answers cannot be written there; give a file in a directory that exists")


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
