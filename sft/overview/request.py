"""What somebody asks of `python -m sft.data`, checked before anything is read."""

import os
from pathlib import Path

from sft.config.sections import DataSection
from sft.system.errors import UserError
from sft.system.files import check_not_learned

TRAINING_ALONE = ("train_rows", "balance", "truncation")
"""Keys of section `data` that change nothing on the page."""


def check_request(section: DataSection, output: Path | None) -> None:
    """Raise UserError for keys that this page does not show, and where no new file can be written."""
    for key in TRAINING_ALONE:
        if key in section.model_fields_set:
            raise UserError(f"command line: data.{key}: is not shown here, but by train_sft.py --dry-run")
    if output is None:
        return
    if section.validation or section.test:
        raise UserError(
            "--output writes the rows of data.path, to be trained on; leave data.validation and data.test out with it"
        )
    if output.suffix.lower() != ".jsonl":
        raise UserError(f"{output}: rows are written as .jsonl; give it this ending")
    check_not_learned(output)
    if os.path.lexists(output):
        raise UserError(f"{output}: exists already; remove it, or give another --output")
    if not output.parent.is_dir():
        raise UserError(f"{output}: rows cannot be written there; give a file in a directory that exists")
