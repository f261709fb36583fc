"""Whose answers a file holds, and to which rows: a record beside the answers that tells them from all others."""

import dataclasses
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from sft.run.manifest import FinishedManifest, Part, Sha256, Word
from sft.system.errors import UserError
from sft.system.files import file_sha256, read_bytes, text_sha256, write_whole
from sft.system.processes import RANK
from sft.system.progress import forget

RECORD = "answers.json"
"""Beside files of answers: what they are, and their hashes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Provenance:
    """What answers were made of. Where all of it is the same, so are the answers."""

    run: Word
    """When the run was begun, which is its id; of an adapter without a run, `learned`."""
    base: str
    """The base model, as the configuration names it."""
    base_commit: Word | None
    base_sha256: Sha256 | None
    """Of a base model in a directory; see `BaseIdentity`."""
    learned: Sha256
    """Of what the run learned: adapter or weights, tokenizer, template."""
    template: Sha256
    loading: dict[str, Any]
    """How the weights were loaded: dtype, attention, quantisation."""
    data: str | None
    """The file or data set whose rows were answered; None: the run's held-out rows."""
    rows: Sha256
    systems: list[str]
    generation: list[dict[str, Any]]
    """Generation settings, one for each file of answers: what shares a batch may change each other's rounding."""
    seed: int
    batch_tokens: int
    deviations: list[str]
    """In which ways, in words, this is not the model as it was trained; empty: it is."""
    headings: list[str] = dataclasses.field(default_factory=list)
    """Of the template, where answers end; records of earlier versions, which went on behind them, lack it."""
    shots: int = 0
    """Training rows in each prompt as examples, drawn by `seed`."""
    brief: bool = False
    """Whether each question asks for a short answer."""
    benchmark: str | None = None
    """Which benchmark's rows these are; None: no known one's."""

    def same_model_and_rows(self, other: "Provenance | None") -> bool:
        """Whether the other answers are of the same model to the same rows, under whatever settings."""
        settings = {"systems", "generation", "seed", "batch_tokens", "headings", "shots", "brief", "benchmark"}
        return other is not None and set(self.differences(other)) <= settings

    def differences(self, other: "Provenance") -> list[str]:
        """In what, by name, the two are not the same."""
        names = [field.name for field in dataclasses.fields(self)]
        return [name for name in names if getattr(self, name) != getattr(other, name)]

    def not_of(self, manifest: FinishedManifest) -> list[str]:
        """Why these are not answers of that finished run, as it was trained, to the rows that it held out."""
        reasons = [*self.deviations]
        if self.run != manifest.started or self.learned != manifest.learned_sha256:
            reasons.append("another training's adapter")
        if self.data is not None:
            reasons.append(f"the rows of {self.data}")
        if self.shots or self.brief:
            reasons.append("asked with examples" if self.shots else "asked for short answers")
        return reasons


class Record(Part):
    """What `answers.json` holds: the answers' provenance, and the SHA-256 of each file of them."""

    provenance: Provenance
    files: dict[str, Sha256]
    work: dict[str, str] = Field(default_factory=dict)
    """By file, under which identity its answers were kept while they were made (`sft.system.progress`)."""


def write_record(directory: Path, record: Record) -> None:
    """Write it, before the files that it is about: answers without a record could not be told from others."""
    write_whole(directory / RECORD, record.model_dump_json(indent=2) + "\n")


def read_record(directory: Path) -> Record | None:
    """The record in a directory of answers; None where there is none that this version wrote."""
    try:
        return Record.model_validate_json(read_bytes(directory / RECORD))
    except (UserError, ValidationError):
        return None


def provenance_of(answers: Path) -> Provenance | None:
    """Of a file of answers; None where nothing beside it says so, or it was changed since."""
    record = read_record(answers.parent)
    known = record is not None and record.files.get(answers.name) == file_sha256(answers)
    return record.provenance if record and known else None


def file_lines_sha256(answers: Path) -> str:
    """Hash of the lines of a file of answers, in whatever order; blank ones do not count."""
    lines = read_bytes(answers).decode("utf-8", "replace").split("\n")
    return text_sha256(sorted(f"{line.strip()}\n" for line in lines if line.strip()))


def is_answered(directory: Path, files: list[str], provenance: Provenance, force: bool) -> bool:
    """Whether exactly these answers are in `directory` already, whole; what was kept while they were made is forgotten.

    Raises UserError where other answers are, which new ones would replace, unless `force`.
    """
    record = read_record(directory)
    if record and not set(record.files) & set(files):  # of another command
        raise UserError(f"{directory}: holds other answers ({', '.join(record.files)}); give these another --output")
    for name in (*files, RECORD):
        if (directory / name).is_dir():
            raise UserError(f"{directory / name}: is a directory; move it away, or use --output")
    there = [name for name in files if (directory / name).is_file()]
    whole = [name for name in there if record and record.files.get(name) == file_sha256(directory / name)]
    if record and record.provenance == provenance and whole == there:
        if there == files and RANK == 0:
            for name in files:
                forget(directory / name, record.work.get(name))
        return there == files
    if there and not force:
        others = f"other {', '.join(record.provenance.differences(provenance))}" if record and whole else "unknown"
        what = "changed since they were written" if record and record.provenance == provenance else others
        raise UserError(
            f"{directory / there[0]}: holds other answers ({what}), which these would replace: --output DIR keeps "
            "both, --force replaces them"
        )
    return False
