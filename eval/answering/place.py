"""Where the answers to whose rows go: each evaluation in a place of its own. No torch here."""

import re
from pathlib import Path

from sft.system.errors import UserError
from sft.system.files import output_directory

RESERVED = re.compile(
    r"[.].*||sweep|checkpoint-\d+|(compare|rate|judge|answer)-.*|export"
    r"|(answers|results)[.]json|(predictions|samples)[.]jsonl|report[.](md|html)",
    re.IGNORECASE,
)
"""Names beside an evaluation that this program writes to otherwise, and hidden ones."""


def evaluation_directory(run: Path, data: str | None, output: Path | None, checkpoint: int | None = None) -> Path:
    """The directory for answers to the rows of `data` (None: those that the run held out): `output`, or one in the run.

    Answers of a `checkpoint`, by its step, have a directory of their own there.

    Raises UserError where the file's name is that of another command's place, and where nothing can be written.
    """
    name = Path(data).stem if data else ""
    if data and not output and RESERVED.fullmatch(name):
        raise UserError(
            f"eval.data {data}: {run / 'eval'} keeps the name {name or data!r} for other things; rename the file, or "
            "give a directory with --output"
        )
    return output_directory(output or run / "eval" / ("" if checkpoint is None else f"checkpoint-{checkpoint}") / name)
